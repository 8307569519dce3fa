"""What a model runs, and in which order: distinct texts, cut into batches, each with the rows that its states take.

A carrier is run once and its key-value cache shared by the words said in it, where enough of them are.
The rule of the file: a plan follows from the texts and the tokenizer alone, so that every process that shares a
training cuts the same batches, and a batch that is run again gives the same states.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ftw.substrate.errors import PromptTooLong, UsageError
from ftw.substrate.model import Model

Pool = Literal["last", "span", "text"]
"""Which state a text gives: of its last token, the mean over its word's tokens, the mean over all tokens."""
ROWS = 256
"""Texts per forward pass, at most."""
VALUES = 2**26
"""Numbers that the blocks of one forward pass hold together, about: wide models run fewer texts at a time."""
SHARED = 8
"""Words that a carrier must have to be run for itself."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text as the model takes it."""

    ids: tuple[int, ...]
    word: int
    """The token that the word begins with."""
    every: bool = False
    """Whether the states of all its tokens are kept, as of plain text."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass."""

    head: tuple[int, ...]
    """Tokens that all its texts begin with and that run before them, once. May be empty."""
    texts: tuple[int, ...]
    """Which texts, in the order of their rows."""
    start: int
    """The row of its first state."""
    rows: int
    """How many states it gives."""


@dataclass(frozen=True)
class Plan:
    """All texts of a training and the batches that they run in."""

    texts: tuple[Text, ...]
    batches: tuple[Batch, ...]
    pools: tuple[Pool, ...]
    first_row: tuple[int, ...]
    """Of each text: the row of its first state. The others follow it."""

    @property
    def rows(self) -> int:
        """States altogether."""
        return sum(batch.rows for batch in self.batches)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over texts, batches and pools, hex: two plans with one digest give the same states."""
        texts = [[list(text.ids), text.word, text.every] for text in self.texts]
        batches = [[list(batch.head), list(batch.texts), batch.start] for batch in self.batches]
        return hashlib.sha256(json.dumps([texts, batches, self.pools]).encode()).hexdigest()

    def rows_of(self, text: int) -> range:
        """The rows of a text's states."""
        return range(self.first_row[text], self.first_row[text] + states_of(self.texts[text], self.pools))


def states_of(text: Text, pools: Sequence[Pool]) -> int:
    """How many states a text gives."""
    return len(text.ids) if text.every else len(pools)


def plan_of(
    model: Model,
    said: Sequence[tuple[str, str]],
    plain: Sequence[str] = (),
    *,
    blocks: int,
    pools: Sequence[Pool] = ("last",),
) -> Plan:
    """The plan for distinct (carrier, word) pairs and, after them, plain texts, when `blocks` blocks are read.

    Raises PromptTooLong for a text that does not fit the model's context, UsageError for texts that stand twice.
    """
    if len(set(said)) != len(said):
        raise UsageError(f"{len(said)} prompts, {len(set(said))} of them distinct: a plan runs each text once")
    carriers = list(dict.fromkeys(carrier for carrier, _ in said if carrier))
    carried = dict(zip(carriers, token_ids(model, carriers), strict=True))
    whole = token_ids(model, [f"{carrier} {word}" if carrier else word for carrier, word in said])
    texts = [
        Text(tuple(ids), _common(carried.get(carrier, []), ids)) for (carrier, _), ids in zip(said, whole, strict=True)
    ]
    texts += [Text(tuple(ids), 0, every=True) for ids in token_ids(model, plain)]
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for at, (carrier, _) in enumerate(said):
        head = carried.get(carrier, [])
        groups[tuple(head) if head and texts[at].word == len(head) else ()].append(at)
    for rare in [head for head, group in groups.items() if head and len(group) < SHARED]:
        groups[()] += groups.pop(rare)
    groups[()] += range(len(said), len(texts))
    batches: list[Batch] = []
    first_row = [0] * len(texts)
    row = 0
    for shared, group in groups.items():
        for part in _cut(group, texts, len(shared), model.d_model * blocks):
            start = row
            for at in part:
                first_row[at] = row
                row += states_of(texts[at], pools)
            batches.append(Batch(shared, tuple(part), start, row - start))
    return Plan(tuple(texts), tuple(batches), tuple(pools), tuple(first_row))


def token_ids(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text without a closing special token: the last one is the text's own.

    Raises PromptTooLong, and UsageError for a model without a tokenizer.
    """
    if not texts:
        return []
    if model.tokenizer is None:
        return [model.encode(text) for text in texts]
    batch: list[list[int]] = [list(row) for row in model.tokenizer(list(texts))["input_ids"]]
    for row, text in zip(batch, texts, strict=True):
        while len(row) > 1 and row[-1] in model.eos_ids:
            row.pop()
        if len(row) > model.context:
            raise PromptTooLong(f"{text[:40]!r}… has {len(row)} tokens, {model.name} takes {model.context}")
    return batch


def _common(carrier: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens of the carrier the text begins with, its last token left out.

    A tokenizer may melt the carrier's last piece and the word together: then the word begins with that piece.
    """
    n = 0
    for mine, other in zip(carrier, ids[:-1], strict=False):
        if mine != other:
            break
        n += 1
    return n


def _cut(group: Sequence[int], texts: Sequence[Text], head: int, per_token: int) -> Iterator[list[int]]:
    """Parts of a group, texts of about one length together, each small enough for one pass."""
    part: list[int] = []
    for at in sorted(group, key=lambda at: len(texts[at].ids)):
        width = len(texts[at].ids) - head
        if part and (len(part) == ROWS or (len(part) + 1) * width * per_token > VALUES):
            yield part
            part = []
        part.append(at)
    if part:
        yield part

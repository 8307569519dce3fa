"""What a sweep found: one row per prompt, position, lens and layer, in columns of numpy arrays.

Units and formulas of the numbers are those of `ftw.sweep.metrics`. Layers count the blocks that have run: 0 is the
embedding output, n the model itself. A number that does not exist for a row is NaN (a rank: 0, an id: -1).

The rule of the file: a column's name, type and meaning stand in `COLUMNS`, and nowhere else.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftw.substrate.errors import ConfigError
from ftw.substrate.gate import Gate
from ftw.sweep.head import Precision

SCHEMA = 1
"""Counts changes of the columns' meaning: what is kept of one schema is not read as another."""
SCALES = (0.9, 0.95, 1.05, 1.1)
"""What logits are multiplied by in `answer_logprob_scaled`."""
COLUMNS: Mapping[str, tuple[str, str]] = {
    "prompt": ("int32", "which prompt: an index into `items`"),
    "pos": ("int32", "the position whose next token is read, from 0"),
    "token_id": ("int32", "the token at that position"),
    "lens": ("str", "the lens's name"),
    "layer": ("int16", "blocks that have run: 0 is the embedding output, n the model itself"),
    "top_ids": ("int32", "[k] the most likely tokens, best first; equal ones by id"),
    "top_logprobs": ("float32", "[k] their log-probabilities, nats"),
    "logsumexp": ("float32", "of all logits, nats"),
    "logsumexp_bound": ("float32", "how far `logsumexp` and log-probabilities can be off, nats; 0 is fp32 exact"),
    "entropy_bits": ("float32", "of the layer's distribution"),
    "kl_bits": ("float32", "KL(layer || the model's own)"),
    "js_bits": ("float32", "Jensen-Shannon divergence to the model's own, 0 to 1"),
    "cos_logits": ("float32", "cosine of centred logits to the model's own"),
    "cos_state": ("float32", "cosine of the head's input to its input at the end"),
    "state_norm": ("float32", "length of the head's input"),
    "resid_norm": ("float32", "length of the residual stream"),
    "answer_id": ("int32", "first token of the answer"),
    "answer_rank": ("int32", "its rank, 1 = first; ties share the better one"),
    "answer_logprob": ("float32", "its log-probability, nats"),
    "answer_whole_logprob": ("float32", "of the whole answer, token after token; last position only, nats"),
    "answer_logprob_scaled": ("float32", "[4] with all logits multiplied by .9, .95, 1.05, 1.1; last position only"),
    "answer_mass": ("float32", "probability of all first tokens that count as right"),
    "control_id": ("int32", "first token of the answer that must not win"),
    "control_rank": ("int32", "its rank"),
    "control_logprob": ("float32", "its log-probability, nats"),
    "control_whole_logprob": ("float32", "of that whole answer; last position only, nats"),
    "next_id": ("int32", "what really follows: the prompt's next token, at its end the answer's first"),
    "next_rank": ("int32", "its rank"),
    "next_logprob": ("float32", "its log-probability, nats"),
    "echo_mass": ("float32", "probability of the words of the prompt up to here"),
    "echo_mass_top50": ("float32", "the part of it that the row's 50 best tokens hold; last position only"),
    "cos_answer": ("float32", "cosine of the head's input to the head's row of the answer; last position only"),
    "cos_echo_max": ("float32", "the largest such cosine among the words of the prompt; last position only"),
    "jaccard50_prev": ("float32", "overlap of the 50 best with the same lens a layer before; last position only"),
    "pool_ranks": ("int32", "[m] ranks of `items[prompt].pool`; last position only, 0 elsewhere"),
    "vs_logit_kl_bits": ("float32", "KL(logit lens || this lens), same layer; last position, other lenses only"),
    "vs_logit_rev_kl_bits": ("float32", "KL(this lens || logit lens), likewise"),
    "vs_logit_js_bits": ("float32", "Jensen-Shannon divergence of the two, 0 to 1"),
    "vs_logit_l1": ("float32", "sum of |difference of probabilities|, 0 to 2"),
    "vs_logit_jaccard10": ("float32", "overlap of the two lenses' 10 best, 0 to 1"),
    "vs_logit_jaccard50": ("float32", "of their 50 best"),
    "vs_logit_spearman50": ("float32", "rank correlation of the logit lens's 50 best in the two, -1 to 1"),
    "is_finite": ("bool", "False where the lens made a NaN or infinity: then the row's numbers mean nothing"),
}
"""Every column with its type and meaning."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt as token ids, with what is looked for in it."""

    id: str
    ids: tuple[int, ...]
    """What the model reads, special tokens included."""
    answer: tuple[int, ...] = ()
    """The whole answer's tokens; empty where none is looked for."""
    accepted: tuple[int, ...] = ()
    """First tokens of everything that counts as right, the answer's among them."""
    control: tuple[int, ...] = ()
    """The whole answer that must not win; empty where there is none."""
    pool: tuple[int, ...] = ()
    """First tokens of what other prompts of the relation ask for, and this one does not: the measure of chance."""
    source: Any = None
    """The battery's prompt that it came from."""


@dataclass(frozen=True)
class SweepTable:
    """The rows of a sweep, sorted by prompt, position, lens (in the order of `lenses`) and layer."""

    columns: Mapping[str, np.ndarray]
    items: tuple[Item, ...]
    pieces: Mapping[int, str]
    """The text of every token id that occurs."""
    model: str
    n_layers: int
    vocab_size: int
    lenses: tuple[str, ...]
    precision: Precision
    gate: Gate
    special_ids: frozenset[int] = frozenset()
    """The tokenizer's special tokens: no part of a text."""

    def __len__(self) -> int:
        return len(self.columns["prompt"])

    def __getitem__(self, name: str) -> np.ndarray:
        """A column."""
        return self.columns[name]

    def where(self, **equals: int | str) -> "SweepTable":
        """The rows in which these columns have these values, for example `where(lens="logit", prompt=0)`."""
        mask = np.ones(len(self), dtype=bool)
        for name, value in equals.items():
            mask &= self.columns[name] == value
        return replace(self, columns={name: column[mask] for name, column in self.columns.items()})

    def last(self) -> "SweepTable":
        """The rows at each prompt's last position: its next token."""
        ends = np.array([len(item.ids) - 1 for item in self.items])
        mask = self.columns["pos"] == ends[self.columns["prompt"]]
        return replace(self, columns={name: column[mask] for name, column in self.columns.items()})

    def view(self, lens: str, prompt: int) -> "SweepTable":
        """One prompt's last position through one lens, by ascending layer."""
        return self.where(prompt=prompt, lens=lens, pos=len(self.items[prompt].ids) - 1)

    def layers_of(self, lens: str) -> range:
        """The layers that a lens was read at. Raises ConfigError for a lens that the run did not have."""
        layers = np.unique(self.columns["layer"][self.columns["lens"] == lens])
        if not len(layers):
            raise ConfigError(f"there is no lens {lens!r} in this run: it has {', '.join(self.lenses)}")
        return range(int(layers[0]), int(layers[-1]) + 1)

    def words(self, item: Item) -> tuple[int, ...]:
        """The distinct ids of a prompt that stand for words, in the order of the text."""
        return tuple(token for token in dict.fromkeys(item.ids) if self.is_word(token))

    def is_word(self, token: int) -> bool:
        """Whether a token that occurs holds anything but blanks, punctuation and symbols, and is no special one.

        Without a tokenizer every token counts as a word. Raises KeyError for a token that does not occur.
        """
        return token not in self.special_ids and is_word(self.pieces[token])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Row by row as plain Python values, with `prompt_id`, `token` and `top_tokens` in words."""
        lists = {name: column.tolist() for name, column in self.columns.items()}
        for at in range(len(self)):
            row = {name: values[at] for name, values in lists.items()}
            row["prompt_id"] = self.items[row["prompt"]].id
            row["token"] = self.pieces[row["token_id"]]
            row["top_tokens"] = [self.pieces[token] for token in row["top_ids"]]
            yield row


def is_word(piece: str) -> bool:
    """Whether a piece holds anything but blanks, punctuation and symbols, of whatever script."""
    return any(unicodedata.category(char)[0] not in "ZPSC" for char in piece)

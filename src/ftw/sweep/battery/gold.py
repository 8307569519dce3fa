"""Which token ids an answer is, as the continuation of a prompt: found by the model's own tokenizer, id by id.

The rule of the file: the prompt's ids are a true prefix. Where the tokenizer would merge across the prompt's end, the
answer is spelled after the ids that the model really saw, and the result says so. No length is compared.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftw.substrate.errors import ConfigError, PromptTooLong, UsageError
from ftw.substrate.model import Model
from ftw.sweep.battery.prompt import Prompt

How = Literal["space", "joined", "split"]
"""`space`: the tokenizer continues the prompt's ids when a blank and the answer follow the text. `joined`: when the
answer follows at once. `split`: the text as a whole would be cut otherwise, so the answer's tokens stand by themselves.
"""

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3000, 0x30FF),  # punctuation of East Asia, Hiragana, Katakana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0xFF00, 0xFF9F),  # full-width forms
    (0x20000, 0x3FFFF),
)
"""Characters of scripts that put no blanks between words."""
CLOSING = frozenset(",.;:!?%)]}…’”»")
"""An answer that begins with one of these follows the text at once."""
BREAKS = ("", "(", "\n", '"', "a ")
"""What an answer is spelled after, to learn its tokens apart from the prompt's end."""


@dataclass(frozen=True, slots=True)
class Gold:
    """An answer as token ids, aligned to the ids of its prompt."""

    answer: str
    prompt_ids: tuple[int, ...]
    """What the model reads, special tokens included."""
    ids: tuple[int, ...]
    """The whole answer, at least one id."""
    pieces: tuple[str, ...]
    """What each of `ids` adds to the text, spaces kept."""
    how: How

    @property
    def first_id(self) -> int:
        """The token that a next-token reading looks for."""
        return self.ids[0]

    @property
    def is_single(self) -> bool:
        """Whether the first token is the whole answer."""
        return len(self.ids) == 1

    @property
    def first_is_blank(self) -> bool:
        """Whether the first token is only space. Its rank says nothing of the answer; the whole answer's score does."""
        return not self.pieces[0].strip()

    @property
    def forced_ids(self) -> tuple[int, ...]:
        """What the model reads to score the whole answer: the last `len(ids)` positions each predict one of `ids`."""
        return (*self.prompt_ids, *self.ids[:-1])


@dataclass(frozen=True, slots=True)
class Aligned:
    """A prompt as one model reads it."""

    prompt: Prompt
    ids: tuple[int, ...]
    """What the model reads, special tokens included. Prompts with equal ids need one forward pass."""
    gold: Gold | None
    """None for a probe."""
    aliases: tuple[Gold, ...] = ()
    control: Gold | None = None
    """The answer that must not win here; None where the prompt has none."""

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The first token of every continuation that counts as right, each once, the answer's first."""
        each = (self.gold, *self.aliases) if self.gold else self.aliases
        return tuple(dict.fromkeys(gold.first_id for gold in each))

    @property
    def is_told_apart(self) -> bool:
        """Whether the first token tells the answers from the control's; True without a control.

        Where it does not (`New York`, `New Delhi`), only the whole answers can be compared.
        """
        return self.control is None or self.control.first_id not in self.answer_ids


def align(prompt: Prompt, model: Model) -> Gold:
    """The prompt's answer in the model's tokens. Raises as `align_all`, and ConfigError for a probe."""
    if prompt.answer is None:
        raise ConfigError(f"{prompt.place}: a probe has no answer to align")
    return _Speller(model).gold(prompt, prompt.answer)


def align_all(prompts: Iterable[Prompt], model: Model) -> list[Aligned]:
    """Every prompt in the model's tokens with its answer, aliases and control's answer, in the same order.

    Raises ConfigError for a text or an answer that tokenises to nothing, or that the tokenizer cannot spell;
    PromptTooLong where prompt and answer exceed the context; UsageError for a model without a tokenizer. All name the
    prompt and the place it was read from.
    """
    speller = _Speller(model)
    out = []
    for prompt in prompts:
        gold = None if prompt.answer is None else speller.gold(prompt, prompt.answer)
        aliases = tuple(speller.gold(prompt, alias) for alias in prompt.aliases)
        control = None if prompt.control_answer is None else speller.gold(prompt, prompt.control_answer)
        out.append(Aligned(prompt, speller.prompt(prompt), gold, aliases, control))
    return out


class _Speller:
    """How one model writes texts and answers as token ids."""

    def __init__(self, model: Model) -> None:
        if model.tokenizer is None:
            raise UsageError(f"{model.name} has no tokenizer: a battery is text; add tokenizer.json to its folder")
        self.model = model
        self.tokenizer: Any = model.tokenizer  # transformers leaves its tokenizers' methods untyped
        self.special = frozenset(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        self.tail = self._tail()
        self.context = model.context
        self.known: dict[str, tuple[int, ...]] = {}  # most texts and answers stand in several prompts
        self.shown: dict[tuple[int, ...], tuple[str, ...]] = {}

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """What the model reads of the prompt. Raises ConfigError for nothing, PromptTooLong for too much."""
        ids = self._ids(prompt.text)
        if not set(ids) - self.special and not set(self._plain(prompt.text)):
            raise ConfigError(f"{prompt.place}: the text {prompt.text!r} tokenises to nothing: reword it")
        self._fits(prompt, len(ids), "the prompt takes")
        return ids

    def gold(self, prompt: Prompt, answer: str) -> Gold:
        """The answer after the prompt."""
        before = self.prompt(prompt)
        alone = self._plain(answer)
        if not self._text(alone).strip():
            raise ConfigError(f"{prompt.place}: the answer {answer!r} tokenises to nothing: reword it")
        ids, how = self._continuation(prompt, answer, before)
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and answer != self.tokenizer.unk_token:
            raise ConfigError(
                f"{prompt.place}: {self.model.name}'s tokenizer has no token for part of the answer {answer!r}: "
                f"its score would be that of the unknown token; reword it"
            )
        self._fits(prompt, len(before) + len(ids) - 1, f"prompt and answer {answer!r} take")
        if ids not in self.shown:
            self.shown[ids] = tuple(self.model.pieces(ids))
        return Gold(answer, before, ids, self.shown[ids], how)

    def _continuation(self, prompt: Prompt, answer: str, before: tuple[int, ...]) -> tuple[tuple[int, ...], How]:
        for blank in self._blanks(prompt.text, answer, before):
            whole = self._ids(prompt.text + blank + answer)
            if len(whole) > len(before) and whole[: len(before)] == before:
                return whole[len(before) :], "space" if blank else "joined"
            ids = self._apart(before, blank + answer, self._text(whole))
            if ids:
                return ids, "split"
        raise ConfigError(
            f"{prompt.place}: no tokens after the prompt's own spell {answer!r} with {self.model.name}'s tokenizer: "
            f"end the text before a whole word, without a blank"
        )

    def _apart(self, before: tuple[int, ...], rest: str, wanted: str) -> tuple[int, ...]:
        """Ids of `rest` by itself, such that `before` and they read as `wanted`; none where there are no such ids."""
        for start in BREAKS:
            lead, both = self._plain(start), self._plain(start + rest)
            ids = both[len(lead) :]
            if ids and both[: len(lead)] == lead and self._text((*before, *ids)) == wanted:
                return ids
        return ()

    def _blanks(self, text: str, answer: str, before: Sequence[int]) -> tuple[str, str]:
        """What may stand between text and answer, the likelier first."""
        last = text[-1]
        opened = unicodedata.category(last) in ("Ps", "Pi") or (last in "\"'" and (text[:-1] or " ")[-1].isspace())
        joined = (
            last.isspace()
            or opened
            or before[-1] in self.special
            or answer[0] in CLOSING
            or _unspaced(last)
            or _unspaced(answer[0])
        )
        return ("", " ") if joined else (" ", "")

    def _fits(self, prompt: Prompt, n: int, what: str) -> None:
        if n > self.context:
            raise PromptTooLong(
                f"{prompt.place}: {what} {n} tokens: {self.model.name} holds {self.context}. Shorten the text"
            )

    def _ids(self, text: str) -> tuple[int, ...]:
        """Ids of a text that goes on: with what the tokenizer begins a text with, without what it closes one with."""
        if text not in self.known:
            ids = tuple(self.tokenizer(text)["input_ids"])
            n = len(self.tail)
            self.known[text] = ids[: len(ids) - n] if n and ids[-n:] == self.tail else ids
        return self.known[text]

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _tail(self) -> tuple[int, ...]:
        """The ids that the tokenizer closes every text with, such as [SEP]; nothing for most."""
        body, whole = self._plain("a"), tuple(self.tokenizer("a")["input_ids"])
        for at in range(len(whole) - len(body) + 1):
            if body and whole[at : at + len(body)] == body:
                return whole[at + len(body) :]
        return ()


def _unspaced(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in UNSPACED)

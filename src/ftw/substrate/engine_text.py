"""Turns tokens into text while they are written: whole characters only, and nothing of a stop string.

The rule of the file: text once shown is never taken back, and what is shown in all is what decoding all tokens gives
(up to the stop string).
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

REPLACEMENT = "\ufffd"


@runtime_checkable
class Decoder(Protocol):
    """A tokenizer's way back to text."""

    def decode(self, ids: list[int], /, *, skip_special_tokens: bool = ...) -> Any: ...


class Detokenizer:
    """Text of a growing list of tokens. A character that is spread over several tokens comes with its last one.

    Each piece is the difference of two decodings of the same short window, so that tokenizers that treat the first
    token specially (a stripped space) give the same text as decoding everything at once.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        # the Rust tokenizer under a fast Hugging Face one is many times quicker than its wrapper
        self._tokenizer: Decoder = getattr(tokenizer, "backend_tokenizer", tokenizer)
        self._window: list[int] = []
        self._known = 0
        """How many tokens of the window have been shown."""
        self._prefix = ""
        """Their text, as decoding the window alone gives it."""

    def push(self, token: int) -> str:
        """The text that became whole with `token`: often one piece, sometimes none."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(REPLACEMENT) or len(text) <= len(self._prefix):
            return ""
        new = text[len(self._prefix) :]
        self._window = self._window[self._known :]
        self._known = len(self._window)
        self._prefix = self._decode(self._window)
        return new

    def flush(self) -> str:
        """What is left at the end: bytes that never became a character show as replacement characters."""
        rest = self._decode(self._window)[len(self._prefix) :]
        self._window, self._known, self._prefix = [], 0, ""
        return rest

    def whole(self, ids: list[int]) -> str:
        """The text of all tokens at once."""
        return self._decode(ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""


class StopGate:
    """Lets text through up to the first stop string, and holds back what may turn out to begin one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_closed = False
        """Whether a stop string was met. Nothing comes through any more."""

    def push(self, text: str) -> str:
        """The text that is now safe to show."""
        if self.is_closed or not self._stops:
            return "" if self.is_closed else text
        text = self._held + text
        hits = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if hits:
            self.is_closed = True
            self._held = ""
            return text[: min(hits)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back for nothing, at the end of the text."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0

"""Depth windows: the best tokens of consecutive layers, and whether they stand in the prompt in that order.

A window of k asks whether the best tokens of k layers in a row are a passage of the prompt: one token for k = 1, two
neighbours for k = 2. `WindowManager` holds windows while layers come one by one; `is_passage` reads a whole table.

The rule of the file: a window never mixes lenses, prompts, variants or positions.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ftw.substrate.errors import ConfigError
from ftw.sweep.table import SweepTable


class WindowKey(NamedTuple):
    """Whose layers a window runs over."""

    lens_type: str
    prompt_id: str
    variant: str


class WindowManager:
    """The last best tokens by lens, prompt and variant, as layers are decoded one after the other.

    For whoever has no table: a program that decodes layer by layer (hooks, a live lens) and asks at each layer whether
    the window is a passage of its prompt. A sweep has all rows at once and uses `is_passage`; both say the same.

    `window_k` is the strict window; buffers are as long as it and the longest of `extra_window_ks`. Raises ConfigError
    for a window of no layer.
    """

    def __init__(self, window_k: int, extra_window_ks: Iterable[int] = ()) -> None:
        extra = tuple(extra_window_ks)
        if min((window_k, *extra)) < 1:
            raise ConfigError(f"windows {[window_k, *extra]} hold one below 1: a window is at least one layer")
        self.window_k = window_k
        self.window_ks: tuple[int, ...] = tuple(sorted({window_k, *extra}))
        """Every window that is asked for, ascending, each once."""
        self._buffers: dict[WindowKey, deque[int]] = {}

    def append_and_trim(self, key: WindowKey, top1_id: int) -> list[int]:
        """Add a layer's best token. Gives a copy of the buffer: the newest last, no longer than the longest window."""
        buffer = self._buffers.setdefault(WindowKey(*key), deque(maxlen=self.window_ks[-1]))
        buffer.append(int(top1_id))
        return list(buffer)

    def get_window(self, key: WindowKey, k: int) -> list[int]:
        """The last k best tokens; fewer while there are not so many. k below 1 counts as 1."""
        return list(self._buffers.get(WindowKey(*key), ()))[-max(1, k) :]

    def reset_variant(self, prompt_id: str, variant: str) -> None:
        """Forget this prompt's variant, in every lens."""
        for key in [key for key in self._buffers if (key.prompt_id, key.variant) == (prompt_id, variant)]:
            del self._buffers[key]


def is_passage(table: SweepTable, window: int) -> Bool[np.ndarray, " row"]:
    """Whether the best tokens of this layer and the `window - 1` layers before it are a passage of the prompt.

    In one lens at one position; layer by layer, the newest last. False while fewer layers have been decoded, and for a
    passage with a special token in it. The prompt counts up to the row's position. Raises ConfigError for no window.
    """
    if window < 1:
        raise ConfigError(f"a window of {window} layers holds nothing: give 1 or more")
    n = len(table)
    top = table["top_ids"][:, 0] if n else np.zeros(0, dtype=np.int32)
    found = np.zeros(n, dtype=bool)
    depth = _depth(table)
    for prompt, rows in _by_prompt(table["prompt"]):
        ids = np.array([-1 if one in table.special_ids else one for one in table.items[prompt].ids])
        codes, ends = _passages(ids, top[rows], window)
        found[rows] = (depth[rows] >= window) & (codes >= 0) & (ends <= table["pos"][rows])
    return found


def _by_prompt(prompts: Int[np.ndarray, " row"]) -> Iterator[tuple[int, slice]]:
    """Each prompt with its rows, which stand together."""
    if not len(prompts):
        return
    starts = np.flatnonzero(np.r_[True, prompts[1:] != prompts[:-1]])
    for start, end in zip(starts, [*starts[1:], len(prompts)], strict=True):
        yield int(prompts[start]), slice(int(start), int(end))


def _depth(table: SweepTable) -> Int[np.ndarray, " row"]:
    """How many consecutive layers of the same lens at the same position end at each row, itself included."""
    n = len(table)
    if not n:
        return np.zeros(0, dtype=int)
    same = np.ones(n - 1, dtype=bool)
    for name in ("prompt", "pos", "lens"):
        same &= table[name][1:] == table[name][:-1]
    layers = table["layer"].astype(int)
    same &= layers[1:] == layers[:-1] + 1
    at = np.arange(n)
    start = np.maximum.accumulate(np.where(np.r_[True, ~same], at, 0))
    return at - start + 1


def _passages(
    ids: Int[np.ndarray, " pos"], top: Int[np.ndarray, " row"], window: int
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """For each row a number for the passage that its window of `top` is, or -1; and where it first ends in `ids`.

    A passage of k tokens is the passage of k - 1 before it and a token, so numbers stay below the square of the
    prompt's length whatever k is.
    """
    words = np.unique(ids[ids >= 0])
    if not len(words):
        return np.full(len(top), -1), np.zeros(len(top), dtype=int)
    in_ids, in_top = _known(words, ids), _known(words, top)
    code_ids, code_top = in_ids.copy(), in_top.copy()
    for _ in range(window - 1):
        code_ids, code_top = _longer(code_ids, in_ids, len(words)), _longer(code_top, in_top, len(words))
        passages = np.unique(code_ids[code_ids >= 0])
        code_ids, code_top = _known(passages, code_ids), _known(passages, code_top)
    ends = np.full(max(int(code_ids.max()) + 1, 1), len(ids))
    np.minimum.at(ends, code_ids[code_ids >= 0], np.flatnonzero(code_ids >= 0))
    return code_top, ends[np.maximum(code_top, 0)]


def _known(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The place of each value among the sorted ones; -1 where it is not among them."""
    if not len(sorted_values):
        return np.full(len(values), -1)
    at = np.searchsorted(sorted_values, values).clip(max=len(sorted_values) - 1)
    return np.where(sorted_values[at] == values, at, -1)


def _longer(code: np.ndarray, last: np.ndarray, n_words: int) -> np.ndarray:
    """The codes of passages one token longer: the code that ended one place before, then the token here."""
    before = np.r_[-1, code[:-1]]
    return np.where((before >= 0) & (last >= 0), before * n_words + last, -1)

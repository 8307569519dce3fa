"""The readout of a bank on the CPU: the same readings as on a device, from the few pairs that are above thresholds.

On a device every step is a pass over all pairs, since no shape may depend on a value. On a CPU such a pass costs a call
per step, more than scoring itself for a small pack; here what is above its threshold is found first and the rest of the
work is done on that. The rule of the file: what it gives is what `Readout` gives on a device, and a test says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ftw.hat.classifiers.hierarchy import Tree
from ftw.hat.classifiers.index import LensRow

_WIDE = 4
"""Where gathering the siblings of what is shown takes more than so many passes over all pairs, all pairs are taken."""

_TINY = np.float32(1e-38)


class Chosen(NamedTuple):
    """What each row reads, [row, k + pinned] each; the fields of `Readings`."""

    lens: np.ndarray
    logit: np.ndarray
    p: np.ndarray
    sibling_p: np.ndarray
    above: np.ndarray


class HostReadout:
    """Chooses from scores on the CPU. Made once per readout."""

    def __init__(self, tree: Tree, rows: Sequence[LensRow], *, k: int, margin: float, pinned: Sequence[int]) -> None:
        self._tree = tree
        self._k, self._margin = k, margin
        self._pinned = np.array(pinned, dtype=np.int64)
        self._threshold = np.array([row.threshold_logit for row in rows], dtype=np.float32)
        self._slope = np.array([row.calibration.slope for row in rows], dtype=np.float32)
        self._offset = np.array([row.calibration.offset for row in rows], dtype=np.float32)
        self._parent = np.array(tree.parents, dtype=np.int64)
        self._group = np.array(tree.groups, dtype=np.int64)
        sizes = np.bincount(self._group) if len(rows) else np.zeros(1, dtype=np.int64)
        self._members = np.full((len(sizes), int(sizes.max())), -1, dtype=np.int64)
        for group in range(len(sizes)):
            among = np.flatnonzero(self._group == group)
            self._members[group, : len(among)] = among

    def __call__(self, logit: Float[Tensor, "row lens"], allowed: Bool[Tensor, "row lens"] | None) -> Chosen:
        """The readings of logits on the CPU, -inf where not computed; `allowed` says which may be shown at all."""
        raw = logit.numpy()
        shown = raw >= self._threshold
        if allowed is not None:
            shown &= allowed.numpy()
        lens = self._best(raw, np.flatnonzero(shown))
        at, none = lens.clip(0), lens < 0
        found = np.take_along_axis(raw, at, 1)
        odds = found * self._slope[at] + self._offset[at]
        fields = (found, _sigmoid(odds), self._siblings(raw, at, odds))
        for field, blank in zip(fields, (-np.inf, 0, 0), strict=True):
            field[none] = blank
        return Chosen(lens.astype(np.int32), *fields, (found >= self._threshold[at]) & ~none)

    def _best(self, raw: np.ndarray, flat: np.ndarray) -> np.ndarray:
        """Places of the k strongest pairs of each row that no child explains, and the pinned ones; -1 for none.

        `flat` is row * lenses + lens of what may be shown, ascending.
        """
        rows, n = raw.shape
        row, lens = np.divmod(flat, n)
        odds = raw.reshape(-1)[flat] * self._slope[lens] + self._offset[lens]
        p = _sigmoid(odds)
        above = row * n + self._parent[lens]
        at = np.searchsorted(flat, above).clip(max=max(0, len(flat) - 1))
        hit = (self._parent[lens] >= 0) & (flat[at] == above) if len(flat) else np.zeros(0, dtype=bool)
        visible = np.ones(len(flat), dtype=bool)
        visible[at[hit & (p >= p[at] - np.float32(self._margin))]] = False
        row, lens, odds = row[visible], lens[visible], odds[visible]
        order = np.lexsort((-odds, row))
        row, lens = row[order], lens[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        out = np.full((rows, self._k + len(self._pinned)), -1, dtype=np.int64)
        out[:, self._k :] = self._pinned
        top = rank < self._k
        out[row[top], rank[top]] = lens[top]
        return out

    def _siblings(self, raw: np.ndarray, lens: np.ndarray, odds: np.ndarray) -> np.ndarray:
        """The softmax of what is shown among its siblings."""
        if lens.shape[1] * self._members.shape[1] > _WIDE * raw.shape[1]:
            every = torch.from_numpy(raw * self._slope + self._offset)
            return np.take_along_axis(self._tree.sibling_softmax(every).numpy(), lens, 1)
        among = self._members[self._group[lens]]
        others = raw[np.arange(len(raw))[:, None, None], among] * self._slope[among] + self._offset[among]
        others[among < 0] = -np.inf
        top = others.max(-1, initial=-np.inf)
        top[np.isneginf(top)] = 0
        total = np.exp(others - top[..., None]).sum(-1)
        share: np.ndarray = np.exp(odds - top) / np.maximum(total, _TINY)
        return share


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow, fp32."""
    e = np.exp(-np.abs(x))
    out: np.ndarray = np.where(x >= 0, 1, e) / (1 + e)
    return out

"""Lenses that each have a first layer of their own: the parts they were made of, and the two ways to compute them.

The rule of the file: each way lays the weights out as it reads them fastest, when it is first used and not before. The
parts stay as they came, so those of a mapped file cost no memory of their own.
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.hat.classifiers.forms.common import Pairs, module_of, spans_of
from ftw.hat.classifiers.forms.dense import Dense
from ftw.hat.classifiers.forms.pairs import Pairwise
from ftw.hat.classifiers.gate import Gate
from ftw.hat.classifiers.modules import MLP, normalise
from ftw.hat.classifiers.tensors import LensTensors

_MARGIN = 32
"""Bytes per pair that finding those that clear their screens takes, twice over."""


class Separate:
    """Lenses of one or more sites; `dtype` is that of their weights in memory: fp32, bf16 or int8."""

    _ready = False
    """Whether a full scoring goes through `_read` as well: it normalises by itself."""

    def __init__(self, parts: Sequence[LensTensors], device: torch.device, dtype: torch.dtype) -> None:
        self.parts = tuple(parts)
        self.spans = spans_of(parts)
        self.d_model = parts[0].w1.shape[-1]
        self._device, self._dtype = device, dtype

    @cached_property
    def pairs(self) -> Pairwise:
        """For the pairs that a screen lets pass."""
        return Pairwise(self.parts, self._device, self._dtype)

    @cached_property
    def dense(self) -> Dense:
        """For every pair."""
        return Dense(self.parts, self._device, self._dtype, ready=self._ready)

    def gated(self, gate: Gate, site: int) -> "Separate":
        """The same lenses; of the pairs, only those whose branch the gate opens, which reads site number `site`."""
        form = copy(self)
        form.__dict__["pairs"] = self.pairs.gated(gate, site)
        return form

    def margins(
        self, states: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"]
    ) -> Float[Tensor, "row lens"]:
        """By how much each pair clears its screen. Raw states."""
        return self.pairs.margins(self._read(states), bias)

    def some(
        self, states: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"], budget: int | None, memory: int
    ) -> Pairs:
        """The pairs that clear their screens; at most `budget` of them, those that do so by most. Raw states.

        With a budget, the margins of all rows are held at once: they are compared with each other.
        """
        rows = max(1, memory // (_MARGIN * len(bias)))
        if budget is not None or states.shape[1] <= rows:
            return self.pairs.some(self._read(states), bias, budget, memory // 2)
        parts = [self.pairs.some(self._read(some), bias, None, memory // 2) for some in torch.split(states, rows, 1)]
        flat = [part.flat + at * rows * len(bias) for at, part in enumerate(parts)]
        return Pairs(torch.cat(flat), torch.cat([part.logits for part in parts]), 0)

    def all(self, states: Float[Tensor, "site row d_model"], memory: int) -> Float[Tensor, "row lens"]:
        """Logits of every pair, from raw states, with about `memory` bytes for what lies between."""
        return self.dense.all(self._read(states) if self._ready else states, memory)

    def again(
        self, states: Float[Tensor, "site row d_model"], lens: Int[Tensor, "row few"]
    ) -> Float[Tensor, "row few"]:
        """Logits of a few lenses per row, in fp32 from the weights as they came: a second look after that of int8."""
        x = self._read(states)
        out = torch.empty(lens.shape)
        for row, few in enumerate(lens):
            for at, (start, end) in enumerate(self.spans):
                here = ((few >= start) & (few < end)).nonzero().view(-1)
                out[row, here] = _exactly(x[at, row], self.parts[at], few[here] - start)
        return out

    def _read(self, states: Float[Tensor, "site row d_model"]) -> Float[Tensor, "site row width"]:
        """What the lenses take of raw states."""
        return normalise(states)

    def module(self, lens: int) -> MLP:
        """One lens as a module of its own, fp32, from the weights as they came."""
        at = next(at for at, (start, end) in enumerate(self.spans) if start <= lens < end)
        part, own = self.parts[at], lens - self.spans[at][0]
        return module_of(part.w1[own], part.b1[own], part.w2[own], part.b2[own], part.w3[own], part.b3[own : own + 1])


def _exactly(x: Float[Tensor, " width"], part: LensTensors, lens: Int[Tensor, " few"]) -> Float[Tensor, " few"]:
    """The logits of a state by some lenses, fp32. One product: a batch of small ones takes 3 times as long."""
    w1, b1, w2, b2, w3, b3 = (one[lens].float() for one in (part.w1, part.b1, part.w2, part.b2, part.w3, part.b3))
    z = torch.mv(w1.view(-1, len(x)), x).view_as(b1).add_(b1).relu_()
    z = torch.linalg.vecdot(w2, z[:, None]).add_(b2).relu_()
    logit: Tensor = torch.linalg.vecdot(z, w3) + b3
    return logit

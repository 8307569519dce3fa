"""The pairs (state, lens) that a linear screen lets pass go through the MLPs; the others are not computed.

A branch gate may go before the screens: one probe per branch of the tree, and the screens of branches that no state
opens are not even computed. Tables (`forms.tables`) hold the MLPs, so that no weight is copied for a pair.
"""

from collections.abc import Sequence
from copy import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ftw.hat.classifiers.forms.common import Pairs, put, spans_of, tail_of
from ftw.hat.classifiers.forms.screens import ScreenTable
from ftw.hat.classifiers.forms.tables import table_of
from ftw.hat.classifiers.gate import Gate
from ftw.hat.classifiers.modules import HIDDEN
from ftw.hat.classifiers.tensors import LensTensors

_SURE = 1e9
"""The margin of a pair that is to be read always; minus that of one whose branch is closed."""

_HELD = 16
"""Bytes per input of a pair that are alive at once, at most: its state twice, and the places of its rows."""


class Pairwise:
    """The screens of many lenses, and their MLPs as tables."""

    def __init__(self, parts: Sequence[LensTensors], device: torch.device, dtype: torch.dtype) -> None:
        self.spans = spans_of(parts)
        self.d_model = parts[0].w1.shape[-1]
        self.units = max(part.w3.shape[-1] for part in parts)
        k = self.units
        w2 = [part.w2 if part.w2.shape[1] == k else F.pad(part.w2, (0, 0, 0, k - part.w2.shape[1])) for part in parts]
        self.first = table_of([part.w1 for part in parts], device, dtype)
        """W1 transposed: D rows of 128 per lens."""
        self.second = table_of(w2, device, dtype)
        """W2 transposed: 128 rows of K per lens."""
        self.tail = put([tail_of(part, k) for part in parts], device)
        """b1, b2, w3, b3 of each lens in one row, fp32."""
        self.screens = [ScreenTable(part.screen_w, device, dtype) for part in parts]
        self.site_of = torch.cat(
            [torch.full((end - start,), at, device=device) for at, (start, end) in enumerate(self.spans)]
        )
        self._gate: tuple[Gate, int] | None = None
        self._segments: tuple[tuple[int, int, int], ...] = ()

    def gated(self, gate: Gate, site: int) -> "Pairwise":
        """The same lenses behind a gate that reads the states of site number `site`."""
        form = copy(self)
        form._gate, form._segments = (gate.to(self.tail.device), site), gate.segments()
        return form

    def margins(self, x: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"]) -> Float[Tensor, "row lens"]:
        """By how much each pair clears its screen; -1e9 where its branch is closed."""
        if self._gate is None:
            parts = [
                screens.margins(x[at], bias[start:end])
                for at, (screens, (start, end)) in enumerate(zip(self.screens, self.spans, strict=True))
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        gate, site = self._gate
        out = x.new_full((x.shape[1], len(bias)), -_SURE)
        for at, (screens, (start, end)) in enumerate(zip(self.screens, self.spans, strict=True)):
            for run in gate.runs(x[site], self._segments, start, end):
                part = screens.some(x[at], bias[run.start : run.end], run.start - start)
                out[:, run.start : run.end] = part if run.shut is None else part.masked_fill_(run.shut, -_SURE)
        return out.masked_fill_(bias >= _SURE / 2, _SURE)  # what is to be read always is, whatever its branch

    def some(
        self, x: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"], budget: int | None, memory: int
    ) -> Pairs:
        """The pairs that clear their screens; at most `budget` of them, those that do so by most.

        So many pairs go through their MLPs at a time as `memory` bytes hold.
        """
        margin = self.margins(x, bias).view(-1)
        flat = margin.lt(0).logical_not_().nonzero().view(-1)  # not `ge`: a NaN is not below 0, it passes
        capped = 0
        if budget is not None and len(flat) > budget:
            capped = len(flat) - budget
            flat = flat[margin[flat].topk(budget, sorted=False).indices].sort().values
        rows, n = x.shape[1], len(bias)
        row = flat.div(n, rounding_mode="floor")
        lens = flat - row * n
        source = row if x.shape[0] == 1 else self.site_of[lens] * rows + row
        states, step = x.reshape(-1, self.d_model), max(1, memory // (_HELD * (self.d_model + HIDDEN + self.units)))
        parts = [
            self._mlp(states.index_select(0, source[at : at + step]), lens[at : at + step])
            for at in range(0, max(1, len(flat)), step)
        ]
        return Pairs(flat, parts[0] if len(parts) == 1 else torch.cat(parts), capped)

    def every(self, x: Float[Tensor, "site 1 d_model"]) -> Float[Tensor, "1 lens"]:
        """The logits of all lenses for one state per site."""
        one = x[:, 0].index_select(0, self.site_of) if len(x) > 1 else x[0].expand(len(self.tail), -1)
        lens = torch.arange(len(self.tail), device=x.device)
        return self._through(one, lens, self.tail)[None]

    def _mlp(self, x: Float[Tensor, "pair d_model"], lens: Int[Tensor, " pair"]) -> Float[Tensor, " pair"]:
        """The logit of each pair: normalised state `x[i]` by lens `lens[i]`."""
        return self._through(x, lens, self.tail.index_select(0, lens))

    def _through(self, x: Tensor, lens: Tensor, tail: Tensor) -> Tensor:
        k = self.units
        z = (self.first.sums(x, lens) + tail[:, :HIDDEN]).relu_()
        z = (self.second.sums(z, lens) + tail[:, HIDDEN : HIDDEN + k]).relu_()
        logits: Tensor = torch.linalg.vecdot(z, tail[:, HIDDEN + k : -1]) + tail[:, -1]
        return logits

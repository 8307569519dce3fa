"""Lenses that share their first layer: it is computed once per state, the rest is so small that all is computed."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.forms.common import Pairs, margins, module_of, spans_of
from ftw.hat.classifiers.modules import HIDDEN, MLP, normalise
from ftw.hat.classifiers.tensors import LensTensors


class Shared:
    """Lenses of which all at one site have the same first layer. fp32 throughout: the weights are few."""

    def __init__(self, parts: Sequence[LensTensors], device: torch.device) -> None:
        self.spans = spans_of(parts)
        self.d_model = parts[0].w1.shape[-1]
        self.first = [p.w1[0].to(device, torch.float32).contiguous() for p in parts]
        self.first_bias = [p.b1[0].to(device, torch.float32).contiguous() for p in parts]
        # units first, then lenses: the sum over units runs along whole rows, which is faster than over pairs of numbers
        self.second = [p.w2.to(device, torch.float32).transpose(0, 1).reshape(-1, HIDDEN).contiguous() for p in parts]
        self.second_bias = [p.b2.to(device, torch.float32).T.reshape(-1) for p in parts]
        self.last = [p.w3.to(device, torch.float32).T.contiguous() for p in parts]
        self.last_bias = [p.b3.to(device, torch.float32) for p in parts]
        self.screen = tuple(p.screen_w.to(device, torch.float32).T.contiguous() for p in parts)

    def margins(
        self, states: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"]
    ) -> Float[Tensor, "row lens"]:
        """By how much each pair clears the linear screen, which this form has no use for."""
        return margins(normalise(states), self.screen, bias, self.spans)

    def some(self, states: Float[Tensor, "site row d_model"], floor: Float[Tensor, " lens"], memory: int) -> Pairs:
        """The pairs whose logits are not below `floor`. All are computed: nothing can be missed."""
        logits = self.all(states, memory)
        flat = logits.lt(floor).logical_not_().view(-1).nonzero().view(-1)  # a NaN is not below anything
        return Pairs(flat, logits.view(-1).index_select(0, flat), 0)

    def all(self, states: Float[Tensor, "site row d_model"], memory: int) -> Float[Tensor, "row lens"]:
        """Logits of every pair, from raw states, with about `memory` bytes for what lies between."""
        rows = max(1, memory // (8 * max(map(len, self.second_bias))))
        parts = [self._rows(normalise(part)) for part in torch.split(states, rows, 1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _rows(self, x: Float[Tensor, "site row d_model"]) -> Float[Tensor, "row lens"]:
        out = [self._site(x[at], at) for at in range(len(self.spans))]
        return out[0] if len(out) == 1 else torch.cat(out, 1)

    def _site(self, x: Float[Tensor, "row d_model"], at: int) -> Float[Tensor, "row lens"]:
        z = torch.addmm(self.first_bias[at], x, self.first[at].T).relu_()
        z = torch.addmm(self.second_bias[at], z, self.second[at].T).relu_()
        last = self.last[at]
        return (z.view(len(x), *last.shape) * last).sum(1).add_(self.last_bias[at])

    def module(self, lens: int) -> MLP:
        """One lens as a module of its own, fp32."""
        at = next(at for at, (start, end) in enumerate(self.spans) if start <= lens < end)
        own, n = lens - self.spans[at][0], self.last[at].shape[1]
        second = slice(own, None, n)
        b2, w3, b3 = self.second_bias[at][second], self.last[at][:, own], self.last_bias[at][own : own + 1]
        return module_of(self.first[at], self.first_bias[at], self.second[at][second], b2, w3, b3)

"""The two ways a bank computes its lenses: each with a first layer of its own, or all on one that they share.

`Separate`: the pairs (state, lens) that a linear screen lets pass go through the MLPs as weighted sums of contiguous
rows of the transposed weights (`embedding_bag`): no weight is copied, and any number of pairs of any lenses is one
call. Measured on 350 lenses of width 256, that is 3 to 8 times faster than gathering weights for a `bmm`, and bf16
tables are twice as fast as fp32 ones: the work is bound by memory.
`Shared`: the first layer is computed once per state, and the rest is so small that every pair is computed.

Dimensions: S sites, R rows (states), N lenses, P pairs, D d_model, H 128, K units of the second layer.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ftw.hat.classifiers.modules import HIDDEN, MLP, NARROW
from ftw.hat.classifiers.tensors import LensTensors

_FULL_CHUNK = 1 << 24
"""A full scoring holds at most this many first-layer activations at once."""

Span = tuple[int, int]
"""First lens of a site and the one after its last."""


class Pairs(NamedTuple):
    """The pairs that were computed."""

    flat: Int[Tensor, " pair"]
    """row * N + lens, ascending."""
    logits: Float[Tensor, " pair"]
    capped: int
    """How many more passed the screen, but not the budget."""


class Separate:
    """Lenses that each have a first layer of their own."""

    def __init__(self, parts: Sequence[LensTensors], device: torch.device, dtype: torch.dtype) -> None:
        self.spans = spans_of(parts)
        self.d_model = parts[0].w1.shape[-1]
        self.units = max(part.w3.shape[-1] for part in parts)
        k = self.units
        w2 = [F.pad(part.w2, (0, 0, 0, k - part.w2.shape[1])) for part in parts]
        self.first = _put([p.w1.to(dtype).transpose(1, 2).reshape(-1, HIDDEN) for p in parts], device, dtype)
        """W1 transposed: D rows of 128 per lens."""
        self.second = _put([w.to(dtype).transpose(1, 2).reshape(-1, k) for w in w2], device, dtype)
        """W2 transposed: 128 rows of K per lens."""
        self.tail = _put([_tail(part, k) for part in parts], device)
        """b1, b2, w3, b3 of each lens in one row, fp32."""
        self.screen = tuple(p.screen_w.to(device, torch.float32).T.contiguous() for p in parts)
        self.site_of = torch.cat(
            [torch.full((end - start,), at, device=device) for at, (start, end) in enumerate(self.spans)]
        )
        self._channels = torch.arange(self.d_model, device=device, dtype=torch.int32)
        self._hidden = torch.arange(HIDDEN, device=device, dtype=torch.int32)

    def margins(self, x: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"]) -> Float[Tensor, "row lens"]:
        """By how much each pair clears its screen."""
        return margins(x, self.screen, bias, self.spans)

    def some(self, x: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"], budget: int | None) -> Pairs:
        """The pairs that clear their screens; at most `budget` of them, those that do so by most."""
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
        return Pairs(flat, self._mlp(x.view(-1, self.d_model).index_select(0, source), lens), capped)

    def _mlp(self, x: Float[Tensor, "pair d_model"], lens: Int[Tensor, " pair"]) -> Float[Tensor, " pair"]:
        """The logit of each pair: normalised state `x[i]` by lens `lens[i]`."""
        k, at = self.units, lens.to(torch.int32).unsqueeze(1)
        tail = self.tail.index_select(0, lens)
        z = _bag(at * self.d_model + self._channels, self.first, x)
        z = (z + tail[:, :HIDDEN]).relu_()
        z = _bag(at * HIDDEN + self._hidden, self.second, z)
        z = (z + tail[:, HIDDEN : HIDDEN + k]).relu_()
        logits: Tensor = torch.linalg.vecdot(z, tail[:, HIDDEN + k : -1]) + tail[:, -1]
        return logits

    def all(self, x: Float[Tensor, "site row d_model"]) -> Float[Tensor, "row lens"]:
        """Logits of every pair."""
        rows = max(1, _FULL_CHUNK // (len(self.tail) * HIDDEN))
        return torch.cat([self._all_rows(part) for part in torch.split(x, rows, 1)])

    def _all_rows(self, x: Float[Tensor, "site row d_model"]) -> Float[Tensor, "row lens"]:
        b1, b2, w3, b3 = torch.split(self.tail, [HIDDEN, self.units, self.units, 1], 1)
        first, second = self._dense
        out = []
        for at, (start, end) in enumerate(self.spans):
            z = F.linear(x[at], first[at], b1[start:end].reshape(-1)).relu_()  # one GEMM over [N * 128, D]
            z = z.view(len(z), end - start, HIDDEN).transpose(0, 1)
            z = torch.baddbmm(b2[start:end, None], z, second[start:end]).relu_()
            out.append(torch.einsum("nrk,nk->rn", z, w3[start:end]) + b3[start:end, 0])
        return torch.cat(out, 1)

    @cached_property
    def _dense(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same weights in fp32, laid out for a full scoring: made on first use."""
        first = self.first.float().view(-1, self.d_model, HIDDEN)
        parts = [first[start:end].transpose(1, 2).reshape(-1, self.d_model) for start, end in self.spans]
        return tuple(parts), self.second.float().view(-1, HIDDEN, self.units)

    def module(self, lens: int) -> MLP:
        """One lens as a module of its own, fp32."""
        b1, b2, w3, b3 = torch.split(self.tail[lens], [HIDDEN, self.units, self.units, 1])
        w1 = self.first[lens * self.d_model : (lens + 1) * self.d_model].T
        return _module(w1, b1, self.second[lens * HIDDEN : (lens + 1) * HIDDEN].T, b2, w3, b3)


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

    def margins(self, x: Float[Tensor, "site row d_model"], bias: Float[Tensor, " lens"]) -> Float[Tensor, "row lens"]:
        """By how much each pair clears the linear screen, which this form has no use for."""
        return margins(x, self.screen, bias, self.spans)

    def some(self, x: Float[Tensor, "site row d_model"], floor: Float[Tensor, " lens"]) -> Pairs:
        """The pairs whose logits are not below `floor`. All are computed: nothing can be missed."""
        logits = self.all(x)
        flat = logits.lt(floor).logical_not_().view(-1).nonzero().view(-1)  # a NaN is not below anything
        return Pairs(flat, logits.view(-1).index_select(0, flat), 0)

    def all(self, x: Float[Tensor, "site row d_model"]) -> Float[Tensor, "row lens"]:
        """Logits of every pair."""
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
        return _module(self.first[at], self.first_bias[at], self.second[at][second], b2, w3, b3)


def spans_of(parts: Sequence[LensTensors]) -> list[Span]:
    """Where the lenses of each site lie among all."""
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part.b3))
    return list(pairwise(ends))


def margins(
    x: Float[Tensor, "site row d_model"], screen: Sequence[Tensor], bias: Float[Tensor, " lens"], spans: Sequence[Span]
) -> Float[Tensor, "row lens"]:
    """Scores of linear probes, each on the states of its own site: `screen[s]` is [D, lenses of s]."""
    if len(spans) == 1:
        return torch.addmm(bias, x[0], screen[0])
    return torch.cat([torch.addmm(bias[a:b], x[at], screen[at]) for at, (a, b) in enumerate(spans)], 1)


def _bag(at: Int[Tensor, "pair n"], table: Float[Tensor, "row k"], weights: Float[Tensor, "pair n"]) -> Tensor:
    """Per pair, the sum of the table's rows `at`, weighted: [pair, k] in the table's dtype."""
    return F.embedding_bag(at, table, per_sample_weights=weights.to(table.dtype), mode="sum")


def _tail(part: LensTensors, units: int) -> Tensor:
    spare = (0, units - part.w3.shape[1])
    columns = [part.b1, F.pad(part.b2, spare), F.pad(part.w3, spare), part.b3[:, None]]
    return torch.cat([column.float() for column in columns], 1)


def _put(tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.cat([tensor.to(device, dtype) for tensor in tensors]).contiguous()


def _module(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> MLP:
    """An MLP with these weights; units that it has more than they do stay silent."""
    lens = MLP(w1.shape[1]).to(w1.device)
    spare = NARROW - len(w3)
    values = (w1, b1, F.pad(w2, (0, 0, 0, spare)), F.pad(b2, (0, spare)), F.pad(w3, (0, spare))[None], b3)
    with torch.no_grad():
        for parameter, value in zip(lens.parameters(), values, strict=True):
            parameter.copy_(value)
    return lens.eval().requires_grad_(False)

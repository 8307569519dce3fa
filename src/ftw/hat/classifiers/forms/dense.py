"""Every lens on every state: layer one is one product over [N * 128, D], layers two and three are batched.

The rule of the file: what lies between the layers stays in the cache. Lenses are computed in chunks, rows in as many as
a budget of memory allows; a chunk's hidden units are used up before the next chunk's are made.

On a CPU the normalised state goes in, and bias and ReLU are part of the product. On other devices the normalisation is
postponed, so that the product reads the residual as the model wrote it: W1 (h - mean) / std is (W1 h - mean sum(W1)) /
std, which the tail does in registers. Operations of fixed shapes only, and no host sync: a CUDA graph can capture it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.forms.common import spans_of
from ftw.hat.classifiers.forms.products import Product, product_of, sums_of
from ftw.hat.classifiers.forms.tail import Tail, narrow, nothing_off, postponed_tail, statistics
from ftw.hat.classifiers.modules import HIDDEN, normalise
from ftw.hat.classifiers.tensors import LensTensors

_LENSES = 4096
"""Lenses per chunk on a CPU: their hidden units of a few rows fit its caches."""
_HELD = 12
"""Bytes per hidden unit that are alive at once, at most: three copies in fp32 …"""
_HELD_INT8 = 20
"""… and with int8, whose products are of two rows for each state, and of whole numbers first."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Neighbouring lenses of one site: which of all, and their weights."""

    at: slice
    first: Product
    tail: Tail


class Dense:
    """Weights laid out for a full scoring."""

    def __init__(
        self,
        parts: Sequence[LensTensors],
        device: torch.device,
        dtype: torch.dtype,
        *,
        ready: bool = False,
        postponed: bool | None = None,
        lenses: int | None = None,
    ) -> None:
        """From the parts of each site. With `ready`, states come as the lenses read them, not raw.

        `postponed` and `lenses`, per chunk, are for tests: a device has its own.
        """
        self._spans = spans_of(parts)
        self._device = device
        self._ready = ready
        self._postponed = device.type != "cpu" if postponed is None else postponed
        longest = max(end - start for start, end in self._spans)
        size = min(longest, lenses or (_LENSES if device.type == "cpu" else longest))
        self._sites = [
            [self._chunk(part, start, at, min(at + size, end - start), dtype) for at in range(0, end - start, size)]
            for part, (start, end) in zip(parts, self._spans, strict=True)
        ]
        self._row_bytes = size * HIDDEN * (_HELD_INT8 if dtype == torch.int8 else _HELD)

    def _chunk(self, part: LensTensors, first: int, start: int, end: int, dtype: torch.dtype) -> _Chunk:
        """Lenses `start` to `end` of a site whose own first lens is number `first` of all."""
        device, width = self._device, part.w1.shape[-1]
        product = product_of(part.w1[start:end].reshape(-1, width), device, dtype)
        second = torch.bfloat16 if dtype == torch.int8 else dtype
        b1 = part.b1[start:end].reshape(-1).to(device, torch.float32)
        tail = Tail(
            sums=sums_of(product, width, device) if self._postponed else torch.zeros_like(b1),
            b1=b1,
            w2=part.w2[start:end].to(device, second).transpose(1, 2).contiguous(),
            b2=part.b2[start:end].to(device, torch.float32).contiguous(),
            w3=part.w3[start:end].to(device, torch.float32).contiguous(),
            b3=part.b3[start:end].to(device, torch.float32).contiguous(),
        )
        return _Chunk(slice(first + start, first + end), product, tail)

    def all(self, states: Float[Tensor, "site row d_model"], memory: int) -> Float[Tensor, "row lens"]:
        """Logits of every pair, fp32, from raw states, with about `memory` bytes for what lies between."""
        rows = max(1, memory // self._row_bytes)
        out = torch.empty(states.shape[1], self._spans[-1][1], device=self._device)
        for at, chunks in enumerate(self._sites):
            for some, place in zip(torch.split(states[at], rows), torch.split(out, rows), strict=True):
                self._site(some, chunks, place)
        return out

    def _site(self, states: Float[Tensor, "row d_model"], chunks: Sequence[_Chunk], out: Tensor) -> None:
        if self._postponed:
            about = nothing_off(states) if self._ready else statistics(states)
            for one in chunks:
                out[:, one.at] = postponed_tail(one.first.raw(states), about, one.tail)
            return
        x = states if self._ready else normalise(states)
        for one in chunks:
            out[:, one.at] = narrow(one.first.hidden(x, one.tail.b1), one.tail)
        out += x[:, :1] * 0  # NaN where the state held one: a fused ReLU takes it for 0, and it must not hide

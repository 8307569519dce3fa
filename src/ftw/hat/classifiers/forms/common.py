"""What the forms have in common: where lenses lie, what a form gives back, and small helpers on weights."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ftw.hat.classifiers.modules import MLP, NARROW
from ftw.hat.classifiers.tensors import LensTensors

Span = tuple[int, int]
"""First lens of a site and the one after its last."""


class Pairs(NamedTuple):
    """The pairs that were computed."""

    flat: Int[Tensor, " pair"]
    """row * N + lens, ascending."""
    logits: Float[Tensor, " pair"]
    capped: int
    """How many more passed the screen, but not the budget."""


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


def tail_of(part: LensTensors, units: int) -> Tensor:
    """b1, b2, w3, b3 of each lens in one row, fp32; units that others have more stay silent."""
    spare = (0, units - part.w3.shape[1])
    columns = [part.b1, F.pad(part.b2, spare), F.pad(part.w3, spare), part.b3[:, None]]
    return torch.cat([column.float() for column in columns], 1)


def put(tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Tensors joined along their first axis, on a device."""
    return torch.cat([tensor.to(device, dtype) for tensor in tensors]).contiguous()


def module_of(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> MLP:
    """An MLP with these weights; units that it has more than they do stay silent."""
    lens = MLP(w1.shape[1]).to(w1.device)
    spare = NARROW - len(w3)
    values = (w1, b1, F.pad(w2, (0, 0, 0, spare)), F.pad(b2, (0, spare)), F.pad(w3, (0, spare))[None], b3)
    with torch.no_grad():
        for parameter, value in zip(lens.parameters(), values, strict=True):
            parameter.copy_(value)
    return lens.eval().requires_grad_(False)

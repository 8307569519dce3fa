"""What comes after layer one: normalisation where it was postponed, bias, ReLU, layer two, ReLU, layer three.

The rule of the file: the plain form and the Triton kernel give the same logits; the kernel only keeps what lies between
in registers. It takes over on CUDA where Triton is installed.
"""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from ftw.hat.classifiers.modules import EPS, HIDDEN


@dataclass(frozen=True, slots=True)
class Tail:
    """The weights of some lenses after layer one. U = lenses * 128, K units of the second layer."""

    sums: Float32[Tensor, " unit_of_all"]
    """The sum of each first-layer unit's weights; zeros where normalisation is not postponed."""
    b1: Float32[Tensor, " unit_of_all"]
    w2: Float[Tensor, "lens 128 unit"]
    """Transposed, in the dtype of the bank; the others are fp32."""
    b2: Float32[Tensor, "lens unit"]
    w3: Float32[Tensor, "lens unit"]
    b3: Float32[Tensor, " lens"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What `normalise` takes off a state and divides it by."""

    mean: Float32[Tensor, " row"]
    scale: Float32[Tensor, " row"]
    """1 / sqrt(variance + eps)."""


def statistics(states: Float[Tensor, "row d_model"]) -> Statistics:
    """Mean and scale of each raw state, fp32."""
    variance, mean = torch.var_mean(states.float(), 1, correction=0)
    return Statistics(mean, (variance + EPS).rsqrt())


def nothing_off(states: Float[Tensor, "row d_model"]) -> Statistics:
    """For states that need no normalisation."""
    one = torch.ones(len(states), device=states.device)
    return Statistics(torch.zeros_like(one), one)


def narrow(hidden: Float[Tensor, "row unit_of_all"], tail: Tail) -> Float32[Tensor, "row lens"]:
    """Layers two and three of first-layer units that are done. The inner products of layer two run in w2's dtype."""
    rows, lenses, (_, _, units) = len(hidden), len(tail.b3), tail.w2.shape
    if rows == 1 and not hidden.is_cuda:  # weighted sums of rows: a batched product of one row takes twice as long
        at = torch.arange(lenses * HIDDEN, dtype=torch.int32).view(lenses, HIDDEN)
        x = hidden.to(tail.w2.dtype).view(lenses, HIDDEN)
        z = F.embedding_bag(at, tail.w2.view(-1, units), per_sample_weights=x, mode="sum")
        z = z.float().add_(tail.b2).relu_()
        logit: Tensor = torch.linalg.vecdot(z, tail.w3) + tail.b3
        return logit[None]
    x = hidden.to(tail.w2.dtype).view(rows, lenses, HIDDEN).transpose(0, 1)
    z = torch.bmm(x, tail.w2).float().add_(tail.b2[:, None]).relu_()
    return torch.bmm(z, tail.w3[:, :, None]).squeeze(-1).T + tail.b3


def postponed_tail(
    product: Float[Tensor, "row unit_of_all"], about: Statistics, tail: Tail
) -> Float32[Tensor, "row lens"]:
    """Logits from raw states times W1."""
    if product.is_cuda and find_spec("triton") is not None:
        from ftw.hat.classifiers.forms.tail_triton import tail_with_triton

        return tail_with_triton(product, about, tail)
    return tail_with_torch(product, about, tail)


def tail_with_torch(
    product: Float[Tensor, "row unit_of_all"], about: Statistics, tail: Tail
) -> Float32[Tensor, "row lens"]:
    """The plain form: what the kernel is tested against."""
    centred = product.float() - about.mean[:, None] * tail.sums
    return narrow((centred * about.scale[:, None] + tail.b1).relu_(), tail)

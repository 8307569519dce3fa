"""What is measured of a next-token distribution: each number with its formula, on a block of logits.

Shapes: `z` are logits [*row, vocab], fp32. Probabilities are never floored: everything comes from log-sum-exp, so that
a token of probability 1e-60 costs what it costs, and a KL does not stop at some constant.

The rule of the file: pure functions, no chunking, no model. `decode` feeds them, tests hold them against fp64.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

LN2 = math.log(2)
BLOCK = 64
"""Token ids per block in the search for the best: one maximum each, then only the best blocks are looked into."""
TINY = 1e-38
"""Stands for zero inside a logarithm whose factor is zero."""


class Softmax(NamedTuple):
    """A distribution as its logits minus their peak, the weights exp of that, and the weights' sum."""

    shifted: Float[Tensor, "*row vocab"]
    weights: Float[Tensor, "*row vocab"]
    peak: Float[Tensor, "*row"]
    total: Float[Tensor, "*row"]
    """At least 1: the best token's weight is 1."""


def softmax(z: Float[Tensor, "*row vocab"], peak: Float[Tensor, "*row"] | None = None) -> Softmax:
    """The softmax of `z`, not yet divided by its sum. `peak` is the largest logit, where it is known already."""
    peak = z.amax(-1) if peak is None else peak
    shifted = z - peak[..., None]
    weights = shifted.exp()
    return Softmax(shifted, weights, peak, weights.sum(-1))


def logsumexp(p: Softmax) -> Float[Tensor, "*row"]:
    """ln Σ exp(z): `z - logsumexp` are log-probabilities in nats."""
    return p.peak + p.total.log()


def probabilities(
    z: Float[Tensor, "*row vocab"], best: Int[Tensor, "*row"]
) -> tuple[Float[Tensor, "*row vocab"], Float[Tensor, "*row"]]:
    """The softmax of `z` and its log-sum-exp, where nothing else is asked: one fused pass, half as long as `softmax`.

    `best` is the most likely token: its logit less the log of its probability is the log-sum-exp, good to 2e-6 nats.
    """
    p, at = torch.softmax(z, -1), best[..., None]
    return p, (z.gather(-1, at) - p.gather(-1, at).log())[..., 0]


def entropy_bits(p: Softmax) -> Float[Tensor, "*row"]:
    """-Σ p log2 p: 0 (certain) to log2 of the vocabulary (uniform), in bits."""
    return (p.total.log() - _mean(p, p.shifted)) / LN2


def kl_bits(p: Softmax, q: Softmax) -> Float[Tensor, "*row"]:
    """KL(p || q) = Σ p log2(p / q), in bits: what it costs to take q for p. Never negative."""
    gap = _mean(p, p.shifted - q.shifted) - p.total.log() + q.total.log()
    return gap.clamp_min(0) / LN2


def js_bits(p: Softmax, q: Softmax) -> Float[Tensor, "*row"]:
    """Jensen-Shannon divergence: the mean of KL(p || m) and KL(q || m), m half p and half q. 0 to 1 bit."""
    m = torch.add(p.weights / (2 * p.total)[..., None], q.weights / (2 * q.total)[..., None])
    mixed = -_dot(m, m.clamp_min(TINY).log()) / LN2
    return (mixed - (entropy_bits(p) + entropy_bits(q)) / 2).clamp(0, 1)


def cosine_of_logits(z: Float[Tensor, "*row vocab"], other: Float[Tensor, "*#row vocab"]) -> Float[Tensor, "*row"]:
    """Cosine of two rows of logits, each minus its own mean: a constant added to all logits changes nothing.

    NaN where a row has no direction (all its logits are equal).
    """
    a, b = z - z.mean(-1, keepdim=True), other - other.mean(-1, keepdim=True)
    return _dot(a, b) / (_norm(a) * _norm(b))


def cosine(a: Float[Tensor, "*row d"], b: Float[Tensor, "*row d"]) -> Float[Tensor, "*row"]:
    """Cosine of two vectors, in -1..1. NaN where one of them is zero."""
    return _dot(a, b) / (_norm(a) * _norm(b))


def rank(z: Float[Tensor, "*row vocab"], own: Float[Tensor, "*row t"]) -> Int[Tensor, "*row t"]:
    """1 + the number of logits that are greater than `own`: ties share the better rank."""
    out = torch.empty_like(z)  # counted as floats: four times as fast as booleans, exact below 2**24
    above = [torch.gt(z, own[..., i, None], out=out).sum(-1) for i in range(own.shape[-1])]
    return torch.stack(above, -1).long() + 1 if above else own.long()


def mass(p: Softmax, ids: Int[Tensor, "*row m"]) -> Float[Tensor, "*row"]:
    """The probability of a set of token ids together. -1 stands for no id; ids must not repeat."""
    return share(p.weights, ids) / p.total


def share(weights: Float[Tensor, "*row vocab"], ids: Int[Tensor, "*row m"]) -> Float[Tensor, "*row"]:
    """The sum of the weights of a set of token ids. -1 stands for no id; ids must not repeat."""
    return (weights.gather(-1, ids.clamp_min(0)) * (ids >= 0)).sum(-1)


def best(z: Float[Tensor, "*row vocab"], k: int) -> tuple[Float[Tensor, "*row k"], Int[Tensor, "*row k"]]:
    """The k largest logits, best first, and their token ids. Among equals the lower id comes first."""
    vocab = z.shape[-1]
    more = min(k + 1, vocab)  # one more than asked for shows whether the last place is shared
    values, ids = _top_by_blocks(z, more) if vocab >= 4 * more * BLOCK else z.topk(more, -1)
    values, ids = in_order(values, ids)
    if more > k:
        shared = values[..., k] == values[..., k - 1]
        if bool(shared.any()):
            full = z[shared].sort(dim=-1, descending=True, stable=True)
            values[shared], ids[shared] = full.values[..., :more], full.indices[..., :more]
    return values[..., :k], ids[..., :k]


def candidates(z: Float[Tensor, "*row vocab"], k: int) -> tuple[Float[Tensor, "*row k"], Int[Tensor, "*row k"]]:
    """k largest logits, best first, and their token ids, as `best`; which of equal ones is among them is left open."""
    return _top_by_blocks(z, k) if z.shape[-1] >= 4 * k * BLOCK else tuple(z.topk(k, -1))  # type: ignore[return-value]


def _top_by_blocks(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest in any order: they lie in the k blocks with the largest maxima, or in the ragged end."""
    vocab = z.shape[-1]
    whole = vocab - vocab % BLOCK
    blocks = z[..., :whole].reshape(*z.shape[:-1], -1, BLOCK)
    chosen = blocks.amax(-1).topk(k, -1, sorted=False).indices
    inside = blocks.gather(-2, chosen[..., None].expand(*chosen.shape, BLOCK)).flatten(-2)
    ids = (chosen[..., None] * BLOCK + torch.arange(BLOCK, device=z.device)).flatten(-2)
    if whole < vocab:
        inside = torch.cat([inside, z[..., whole:]], -1)
        ids = torch.cat([ids, torch.arange(whole, vocab, device=z.device).expand(*ids.shape[:-1], -1)], -1)
    values, at = inside.topk(k, -1)
    return values, ids.gather(-1, at)


def in_order(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """By value, equal ones by id."""
    by_id = ids.argsort(-1)
    values, ids = values.gather(-1, by_id), ids.gather(-1, by_id)
    order = values.argsort(dim=-1, descending=True, stable=True)
    return values.gather(-1, order), ids.gather(-1, order)


def _mean(p: Softmax, values: Tensor) -> Tensor:
    """The expectation of `values` under p."""
    return _dot(p.weights, values) / p.total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a, b)
    return product


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm

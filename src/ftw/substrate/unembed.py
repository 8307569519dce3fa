"""Decodes the residual stream into the vocabulary as the model itself does it: tail, head, logit transform.

Everything is computed in fp32, whatever the model's dtype, in chunks over rows and vocabulary. `unembed` gives all the
logits; `topk`, `rank_and_logprob` and `entropy_bits` stream over the vocabulary and never hold [rows, vocab].
Gradients flow to the stream; the model's weights are constants here.

The rule of the file: a chunk's size changes speed and memory, never a result beyond rounding.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ftw.substrate.anatomy import Arch, first_tensor
from ftw.substrate.errors import ConfigError, SiteError

ROWS = 4096
"""Rows that go through tail and head at once."""
VOCAB = 16384
"""Token ids per chunk: with fp32 weights of width 4096 a chunk is 256 MiB."""


class TopK(NamedTuple):
    """The k most likely tokens of each row, best first."""

    values: Float[Tensor, "*batch k"]
    """Their logits, fp32."""
    ids: Int[Tensor, "*batch k"]
    """Their token ids."""
    logsumexp: Float[Tensor, "*batch"]
    """The log of the sum over the whole vocabulary: `values - logsumexp` are log-probabilities in nats."""


def unembed(
    arch: Arch, resid: Float[Tensor, "*batch d_model"], *, rows: int = ROWS, vocab: int = VOCAB
) -> Float[Tensor, "*batch vocab"]:
    """The logits that the model gives for a stream after its last block. fp32, on the stream's device."""
    flat = _flat(arch, resid)
    out = torch.empty(flat.shape[0], arch.vocab_size, dtype=torch.float32, device=flat.device)
    for start, h in _hidden(arch, flat, rows):
        for first, logits in _logits(arch, h, vocab):
            out[start : start + h.shape[0], first : first + logits.shape[-1]] = logits
    return out.view(*resid.shape[:-1], arch.vocab_size)


def topk(arch: Arch, resid: Float[Tensor, "*batch d_model"], k: int, *, rows: int = ROWS, vocab: int = VOCAB) -> TopK:
    """The `k` best tokens of each row, best first, and the logsumexp over all. Among equals the lower id is first."""
    if not 1 <= k <= arch.vocab_size:
        raise ConfigError(f"k is {k}: it must be 1..{arch.vocab_size}, the size of this model's vocabulary")
    parts = [_topk_rows(arch, h, k, vocab) for _, h in _hidden(arch, _flat(arch, resid), rows)]
    shape = resid.shape[:-1]
    values, ids, norm = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return TopK(values.view(*shape, k), ids.view(*shape, k), norm.view(shape))


def rank_and_logprob(
    arch: Arch,
    resid: Float[Tensor, "*batch d_model"],
    target_ids: Int[Tensor, "*batch"],
    *,
    rows: int = ROWS,
    vocab: int = VOCAB,
) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """For each row the rank of its target (1 = first) and its log-probability in nats (fp32).

    The rank counts the tokens with a strictly greater logit: ties share the better rank.
    """
    flat, targets = _flat(arch, resid), target_ids.reshape(-1).to(resid.device)
    outside = targets[(targets < 0) | (targets >= arch.vocab_size)]
    if outside.numel():
        raise ConfigError(f"token id {int(outside[0])} does not exist: this model has ids 0..{arch.vocab_size - 1}")
    ranks, logprobs = [], []
    for start, h in _hidden(arch, flat, rows):
        rank, logprob = _rank_rows(arch, h, targets[start : start + h.shape[0]], vocab)
        ranks.append(rank)
        logprobs.append(logprob)
    return torch.cat(ranks).view(target_ids.shape), torch.cat(logprobs).view(target_ids.shape)


def entropy_bits(
    arch: Arch, resid: Float[Tensor, "*batch d_model"], *, rows: int = ROWS, vocab: int = VOCAB
) -> Float[Tensor, "*batch"]:
    """Shannon entropy of the next-token distribution of each row, in bits."""
    parts = []
    for _, h in _hidden(arch, _flat(arch, resid), rows):
        peak, total, moment = _start(h), torch.zeros_like(_start(h)), torch.zeros_like(_start(h))
        for _, logits in _logits(arch, h, vocab):
            new = torch.maximum(peak, logits.amax(-1))
            keep = torch.exp(peak - new)
            weights = torch.exp(logits - new[:, None])
            # sum of p-weights, and of weight times (logit - peak), both re-based to the new peak
            shift = torch.where(keep > 0, peak - new, 0.0)
            moment = keep * (moment + shift * total) + (weights * (logits - new[:, None])).sum(-1)
            total = keep * total + weights.sum(-1)
            peak = new
        parts.append((total.log() - moment / total) / math.log(2))
    return torch.cat(parts).view(resid.shape[:-1])


def _flat(arch: Arch, resid: Tensor) -> Tensor:
    if resid.shape[-1] != arch.d_model:
        raise SiteError(f"the stream given is {resid.shape[-1]} wide: this model's is {arch.d_model}")
    return resid.reshape(-1, arch.d_model)


def _hidden(arch: Arch, flat: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    """The head's input in fp32, chunk by chunk of rows; one empty chunk where there are no rows."""
    for start in range(0, max(len(flat), 1), rows):
        yield start, head_input(arch, flat[start : start + rows])


def head_input(arch: Arch, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch width"]:
    """What the head is given for a stream after the last block: the model's own tail, run in fp32."""
    # [1, row, d_model]: models may index batch and position in their norms
    h = _flat(arch, resid).float()[None] * arch.gain
    for module in arch.tail:
        h = in_fp32(module, h)
    return h[0].view(*resid.shape[:-1], h.shape[-1])


def in_fp32(module: nn.Module, h: Tensor) -> Tensor:
    """Runs a module of the model with its weights read as fp32; the module itself is not touched."""
    named = [*module.named_parameters(), *module.named_buffers()]
    state = {key: _fixed(value, h.device) for key, value in named}
    out = first_tensor(functional_call(module, state, (h,)))
    if out is None:
        raise SiteError(f"{type(module).__name__} in the tail returns no tensor")
    return out.float()


def _fixed(weight: Tensor, device: torch.device) -> Tensor:
    """A weight as a constant (no gradient flows into it), floats in fp32; without a copy where it already is that."""
    weight = weight.detach().to(device)
    return weight.float() if weight.is_floating_point() else weight


def _logits(arch: Arch, h: Tensor, vocab: int) -> Iterator[tuple[int, Tensor]]:
    """The logits of the rows `h`, chunk by chunk of the vocabulary, each with its first token id."""
    weight = _tensor(arch.head, "weight")
    bias = _tensor(arch.head, "bias")
    if weight is None:
        raise SiteError(f"the head {arch.head_path} has no weight to decode with")
    for first in range(0, arch.vocab_size, vocab):
        part = slice(first, min(first + vocab, arch.vocab_size))
        b = None if bias is None else _fixed(bias[part], h.device)
        yield first, arch.transform(F.linear(h, _fixed(weight[part], h.device), b))


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    value = getattr(module, name, None)
    return value if isinstance(value, Tensor) else None


def _start(h: Tensor) -> Tensor:
    return torch.full(h.shape[:1], -math.inf, device=h.device)


def _topk_rows(arch: Arch, h: Tensor, k: int, vocab: int) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.empty(h.shape[0], 0, device=h.device)
    ids = torch.empty(h.shape[0], 0, dtype=torch.long, device=h.device)
    norm = _start(h)
    for first, logits in _logits(arch, h, vocab):
        norm = torch.logaddexp(norm, logits.logsumexp(-1))
        best = logits.topk(min(k, logits.shape[-1]), -1)
        values = torch.cat([values, best.values], -1)
        ids = torch.cat([ids, best.indices + first], -1)
        # by id, then stably by value: among equals the lower id comes first, whatever the chunks
        by_id = ids.argsort(-1)
        values, ids = values.gather(-1, by_id), ids.gather(-1, by_id)
        order = values.argsort(dim=-1, descending=True, stable=True)[:, :k]
        values, ids = values.gather(-1, order), ids.gather(-1, order)
    return values, ids, norm


def _rank_rows(arch: Arch, h: Tensor, targets: Tensor, vocab: int) -> tuple[Tensor, Tensor]:
    # Two passes: the target's own logit must be the very number the others are compared with. One chunk is kept.
    kept = list(_logits(arch, h, vocab)) if arch.vocab_size <= vocab else None
    own = torch.empty(h.shape[0], device=h.device)
    norm = _start(h)
    for first, logits in kept or _logits(arch, h, vocab):
        norm = torch.logaddexp(norm, logits.logsumexp(-1))
        inside = (targets >= first) & (targets < first + logits.shape[-1])
        picked = logits.gather(-1, (targets - first).clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]
        own = torch.where(inside, picked, own)
    above = torch.zeros_like(targets)
    for _, logits in kept or _logits(arch, h, vocab):
        above += (logits > own[:, None]).sum(-1)
    return above + 1, own - norm

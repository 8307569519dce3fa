"""What each block of a model would say next, for one prompt: one forward pass, every block decoded.

The rule of the file: the identity gate comes first. A model whose last row would not be its own logits is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError, PromptTooLong
from ftw.substrate.gate import Gate, gate
from ftw.substrate.model import Model
from ftw.substrate.taps import tap
from ftw.substrate.types import Site
from ftw.substrate.unembed import TopK, entropy_bits, rank_and_logprob, topk


@dataclass(frozen=True, slots=True)
class Guess:
    """A token that a block would say next."""

    token: str
    id: int
    p: float
    """Its probability, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class BlockView:
    """What the stream after one block says, at the last position of the prompt."""

    block: int
    """Counted from 0."""
    top: tuple[Guess, ...]
    """The k most likely tokens, best first; equal ones by id."""
    answer_rank: int
    """Where the answer stands, 1 = first."""
    answer_p: float
    """The answer's probability, in [0, 1]."""
    entropy_bits: float
    """Of the whole next-token distribution."""


@dataclass(frozen=True, slots=True)
class Peek:
    """One prompt through every block. The last view is the model's own next-token distribution."""

    ids: tuple[int, ...]
    answer: str
    answer_id: int
    blocks: tuple[BlockView, ...]
    gate: Gate
    vocab_size: int

    @property
    def chance(self) -> float:
        """The probability of a token picked at random."""
        return 1 / self.vocab_size

    @property
    def first_from(self) -> int | None:
        """The block from which on the answer stands first to the end; None where it is not first at the end."""
        first = None
        for view in reversed(self.blocks):
            if view.answer_rank != 1:
                break
            first = view.block
        return first


def peek(model: Model, ids: Sequence[int], *, k: int = 5, answer_id: int | None = None) -> Peek:
    """Decodes the state after every block at the prompt's last position. fp32; the model runs in its own dtype.

    `answer_id` is the token whose rank and probability are followed; without one it is the model's own first choice.
    Raises Refused when the identity gate fails, ConfigError for an empty prompt, an unknown answer or a bad `k`,
    PromptTooLong, and NumericError where a block's distribution is not finite.
    """
    _check(model, ids, answer_id)
    verdict = gate(model.net, model.arch, model=model.name)
    verdict.require()
    resid = _last_states(model, ids)
    best = topk(model.arch, resid, k)
    if not torch.isfinite(best.logsumexp).all():
        bad = [block for block, ok in enumerate(torch.isfinite(best.logsumexp).tolist()) if not ok]
        raise NumericError(f"{model.name}: the state after block {bad[0]} decodes to numbers that are not finite")
    answer = int(best.ids[-1, 0]) if answer_id is None else answer_id
    targets = torch.full(resid.shape[:1], answer, dtype=torch.long, device=resid.device)
    ranks, logprobs = rank_and_logprob(model.arch, resid, targets)
    # the results leave the device here, once
    views = _views(model, best, ranks.tolist(), logprobs.exp().tolist(), entropy_bits(model.arch, resid).tolist())
    return Peek(tuple(ids), model.pieces([answer])[0], answer, views, verdict, model.vocab_size)


def _check(model: Model, ids: Sequence[int], answer_id: int | None) -> None:
    if not ids:
        raise ConfigError("the prompt is empty: there is no position whose next token could be asked for")
    if len(ids) > model.context:
        raise PromptTooLong(f"{len(ids)} prompt tokens: {model.name} holds {model.context}. Shorten the prompt")
    if answer_id is not None and not 0 <= answer_id < model.vocab_size:
        raise ConfigError(f"the answer has token id {answer_id}: {model.name} has ids 0..{model.vocab_size - 1}")


@torch.inference_mode()
def _last_states(model: Model, ids: Sequence[int]) -> Float[Tensor, "layer d_model"]:
    """The residual stream after every block at the last position, in the model's dtype, on the first block's device."""
    sites = [Site(block) for block in range(model.n_layers)]
    with tap(model, reads=sites) as trace:
        model.net(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
        states = [trace[site][0, -1] for site in sites]
    return torch.stack([state.to(states[0].device) for state in states])


def _views(
    model: Model, best: TopK, ranks: Sequence[int], ps: Sequence[float], entropies: Sequence[float]
) -> tuple[BlockView, ...]:
    rows = zip(best.ids.tolist(), (best.values - best.logsumexp[..., None]).exp().tolist(), strict=True)
    return tuple(
        BlockView(
            block=block,
            top=tuple(Guess(*each) for each in zip(model.pieces(ids), ids, shares, strict=True)),
            answer_rank=ranks[block],
            answer_p=ps[block],
            entropy_bits=entropies[block],
        )
        for block, (ids, shares) in enumerate(rows)
    )

"""What each block of a model would say next, for one prompt: one forward pass, every block decoded.

The rule of the file: the identity gate comes first. A model whose last row would not be its own logits is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ftw.substrate.errors import ConfigError, NumericError, PromptTooLong
from ftw.substrate.gate import Gate, gate
from ftw.substrate.model import Model
from ftw.sweep.decode import Decoded, Targets, decode
from ftw.sweep.forward import read
from ftw.sweep.lenses.logit import LogitLens


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
    resid = read(model, [ids]).states
    lens = [LogitLens(model.arch)]
    answer = int(decode(model, lens, resid, k=1, wanted=()).top_ids[-1, 0, 0]) if answer_id is None else answer_id
    found = decode(model, lens, resid, Targets({"answer": torch.tensor([answer])}), k=k, wanted=["entropy"])
    views = _views(model, found)
    return Peek(tuple(ids), model.pieces([answer])[0], answer, views, verdict, model.vocab_size)


def _check(model: Model, ids: Sequence[int], answer_id: int | None) -> None:
    if not ids:
        raise ConfigError("the prompt is empty: there is no position whose next token could be asked for")
    if len(ids) > model.context:
        raise PromptTooLong(f"{len(ids)} prompt tokens: {model.name} holds {model.context}. Shorten the prompt")
    if answer_id is not None and not 0 <= answer_id < model.vocab_size:
        raise ConfigError(f"the answer has token id {answer_id}: {model.name} has ids 0..{model.vocab_size - 1}")


def _views(model: Model, found: Decoded) -> tuple[BlockView, ...]:
    """A view for each block: the layers from 1 on. The results leave the device here, once."""
    bad = (~found.is_finite[1:, 0]).nonzero()
    if len(bad):
        raise NumericError(f"{model.name}: the state after block {int(bad[0])} decodes to numbers that are not finite")
    ids, shares = found.top_ids[1:, 0].tolist(), found.top_logprobs[1:, 0].exp().tolist()
    ranks, ps = found.ranks["answer"][1:, 0].tolist(), found.logprobs["answer"][1:, 0].exp().tolist()
    rows = zip(ids, shares, ranks, ps, found.values["entropy"][1:, 0].tolist(), strict=True)
    return tuple(
        BlockView(
            block=block,
            top=tuple(Guess(*each) for each in zip(model.pieces(best), best, p, strict=True)),
            answer_rank=rank,
            answer_p=answer_p,
            entropy_bits=entropy,
        )
        for block, (best, p, rank, answer_p, entropy) in enumerate(rows)
    )

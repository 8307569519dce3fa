"""Chooses next tokens from logits: greedy, temperature, top-k, top-p, min-p, one seed per request.

The rule of the file: a request's draw is a function of its logits, its settings, its seed and how many tokens it has
written. What else is in the batch, and on which device it runs, does not enter. All arithmetic is fp32 or wider.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.substrate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. The filters apply in the order temperature, top-k, top-p, min-p."""

    temperature: float = 0.0
    """Divides the logits. 0 is greedy: the most likely token, whatever else is set."""
    top_k: int | None = None
    """Keep the k most likely tokens (and those tied with the last of them)."""
    top_p: float | None = None
    """Keep the smallest set of most likely tokens whose probability reaches p."""
    min_p: float | None = None
    """Keep the tokens at least p times as likely as the most likely one."""
    seed: int | None = None
    """Makes the draws repeatable. None takes a fresh one from the operating system."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature}: it is 0 (greedy) or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}: it is at least 1, or None for no limit")
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ConfigError(f"{name} is {share}: it lies in (0, 1], or is None")

    @property
    def is_greedy(self) -> bool:
        """Whether no random number is needed."""
        return self.temperature == 0


class Dice:
    """The random numbers of one request: one uniform in [0, 1) for each token, from its seed alone."""

    def __init__(self, seed: int | None) -> None:
        self._rng = random.Random(seed)

    def roll(self) -> float:
        """The next number."""
        return self._rng.random()


class Chosen(NamedTuple):
    """One token per row and what the model itself gave it."""

    tokens: Int[Tensor, " row"]
    logprobs: Float[Tensor, " row"]
    """Natural logarithm of the model's own probability, before temperature and filters. NaN where logits hold NaN."""


def choose(logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling], dice: Sequence[Dice]) -> Chosen:
    """One token per row. Rolls the dice of rows that sample, and of no others. Computed in fp32; draws in fp64."""
    scores = logits.float()
    top = scores.max(-1)
    logprobs = scores.log_softmax(-1)  # measured on CPU: faster than logsumexp, and max faster than argmax
    drawn = [row for row, sampling in enumerate(samplings) if not sampling.is_greedy]
    if not drawn:
        return Chosen(top.indices, logprobs.gather(-1, top.indices[:, None])[:, 0])
    index = torch.tensor(drawn, device=scores.device)
    kept = shape(scores if len(drawn) == len(samplings) else scores[index], [samplings[row] for row in drawn])
    uniform = torch.tensor([dice[row].roll() for row in drawn], dtype=torch.float64, device=scores.device)
    tokens = top.indices.index_copy(0, index, draw(kept, uniform))
    return Chosen(tokens, logprobs.gather(-1, tokens[:, None])[:, 0])


def shape(scores: Float[Tensor, "row vocab"], samplings: Sequence[Sampling]) -> Float[Tensor, "row vocab"]:
    """Scores with each row's temperature and filters applied; -inf where a token is ruled out. Best tokens stay."""
    device = scores.device
    scores = scores / torch.tensor([s.temperature for s in samplings], device=device)[:, None]
    vocab = scores.shape[-1]
    if any(s.top_k is not None and s.top_k < vocab for s in samplings):
        ks = [min(s.top_k or vocab, vocab) for s in samplings]
        best = scores.topk(max(k for k in ks if k < vocab), dim=-1).values
        floor = torch.stack([best[row, k - 1] if k < vocab else best.new_tensor(-math.inf) for row, k in enumerate(ks)])
        scores = scores.masked_fill(scores < floor[:, None], -math.inf)
    if any(s.top_p is not None and s.top_p < 1 for s in samplings):
        ps = torch.tensor([1.0 if s.top_p is None else s.top_p for s in samplings], device=device)
        ordered, order = scores.sort(dim=-1, descending=True, stable=True)
        probs = ordered.softmax(-1)
        # a token goes when those before it already reach p; rows with p = 1 keep all, whatever the rounding
        out = (probs.cumsum(-1) - probs >= ps[:, None]) & (ps < 1)[:, None]
        out[:, 0] = False
        scores = scores.masked_fill(torch.zeros_like(out).scatter(-1, order, out), -math.inf)
    if any(s.min_p is not None for s in samplings):
        logs = [math.log(s.min_p) if s.min_p is not None else -math.inf for s in samplings]
        floor = scores.max(-1).values + torch.tensor(logs, device=device)
        scores = scores.masked_fill(scores < floor[:, None], -math.inf)
    return scores


def draw(scores: Float[Tensor, "row vocab"], uniform: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """The token at which the cumulated probability (vocabulary order) passes `uniform`. Never one with score -inf."""
    cdf = scores.double().softmax(-1).cumsum(-1)
    target = (uniform * cdf[:, -1])[:, None]
    return torch.searchsorted(cdf, target, right=True)[:, 0].clamp_(max=scores.shape[-1] - 1)

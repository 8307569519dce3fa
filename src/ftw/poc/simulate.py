"""The vote of a network: many weighted validators each check a sample of one node's nonces and say honest or cheat.

A validator says cheat where its own binomial test does, so its vote is one draw with a probability that the binomial's
tail gives exactly; only the sum over weights has to be drawn. The rule of the file: every draw comes from one seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from ftw.poc.power import flagged, reject_from
from ftw.substrate.errors import ConfigError

Weights = Float64[np.ndarray, " validator"]
MAJORITIES = (1 / 2, 2 / 3)
"""Shares of the weight that decide: half of it, and the two thirds that a network asks for."""
CHUNK = 2_000_000
"""Votes that are drawn at once, so that memory stays flat."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What a network says of one node, over many rounds."""

    rate: float
    """How often this node's nonces mismatch, on average over validators."""
    p_vote: float
    """P(one validator says cheat), averaged by weight: also the expected weight that does."""
    weights: Float64[np.ndarray, " round"]
    """The share of the weight that said cheat in each round."""

    def quantile(self, q: float) -> float:
        """The q-quantile over rounds of the weight that said cheat."""
        return float(np.quantile(self.weights, q))

    @property
    def most(self) -> float:
        """The greatest weight that said cheat in any round."""
        return float(self.weights.max())

    def decided(self, majority: float) -> float:
        """P(more than this share of the weight says cheat)."""
        return float((self.weights > majority).mean())


@dataclass(frozen=True, slots=True)
class Network:
    """Who votes, and by which test."""

    weights: Weights
    """Each validator's share of the vote; they sum to 1."""
    n: int
    """Nonces that each validator checks."""
    p_mismatch: float
    cutoff: float

    @property
    def effective(self) -> float:
        """How many equal validators would spread a vote as these do: 1 / sum of squared shares."""
        return float(1.0 / np.square(self.weights).sum())

    @property
    def reject_from(self) -> int:
        """Fewest mismatches of a sample that make a validator say cheat."""
        return reject_from(self.n, self.p_mismatch, self.cutoff)


def vote(network: Network, rates: float | Sequence[float], *, rounds: int, rng: np.random.Generator) -> Vote:
    """The weight that says cheat about a node, in each of `rounds` independent rounds.

    `rates` is the node's mismatch rate as every validator sees it, or several rates, for example one for each kind of
    hardware: every validator then has one of them, in turn by weight, so that heavy and light ones share each rate.
    Raises ConfigError.
    """
    if rounds < 1:
        raise ConfigError(f"{rounds} rounds give no distribution: simulate at least 1")
    several = np.array([rates] if isinstance(rates, float) else [*rates], dtype=np.float64)
    if not len(several) or not ((several >= 0.0) & (several <= 1.0)).all():
        raise ConfigError(f"the mismatch rates are {several.tolist()}: give at least one, each in 0..1")
    chances = np.array([flagged(network.n, network.p_mismatch, network.cutoff, float(rate)) for rate in several])
    turn = np.empty(len(network.weights), dtype=np.int64)
    turn[np.argsort(-network.weights, kind="stable")] = np.arange(len(turn)) % len(several)
    p = chances[turn]
    total = np.empty(rounds)
    step = max(1, CHUNK // len(p))
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        total[start : start + size] = (rng.random((size, len(p))) < p) @ network.weights
    rate, p_vote = (min(1.0, float(network.weights @ each)) for each in (several[turn], p))  # shares sum to 1 + 1e-16
    return Vote(rate, p_vote, total)


def shares(weights: Sequence[float]) -> Weights:
    """Weights as shares of their sum. Raises ConfigError for none, negative ones, or a sum of 0."""
    found = np.array([*weights], dtype=np.float64)
    if not len(found) or not np.isfinite(found).all() or (found < 0).any() or found.sum() <= 0.0:
        raise ConfigError("weights must be finite, none below 0, and not all 0: one number for each validator")
    found /= found.sum()
    return found


def spread(validators: int, effective: float | None = None) -> Weights:
    """Shares of `validators` who vote like `effective` equal ones: log-normal quantiles. Equal shares without it.

    Raises ConfigError where the number of equals is not above 1 and at most the number of validators.
    """
    if validators < 1:
        raise ConfigError(f"{validators} validators cannot vote: give at least 1")
    if effective is None or effective == validators:
        return np.full(validators, 1.0 / validators)
    normal = NormalDist()
    places = np.array([normal.inv_cdf((i + 0.5) / validators) for i in range(validators)])

    def equals(sigma: float) -> float:
        weights = np.exp(sigma * (places - places[-1]))
        return float(weights.sum() ** 2 / np.square(weights).sum())

    low, high = 0.0, 50.0
    if not 1.0 < effective < validators or equals(high) > effective:
        raise ConfigError(f"{validators} validators cannot vote like {effective:g} equal ones: give 2..{validators}")
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if equals(middle) > effective else (low, middle)
    return shares(np.exp(low * (places - places[-1])).tolist())


def normal_share(network: Network, p_vote: float, majority: float) -> float:
    """P(more than `majority` of the weight says cheat) if the sum were normal: a check on the draws."""
    sd = math.sqrt(p_vote * (1.0 - p_vote) / network.effective)
    return float(p_vote > majority) if sd == 0.0 else 1.0 - NormalDist(p_vote, sd).cdf(majority)

"""Bootstrap: intervals of means, medians and shares over facts, and of differences between two readings of them.

Facts are resampled, not prompts: the wordings of one fact are not independent of each other. All figures over the same
number of facts share their resamples, so that two lenses are compared on the same draws.

The rule of the file: a value that never comes is infinity. It counts as the latest, and is not dropped.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from ftw.substrate.errors import UsageError
from ftw.sweep.outcome import Outcome, Why

Method = Literal["bca", "percentile"]
"""`bca`: bias-corrected and accelerated (Efron 1987), for means. `percentile`: for medians and shares of layers, whose
resampled values are few and lie on steps: an acceleration of those means nothing."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A figure over facts with the interval that its resamples give."""

    value: Outcome
    low: Outcome
    high: Outcome
    method: Method
    n_facts: int

    def document(self) -> dict[str, Any]:
        """As plain JSON values: `{"value", "why", "low", "high", "method", "n_facts"}`; an open end is null."""
        ends = {"low": self.low.value, "high": self.high.value}
        return {**self.value.document(), **ends, "method": self.method, "n_facts": self.n_facts}


@dataclass(frozen=True)
class Bootstrap:
    """Intervals at a level from so many resamples. The same seed gives the same intervals."""

    level: float
    resamples: int
    few: int
    """An interval needs at least so many facts."""
    seed: int

    def median(self, values: Float[np.ndarray, " fact"]) -> Interval:
        """The median over facts; infinity for those that never come. `never` where the median itself is."""
        if not len(values):
            return _nothing("too_few", "percentile", 0)
        drawn = np.median(values[self._draws(len(values))], axis=1) if len(values) >= self.few else None
        return self._percentile(float(np.median(values)), drawn, len(values))

    def share(self, values: Float[np.ndarray, " fact"]) -> Interval:
        """The mean of shares or yes-and-no values over facts, with a percentile interval."""
        if not len(values):
            return _nothing("too_few", "percentile", 0)
        drawn = values[self._draws(len(values))].mean(axis=1) if len(values) >= self.few else None
        return self._percentile(float(values.mean()), drawn, len(values))

    def band(self, curves: Float[np.ndarray, "fact layer"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mean curve over facts, and the lower and upper end of its interval at each layer; NaN where too few."""
        mean = curves.mean(axis=0)
        if len(curves) < self.few:
            nothing = np.full_like(mean, np.nan)
            return mean, nothing, nothing
        drawn = self._times(len(curves)) @ curves / len(curves)
        low, high = np.quantile(drawn, self._tails, axis=0)
        return mean, low, high

    def mean(self, values: Float[np.ndarray, " fact"]) -> Interval:
        """The mean over the facts that have a value, with a BCa interval. Infinity and NaN stand for none.

        Facts are drawn from all of them: how many have a value varies from draw to draw.
        """
        has = np.isfinite(values)
        known = np.where(has, values, 0.0)
        if has.sum() == 0:
            return _nothing("never" if len(values) else "too_few", "bca", 0)
        mean = float(known.sum() / has.sum())
        if has.sum() < self.few:
            return Interval(Outcome(mean), Outcome.none("too_few"), Outcome.none("too_few"), "bca", int(has.sum()))
        draws = self._draws(len(values))
        found = has[draws].sum(axis=1)
        drawn = known[draws].sum(axis=1)[found > 0] / found[found > 0]
        left_out = (known.sum() - known[has]) / (has.sum() - 1)
        low, high = np.quantile(drawn, self._bca(mean, drawn, left_out))
        return Interval(Outcome(mean), Outcome(float(low)), Outcome(float(high)), "bca", int(has.sum()))

    @property
    def _tails(self) -> tuple[float, float]:
        return (1 - self.level) / 2, (1 + self.level) / 2

    @cached_property
    def _known(self) -> dict[int, np.ndarray]:
        return {}

    def _draws(self, n: int) -> Int[np.ndarray, "resample fact"]:
        if n not in self._known:
            self._known[n] = np.random.default_rng([self.seed, n]).integers(0, n, (self.resamples, n))
        return self._known[n]

    def _times(self, n: int) -> Float[np.ndarray, "resample fact"]:
        """How often each resample drew each fact."""
        draws = self._draws(n)
        places = draws + n * np.arange(len(draws))[:, None]
        return np.bincount(places.ravel(), minlength=draws.size).reshape(draws.shape).astype(float)

    def _bca(self, value: float, drawn: np.ndarray, left_out: np.ndarray) -> tuple[float, float]:
        """At which quantiles of the draws the interval ends. The plain tails where the draws do not vary."""
        below = (np.mean(drawn < value) + np.mean(drawn <= value)) / 2
        away = left_out.mean() - left_out
        spread = float((away**2).sum() ** 1.5)
        if not 0 < below < 1 or spread == 0:
            return self._tails
        bias, skew = NORMAL.inv_cdf(float(below)), float((away**3).sum()) / (6 * spread)

        def moved(tail: float) -> float:
            z = bias + NORMAL.inv_cdf(tail)
            return NORMAL.cdf(bias + z / (1 - skew * z)) if skew * z < 1 else (0.0 if z < 0 else 1.0)

        low, high = self._tails
        return moved(low), moved(high)

    def _percentile(self, value: float, drawn: np.ndarray | None, n: int) -> Interval:
        if drawn is None:
            return Interval(_or_never(value), Outcome.none("too_few"), Outcome.none("too_few"), "percentile", n)
        order = np.sort(drawn)  # no interpolation: between a layer and never there is nothing
        low, high = self._tails
        first, last = math.floor(low * (len(order) - 1)), math.ceil(high * (len(order) - 1))
        return Interval(_or_never(value), _or_never(order[first]), _or_never(order[last]), "percentile", n)


def sign_test(positive: int, n: int) -> Outcome:
    """The two-sided p-value of so many positive signs among n, when both signs are equally likely. Exact.

    Raises UsageError for more positive signs than there are.
    """
    if not 0 <= positive <= n:
        raise UsageError(f"{positive} of {n} signs cannot be positive")
    if not n:
        return Outcome.none("too_few")
    fewer = min(positive, n - positive)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return Outcome(min(1.0, float(2 * tail / 2**n)))


def _nothing(why: Why, method: Method, n: int) -> Interval:
    return Interval(Outcome.none(why), Outcome.none(why), Outcome.none(why), method, n)


def _or_never(value: float) -> Outcome:
    return Outcome(float(value)) if math.isfinite(value) else Outcome.none("never")

"""Calibration of a verdict: what distances honest machines show, and what threshold tells a cheaper model from them.

Every pair of artifact sets is compared on the nonces that both hold. Pairs of honest sets make the null distribution,
pairs of an honest and a cheat set what must be caught. The rule of the file: nothing is counted twice. Sets that are
equal to the last bit are one set in the pools, because the same numbers are no second witness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from ftw.poc.power import flagged, mixed, reject_from
from ftw.poc.sets import ArtifactSet
from ftw.substrate.errors import ConfigError

Kind = Literal["honest", "cheat", "other"]
"""`honest`: both sets honest. `cheat`: one honest, one not. `other`: both are cheats, which judges nothing."""
QUANTILES = (0.5, 0.9, 0.98, 0.99)
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Shares of a node's nonces that come from the cheaper model, for which the power is given."""
FIELD_THRESHOLDS = (0.02, 0.2, 0.4, 0.75)
"""Thresholds that networks have used; every report shows what they would do on the data at hand."""
RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Pair:
    """The distances of two sets on the nonces that both hold."""

    a: str
    b: str
    kind: Kind
    nonces: Int64[np.ndarray, " n"]
    distances: Float32[np.ndarray, " n"]
    pooled: bool
    """Whether these distances count in the pool of their kind: no earlier pair holds the same numbers."""

    @property
    def identical(self) -> bool:
        """Whether the two sets agree to the last bit."""
        return bool((self.distances == 0.0).all())

    def quantile(self, q: float) -> float:
        """The q-quantile of the distances."""
        return float(np.quantile(self.distances, q))

    def above(self, threshold: float) -> float:
        """The share of nonces that differ by more than a threshold: the pair's mismatch rate."""
        return float((self.distances > threshold).mean())


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval, from resampled nonces."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TestAt:
    """How a binomial test with these parameters does on the data."""

    __test__ = False
    what: Literal["recommended", "pooled", "in use"]
    dist_threshold: float
    p_mismatch: float
    reject_from: int
    """Fewest mismatches of the sample that are called fraud."""
    false_alarm: float
    """P(fraud) for an honest node that mismatches as often as the honest pool does."""
    false_alarm_worst: float
    """The same for a node like the honest pair that mismatches most."""
    worst_pair: str
    worst_rate: float
    power: float | None
    """P(fraud) for a node that computes everything with the cheaper model. None without cheat pairs."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the sets say about a threshold."""

    pairs: tuple[Pair, ...]
    k: int
    n: int
    """Nonces that a verdict checks."""
    cutoff: float
    """The p-value below which a verdict is fraud."""
    quantile: float
    threshold: Interval
    """The recommended dist_threshold: this quantile of the honest pool."""
    auc: Interval | None
    """P(a cheat's distance is above an honest one's), ties half. None without cheat pairs."""
    tests: tuple[TestAt, ...]
    """First `recommended`: p_mismatch is that of the honest pair which mismatches most, so that no pair seen here is
    flagged more often than the cutoff says. Then `pooled`: p_mismatch of all honest pairs together. Then `in use`:
    thresholds of networks."""
    power_by_share: tuple[tuple[float, float], ...]
    """Power of the recommended test where only a share of the nonces is faked."""
    resamples: int
    seed: int

    def pool(self, kind: Kind) -> Float32[np.ndarray, " n"]:
        """The distances of all pairs of a kind, each counted once."""
        parts = [pair.distances for pair in self.pairs if pair.kind == kind and pair.pooled]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def calibrate(
    honest: Sequence[ArtifactSet],
    cheat: Sequence[ArtifactSet] = (),
    *,
    quantile: float = 0.98,
    n: int = 200,
    cutoff: float = 0.05,
    seed: int = 0,
) -> Calibration:
    """Thresholds and error rates from honest sets, and what a cheaper model's sets show against them.

    Raises ConfigError for sets that cannot be compared, and where no two honest sets differ: then nothing is measured.
    """
    if not 0.0 < quantile < 1.0:
        raise ConfigError(f"the quantile is {quantile}: it must lie between 0 and 1, both excluded, for example 0.98")
    if len(honest) < 2:
        raise ConfigError(f"{len(honest)} honest set(s) make no pair: give at least two machines of the same model")
    found = compare(honest, cheat)
    k = honest[0].k
    nulls = [pair for pair in found if pair.kind == "honest" and pair.pooled]
    if not nulls:
        raise ConfigError(
            "all honest sets agree to the last bit, so there is no distance to calibrate with: any dist_threshold "
            "above 0 tells them from others; add a set from other hardware if honest nodes may run on it"
        )
    frauds = [pair for pair in found if pair.kind == "cheat" and pair.pooled]
    threshold, auc = _resampled(nulls, frauds, quantile, seed)
    pool = np.concatenate([pair.distances for pair in nulls])
    at = threshold.value
    rate, worst = float((pool > at).mean()), max(pair.above(at) for pair in nulls)
    tests = [
        _test("recommended", at, worst, nulls, frauds, n, cutoff),
        _test("pooled", at, rate, nulls, frauds, n, cutoff),
    ]
    for fixed in FIELD_THRESHOLDS:
        p_mismatch = 0.001 if fixed == FIELD_THRESHOLDS[0] else 0.1
        tests.append(_test("in use", fixed, p_mismatch, nulls, frauds, n, cutoff))
    fraud = _rate(frauds, at) if frauds else 0.0
    shares = tuple((share, flagged(n, worst, cutoff, mixed(rate, fraud, share))) for share in SHARES) if frauds else ()
    return Calibration(found, k, n, cutoff, quantile, threshold, auc, tuple(tests), shares, RESAMPLES, seed)


def compare(honest: Sequence[ArtifactSet], cheat: Sequence[ArtifactSet] = ()) -> tuple[Pair, ...]:
    """Every pair of sets on its common nonces. Raises ConfigError for other rounds, other k, or no common nonce."""
    both = [one.name for one in cheat if any(one.name == other.name for other in honest)]
    if both:
        raise ConfigError(f"the set {both[0]!r} is labelled honest and cheat: narrow one of the patterns")
    sets = [*honest, *cheat]
    copies = _copies(honest) | _copies(cheat)
    frauds = {one.name for one in cheat}
    pairs = []
    for a, b in combinations(sets, 2):
        nonces, distances = distances_of(a, b)
        bad = (a.name in frauds) + (b.name in frauds)
        kind: Kind = "honest" if bad == 0 else "cheat" if bad == 1 else "other"
        pairs.append(Pair(a.name, b.name, kind, nonces, distances, not {a.name, b.name} & copies))
    return tuple(pairs)


def distances_of(a: ArtifactSet, b: ArtifactSet) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The nonces that both sets hold, and the L2 distance on each, in fp32 as a verdict computes it."""
    for name, said in a.round:
        other = dict(b.round).get(name, said)
        if other != said:
            raise ConfigError(
                f"{a.name!r} has {name} {said}, {b.name!r} has {other}: only sets of one round can be compared"
            )
    if a.k != b.k:
        raise ConfigError(f"{a.name!r} has vectors of {a.k} numbers, {b.name!r} of {b.k}: their distances mean nothing")
    nonces, left, right = np.intersect1d(a.nonces, b.nonces, assume_unique=True, return_indices=True)
    if not len(nonces):
        raise ConfigError(f"{a.name!r} and {b.name!r} share no nonce: compute the same nonces on both machines")
    gaps = a.vectors[left].astype(np.float32) - b.vectors[right].astype(np.float32)
    return nonces, np.linalg.norm(gaps, axis=1)


def auc_of(honest: Float32[np.ndarray, " n"], cheat: Float32[np.ndarray, " m"]) -> float:
    """P(a cheat's distance is above an honest one's), ties half."""
    ordered = np.sort(honest)
    below, upto = np.searchsorted(ordered, cheat, "left"), np.searchsorted(ordered, cheat, "right")
    return float((below + upto).mean() / (2 * len(ordered)))


def _copies(sets: Sequence[ArtifactSet]) -> set[str]:
    """The names of sets that repeat an earlier one to the last bit on every common nonce."""
    found = set()
    for a, b in combinations(sets, 2):
        nonces, distances = distances_of(a, b)
        if a.name not in found and len(nonces) == len(b.nonces) and not distances.any():
            found.add(b.name)
    return found


def _rate(pairs: Sequence[Pair], threshold: float) -> float:
    return float((np.concatenate([pair.distances for pair in pairs]) > threshold).mean())


def _test(
    what: Literal["recommended", "pooled", "in use"],
    threshold: float,
    p: float,
    honest: Sequence[Pair],
    cheat: Sequence[Pair],
    n: int,
    cutoff: float,
) -> TestAt:
    worst = max(honest, key=lambda pair: pair.above(threshold))
    highest = worst.above(threshold)
    return TestAt(
        what=what,
        dist_threshold=threshold,
        p_mismatch=p,
        reject_from=reject_from(n, p, cutoff),
        false_alarm=flagged(n, p, cutoff, _rate(honest, threshold)),
        false_alarm_worst=flagged(n, p, cutoff, highest),
        worst_pair=f"{worst.a} – {worst.b}",
        worst_rate=highest,
        power=flagged(n, p, cutoff, _rate(cheat, threshold)) if cheat else None,
    )


def _resampled(
    honest: Sequence[Pair], cheat: Sequence[Pair], quantile: float, seed: int
) -> tuple[Interval, Interval | None]:
    """Threshold and AUC with intervals. Nonces are drawn, not distances: one nonce's pairs are not independent."""
    rng = np.random.default_rng(seed)
    every = np.unique(np.concatenate([pair.nonces for pair in (*honest, *cheat)]))
    null, null_at = _flat(honest, every)
    fraud, fraud_at = _flat(cheat, every)
    below, upto = np.searchsorted(null, fraud, "left"), np.searchsorted(null, fraud, "right")
    thresholds, areas = [], []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, len(every), len(every)), minlength=len(every))
        mass = np.concatenate([[0.0], np.cumsum(times[null_at])])
        if mass[-1] == 0.0:
            continue  # tiny sets only: none of the drawn nonces is in an honest pair
        thresholds.append(float(null[min(int(np.searchsorted(mass[1:], quantile * mass[-1])), len(null) - 1)]))
        weight = times[fraud_at]
        if weight.sum():
            areas.append(float((weight * (mass[below] + mass[upto])).sum() / (2.0 * weight.sum() * mass[-1])))
    threshold = _interval(float(np.quantile(null, quantile)), thresholds)
    return threshold, _interval(auc_of(null, fraud), areas) if cheat else None


def _flat(
    pairs: Sequence[Pair], every: Int64[np.ndarray, " all"]
) -> tuple[Float32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """All distances in rising order, and where each one's nonce stands in `every`."""
    if not pairs:
        return np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
    distances = np.concatenate([pair.distances for pair in pairs])
    places = np.concatenate([np.searchsorted(every, pair.nonces) for pair in pairs]).astype(np.int64)
    order = np.argsort(distances, kind="stable")
    return distances[order], places[order]


def _interval(value: float, drawn: Sequence[float] | Float64[np.ndarray, " r"]) -> Interval:
    low, high = np.quantile(np.array([*drawn]), (0.025, 0.975))
    return Interval(value, float(low), float(high))

"""Are a round's vectors spread evenly over the sphere? Mean vector, covariance, coordinates, and rates at targets.

A target filter (and any argument about luck) holds only if directions are uniform. Each statistic stands beside what
uniform vectors of the same number and width give: from theory where a closed form exists, else from replicas drawn
with a seed. The rule of the file: no statistic without its ideal.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from ftw.poc.radius import coordinate_cdf, radius_of
from ftw.substrate.errors import ConfigError

REPLICAS = 200
"""Uniform samples that give the ideal ranges."""
LEVEL = 0.01
"""How often uniform vectors may be called uneven, over all statistics together."""
BLOCK = 4_000_000
"""Numbers held at once while distances are counted."""

Vectors = Float[np.ndarray, "n k"]


@dataclass(frozen=True, slots=True)
class Against:
    """A statistic, and where it falls among those of uniform samples."""

    value: float
    ideal: float
    """Its middle value for uniform vectors."""
    low: float
    high: float
    """The range that holds 95 % of uniform samples."""
    p: float
    """How often uniform vectors are at least this far out, to the side that unevenness pushes to."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How evenly n unit vectors lie, statistic by statistic."""

    n: int
    k: int
    mean_norm: Against
    """Length of the mean vector: 0 for perfect balance, about 1/sqrt(n) for uniform vectors."""
    spectrum: Float64[np.ndarray, " k"]
    """Eigenvalues of the second moment, times k, falling: all 1 for perfect balance."""
    spectrum_low: Float64[np.ndarray, " k"]
    spectrum_high: Float64[np.ndarray, " k"]
    largest: Against
    smallest: Against
    ks: Float64[np.ndarray, " k"]
    """Each coordinate's greatest gap to the exact distribution function."""
    ks_p: Float64[np.ndarray, " k"]
    rate: float
    """The share of the sphere within `radius` of a target."""
    radius: float
    rates: Float64[np.ndarray, " target"]
    """The share of vectors within `radius` of each random target."""
    bubble_mean: Against
    bubble_sd: Against
    """Spread of the rates over targets; ideal: the binomial's sqrt(p(1-p)/n)."""
    distances: Float64[np.ndarray, " bin"]
    """Share of all distances to targets, in equal bins over 0..2."""
    seed: int

    @property
    def ks_worst_p(self) -> float:
        """The smallest p of a coordinate, corrected for having looked at k of them."""
        return min(1.0, float(self.ks_p.min()) * self.k)

    @property
    def uneven(self) -> tuple[str, ...]:
        """The names of the statistics that uniform vectors would hardly show, at 1 % for all of them together."""
        found = {
            "mean vector": self.mean_norm.p,
            "largest eigenvalue": self.largest.p,
            "smallest eigenvalue": self.smallest.p,
            "spread of the rates": self.bubble_sd.p,
            "coordinates": self.ks_worst_p,
        }
        return tuple(name for name, p in found.items() if p < LEVEL / len(found))


def distribution(
    vectors: Vectors, *, rate: float = 0.1, targets: int = 2000, seed: int = 0, replicas: int = REPLICAS
) -> Distribution:
    """The statistics of these unit vectors against those of uniform ones. Computed in fp64 (distances in fp32).

    Raises ConfigError for fewer than 20 vectors, and for a number of targets or replicas that says nothing.
    """
    n, k = vectors.shape
    if n < 20:
        raise ConfigError(f"{n} vectors say nothing about a distribution: give at least 20, better 1000")
    for name, value, least in (("targets", targets, 20), ("replicas", replicas, 100)):
        if value < least:
            raise ConfigError(f"{value} {name} say nothing: draw at least {least}")
    rng = np.random.default_rng(seed)
    x = vectors.astype(np.float64)
    drawn_norms, drawn_spectra = _replicas(n, k, replicas, rng)
    norm, spectrum = _shape_of(x)
    low, high = np.quantile(drawn_spectra, (0.025, 0.975), axis=0)
    ks = _ks(x)
    radius = radius_of(rate, k)
    rates, distances = _bubbles(x, radius, _uniform(targets, k, rng))
    return Distribution(
        n=n,
        k=k,
        mean_norm=_among(norm, drawn_norms, above=True),
        spectrum=spectrum,
        spectrum_low=low,
        spectrum_high=high,
        largest=_among(float(spectrum[0]), drawn_spectra[:, 0], above=True),
        smallest=_among(float(spectrum[-1]), drawn_spectra[:, -1], above=False),
        ks=ks,
        ks_p=np.array([_kolmogorov(float(gap), n) for gap in ks]),
        rate=rate,
        radius=radius,
        rates=rates,
        bubble_mean=_bubble_mean(rates, rate),
        bubble_sd=_bubble_sd(rates, n, k, rate, radius, replicas // 2, rng),
        distances=distances,
        seed=seed,
    )


def _uniform(n: int, k: int, rng: np.random.Generator) -> Float64[np.ndarray, "n k"]:
    x = rng.standard_normal((n, k))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def _shape_of(x: Float64[np.ndarray, "n k"]) -> tuple[float, Float64[np.ndarray, " k"]]:
    """The mean vector's length, and the eigenvalues of the second moment times k, falling."""
    n, k = x.shape
    eigenvalues: Float64[np.ndarray, " k"] = np.linalg.eigvalsh(x.T @ x / n)[::-1] * k
    return float(np.linalg.norm(x.mean(axis=0))), eigenvalues


def _replicas(
    n: int, k: int, replicas: int, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, "r k"]]:
    found = [_shape_of(_uniform(n, k, rng)) for _ in range(replicas)]
    return np.array([norm for norm, _ in found]), np.stack([spectrum for _, spectrum in found])


def _among(value: float, drawn: Float64[np.ndarray, " r"], *, above: bool, ideal: float | None = None) -> Against:
    """Where a value falls. p from a normal fitted to the replicas, so that it can be smaller than one in `r`."""
    low, middle, high = np.quantile(drawn, (0.025, 0.5, 0.975))
    z = (value - float(drawn.mean())) / float(drawn.std(ddof=1))
    p = 0.5 * math.erfc((z if above else -z) / math.sqrt(2.0))
    return Against(value, float(middle) if ideal is None else ideal, float(low), float(high), p)


def _ks(x: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " k"]:
    """The Kolmogorov-Smirnov distance of each coordinate to the exact distribution function."""
    n, k = x.shape
    expected = coordinate_cdf(np.sort(x, axis=0), k)
    rank = np.arange(n)[:, None]
    gaps: Float64[np.ndarray, " k"] = np.maximum(expected - rank / n, (rank + 1) / n - expected).max(axis=0)
    return gaps


def _kolmogorov(gap: float, n: int) -> float:
    """P(a gap at least this large) for n draws, by Kolmogorov's series with Stephens' correction for finite n."""
    root = math.sqrt(n)
    t = (root + 0.12 + 0.11 / root) * gap
    if t < 0.2:
        return 1.0
    series = 2.0 * math.fsum((-1.0) ** (j - 1) * math.exp(-2.0 * (j * t) ** 2) for j in range(1, 101))
    return min(1.0, max(0.0, series))


def _bubbles(
    x: Float64[np.ndarray, "n k"], radius: float, targets: Float64[np.ndarray, "t k"]
) -> tuple[Float64[np.ndarray, " t"], Float64[np.ndarray, " bin"]]:
    """The rate at each target, and the histogram of all distances."""
    points: Float32[np.ndarray, "n k"] = x.astype(np.float32)
    rates, counts = np.empty(len(targets)), np.zeros(100)
    step = max(1, BLOCK // len(x))
    for start in range(0, len(targets), step):
        cosines = targets[start : start + step].astype(np.float32) @ points.T
        distances = np.sqrt(np.clip(2.0 - 2.0 * cosines, 0.0, 4.0))
        rates[start : start + step] = (distances < radius).mean(axis=1)
        counts += np.histogram(distances, bins=100, range=(0.0, 2.0))[0]
    return rates, counts / counts.sum()


def _bubble_mean(rates: Float64[np.ndarray, " t"], rate: float) -> Against:
    """The mean rate. Targets are drawn, so uniform or not it stays near the rate: a check of radius and code."""
    sd = float(rates.std(ddof=1)) / math.sqrt(len(rates))
    value = float(rates.mean())
    p = math.erfc(abs(value - rate) / sd / math.sqrt(2.0)) if sd else float(value == rate)
    return Against(value, rate, rate - 1.96 * sd, rate + 1.96 * sd, p)


def _bubble_sd(
    rates: Float64[np.ndarray, " t"],
    n: int,
    k: int,
    rate: float,
    radius: float,
    replicas: int,
    rng: np.random.Generator,
) -> Against:
    """The spread of the rates over targets against the binomial's.

    Rates at two targets hang together through the vectors, so this spread scatters far more than that of independent
    draws would. How much comes from replicas; in units of the binomial's sd that does not depend on n, so these are
    of at most 1000 vectors.
    """
    fewer = min(n, 1000)
    cosine = np.float32(1.0 - radius * radius / 2.0)
    drawn = np.empty(replicas)
    for i in range(replicas):
        points, targets = (_uniform(m, k, rng).astype(np.float32) for m in (fewer, len(rates)))
        drawn[i] = (targets @ points.T > cosine).mean(axis=1).std(ddof=1)
    ideal = math.sqrt(rate * (1.0 - rate) / n)
    return _among(float(rates.std(ddof=1)), drawn * math.sqrt(fewer / n), above=True, ideal=ideal)

"""Chord distances on the unit sphere in k dimensions: the rate that a radius lets pass, and the radius of a rate.

For independent uniform points the half squared chord d²/4 follows Beta((k-1)/2, (k-1)/2), so everything here is one
regularised incomplete beta function with equal parameters. The rule of the file: closed forms, fp64, no sampling.
"""

import math

import numpy as np
from jaxtyping import Float64

from ftw.substrate.errors import ConfigError, NumericError

LARGE = 100.0
"""From this argument on, ratios of gamma functions come from their asymptotic series: no digits cancel there."""
STEPS = 100_000
"""Bound on the steps of the continued fraction. It takes about the square root of k."""


def rate_of(radius: float, k: int) -> float:
    """P(d < radius) for two independent uniform unit vectors in k dimensions. Raises ConfigError outside 0..2."""
    _check_k(k)
    if not 0.0 <= radius <= 2.0:  # a NaN fails this too
        raise ConfigError(f"the radius is {radius}: distances of unit vectors lie in 0..2")
    return 1.0 - _lower(4.0 - radius * radius, k) if radius * radius > 2.0 else _lower(radius * radius, k)


def radius_of(rate: float, k: int) -> float:
    """The radius within which a share `rate` of all unit vectors in k dimensions lies. Raises ConfigError."""
    _check_k(k)
    if not 0.0 < rate < 1.0:
        raise ConfigError(f"the rate is {rate}: it must lie between 0 and 1, both excluded (0.10 is ten percent)")
    low, high = 0.0, 2.0
    while low < (middle := (low + high) / 2.0) < high:
        if rate_of(middle, k) < rate:
            low = middle
        else:
            high = middle
    return high


def moments(k: int) -> tuple[float, float]:
    """Mean and standard deviation of the chord distance of two independent uniform unit vectors."""
    _check_k(k)
    mean = math.sqrt(2.0) * math.exp(_log_three_gammas(k / 2.0))
    return mean, math.sqrt(2.0 - mean * mean)  # the mean square is exactly 2


def density(distance: Float64[np.ndarray, " n"], k: int) -> Float64[np.ndarray, " n"]:
    """The density of the chord distance at each of these distances in 0..2."""
    _check_k(k)
    d2 = np.square(distance)
    log_sine = np.log(np.clip(d2 * (1.0 - d2 / 4.0), 1e-300, None))  # of 1 - cos², which is 0 at both ends
    weight = _log_half_step((k - 1) / 2.0) - 0.5 * math.log(math.pi)
    found: Float64[np.ndarray, " n"] = distance * np.exp(0.5 * (k - 3) * log_sine + weight) if k != 3 else distance / 2
    return found


def coordinate_cdf(x: Float64[np.ndarray, "*n"], k: int, grid: int = 4001) -> Float64[np.ndarray, "*n"]:
    """P(one coordinate of a uniform unit vector <= x), from a table of `grid` exact values, linear in between."""
    places = np.sin(np.linspace(-math.pi / 2.0, math.pi / 2.0, grid))
    exact = np.array([1.0 - rate_of(math.sqrt(max(0.0, 2.0 - 2.0 * float(c))), k) for c in places])
    found: Float64[np.ndarray, "*n"] = np.interp(x, places, exact)
    return found


def _lower(d2: float, k: int) -> float:
    """P(d² < d2) for d2 <= 2: I_x(a, a) with x = d2/4 and a = (k-1)/2, by Lentz's continued fraction."""
    a, x = (k - 1) / 2.0, d2 / 4.0
    if x == 0.0:
        return 0.0
    cosine = 1.0 - d2 / 2.0
    sine2_log = math.log1p(-cosine * cosine) if cosine < 0.7 else math.log(d2) + math.log1p(-d2 / 4.0)
    front = 0.5 * math.exp(a * sine2_log + _log_half_step(a) - 0.5 * math.log(math.pi))
    return min(1.0, front * _fraction(a, x) / a)


def _fraction(a: float, x: float) -> float:
    """The continued fraction of I_x(a, a) (DLMF 8.17.22), modified Lentz. Converges for x <= 1/2."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - 2.0 * a * x / (a + 1.0) or tiny)
    value = d
    for m in range(1, STEPS):
        even = m * (a - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (2 * a + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-16:
            return value
    raise NumericError(f"the rate in {2 * a + 1:.0f} dimensions did not converge in {STEPS} steps")


def _log_half_step(a: float) -> float:
    """log(gamma(a + 1/2) / gamma(a))."""
    if a < LARGE:
        return math.lgamma(a + 0.5) - math.lgamma(a)
    return 0.5 * math.log(a) - (1 / 8 - (1 / 192 - (1 / 640) / a**2) / a**2) / a


def _log_three_gammas(z: float) -> float:
    """log(gamma(z)² / (gamma(z - 1/4) gamma(z + 1/4))), which is below 0 and goes to it."""
    if z < LARGE:
        return 2.0 * math.lgamma(z) - math.lgamma(z - 0.25) - math.lgamma(z + 0.25)
    return -(1 / 16 + (1 / 32 + (17 / 1536 + (1 / 1024) / z) / z) / z) / z


def _check_k(k: int) -> None:
    if k < 2:
        raise ConfigError(f"k is {k}: a sphere of directions needs at least 2 dimensions")

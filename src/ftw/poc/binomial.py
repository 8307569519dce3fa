"""The upper tail of the binomial distribution, exact in logarithms: P(X >= k) down to any smallness.

Point probabilities by Loader's saddle-point form (2000, "Fast and accurate computation of binomial probabilities"),
which loses no digits where differences of lgamma would; the rest of the tail by the ratio of neighbours.
"""

import math

from ftw.substrate.errors import ConfigError


def log_tail(k: int, n: int, p: float) -> float:
    """log P(X >= k), X ~ Binomial(n, p), in nats. Raises ConfigError for a count or probability out of range."""
    if not 0 <= k <= n:
        raise ConfigError(f"{k} of {n} is no count of successes: it must lie in 0..{n}")
    if not 0.0 <= p <= 1.0:  # a NaN fails this too
        raise ConfigError(f"p is {p}: a probability lies in 0..1")
    if k == 0 or p == 1.0:
        return 0.0
    if p == 0.0:
        return -math.inf
    if k > n * p:
        return min(0.0, _log_point(k, n, p) + math.log(_ratio_sum(k, n, p)))
    below = _log_point(k - 1, n, p) + math.log(_ratio_sum(n - k + 1, n, 1.0 - p))  # P(X < k), mirrored
    return math.log1p(-min(1.0, math.exp(below))) if below < 0.0 else -math.inf


def tail(k: int, n: int, p: float) -> float:
    """P(X >= k), X ~ Binomial(n, p). Underflows to 0 where `log_tail` still tells sizes apart."""
    return math.exp(log_tail(k, n, p))


def _ratio_sum(k: int, n: int, p: float) -> float:
    """P(X >= k) / P(X = k) for k at or above the mean: terms fall, and the sum stops when they no longer count."""
    odds = p / (1.0 - p)
    total = term = 1.0
    for i in range(k, n):
        term *= (n - i) / (i + 1) * odds
        total += term
        if term < total * 1e-18:
            break
    return total


def _log_point(k: int, n: int, p: float) -> float:
    """log P(X = k)."""
    if k == 0:
        return n * math.log1p(-p)
    if k == n:
        return n * math.log(p)
    saddle = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    deviance = _deviance(float(k), n * p) + _deviance(float(n - k), n * (1.0 - p))
    return saddle - deviance + 0.5 * math.log(n / (2.0 * math.pi * k * (n - k)))


def _stirling_error(n: int) -> float:
    """log n! minus Stirling's approximation of it."""
    if n < 16:
        return math.log(math.factorial(n)) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2.0 * math.pi)
    square = float(n) * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - (1 / 1188) / square) / square) / square) / square) / n


def _deviance(x: float, mean: float) -> float:
    """x log(x / mean) + mean - x, by a series where x is near the mean and the terms would cancel."""
    gap = x - mean
    if abs(gap) >= 0.1 * (x + mean):
        return x * math.log(x / mean) - gap
    v = gap / (x + mean)
    total, power = gap * v, 2.0 * x * v
    for j in range(1, 1000):
        power *= v * v
        step = power / (2 * j + 1)
        if total + step == total:
            break
        total += step
    return total

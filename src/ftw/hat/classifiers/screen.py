"""The linear screen: which (state, lens) pairs are worth the MLP.

A screen is a linear probe per lens over the same normalised input. Its threshold is set so that nearly every reading
above the lens's own threshold passes; what does not pass reads as 0.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ftw.substrate.errors import NumericError, UsageError


@dataclass(frozen=True, slots=True)
class ScreenReport:
    """What a screen lets through, on the states it was measured on."""

    recall: float
    """Share of readings at or above their lens's threshold that pass; 1 where there are none."""
    pass_rate: float
    """Share of all (state, lens) pairs that pass."""
    readings: int
    """How many readings lay at or above their threshold."""


@dataclass(frozen=True, slots=True)
class ScreenFit:
    """Thresholds per lens, and what they let through on the states they were fitted on."""

    thresholds: Float[Tensor, " lens"]
    report: ScreenReport


def fit_screen_thresholds(
    screen_scores: Float[Tensor, "row lens"],
    full_logits: Float[Tensor, "row lens"],
    threshold_logit: Float[Tensor, " lens"],
    recall: float = 0.995,
    slack: float = 0.02,
) -> ScreenFit:
    """Screen thresholds that keep `recall` of all readings above threshold, and let as little else pass as they can.

    Each lens starts at its lowest reading. Then the cheapest readings of the whole pack are given up, those whose loss
    spares the most MLPs, until the misses allowed are spent; no lens loses more than a twentieth of its readings. At
    last every threshold is lowered by `slack` standard deviations of its lens's scores, for states not seen here. A
    lens without a reading gets its 99.9th percentile. Raises UsageError and NumericError for what cannot be fitted.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall is {recall}: it lies in (0, 1]")
    if not len(screen_scores):
        raise UsageError("a screen is fitted on at least one state: screen_scores has no rows")
    scores, wanted = screen_scores.float(), full_logits >= threshold_logit
    if not bool(scores.isfinite().all() & full_logits.isfinite().all()):
        raise NumericError("the scores that a screen is fitted on hold a NaN or an infinity")
    steps = [_steps(scores[:, lens], wanted[:, lens]) for lens in range(scores.shape[1])]
    give_up = int((1 - recall) * int(wanted.sum()))
    offers = sorted(
        ((gain, lens, at) for lens, (_, gains) in enumerate(steps) for at, gain in enumerate(gains)), reverse=True
    )
    lowest = [0] * len(steps)
    for gain, lens, _ in offers[:give_up]:
        if gain > 0:
            lowest[lens] += 1
    thresholds = torch.stack([marks[lowest[lens]] for lens, (marks, _) in enumerate(steps)])
    thresholds = thresholds - slack * scores.std(0, correction=0) - 1e-6
    return ScreenFit(thresholds, measure_screen(scores >= thresholds, wanted))


def measure_screen(passed: Bool[Tensor, "row lens"], wanted: Bool[Tensor, "row lens"]) -> ScreenReport:
    """Recall and pass rate of a screen: `wanted` are the pairs whose full logit is at or above its threshold."""
    readings = int(wanted.sum())
    kept = int((passed & wanted).sum())
    return ScreenReport(kept / readings if readings else 1.0, float(passed.float().mean()), readings)


def _steps(scores: Float[Tensor, " row"], wanted: Bool[Tensor, " row"]) -> tuple[Tensor, list[float]]:
    """A lens's readings from the lowest up, and how many MLPs each one spares that is given up (non-increasing).

    Giving up reading i only pays after those below it: its gain is averaged with theirs, so offers keep their order.
    """
    marks = scores[wanted].sort().values
    if not len(marks):
        return scores.quantile(0.999)[None], []
    allowed = len(marks) // 20
    below = torch.searchsorted(scores.sort().values, marks[: allowed + 1])
    gains = below.diff().tolist()
    return marks, _pooled(gains)


def _pooled(gains: list[int]) -> list[float]:
    """Non-increasing averages of consecutive gains: pool adjacent violators."""
    pools: list[tuple[float, int]] = []
    for gain in gains:
        pools.append((float(gain), 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (high, n), (low, k) = pools.pop(), pools.pop()
            pools.append(((high * n + low * k) / (n + k), n + k))
    return [mean for mean, n in pools for _ in range(n)]

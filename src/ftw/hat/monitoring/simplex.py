"""How a simplex moves along a text: its deviation from a running mean, its trend, what it says with its concept.

The rule of the file: a deviation is measured against what came before it in the same text, never against itself, so it
does not depend on which other requests are being read.
"""

from collections.abc import Sequence

import numpy as np

from ftw.hat.classifiers.tripole import SimplexRow
from ftw.hat.monitoring.records import Combined, SimplexScore

ENOUGH = 10
"""Readings that a running mean needs before anything is called a deviation from it."""
STILL = 0.001
"""A standard deviation below this is that of a simplex which does not move: nothing deviates from it."""
HIGH = 0.6
"""A concept or a pole counts as high from this probability on, when both are combined."""


def deviation(earlier: Sequence[float] | np.ndarray, value: float, window: int) -> float:
    """z of a value against the last `window` values before it; 0 with fewer than ten, or where they hardly differ."""
    seen = np.asarray(earlier, dtype=np.float64)[-window:]
    if len(seen) < ENOUGH:
        return 0.0
    std = float(seen.std())
    return 0.0 if std < STILL else (value - float(seen.mean())) / std


def trend(values: Sequence[float] | np.ndarray, window: int) -> float:
    """Slope per token of a straight line through the last `window` values; 0 with fewer than ten."""
    seen = np.asarray(values, dtype=np.float64)[-window:]
    if len(seen) < ENOUGH:
        return 0.0
    at = np.arange(len(seen)) - (len(seen) - 1) / 2
    return float((at * seen).sum() / (at * at).sum())


def combined(concept: float | None, simplex: float | None, high: float = HIGH) -> Combined:
    """What a concept's calibrated probability and the stronger pole of its simplex say together. None: not read."""
    if concept is None:
        return "unknown" if simplex is None else "simplex_only"
    if simplex is None:
        return "hierarchical_only"
    if concept >= high:
        return "active_elevated" if simplex >= high else "discussing_not_activated"
    return "implicit_elevated" if simplex >= high else "not_relevant"


def simplex_score(
    row: SimplexRow, poles: Sequence[float], earlier: Sequence[float], concept: float | None
) -> SimplexScore:
    """A simplex at one state: probabilities of its poles, against the spreads of the states before it in the text.

    `concept` is the calibrated probability of the concept that it is bound to, None where that is not read.
    """
    negative, neutral, positive = map(float, poles)
    spread, binding = positive - negative, row.binding
    z = deviation(earlier, spread, binding.baseline_window)
    off_neutral = 0.0 if row.baseline.std < STILL else (spread - row.baseline.mean) / row.baseline.std
    both = None if binding.concept is None else combined(concept, max(negative, positive))
    return SimplexScore(
        row.name,
        row.poles,
        negative,
        neutral,
        positive,
        z,
        off_neutral,
        abs(z) >= binding.alert_threshold,
        trend([*earlier, spread], binding.trend_window),
        binding.concept,
        both,
    )


def is_shown(row: SimplexRow, score: SimplexScore) -> bool:
    """Whether a simplex belongs in a reading: always on, without a concept, with its concept read, or off its mean."""
    if row.binding.always_on or row.binding.concept is None or score.alert:
        return True
    return score.combined in ("active_elevated", "discussing_not_activated", "implicit_elevated")

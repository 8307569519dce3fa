"""Finding: what one audit found, with its formula, its unit, how serious it is, and a line to read.

The rule of the file: a finding that was not measured has no severity. It is never taken for a good one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from ftw.sweep.audits.catalogue import CATALOGUE
from ftw.sweep.outcome import Outcome, Why

Severity = Literal["fine", "note", "caution", "serious"]
"""`fine`: nothing to keep in mind. `note`: worth knowing. `caution`: what it concerns is to be read with care.
`serious`: what it concerns is not to be used."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Figures = Mapping[str, Outcome]
"""Numbers by name, each with its reason where it is missing."""


@dataclass(frozen=True)
class Finding:
    """One audit of one run. Title, formula and unit stand in the catalogue under its name."""

    name: str
    """Its entry in the catalogue."""
    severity: Severity | None
    """None where it was not measured."""
    reading: str
    """One line with the numbers that decide."""
    figures: Figures = field(default_factory=dict)
    """Over the whole run."""
    prompts: Mapping[str, Figures] = field(default_factory=dict)
    """By prompt id."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Lists of rows with the same keys: per layer, per lens. A number that does not exist there is None."""
    why: Why | None = None
    """Why it was not measured."""
    subject: str | None = None
    """The learned lens that it is about, where it is about one: such an audit is made for each of them."""

    def document(self) -> dict[str, Any]:
        """As it stands in a run's document."""
        entry = CATALOGUE[self.name]
        return {
            "name": self.name,
            "title": entry.title,
            "formula": entry.formula,
            "unit": entry.unit,
            "concerns": entry.concerns,
            "subject": self.subject,
            "severity": self.severity,
            "why": self.why,
            "reading": self.reading,
            "figures": {name: outcome.document() for name, outcome in self.figures.items()},
            "prompts": {
                prompt: {name: outcome.document() for name, outcome in figures.items()}
                for prompt, figures in self.prompts.items()
            },
            "tables": {name: [dict(row) for row in rows] for name, rows in self.tables.items()},
        }


def missing(name: str, why: Why, reading: str) -> Finding:
    """A finding that was not measured."""
    return Finding(name, None, reading, why=why)


def grade(value: float, steps: Sequence[float]) -> Severity:
    """How serious a value is: above the first step a note, above the second a caution, above the third serious."""
    return SEVERITIES[sum(value > step for step in steps)]


def worst(*severities: Severity | None) -> Severity | None:
    """The most serious of those that were measured; None where none was."""
    return max((each for each in severities if each is not None), key=SEVERITIES.index, default=None)


def number(value: float, why: Why = "not_finite") -> Outcome:
    """A number of numpy or torch as an outcome; NaN and infinity become None with this reason."""
    value = float(value)
    return Outcome(value) if np.isfinite(value) else Outcome.none(why)


def layer(value: int, why: Why = "never") -> Outcome:
    """A layer as an outcome; -1 stands for none."""
    return Outcome(int(value)) if value >= 0 else Outcome.none(why)


def middle(values: Sequence[float] | np.ndarray, why: Why = "too_few") -> Outcome:
    """The median of the numbers among `values`, NaN left out; None with this reason where there is none."""
    return quantile(values, 0.5, why)


def quantile(values: Sequence[float] | np.ndarray, share: float, why: Why = "too_few") -> Outcome:
    """A percentile (linear between neighbours) of the numbers among `values`, NaN left out."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    return Outcome(float(np.quantile(known, share))) if len(known) else Outcome.none(why)


def plain(value: float) -> float | None:
    """A number for a table's cell: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def percent(outcome: Outcome) -> str:
    """A share in a sentence: `12%`, or `none`."""
    return f"{outcome.value:.0%}" if isinstance(outcome.value, float) else "none"


def shown(outcome: Outcome, digits: int = 2) -> str:
    """An outcome in a sentence: the number, or `none`."""
    if isinstance(outcome.value, float):
        return f"{outcome.value:.{digits}f}"
    return "none" if outcome.value is None else str(outcome.value)

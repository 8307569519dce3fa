"""The page of a comparison of two lens packs.

The rule of the file: everything here is read from the comparison. No model and no pack is needed to draw.
"""

import math

from ftw.map.training.bootstrap import Interval
from ftw.map.training.compare import Comparison, Side
from ftw.ui.visualization.plots import Axis, Chart, Line, Points, Rule, shown
from ftw.ui.visualization.report import Figure, Report, Table

CHANGED = 30
"""Lenses drawn with their differences."""
MOST_ROWS = 400


def reading_of(found: Comparison) -> str:
    """Which pack reads better, if either does."""
    a, b = found.a.info, found.b.info
    names = (a.name, b.name) if a.name != b.name else ("A", "B")
    if found.macro.low > 0:
        return f"{names[1]} reads better: AUROC {between(found.macro)}"
    if found.macro.high < 0:
        return f"{names[0]} reads better: AUROC of the other {between(found.macro)}"
    return f"{names[0]} and {names[1]} read alike: AUROC {between(found.macro)}"


def between(value: Interval) -> str:
    """A difference with its sign and its interval."""
    said, low, high = (f"{round(each, 4) + 0.0:+.4f}" for each in (value.value, value.low, value.high))  # no -0.0000
    return f"{said} ({low} to {high})"


def page_of(found: Comparison, command: str, seed: int) -> Report:
    """The page."""
    said = found.agreement
    return Report(
        title=reading_of(found),
        asked=f"Does {_called(found.b)} (B) read the same as {_called(found.a)} (A), and as well?",
        answer=(
            f"Over {found.terms} common concepts B's macro AUROC is {found.b.auroc:.4f}, A's {found.a.auroc:.4f}; the "
            f"difference is {between(found.macro)}.",
            f"The ten highest readings are the same in {shown(said.top10_same, percent=True)} of {said.states} states, "
            f"the highest in {shown(said.first_same, percent=True)}.",
            f"Of the readings above threshold in either, {shown(said.readings_both, percent=True)} are in both.",
        ),
        figures=[figure for figure in (_scatter(found), _changed(found)) if figure is not None],
        tables=[_sides(found), _lenses(found)],
        methods=(
            "Both packs read the very same states: every word of the concept pack in a template that training holds "
            "out, and neutral text. The weights are compared as they are stored, computed in fp32.",
            "Intervals hold 95 % of 500 drawings of the synsets with replacement, the same ones for both packs.",
        ),
        provenance={
            "model": f"{found.a.info.model.name} {found.a.info.model.fingerprint[:8]}",
            "A": _called(found.a),
            "B": _called(found.b),
            "read": f"{found.prompts} prompts of {found.synsets} synsets, seed {seed}",
        },
        command=command,
    )


def _called(side: Side) -> str:
    return f"{side.info.name} {side.info.version}, {shown(side.megabytes)} MB"


def _foot(found: Comparison) -> str:
    model = found.a.info.model
    return f"AUROC, templates held out · {found.prompts} prompts · {model.name} {model.fingerprint[:8]}"


def _scatter(found: Comparison) -> Figure | None:
    if not found.lenses:
        return None
    low = min(0.95, math.floor(20 * min(min(one.a, one.b) for one in found.lenses)) / 20)
    sure = sum(one.is_sure for one in found.lenses)
    chart = Chart(
        Axis("AUROC in A", low=low, high=1.0),
        Axis("AUROC in B", low=low, high=1.0),
        (
            Line("alike", (low, 1.0), (low, 1.0), dashed=True),
            Points("lens", tuple(one.a for one in found.lenses), tuple(one.b for one in found.lenses)),
        ),
    )
    return Figure(f"{sure} of {len(found.lenses)} lenses differ by more than chance", chart, _foot(found))


def _changed(found: Comparison) -> Figure | None:
    some = sorted(found.lenses[:CHANGED], key=lambda one: one.difference.value)
    if len(some) < 2:
        return None
    marks = Points(
        "B less A",
        tuple(range(len(some))),
        tuple(one.difference.value for one in some),
        tuple(_end(one.difference, one.difference.low) for one in some),
        tuple(_end(one.difference, one.difference.high) for one in some),
    )
    chart = Chart(
        Axis("concept"),
        Axis("AUROC in B less that in A"),
        (marks,),
        rules=(Rule(0.0, "alike", across=True),),
        names=tuple(one.term for one in some),
    )
    first = max(some, key=lambda one: abs(one.difference.value))
    return Figure(f"{first.term} changed most: {between(first.difference)}", chart, _foot(found))


def _end(interval: Interval, end: float) -> float:
    return interval.value if end != end else end


def _sides(found: Comparison) -> Table:
    columns = ("pack", "version", "lenses", "MB", "macro AUROC", "ECE", "lenses of its own")
    rows = tuple(
        (f"{name}: {s.info.name}", s.info.version, s.lenses, s.megabytes, s.auroc, s.ece, len(s.only))
        for name, s in (("A", found.a), ("B", found.b))
    )
    return Table("Both packs", columns, rows)


def _lenses(found: Comparison) -> Table:
    rows = tuple(
        (one.term, one.a, one.b, one.difference.value, one.difference.low, one.difference.high)
        for one in found.lenses[:MOST_ROWS]
    )
    return Table("Every lens, what changed most first", ("lens", "A", "B", "B less A", "low", "high"), rows)

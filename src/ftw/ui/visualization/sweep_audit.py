"""The audit panel of a sweep's report: each audit with its grade and its reading, or the reason why there is none.

The rule of the file: what was not measured says so. An empty grade is never a good one.
"""

from collections.abc import Mapping
from typing import Any

from ftw.ui.visualization.figure import count
from ftw.ui.visualization.plots import Cell
from ftw.ui.visualization.report import Table
from ftw.ui.visualization.sweep_numbers import Run

GRADES = ("fine", "note", "caution", "serious")
"""From nothing to keep in mind to not to be used."""
SIGNS = {"fine": "○ fine", "note": "◔ note", "caution": "◑ caution", "serious": "● serious"}
"""A grade with a sign that fills as it rises, so that it is seen at a glance and without colour."""


def panel(run: Run) -> list[Table]:
    """Every audit with its grade and its reading, the most serious first. Nothing for a run without audits."""
    rows: list[tuple[Cell, ...]] = [
        (SIGNS.get(one["severity"], f"– {_why(one)}"), one["title"], one["reading"], one["concerns"])
        for one in sorted(_findings(run), key=_order)
    ]
    return [Table(panel_reading(run), ("grade", "audit", "reading", "concerns"), tuple(rows), _LEGEND)] if rows else []


def formulas(run: Run) -> list[Table]:
    """What each audit computes, and in which unit."""
    rows = tuple((one["title"], one["formula"], one["unit"]) for one in _findings(run))
    return [Table("What each audit computes", ("audit", "formula", "unit"), rows)] if rows else []


_LEGEND = (
    "○ nothing to keep in mind, ◔ worth knowing, ◑ what it concerns is to be read with care, ● not to be used; a dash: "
    "not measured, and why."
)


def panel_reading(run: Run) -> str:
    """How many audits ask for care."""
    findings = _findings(run)
    grades = {grade: sum(one["severity"] == grade for one in findings) for grade in GRADES}
    open_ = sum(one["severity"] is None for one in findings)
    said = [
        count(n, grade) if grade in ("note", "caution") else f"{n} {grade}"
        for grade in GRADES[::-1]
        if (n := grades[grade])
    ]
    left = f"; {open_} could not be measured" if open_ else ""
    return f"Of {count(len(findings), 'audit')}: {', '.join(said) or 'none was measured'}{left}"


def guidance(run: Run) -> str:
    """One sentence: what the most serious finding asks for. Empty for a run without audits."""
    if not _findings(run):
        return ""
    reasons = (run.document.get("guidance") or {}).get("reasons") or ()
    urgent = [one for one in reasons if one["severity"] in GRADES[2:]]
    if not urgent:
        return f"{panel_reading(run)}; none asks for care."
    more = f" ({count(len(urgent) - 1, 'more piece')} of advice below)" if len(urgent) > 1 else ""
    advice = str(urgent[0]["advice"]).rstrip(".")
    return f"{panel_reading(run)}: {advice[0].lower()}{advice[1:]}{more}."


def _findings(run: Run) -> list[Mapping[str, Any]]:
    return list((run.document.get("audit") or {}).get("findings") or ())


def _order(one: Mapping[str, Any]) -> int:
    """The most serious first, what was not measured last."""
    grade = one["severity"]
    return len(GRADES) if grade is None else len(GRADES) - 1 - GRADES.index(grade)


def _why(one: Mapping[str, Any]) -> str:
    return str(one["why"] or "not asked").replace("_", " ")

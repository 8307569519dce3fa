"""Tables of a sweep's statistics: onsets by group, shifts between lenses and wordings, controls, permuted answers.

The rule of the file: a figure stands beside its interval or its level of chance, and beside how many facts it is of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ftw.sweep.milestones.grid import LOGIT
from ftw.ui.visualization.charts import percent, shown_token
from ftw.ui.visualization.plots import Cell
from ftw.ui.visualization.report import Table
from ftw.ui.visualization.sweep_numbers import ONSET, Run

SHIFTED = (ONSET, "copy")
"""Milestones whose shifts are listed."""
SAID = {ONSET: "onset", "copy": "strict copy"}


def statistics_tables(run: Run) -> list[Table]:
    """Every table that the run has statistics for."""
    found = run.document.get("statistics") or {}
    drawn = (_groups(run), _shifts(run, found), _controls(run, found), _permuted(run, found), _temperatures(run))
    return [table for table in drawn if table is not None]


def _groups(run: Run) -> Table | None:
    whole = run.spread()
    if whole is None:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            "all" if row is whole else row.title,
            row.n_facts,
            row.n_facts - row.n_missing,
            "never" if row.median is None else row.median,
            row.interval if row.interval else None,
            min(row.onsets, default=None),
            max(row.onsets, default=None),
        )
        for row in (whole, *run.groups)
    ]
    heads = ("facts", "n", "with an onset", "median onset", _level(run), "earliest prompt", "latest prompt")
    note = (
        "Onset: the first block that ranks the answer's first token first, through the logit lens. A fact is the "
        "middle of its wordings; one without an onset counts as the latest. Intervals resample facts."
    )
    return Table("Onsets by group of facts", heads, tuple(rows), note)


def _shifts(run: Run, found: Mapping[str, Any]) -> Table | None:
    """Differences of onset between lenses, and between wordings through the logit lens."""
    rows: list[tuple[Cell, ...]] = []
    for one in found.get("shifts") or ():
        if one["milestone"] not in SHIFTED or (one["by"] == "variant" and one["lens"] != LOGIT):
            continue
        what = f"{one['lens']} lens − logit lens" if one["by"] == "lens" else f"variant {one['name']} − original"
        n = one["n_facts"] - one["n_missing"]
        mean = one["mean"]["value"]
        said = None if mean is None else f"{mean:.2g}"
        rows.append((what, SAID[one["milestone"]], n, said, _interval(one["mean"])))
    if not rows:
        return None
    heads = ("difference", "of", "facts with both", "mean, blocks", _level(run))
    return Table("Shifts of milestones", heads, tuple(rows), "Positive is later. Paired over facts that have both.")


def _controls(run: Run, found: Mapping[str, Any]) -> Table | None:
    """How often the answer leads the one that must not win, at the first and the last block."""
    rows: list[tuple[Cell, ...]] = [
        (
            one["lens"],
            one["layer"],
            f"{one['n_positive']} of {one['n_facts']}",
            percent(one["n_positive"] / one["n_facts"]),
            percent(one["chance"]),
            one["p_value"]["value"],
        )
        for one in found.get("control_signs") or ()
        if one["n_facts"]
    ]
    if not rows:
        return None
    heads = ("lens", "block", "facts with p(answer) > p(control)", "share", "chance", "p")
    return Table("Negative controls", heads, tuple(rows), "p: two-sided sign test against a coin's toss.")


def _permuted(run: Run, found: Mapping[str, Any]) -> Table | None:
    """Whether answers are first more often than the answers of other facts of their relation would be."""
    rows: list[tuple[Cell, ...]] = []
    for one in found.get("permutation") or ():
        if one["rank"] != 1 or (one["relation"] and one["lens"] != LOGIT):
            continue
        stands, last = one["stands_out"], -1
        rows.append(
            (
                one["lens"],
                one["relation"] or "all",
                one["n_facts"],
                percent(one["share"][last]),
                percent(one["chance"][last]),
                one["p_depth"]["value"],
                stands["value"] if stands["value"] is not None else f"– {str(stands['why']).replace('_', ' ')}",
            )
        )
    if not rows:
        return None
    heads = (
        "lens",
        "relation",
        "facts",
        "first at the end",
        "with shuffled answers",
        "p over depth",
        "stands out from",
    )
    note = (
        f"{found.get('permutations')} shuffles of the answers among the facts of a relation. Stands out from: the "
        "block from which on the share is higher than in all but 5 % of them."
    )
    return Table("Permutation control", heads, tuple(rows), note)


def _temperatures(run: Run) -> Table | None:
    """The first prompt's own distribution at other temperatures."""
    rows: list[tuple[Cell, ...]] = [
        (one["temperature"], one["entropy_bits"], ", ".join(_guesses(one["top"])))
        for one in run.document.get("temperatures") or ()
    ]
    if not rows:
        return None
    heads = ("temperature", "entropy, bits", "likeliest tokens")
    return Table(f"After “{run.prompts[0].text.strip()}” at other temperatures", heads, tuple(rows))


def _guesses(top: Sequence[Mapping[str, Any]], most: int = 8) -> list[str]:
    return [f"{shown_token(one['token'])} ({percent(one['p'])})" for one in top[:most]]


def _level(run: Run) -> str:
    return f"{100 * run.level:.0f} % interval"


def _interval(figure: Mapping[str, Any]) -> Cell:
    low, high = figure["low"], figure["high"]
    return None if low is None else f"{low:.2g} to {'never' if high is None else f'{high:.2g}'}"

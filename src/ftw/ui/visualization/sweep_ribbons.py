"""Ribbons of a sweep: where each prompt's answer is among the best, and how onsets spread over lenses and relations.

The rule of the file: stretches of ranks are those of the rows, pins and intervals those of the run's document.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from ftw.sweep.milestones.grid import LOGIT
from ftw.ui.visualization.figure import count
from ftw.ui.visualization.plots import Axis, Pin, Ribbons, Rule, Stretch
from ftw.ui.visualization.report import Figure
from ftw.ui.visualization.sweep_numbers import CLOSE, COPY, ONSET, Asked, Run, Spread

RANKS = (10, 5, 1)
"""Ranks from which on a block's reading of the answer is drawn, weakest first."""
MOST_ROWS = 24


def axis(run: Run) -> Axis:
    """The axis of blocks, with room for half a block at either end."""
    return Axis("blocks that have run", low=-0.5, high=run.n + 0.5)


def prompts(run: Run, chosen: Sequence[Asked]) -> Figure | None:
    """One ribbon per prompt: where its answer is among the ten best, the five best, first. None without an answer."""
    rows = [one for one in chosen if one.has_answer][:MOST_ROWS]
    stretches = tuple(stretch for row, one in enumerate(rows) for stretch in _stretches(run, one, row))
    pins = tuple(
        Pin(row, value, sort)
        for row, one in enumerate(rows)
        for sort, name in enumerate((ONSET, COPY, run.soft_copy, CLOSE))
        if (value := one.value(name)) is not None
    )
    if not (stretches or pins):
        return None
    kinds = tuple(f"rank {rank} or better" if rank > 1 else "first" for rank in RANKS)
    sorts = ("onset", "strict copy", "soft copy", "within 1 bit of the model's own")
    picture = Ribbons(axis(run), tuple(one.name for one in rows), "fact", kinds, stretches, (), pins, sorts, True)
    left = ""
    if len(rows) < len(run.facts):
        left = f" · first wordings of {len(rows)} of {count(len(run.by_onset), 'fact')}, the earliest onset on top"
    foot = f"rank of the answer's first token through the logit lens{left} · all of them: the table of prompts"
    return Figure(_prompts_reading(run), picture, foot)


def _prompts_reading(run: Run) -> str:
    onsets = [one.value(ONSET) for one in run.facts]
    found = sorted(value for value in onsets if value is not None)
    if not found:
        return f"At no block is the answer of any of the {count(len(onsets), 'prompt')} first"
    low, high = found[0], found[-1]
    where = f"at block {low:.0f}" if low == high else f"between blocks {low:.0f} and {high:.0f}"
    never = "" if len(found) == len(onsets) else f"; {len(onsets) - len(found)} of {len(onsets)} answers never are"
    return f"Answers come first {where} of {run.n}, half of them by block {np.median(found):.3g}{never}"


def _stretches(run: Run, one: Asked, row: int) -> list[Stretch]:
    """The runs of layers on which the answer has one kind of rank."""
    view = run.table.view(LOGIT, one.row)
    ranks, layers = view["answer_rank"].tolist(), view["layer"].tolist()
    kinds = [sum(0 < rank <= most for most in RANKS) - 1 for rank in ranks]
    found = []
    for kind, group in groupby(zip(kinds, layers, strict=True), key=lambda each: each[0]):
        at = [layer for _, layer in group]
        if kind >= 0:
            found.append(Stretch(row, at[0] - 0.5, at[-1] + 0.5, kind))
    return found


def by_lens(run: Run) -> Figure | None:
    """A row per lens: the middle half of its onsets, the interval of their median, and the median."""
    rows = [row for lens in run.lenses if (row := run.spread(lens)) is not None]
    medians = {row.lens: row.median for row in rows if row.median is not None}
    if len(rows) < 2 or not medians:
        return None
    if len(medians) < len(rows):
        reading = f"Through {', '.join(row.lens for row in rows if row.median is None)} the median fact has no onset"
    elif (early := min(medians.values())) == (late := max(medians.values())):
        reading = f"All {len(rows)} lenses put the median onset at block {early:.3g}"
    else:
        reading = (
            f"The median onset moves by {late - early:.3g} of {run.n} blocks between lenses: {early:.3g} through "
            f"{_named(medians, early, 'lenses')}, {late:.3g} through {_named(medians, late, 'lenses')}"
        )
    return Figure(reading, _spread_picture(run, rows, [row.lens for row in rows], "lens"), _spread_foot(rows))


def by_group(run: Run) -> Figure | None:
    """A row per relation, and per language and variant where there are several. None for fewer than two rows."""
    rows = run.groups
    medians = {row.title: row.median for row in rows if row.median is not None}
    if len(rows) < 2 or not medians:
        return None
    early, late = min(medians.values()), max(medians.values())
    reading = f"The median onset is block {early:.3g} in every group of facts"
    if len(medians) < len(rows):
        without = [row.title for row in rows if row.median is None]
        reading = f"The median fact of {', '.join(without)} is answered at no block, the earliest at block {early:.3g}"
    elif early != late:
        reading = (
            f"Onsets are latest for {_named(medians, late, 'groups')} (block {late:.3g}) and earliest for "
            f"{_named(medians, early, 'groups')} (block {early:.3g})"
        )
    return Figure(reading, _spread_picture(run, rows, [row.title for row in rows], "facts"), _spread_foot(rows))


def _named(medians: Mapping[str, float], at: float, many: str) -> str:
    """Who has this median: by name where they are one or two, else how many."""
    names = [name for name, median in medians.items() if median == at]
    return " and ".join(names) if len(names) < 3 else f"{len(names)} {many}"


def _spread_picture(run: Run, rows: Sequence[Spread], names: Sequence[str], y: str) -> Ribbons:
    stretches, pins = [], []
    end = run.n + 0.5
    for place, row in enumerate(rows):
        if row.onsets:
            low, high = (float(np.quantile(row.onsets, share)) for share in (0.25, 0.75))
            stretches.append(Stretch(place, low, high, 0))
        if row.low is not None:
            stretches.append(Stretch(place, row.low, end if row.high is None else row.high, 1))
        if row.median is not None:
            pins.append(Pin(place, row.median, 0))
    kinds = ("middle half of the prompts", f"{100 * run.level:.0f} % interval of the median fact")
    where = Axis("onset: the first block that ranks the answer first", low=-0.5, high=end)
    names = tuple(f"{name} ({row.n_facts})" for name, row in zip(names, rows, strict=True))
    half = (Rule(run.n / 2, "half depth"),)
    return Ribbons(where, names, y, kinds, tuple(stretches), half, tuple(pins), ("median fact",), nested=True)


def _spread_foot(rows: Sequence[Spread]) -> str:
    parts = ["in brackets: how many facts", "intervals resample facts, not wordings"]
    if any(row.low is not None and row.high is None for row in rows):
        parts.append("an interval to the edge reaches facts whose answer is never first")
    if any(row.low is None for row in rows):
        parts.append("without an interval: too few facts")
    never = sum(row.n_missing for row in rows)
    if never:
        parts.append("facts whose answer is never first count as the latest")
    return " · ".join(parts)

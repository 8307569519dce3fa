"""Lens agreement: whether another lens lists the same tokens where a milestone lies.

The rule of the file: lenses are compared at the logit lens's milestones, fact by fact, never averaged over depth.
"""

from typing import Any

import numpy as np

from ftw.sweep.audits.finding import Figures, Finding, grade, middle, missing, number, shown
from ftw.sweep.audits.grid import Grids, at, share
from ftw.sweep.milestones.grid import LOGIT, NORMED
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome

OVERLAPS = ("jaccard10", "jaccard50", "spearman50")
TARGETS = ("rank_le_10", "rank_le_5", "semantic", "semantic_strong", "semantic_strong_run2", "confirmed")
"""The logit lens's milestones at which lenses are compared, those of them that there are."""


def lens_agreement(grid: Grids, thresholds: Thresholds) -> Finding:
    """Every other lens against the logit lens at each milestone."""
    name = "lens_agreement"
    others = [lens for lens in grid.lenses if lens != LOGIT]
    if not others:
        return missing(name, "no_lens", "The run read no other lens than the logit lens.")
    facts = grid.facts()
    layers = {name: grid.layer(LOGIT, name) for name in TARGETS if name in grid.milestones(LOGIT)}
    if not (layers["semantic"][facts] >= 0).any():
        return missing(
            name, "no_onset" if facts.any() else grid.why_no_facts, "No fact has an onset to compare lenses at."
        )
    figures: dict[str, Outcome] = {}
    table: list[dict[str, Any]] = []
    low = {}
    for lens in others:
        for target, where in layers.items():
            found = {each: at(grid.matrix(lens, f"vs_logit_{each}"), where)[facts] for each in OVERLAPS}
            medians = {each: middle(values, "no_onset") for each, values in found.items()}
            table.append({"lens": lens, "target": target, **{each: m.value for each, m in medians.items()}})
            if target == "semantic":
                figures |= {f"{lens}_{each}": medians[each] for each in OVERLAPS}
        low[lens] = _low(grid, lens, layers["semantic"], thresholds)
        figures[f"{lens}_share_low"] = number(_share_of(low[lens], facts), "no_onset")
    judged = _judged(others)
    shares = [_share_of(low[lens], facts) for lens in judged]
    known = [each for each in shares if not np.isnan(each)]
    prompts: dict[str, Figures] = {
        grid.ids[row]: {
            f"{lens}_{each}": number(at(grid.matrix(lens, f"vs_logit_{each}"), layers["semantic"])[row], "no_onset")
            for lens in others
            for each in OVERLAPS
        }
        for row in np.flatnonzero(facts)
    }
    parts = [
        f"{lens} {shown(figures[f'{lens}_jaccard10'])} (correlation {shown(figures[f'{lens}_spearman50'])})"
        for lens in others
    ]
    reading = f"Overlap of the 10 best tokens with the logit lens at the onset: {', '.join(parts)}."
    severity = grade(max(known), thresholds.grade_disagreement) if known else None
    return Finding(name, severity, reading, figures, prompts, {"targets": table}, None if severity else "no_onset")


def _low(grid: Grids, lens: str, where: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """Per prompt 1 where the lens disagrees at that layer, 0 where it agrees, NaN where it cannot be said."""
    jaccard = at(grid.matrix(lens, "vs_logit_jaccard10"), where)
    spearman = at(grid.matrix(lens, "vs_logit_spearman50"), where)
    unknown = np.isnan(jaccard) | np.isnan(spearman)
    return np.where(unknown, np.nan, (jaccard < thresholds.agreement) | (spearman < thresholds.agreement))


def _share_of(low: np.ndarray, facts: np.ndarray) -> float:
    known = low[facts & ~np.isnan(low)]
    return share(known)


def _judged(others: list[str]) -> list[str]:
    """The lenses whose agreement is graded: the norm views, which should say the same; without one, all others.

    The raw view has an audit of its own, and a learned lens is made to say something else.
    """
    return [lens for lens in others if lens in NORMED] or others

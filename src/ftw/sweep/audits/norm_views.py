"""Onset over norm views: whether the layer at which the answer appears is the model's, or the norm's.

The rule of the file: a view that never ranks the answer first is counted apart. It has no spread, and hides none.
"""

from collections.abc import Sequence

import numpy as np

from ftw.sweep.audits.finding import Figures, Finding, grade, layer, middle, missing, number, percent, shown
from ftw.sweep.audits.grid import Grids, share
from ftw.sweep.milestones.grid import NORMED, RAW
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome


def spread_over_views(grid: Grids, thresholds: Thresholds) -> Finding:
    """The spread of the onset over all norm views of the run. `no_view` where there is only the logit lens."""
    name = "norm_views"
    facts, onsets = _onsets(grid, (*NORMED, RAW))
    if len(onsets) < 2:
        return missing(name, "no_view", "The run read no norm view beside the logit lens.")
    if not facts.any():
        return missing(name, grid.why_no_facts, "No prompt asks for a fact.")
    spreads, near = _spread(onsets), thresholds.same_onset_layers
    relative = middle(spreads[facts] / grid.n_layers, "never")
    figures: dict[str, Outcome] = {
        "median_spread_layers": middle(spreads[facts], "never"),
        "median_spread_share": relative,
        "share_same_onset": number(share((spreads <= near)[facts & ~np.isnan(spreads)]), "never"),
    }
    known = facts & (np.stack(list(onsets.values())) >= 0).any(0)
    for lens, found in onsets.items():
        figures[f"median_onset_{lens}"] = middle(np.where(found >= 0, found, np.nan)[facts], "never")
        figures[f"share_without_onset_{lens}"] = number(share(found[known] < 0), "never")
    prompts: dict[str, Figures] = {
        grid.ids[at]: {f"onset_{lens}": layer(int(found[at])) for lens, found in onsets.items()}
        | {"spread_layers": number(spreads[at], "never")}
        for at in np.flatnonzero(facts)
    }
    severity = grade(float(relative.value), thresholds.grade_spread) if relative.value is not None else None
    reading = (
        f"The onset differs by {shown(figures['median_spread_layers'], 1)} of {grid.n_layers} layers (median) between "
        f"{', '.join(onsets)}; raw never finds {percent(figures['share_without_onset_raw'])} of what another finds."
        if "raw" in onsets
        else f"The onset differs by {shown(figures['median_spread_layers'], 1)} of {grid.n_layers} layers (median) "
        f"between {', '.join(onsets)}."
    )
    return Finding(name, severity, reading, figures, prompts, why=None if severity else "never")


def decoding_point(grid: Grids, thresholds: Thresholds) -> Finding:
    """Whether each fact's onset is the same under every view with a norm.

    A fact that the model itself does not answer under any view has no onset anywhere, and is counted as missing.
    """
    name = "decoding_point"
    facts, onsets = _onsets(grid, NORMED)
    if len(onsets) < 2:
        return missing(name, "no_view", "The run read no other view with a norm than the logit lens.")
    if not facts.any():
        return missing(name, grid.why_no_facts, "No prompt asks for a fact.")
    stacked = np.stack(list(onsets.values()))
    known = facts & (stacked >= 0).any(0)
    spreads, near = _spread(onsets), thresholds.same_onset_layers
    consistent = (stacked >= 0).all(0) & (spreads <= near)
    figures = {
        "share_consistent": number(share(consistent[known]), "never"),
        "median_spread_layers": middle(spreads[known], "never"),
        "n_facts": Outcome(int(known.sum())),
        "n_without_onset": Outcome(int((facts & ~known).sum())),
    }
    prompts: dict[str, Figures] = {
        grid.ids[at]: {
            "consistent": Outcome(bool(consistent[at])) if known[at] else Outcome.none("never"),
            "spread_layers": number(spreads[at], "never"),
        }
        for at in np.flatnonzero(facts)
    }
    found = figures["share_consistent"].value
    if found is None:
        return Finding(name, None, "No view ranks any answer first.", figures, prompts, why="never")
    reading = (
        f"{float(found):.0%} of {int(known.sum())} facts appear at the same layer, give or take {near}, under "
        f"{', '.join(onsets)}."
    )
    return Finding(name, grade(1 - float(found), thresholds.grade_inconsistent), reading, figures, prompts)


def _onsets(grid: Grids, names: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return grid.facts(), {lens: grid.onset(lens) for lens in names if grid.has(lens)}


def _spread(onsets: dict[str, np.ndarray]) -> np.ndarray:
    """Latest minus earliest onset of each prompt among the views that have one; NaN where fewer than two do."""
    stacked = np.stack(list(onsets.values())).astype(float)
    stacked[stacked < 0] = np.nan
    enough = (~np.isnan(stacked)).sum(0) >= 2
    filled = np.where(enough, stacked, 0.0)
    return np.where(enough, np.nanmax(filled, 0) - np.nanmin(filled, 0), np.nan)

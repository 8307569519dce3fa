"""Gates: what an onset is worth, and whether it survives a small rescaling of the logits.

The milestones give layers and shares, prompt by prompt; here they are counted over the facts.

The rule of the file: a fact without an onset is no failure of a gate. It is not counted.
"""

import numpy as np

from ftw.sweep.audits.finding import Figures, Finding, grade, middle, missing, number, shown
from ftw.sweep.audits.grid import Grids, share
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome

TARGETS = ("semantic", "strong", "strong_run2")
"""Onsets at which the gates are held against rescaled logits, as milestones name them."""


def onset_margin(grid: Grids, thresholds: Thresholds) -> Finding:
    """How much probability an onset has: a rank of 1 close to uniform is a rank, and no more."""
    name = "onset_margin"
    facts = grid.facts()
    known = facts & (grid.onset(LOGIT) >= 0)
    if not known.any():
        return missing(name, "no_onset" if facts.any() else grid.why_no_facts, "No fact has an onset.")
    probability, gap = (grid.figure(LOGIT, each) for each in ("p_at_semantic", "gap_at_semantic"))
    margin = probability - 1 / grid.table.vocab_size
    thin = share(margin[known] < thresholds.uniform_margin)
    figures = {
        "share_thin": number(thin),
        "median_probability": middle(probability[known]),
        "median_gap": middle(gap[known], "not_finite"),
        "n_onsets": Outcome(int(known.sum())),
    }
    prompts: dict[str, Figures] = {
        grid.ids[row]: {"margin": number(margin[row], "no_onset")} for row in np.flatnonzero(facts)
    }
    reading = (
        f"At the onset the answer has p = {shown(figures['median_probability'])} and leads by "
        f"{shown(figures['median_gap'])} logits (medians); {thin:.0%} of {int(known.sum())} onsets are hardly above "
        f"uniform."
    )
    return Finding(name, grade(thin, thresholds.grade_thin_onsets), reading, figures, prompts)


def gate_stability(grid: Grids, thresholds: Thresholds) -> Finding:
    """At which share of small rescalings of the logits both gates hold, over the facts with a strong onset."""
    name = "gate_stability"
    facts = grid.facts()
    held = {target: grid.figure(LOGIT, f"gate_both_{target}") for target in TARGETS}
    known = facts & ~np.isnan(held["strong"])
    if not known.any():
        asked = any(grid.reason(LOGIT, "gate_both_strong", at) == "not_asked" for at in np.flatnonzero(facts).tolist())
        if asked:
            return missing(name, "not_asked", "The table holds no logits at these scales.")
        return missing(
            name, "no_onset" if facts.any() else grid.why_no_facts, "No fact passes both gates at any layer."
        )
    sensitive = share(held["strong"][known] < thresholds.gate_stable_share)
    figures: dict[str, Outcome] = {
        f"median_share_{target}": middle(values[facts], "no_onset") for target, values in held.items()
    }
    figures |= {
        "share_sensitive": number(sensitive),
        "min_share_strong": number(float(held["strong"][known].min())),
        "n_onsets": Outcome(int(known.sum())),
    }
    prompts: dict[str, Figures] = {
        grid.ids[row]: {"strong": number(held["strong"][row], "no_onset")} for row in np.flatnonzero(facts)
    }
    reading = (
        f"{sensitive:.0%} of {int(known.sum())} strong onsets fall when logits are scaled by "
        f"{min(thresholds.gate_scales):g} to {max(thresholds.gate_scales):g}."
    )
    return Finding(name, grade(sensitive, thresholds.grade_scale_sensitive), reading, figures, prompts)

"""Raw against normalised: whether an early answer is made by the norm before the head.

A layer at which both lenses are close to uniform cannot show a difference: such flat layers are counted and left out
of the score. The score over all layers, as the published suite has it, stands beside it.

The rule of the file: the window around a milestone is drawn after the whole sweep is known, so its radius is right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ftw.sweep.audits.finding import (
    Figures,
    Finding,
    grade,
    layer,
    middle,
    missing,
    number,
    percent,
    plain,
    quantile,
    shown,
)
from ftw.sweep.audits.grid import Grids, share
from ftw.sweep.milestones.copy import raw_radius
from ftw.sweep.milestones.grid import LOGIT, RAW
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome, Why

SOFT = re.compile(r"soft_copy_k\d+_at_[\d.]+")
WEIGHTS = (0.6, 0.3, 0.1)
"""Of the share of far layers, of an answer that only the norm makes, and of the largest divergence (capped)."""
CAP_KL = 5.0
"""Bits from which the largest divergence counts in full."""
ADDENDS = (0.1, 0.05)
"""What v2 adds at most for the median JS divergence and the median L1 distance."""
FEWEST = 2
"""Layers that are not flat, below which there is no score."""


@dataclass(frozen=True)
class Comparison:
    """Raw and normalised lens at one prompt's last position. NaN where a layer was not read."""

    kl: Float[np.ndarray, " layer"]
    """KL(logit || raw), bits."""
    reverse: Float[np.ndarray, " layer"]
    """KL(raw || logit), bits."""
    js: Float[np.ndarray, " layer"]
    """Bits, 0 to 1."""
    l1: Float[np.ndarray, " layer"]
    """Sum of absolute differences of probability, 0 to 2."""
    jaccard: Float[np.ndarray, " layer"]
    """Of the 50 best tokens."""
    norm_only: Bool[np.ndarray, " layer"]
    """The logit lens ranks the answer first, the raw one does not."""
    flat: Bool[np.ndarray, " layer"]
    """Both lenses are close to uniform."""

    @property
    def there(self) -> Bool[np.ndarray, " layer"]:
        """Layers at which both can be compared."""
        found: np.ndarray = np.isfinite(self.kl)
        return found


def compare(grid: Grids, prompt: int, thresholds: Thresholds) -> Comparison:
    """The comparison at one prompt."""
    both = grid.flat(LOGIT, thresholds.flat_share) & grid.flat(RAW, thresholds.flat_share)

    def column(name: str) -> np.ndarray:
        found: np.ndarray = grid.matrix(RAW, f"vs_logit_{name}")[prompt]
        return found

    return Comparison(
        kl=column("kl_bits"),
        reverse=column("rev_kl_bits"),
        js=column("js_bits"),
        l1=column("l1"),
        jaccard=column("jaccard50"),
        norm_only=(grid.is_first(LOGIT) & ~grid.is_first(RAW) & ~np.isnan(grid.ranks(RAW)))[prompt],
        flat=both[prompt],
    )


def score(found: Comparison, layers: Bool[np.ndarray, " layer"], thresholds: Thresholds) -> tuple[float, float]:
    """The artefact scores v1 and v2 over these layers, 0 to 1. NaN where there are too few."""
    layers = layers & found.there
    if layers.sum() < FEWEST:
        return float("nan"), float("nan")
    far = float((found.kl[layers] >= thresholds.raw_kl_bits[0]).mean())
    only = float(found.norm_only[layers].any())
    v1 = float(np.dot(WEIGHTS, (far, only, min(1.0, float(found.kl[layers].max()) / CAP_KL))))
    js = min(1.0, float(np.median(found.js[layers])) / thresholds.raw_js_bits)
    l1 = min(1.0, float(np.median(found.l1[layers])) / thresholds.raw_l1)
    return v1, min(1.0, v1 + float(np.dot(ADDENDS, (js, l1))))


def tier(value: float, thresholds: Thresholds) -> Outcome:
    """`low`, `medium` or `high`."""
    if np.isnan(value):
        return Outcome.none("too_few")
    low, medium = thresholds.artefact_tiers
    return Outcome("low" if value < low else "medium" if value <= medium else "high")


def window(
    found: Comparison, centres: Sequence[int], thresholds: Thresholds
) -> tuple[int, list[int], Bool[np.ndarray, " layer"]]:
    """Radius, centres and the mask of the layers around a prompt's milestones. -1 among the centres stands for none."""
    radius = raw_radius(found.norm_only, found.kl, thresholds)
    chosen = sorted({int(each) for each in centres if each >= 0})
    layers = np.arange(len(found.kl))
    near = np.zeros(len(layers), dtype=bool)
    for centre in chosen:
        near |= np.abs(layers - centre) <= radius
    return radius, chosen, near & found.there


def raw_vs_norm(grid: Grids, thresholds: Thresholds) -> Finding:
    """Full comparison, windows and scores of every fact.

    The scores count how far the distributions are apart, and so the mere length of the raw stream, which acts like a
    temperature: they are high for nearly every model. So the grade goes by ranks, which it does not touch.
    """
    name = "raw_vs_norm"
    if not grid.has(RAW):
        return missing(name, "no_view", "The run did not read the raw view.")
    facts = np.flatnonzero(grid.facts())
    marks = [grid.layer(LOGIT, each) for each in centres(grid)]
    prompts: dict[str, Figures] = {}
    windows: list[dict[str, Any]] = []
    for at in facts:
        found = compare(grid, int(at), thresholds)
        prompts[grid.ids[at]] = _figures(found, thresholds)
        windows.append(_window_row(grid.ids[at], found, [int(each[at]) for each in marks], thresholds))
    if not any(isinstance(each["max_kl_bits"].value, float) for each in prompts.values()):
        why: Why = grid.why_no_facts if not len(facts) else "not_asked"
        return missing(name, why, "No fact's raw view was compared with the logit lens.")
    scores = [each["score"].value for each in prompts.values() if isinstance(each["score"].value, float)]
    figures = {
        "median_score": middle(scores),
        "median_score_v2": _over(prompts, "score_v2"),
        "median_score_all_layers": _over(prompts, "score_all_layers"),
        "n_facts": Outcome(len(prompts)),
        "n_facts_without_score": Outcome(len(prompts) - len(scores)),
        "median_flat_share": _over(prompts, "flat_share"),
        "median_max_kl_bits": _over(prompts, "max_kl_bits"),
        "median_js_p50": _over(prompts, "js_p50"),
        "share_norm_only": number(float(np.mean([_positive(each["n_norm_only"]) for each in prompts.values()]))),
    }
    figures["tier"] = tier(float(np.median(scores)) if scores else float("nan"), thresholds)
    alone = _alone(grid, thresholds)
    figures["share_onset_norm_only"] = number(alone, "no_onset")
    severity = grade(alone, thresholds.grade_norm_only) if np.isfinite(alone) else None
    reading = (
        f"{percent(figures['share_onset_norm_only'])} of the onsets are the norm's alone: raw ranks no such answer "
        f"first within {thresholds.confirm_window} layers. Artefact score {shown(figures['median_score'])} "
        f"({shown(figures['tier'])}); {len(prompts) - len(scores)} of {len(prompts)} facts too flat to score."
    )
    tables = {"layers": _by_layer(grid), "windows": windows}
    return Finding(name, severity, reading, figures, prompts, tables, None if severity else "no_onset")


def centres(grid: Grids) -> list[str]:
    """The logit lens's milestones that windows are drawn around: meaning, copying, and coming close to the model."""
    wanted = ("semantic", "rank_le_5", "kl_le_1", "copy")
    return [name for name in grid.milestones(LOGIT) if name in wanted or SOFT.fullmatch(name)]


def _alone(grid: Grids, thresholds: Thresholds) -> float:
    """The share of facts with an onset near which the raw view never ranks the answer first. NaN without an onset."""
    onset = grid.onset(LOGIT)
    known = np.flatnonzero(grid.facts() & (onset >= 0))
    first = grid.is_first(RAW)
    width = thresholds.confirm_window
    return share([not first[at, max(0, onset[at] - width) : onset[at] + width + 1].any() for at in known])


def _figures(found: Comparison, thresholds: Thresholds) -> dict[str, Outcome]:
    v1, v2 = score(found, ~found.flat, thresholds)
    all_v1, all_v2 = score(found, np.ones_like(found.flat), thresholds)
    there = found.there
    count = max(1, int(there.sum()))
    high, medium = thresholds.raw_kl_bits
    largest = _largest(found.kl)
    risk = "high" if found.norm_only.any() or largest >= high else "medium" if largest >= medium else "low"
    return {
        "score": number(v1, "too_few"),
        "score_v2": number(v2, "too_few"),
        "score_all_layers": number(all_v1, "too_few"),
        "score_v2_all_layers": number(all_v2, "too_few"),
        "tier": tier(v1, thresholds),
        "risk": Outcome(risk) if there.any() else Outcome.none("not_asked"),
        "flat_share": number(float((found.flat & there).sum()) / count),
        "share_kl_ge_1.0": number(float((found.kl[there] >= high).sum()) / count),
        "share_kl_ge_0.5": number(float((found.kl[there] >= medium).sum()) / count),
        "max_kl_bits": number(largest, "not_asked"),
        "n_norm_only": Outcome(int(found.norm_only.sum())),
        "earliest_norm_only": layer(_first(found.norm_only)),
        **{f"js_p{p}": quantile(found.js, p / 100) for p in (25, 50, 75)},
        **{f"l1_p{p}": quantile(found.l1, p / 100) for p in (25, 50, 75)},
        "jaccard50_p50": middle(found.jaccard),
        "first_js_below": layer(_first(found.js <= thresholds.raw_js_bits)),
        "first_l1_below": layer(_first(found.l1 <= thresholds.raw_l1)),
        "first_jaccard50_above": layer(_first(found.jaccard >= thresholds.raw_jaccard)),
    }


def _window_row(prompt: str, found: Comparison, centres: list[int], thresholds: Thresholds) -> dict[str, Any]:
    radius, chosen, near = window(found, centres, thresholds)
    return {
        "prompt": prompt,
        "radius": radius,
        "centre_layers": chosen,
        "layers": np.flatnonzero(near).tolist(),
        "norm_only_layers": np.flatnonzero(near & found.norm_only).tolist(),
        "max_kl_bits": plain(_largest(found.kl[near])),
    }


def _by_layer(grid: Grids) -> list[dict[str, Any]]:
    """Medians over facts, layer by layer."""
    facts = grid.facts()
    columns = {
        "kl_bits": "kl_bits", "rev_kl_bits": "rev_kl_bits", "js_bits": "js_bits", "l1": "l1", "jaccard50": "jaccard50",
    }  # fmt: skip
    rows = []
    for at in range(grid.n_layers + 1):
        row: dict[str, Any] = {"layer": at}
        for name, column in columns.items():
            found = middle(grid.matrix(RAW, f"vs_logit_{column}")[facts, at])
            row[name] = found.value
        rows.append(row)
    return rows


def _over(prompts: dict[str, Figures], name: str) -> Outcome:
    values = (each[name].value for each in prompts.values())
    return middle([float(value) for value in values if isinstance(value, int | float)])


def _positive(outcome: Outcome) -> bool:
    return isinstance(outcome.value, int) and outcome.value > 0


def _largest(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else float("nan")


def _first(mask: np.ndarray) -> int:
    return int(mask.argmax()) if mask.any() else -1

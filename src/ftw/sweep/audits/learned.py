"""Learned lenses: what a tuned or prism lens adds, and how much of it a single temperature per layer gives as well.

Temperatures are fitted on held-out text, never on the prompts that are judged. A rotation is what is left when both
lenses are calibrated: so a lens cannot win by being cooler.

The rule of the file: every figure is of one lens against the logit lens at the same layer and prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ftw.sweep import forward
from ftw.sweep.audits.finding import Figures, Finding, Severity, grade, middle, missing, number, plain, shown, worst
from ftw.sweep.audits.grades import Grades
from ftw.sweep.audits.grid import LOGIT, Grid, first_true
from ftw.sweep.fitting.temperature import Temperature, divergence, fit_temperatures
from ftw.sweep.head import Head
from ftw.sweep.lenses import VocabLens
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome, Why
from ftw.sweep.run import Sweep

EARLIER = (2, 0.05)
"""A lens is preferred when it ranks the answer among the five best so many layers earlier, or this share of n."""
Calibration = Mapping[str, tuple[Temperature, ...]]
"""By lens: the best temperature of each of its layers, fitted on held-out text."""


def calibrate(sweep: Sweep, heldout: Float[Tensor, "layer row d_model"], lenses: Sequence[str]) -> Calibration:
    """Temperatures of these lenses on states of held-out text, layers 0 to n."""
    head = Head(sweep.model.arch)
    wanted = [lens for lens in sweep.all_lenses if lens.name in lenses]
    return {lens.name: fit_temperatures(sweep.model, lens, heldout, head=head) for lens in wanted}


def temperature(sweep: Sweep | None, grid: Grid, calibration: Calibration | None, chosen: Sequence[int]) -> Finding:
    """How far the logit lens is off by its temperature alone, layer by layer, at the ends of these prompts."""
    name = "temperature"
    if calibration is None or sweep is None:
        return missing(name, "no_text", "No held-out text was given to fit temperatures on.")
    fitted = calibration[LOGIT]
    cooled = _divergences(sweep, grid, LOGIT, [each.tau for each in fitted], chosen)
    own = grid.matrix(LOGIT, "kl_bits")[list(chosen)]
    rows = []
    for each, column in zip(fitted, range(own.shape[1]), strict=True):
        gain = middle(own[:, column] - cooled[:, column])
        rows.append({**each.document(), "gain_bits": gain.value})
    taus = np.array([each.tau for each in fitted[:-1]])
    n_edges = sum(each.edge is not None for each in fitted)
    figures: dict[str, Outcome] = {
        "tau_min": number(float(taus.min())),
        "tau_median": number(float(np.median(taus))),
        "tau_max": number(float(taus.max())),
        "n_edges": Outcome(n_edges),
        "n_positions": Outcome(fitted[0].positions),
    }
    for share in (0.25, 0.5, 0.75):
        at = round(share * grid.n_layers)
        figures[f"gain_bits_{share:.0%}"] = middle(own[:, at] - cooled[:, at])
        figures[f"kl_bits_at_tau_{share:.0%}"] = middle(cooled[:, at])
    reading = (
        f"Fitted temperatures run from {taus.min():.2f} to {taus.max():.2f}; at half depth one takes "
        f"{shown(figures['gain_bits_50%'])} bits off the logit lens's divergence."
    )
    severity: Severity = "note" if n_edges else "fine"
    return Finding(name, severity, reading, figures, tables={"layers": rows})


def learned_lens(
    sweep: Sweep | None,
    grid: Grid,
    lens: str | None,
    calibration: Calibration | None,
    thresholds: Thresholds,
    grades: Grades,
    chosen: Sequence[int],
) -> Finding:
    """Where a learned lens's gain comes from, at the ends of these prompts (indices), keyed by prompt.

    Without held-out text only the whole gain is known; its parts say `no_text`.
    """
    name = "learned_lens"
    if lens is None:
        return missing(name, "no_lens", "The run read no learned lens.")
    parts = _parts(sweep, grid, lens, calibration, chosen)
    if not np.isfinite(parts["total"]).any():
        return missing(name, "not_finite", f"{lens} gives no finite divergence.")
    why: Why = "no_text" if calibration is None or sweep is None else "too_few"
    # layer n is the model for every lens: it has no gain to speak of
    overall = {part: middle(values[:, :-1], why) for part, values in parts.items()}
    figures: dict[str, Outcome] = {f"{part}_p50": found for part, found in overall.items()}
    for share in (0.25, 0.5, 0.75):
        at = round(share * grid.n_layers)
        figures |= {f"{part}_{share:.0%}": middle(values[:, at], why) for part, values in parts.items()}
    figures["kl_bits_last"] = middle(grid.matrix(lens, "kl_bits")[list(chosen), -1])
    figures["layers_earlier"] = _earlier(grid, lens, chosen)
    only = _calibration_only(overall, thresholds)
    figures["calibration_only"] = only
    figures["is_off_at_the_end"] = _is_off(figures["kl_bits_last"], thresholds)
    figures["prefer"] = _prefer(figures, grid.n_layers, thresholds)
    prompts: dict[str, Figures] = {
        grid.ids[at]: {f"{part}_p50": middle(values[row, :-1], why) for part, values in parts.items()}
        for row, at in enumerate(chosen)
    }
    rows = [
        {"layer": at, **{part: middle(values[:, at], why).value for part, values in parts.items()}}
        for at in range(grid.n_layers + 1)
    ]
    total = overall["total"]
    reading = f"{lens} takes {shown(total)} bits off the divergence (median)"
    if calibration is not None and sweep is not None:
        reading += f", a temperature alone {shown(overall['temperature'])}, what is left {shown(overall['rotation'])}"
    severity = _severity(figures, grades)
    tables = {"layers": rows, "prompts": _by_prompt(grid, parts, chosen)}
    return Finding(name, severity, reading + ".", figures, prompts, tables, None, lens)


def _by_prompt(
    grid: Grid, parts: Mapping[str, Float[np.ndarray, "prompt layer"]], chosen: Sequence[int]
) -> list[dict[str, Any]]:
    return [
        {"prompt": grid.ids[at], "layer": layer} | {part: plain(values[row, layer]) for part, values in parts.items()}
        for row, at in enumerate(chosen)
        for layer in range(grid.n_layers + 1)
    ]


def _parts(
    sweep: Sweep | None, grid: Grid, lens: str, calibration: Calibration | None, chosen: Sequence[int]
) -> dict[str, Float[np.ndarray, "prompt layer"]]:
    """The gains in bits, by name; NaN where they are not known."""
    own, through = (grid.matrix(each, "kl_bits")[list(chosen)] for each in (LOGIT, lens))
    total = own - through
    unknown = np.full_like(total, np.nan)
    if sweep is None or calibration is None:
        return {"total": total, "temperature": unknown, "rotation": unknown, "interaction": unknown}
    cool, cool_lens = (
        _divergences(sweep, grid, each, [found.tau for found in calibration[each]], chosen) for each in (LOGIT, lens)
    )
    by_temperature, rotation = own - cool, cool - cool_lens
    return {
        "total": total,
        "temperature": by_temperature,
        "rotation": rotation,
        "interaction": total - by_temperature - rotation,
    }


def _divergences(
    sweep: Sweep, grid: Grid, lens: str, taus: Sequence[float], chosen: Sequence[int]
) -> Float[np.ndarray, "prompt layer"]:
    """KL(lens at its temperatures || model) at the ends of these prompts, bits; NaN where the lens has no layer."""
    ids = [grid.table.items[at].ids for at in chosen]
    resid = forward.read(sweep.model, ids)
    rows = {prompt: row for row, prompt in enumerate(resid.prompt.tolist())}
    states = resid.states[:, [rows[each] for each in forward.first_of_its_kind(ids)]]
    reader = _lens(sweep, lens)
    bits = divergence(sweep.model, reader, states, taus).to_model.cpu().numpy()
    found = np.full((len(chosen), grid.n_layers + 1), np.nan)
    found[:, reader.layers.start : reader.layers.stop] = bits.T
    return found


def _lens(sweep: Sweep, name: str) -> VocabLens:
    return next(lens for lens in sweep.all_lenses if lens.name == name)


def _earlier(grid: Grid, lens: str, chosen: Sequence[int]) -> Outcome:
    """By how many layers (median) the lens has the answer among the five best before the logit lens does."""
    own, through = (first_true(grid.ranks(each) <= 5)[list(chosen)].astype(float) for each in (LOGIT, lens))
    both = (own >= 0) & (through >= 0)
    return middle((own - through)[both], "no_onset")


def _calibration_only(overall: Mapping[str, Outcome], thresholds: Thresholds) -> Outcome:
    total, cool, rotation = (overall[name].value for name in ("total", "temperature", "rotation"))
    if not (isinstance(total, float) and isinstance(cool, float) and isinstance(rotation, float)):
        return Outcome.none("no_text")
    return Outcome(rotation < thresholds.rotation_bits and cool >= thresholds.calibration_share * total)


def _is_off(last: Outcome, thresholds: Thresholds) -> Outcome:
    """Whether the lens is not the model where there is nothing left to compute."""
    return Outcome(last.value > thresholds.last_kl_bits) if isinstance(last.value, float) else last


def _prefer(figures: Mapping[str, Outcome], n_layers: int, thresholds: Thresholds) -> Outcome:
    """Whether the lens is to be preferred for reporting.

    It turns, not only cools, or it is earlier by whole layers; and at layer n it says what the model says.
    """
    only = figures["calibration_only"]
    if only.value is None:
        return Outcome.none("no_text")
    rotation, earlier = figures["rotation_50%"].value, figures["layers_earlier"].value
    turns = isinstance(rotation, float) and rotation >= thresholds.rotation_bits
    leads = isinstance(earlier, float) and earlier >= min(EARLIER[0], max(1, round(EARLIER[1] * n_layers)))
    return Outcome(not only.value and not figures["is_off_at_the_end"].value and (turns or leads))


def _severity(figures: Mapping[str, Outcome], grades: Grades) -> Severity:
    """Serious: worse than no lens. Caution: a calibration, or off at the end. Fine: preferred. Else by rotation."""
    total, rotation = figures["total_p50"].value, figures["rotation_p50"].value
    if not isinstance(total, float) or total <= 0:
        return "serious"
    if figures["prefer"].value:
        return "fine"
    graded = grade(1 - rotation / total, grades.calibration) if isinstance(rotation, float) else "note"
    if figures["calibration_only"].value or figures["is_off_at_the_end"].value:
        return worst(graded, "caution") or "caution"
    return graded


def skip_layers(grid: Grid, lens: str | None) -> Finding:
    """What skipping the last 2, 4, 8 blocks costs when the rest is read through a learned lens. Relative perplexity."""
    name = "skip_layers"
    facts = grid.facts()
    if lens is None:
        return missing(name, "no_lens", "The run read no learned lens.")
    own = -grid.matrix(LOGIT, "answer_logprob")[facts, -1]
    rows = [_skip(grid, lens, facts, own, skipped) for skipped in (2, 4, 8) if skipped <= grid.n_layers]
    known: Mapping[str, Outcome] = {
        f"skip_{row['skipped']}": number(row["relative"] if row["relative"] is not None else np.nan, "no_answer")
        for row in rows
    }
    told = ", ".join(
        f"{row['skipped']} blocks x {1 + float(row['relative']):.3g}" for row in rows if row["relative"] is not None
    )
    found = known.get("skip_2")
    if found is None or found.value is None:
        return missing(name, "too_few" if found is None else "no_answer", "There is nothing to skip, or no answer.")
    reading = f"Read through {lens} without the last blocks, the answers' perplexity is the model's times: {told}."
    figures = dict(known)
    return Finding(
        name, "fine" if float(found.value) <= 0.2 else "note", reading, figures, tables={"skipped": rows}, subject=lens
    )


def _skip(grid: Grid, lens: str, facts: np.ndarray, own: np.ndarray, skipped: int) -> dict[str, float | int | None]:
    layer = grid.n_layers - skipped  # so many blocks have run: none is counted twice
    through = -grid.matrix(lens, "answer_logprob")[facts, layer]
    both = np.isfinite(own) & np.isfinite(through)
    relative = float(np.expm1(through[both].mean() - own[both].mean())) if both.any() else float("nan")
    return {"skipped": skipped, "layer": layer, "relative": plain(relative)}

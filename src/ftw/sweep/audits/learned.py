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

from ftw.sweep.audits.finding import Figures, Finding, Severity, grade, middle, missing, number, plain, shown, worst
from ftw.sweep.audits.grid import Grids, first_true
from ftw.sweep.audits.states import Ends
from ftw.sweep.fitting.temperature import Temperature, divergence, fit_temperatures
from ftw.sweep.head import Head
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome, Why
from ftw.sweep.run import Sweep


class Calibration:
    """The best temperature of each layer of some lenses, and what divergence is left with it at prompts' ends."""

    def __init__(self, sweep: Sweep, ends: Ends, fitted: Mapping[str, tuple[Temperature, ...]]) -> None:
        self.sweep, self.ends, self.fitted = sweep, ends, fitted
        self._known: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}

    def divergences(self, lens: str, chosen: Sequence[int]) -> Float[np.ndarray, "prompt layer"]:
        """KL(lens at its temperatures || model) at the ends of these prompts, bits; NaN where the lens has no layer."""
        key = lens, tuple(chosen)
        if key not in self._known:
            reader = next(each for each in self.sweep.all_lenses if each.name == lens)
            taus = [each.tau for each in self.fitted[lens]]
            bits = divergence(self.sweep.model, reader, self.ends.of(chosen), taus).to_model.cpu().numpy()
            found = np.full((len(chosen), self.sweep.model.n_layers + 1), np.nan)
            found[:, reader.layers.start : reader.layers.stop] = bits.T
            self._known[key] = found
        return self._known[key]


def calibrate(
    sweep: Sweep, ends: Ends, heldout: Float[Tensor, "layer row d_model"], lenses: Sequence[str]
) -> Calibration:
    """Temperatures of these lenses on states of held-out text, layers 0 to n."""
    head = Head(sweep.model.arch)
    wanted = [lens for lens in sweep.all_lenses if lens.name in lenses]
    fitted = {lens.name: fit_temperatures(sweep.model, lens, heldout, head=head) for lens in wanted}
    return Calibration(sweep, ends, fitted)


def temperature(grid: Grids, calibration: Calibration | None, chosen: Sequence[int]) -> Finding:
    """How far the logit lens is off by its temperature alone, layer by layer, at the ends of these prompts."""
    name = "temperature"
    if calibration is None:
        return missing(name, "no_text", "No held-out text was given to fit temperatures on.")
    fitted = calibration.fitted[LOGIT]
    cooled = calibration.divergences(LOGIT, chosen)
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
    grid: Grids,
    lens: str | None,
    calibration: Calibration | None,
    thresholds: Thresholds,
    chosen: Sequence[int],
) -> Finding:
    """Where a learned lens's gain comes from, at the ends of these prompts (indices), keyed by prompt.

    Without held-out text only the whole gain is known; its parts say `no_text`.
    """
    name = "learned_lens"
    if lens is None:
        return missing(name, "no_lens", "The run read no learned lens.")
    parts = _parts(grid, lens, calibration, chosen)
    if not np.isfinite(parts["total"]).any():
        return missing(name, "not_finite", f"{lens} gives no finite divergence.")
    why: Why = "no_text" if calibration is None else "too_few"
    # layer n is the model for every lens: it has no gain to speak of
    overall = {part: middle(values[:, :-1], why) for part, values in parts.items()}
    figures: dict[str, Outcome] = {f"{part}_p50": found for part, found in overall.items()}
    for share in (0.25, 0.5, 0.75):
        at = round(share * grid.n_layers)
        figures |= {f"{part}_{share:.0%}": middle(values[:, at], why) for part, values in parts.items()}
    figures["kl_bits_last"] = middle(grid.matrix(lens, "kl_bits")[list(chosen), -1])
    figures["layers_earlier"] = _earlier(grid, lens, chosen)
    figures["calibration_only"] = calibration_only(overall, thresholds)
    figures["is_off_at_the_end"] = is_off(figures["kl_bits_last"], thresholds)
    figures["prefer"] = prefer(figures, thresholds)
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
    if calibration is not None:
        reading += f", a temperature alone {shown(overall['temperature'])}, what is left {shown(overall['rotation'])}"
    severity = judged(figures, thresholds)
    tables = {"layers": rows, "prompts": _by_prompt(grid, parts, chosen)}
    return Finding(name, severity, reading + ".", figures, prompts, tables, None, lens)


def _by_prompt(
    grid: Grids, parts: Mapping[str, Float[np.ndarray, "prompt layer"]], chosen: Sequence[int]
) -> list[dict[str, Any]]:
    return [
        {"prompt": grid.ids[at], "layer": layer} | {part: plain(values[row, layer]) for part, values in parts.items()}
        for row, at in enumerate(chosen)
        for layer in range(grid.n_layers + 1)
    ]


def _parts(
    grid: Grids, lens: str, calibration: Calibration | None, chosen: Sequence[int]
) -> dict[str, Float[np.ndarray, "prompt layer"]]:
    """The gains in bits, by name; NaN where they are not known."""
    own, through = (grid.matrix(each, "kl_bits")[list(chosen)] for each in (LOGIT, lens))
    total = own - through
    unknown = np.full_like(total, np.nan)
    if calibration is None:
        return {"total": total, "temperature": unknown, "rotation": unknown, "interaction": unknown}
    cool, cool_lens = (calibration.divergences(each, chosen) for each in (LOGIT, lens))
    by_temperature, rotation = own - cool, cool - cool_lens
    return {
        "total": total,
        "temperature": by_temperature,
        "rotation": rotation,
        "interaction": total - by_temperature - rotation,
    }


def _earlier(grid: Grids, lens: str, chosen: Sequence[int]) -> Outcome:
    """By how many layers (median) the lens has the answer among the five best before the logit lens does."""
    own, through = (first_true(grid.ranks(each) <= 5)[list(chosen)].astype(float) for each in (LOGIT, lens))
    both = (own >= 0) & (through >= 0)
    return middle((own - through)[both], "no_onset")


def calibration_only(overall: Figures, thresholds: Thresholds) -> Outcome:
    """Whether a lens only calibrates, from its gain and the parts of it, bits."""
    total, cool, rotation = (overall[name].value for name in ("total", "temperature", "rotation"))
    if not (isinstance(total, float) and isinstance(cool, float) and isinstance(rotation, float)):
        return Outcome.none("no_text")
    return Outcome(rotation < thresholds.rotation_bits and cool >= thresholds.calibration_share * total)


def is_off(last: Outcome, thresholds: Thresholds) -> Outcome:
    """Whether the lens is not the model where there is nothing left to compute."""
    return Outcome(last.value > thresholds.last_kl_bits) if isinstance(last.value, float) else last


def prefer(figures: Figures, thresholds: Thresholds) -> Outcome:
    """Whether the lens is to be preferred for reporting.

    It turns, not only cools, or it is earlier by whole layers; and at layer n it says what the model says.
    """
    only = figures["calibration_only"]
    if only.value is None:
        return Outcome.none("no_text")
    rotation, earlier = figures["rotation_50%"].value, figures["layers_earlier"].value
    turns = isinstance(rotation, float) and rotation >= thresholds.rotation_bits
    leads = isinstance(earlier, float) and earlier >= thresholds.earlier_layers
    return Outcome(not only.value and not figures["is_off_at_the_end"].value and (turns or leads))


def judged(figures: Mapping[str, Outcome], thresholds: Thresholds) -> Severity:
    """Serious: worse than no lens. Caution: a calibration, or off at the end. Fine: preferred. Else by rotation."""
    total, rotation = figures["total_p50"].value, figures["rotation_p50"].value
    if not isinstance(total, float) or total <= 0:
        return "serious"
    if figures["prefer"].value:
        return "fine"
    graded = grade(1 - rotation / total, thresholds.grade_calibration) if isinstance(rotation, float) else "note"
    if figures["calibration_only"].value or figures["is_off_at_the_end"].value:
        return worst(graded, "caution") or "caution"
    return graded


def skip_layers(grid: Grids, lens: str | None, thresholds: Thresholds) -> Finding:
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
    severity: Severity = "fine" if float(found.value) <= thresholds.skip_share else "note"
    return Finding(name, severity, reading, figures, tables={"skipped": rows}, subject=lens)


def _skip(grid: Grids, lens: str, facts: np.ndarray, own: np.ndarray, skipped: int) -> dict[str, float | int | None]:
    layer = grid.n_layers - skipped  # so many blocks have run: none is counted twice
    through = -grid.matrix(lens, "answer_logprob")[facts, layer]
    both = np.isfinite(own) & np.isfinite(through)
    relative = float(np.expm1(through[both].mean() - own[both].mean())) if both.any() else float("nan")
    return {"skipped": skipped, "layer": layer, "relative": plain(relative)}

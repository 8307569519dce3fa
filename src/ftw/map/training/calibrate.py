"""What a logit means: a probability by a map per lens, a threshold, the baseline on plain text, and how sure that is.

The rule of the file: every figure here comes from states that the fit has not seen, thresholds are set on other text
than false alarms are measured on, and a map is judged on synsets that it was not fitted on.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from ftw.hat.classifiers.index import Reliability
from ftw.map.training.bootstrap import (
    CHUNK,
    Interval,
    areas,
    auroc_draws,
    draws,
    macro_interval,
    placements,
    reliabilities,
)
from ftw.map.training.evaluate import (
    Curve,
    auroc,
    brier,
    calibration_curve,
    expected_calibration_error,
    f1_at,
    leading,
    macro,
)
from ftw.map.training.heldout import HeldOutMatrix
from ftw.map.training.targets import NEGATIVE, POSITIVE, UNSAID
from ftw.substrate.errors import UsageError

FLATTEST, STEEPEST = 0.05, 20.0
"""Bounds of a slope: a calibrated score never turns the order of logits around."""
ROUNDS = 30
SETTLED = 1e-6
"""The step at which a map has settled."""
TOGETHER = 16
"""Lenses whose maps are fitted at a time."""
FALSE_ALARMS = 0.01
"""Share of plain-text states that may read at or above a lens's threshold."""
FOLDS = 5
"""Parts that synsets are dealt into: each is read by maps that were fitted on the others."""
PLAIN_PER_PROMPT = 0.5
"""States of plain text per prompt that a map is fitted on: most tokens of a text name no concept."""


@dataclass(frozen=True)
class PlattMap:
    """p = sigmoid(slope * logit + offset), per lens."""

    slope: Float[Tensor, " lens"]
    offset: Float[Tensor, " lens"]

    def __call__(self, logits: Float[Tensor, "state lens"]) -> Float[Tensor, "state lens"]:
        return torch.sigmoid(logits * self.slope + self.offset)


@dataclass(frozen=True)
class CalibrationFigures:
    """How good the calibration of a pack is. Errors after it are those of maps fitted on other synsets."""

    prompts: int
    synsets: int
    auroc: Interval
    """Macro AUROC with templates and synsets held out; the interval is over synsets."""
    f1: float
    """Macro F1 where a probability of a half or more says yes."""
    recall: float
    """Macro share of positives that read at or above their lens's threshold."""
    ece_before: float
    """Of sigmoid(logit)."""
    ece_after: float
    ece_adaptive_before: float
    """Over bins of equal mass."""
    ece_adaptive_after: float
    ece_leading: float
    """`ece_after` over the reading that leads at each state."""
    ece_shown: float
    """… over the readings at or above their thresholds."""
    brier_before: float
    """Mean over lenses of the squared distance between probability and truth."""
    brier_after: float
    before: Curve
    after: Curve
    shown: Curve
    false_alarms_chosen: float
    false_alarms: float
    """Mean over lenses of the share of states at or above the threshold, on text that set no threshold."""
    false_alarms_worst: float
    """… of the lens with the most."""
    neutral_states: tuple[int, int]
    """States that thresholds were set on, and that false alarms were measured on."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Calibrated:
    """What calibration gives for each lens, in the order of the matrix, and for the pack."""

    terms: tuple[str, ...]
    platt: PlattMap
    threshold_logit: Float[Tensor, " lens"]
    baseline_mean: Float[Tensor, " lens"]
    """Calibrated probability on plain text: mean and spread."""
    baseline_std: Float[Tensor, " lens"]
    fpr: Float[Tensor, " lens"]
    """Share of states of other plain text at or above the threshold."""
    auroc_words: Float[Tensor, " lens"]
    """With templates and synsets held out."""
    auroc_templates: Float[Tensor, " lens"]
    """Of the lenses that ship, with templates held out; NaN where the matrix has no such logits."""
    reliability: tuple[Reliability | None, ...]
    metrics: tuple[dict[str, float], ...]
    """Further figures of each lens by name; those that could not be measured are left out."""
    figures: CalibrationFigures


def calibrate(matrix: HeldOutMatrix, *, false_alarms: float = FALSE_ALARMS, seed: int = 0) -> Calibrated:
    """Maps, thresholds and reliability of all lenses of a matrix. Raises UsageError for a rate outside (0, 0.5].

    A threshold is one that at most `false_alarms` of plain text reaches, and of what the shipped lenses read in prompts
    about other concepts. A lens that has nothing to hold out gets its map from prompts whose templates alone were held
    out, and no figure about words.
    """
    if not 0 < false_alarms <= 0.5:
        raise UsageError(f"false_alarms is {false_alarms}: a share of readings above 0, at most 0.5; usual is 0.01")
    rest, other = matrix.calibrating, matrix.measuring
    shipped = matrix.logits if matrix.shipped is None else matrix.shipped
    marks = thresholds(rest, shipped.masked_fill(matrix.known != NEGATIVE, float("-inf")), false_alarms)
    platt = _platt(*matrix.to_map(), rest)
    crossed = cross_fitted(matrix, seed)
    at_rest, fpr = platt(rest), false_alarm_rate(other, marks)
    placed = placements(matrix.logits, matrix.labels)
    drawn = auroc_draws(placed, matrix.labels, matrix.dense_group, draws(int(matrix.dense_group.max()) + 1, seed))
    known = auroc(matrix.shipped, matrix.known) if matrix.shipped is not None else torch.full_like(fpr, float("nan"))
    return Calibrated(
        terms=matrix.terms,
        platt=platt,
        threshold_logit=marks,
        baseline_mean=at_rest.mean(0),
        baseline_std=at_rest.std(0, correction=0),
        fpr=fpr,
        auroc_words=areas(placed, matrix.labels),
        auroc_templates=known,
        reliability=reliabilities(placed, matrix.labels, matrix.dense_group, drawn),
        metrics=lens_metrics(matrix, crossed, marks),
        figures=figures_of(
            matrix, crossed, marks, macro_interval(placed, matrix.labels, drawn), false_alarms=false_alarms
        ),
    )


def cross_fitted(matrix: HeldOutMatrix, seed: int = 0) -> Float[Tensor, "prompt lens"]:
    """The probability of every pair by a map that was fitted without the prompt's synset and half the plain text.

    With a single synset there is nothing to leave out, and its own map reads it.
    """
    group = matrix.dense_group
    n = int(group.max()) + 1
    fold = (torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % FOLDS)[group]
    out = torch.empty_like(matrix.logits)
    for at in torch.unique(fold).tolist():
        new = fold == at
        fit = ~new if bool((~new).any()) else new
        out[new] = _platt(matrix.logits[fit], matrix.labels[fit], matrix.calibrating)(matrix.logits[new])
    return out


def figures_of(
    matrix: HeldOutMatrix,
    p: Float[Tensor, "prompt lens"],
    marks: Float[Tensor, " lens"],
    area: Interval,
    *,
    false_alarms: float,
) -> CalibrationFigures:
    """The pack-wide figures of probabilities `p` and thresholds `marks`."""
    labels, plain = matrix.labels, torch.sigmoid(matrix.logits)
    after = calibration_curve(p, labels)
    shown = calibration_curve(p, labels.masked_fill(matrix.logits < marks, UNSAID), adaptive=True)
    fpr = false_alarm_rate(matrix.measuring, marks)
    return CalibrationFigures(
        prompts=len(labels),
        synsets=int(matrix.dense_group.max()) + 1,
        auroc=area,
        f1=macro(f1_at(p, labels)),
        recall=macro(((matrix.logits >= marks) & matrix.own).sum(0) / matrix.own.sum(0)),
        ece_before=expected_calibration_error(plain, labels),
        ece_after=after.error,
        ece_adaptive_before=calibration_curve(plain, labels, adaptive=True).error,
        ece_adaptive_after=calibration_curve(p, labels, adaptive=True).error,
        ece_leading=expected_calibration_error(*leading(p, labels)),
        ece_shown=shown.error,
        brier_before=macro(brier(plain, labels)),
        brier_after=macro(brier(p, labels)),
        before=calibration_curve(plain, labels),
        after=after,
        shown=shown,
        false_alarms_chosen=false_alarms,
        false_alarms=float(fpr.mean()),
        false_alarms_worst=float(fpr.max()),
        neutral_states=(len(matrix.calibrating), len(matrix.measuring)),
    )


def lens_metrics(
    matrix: HeldOutMatrix, p: Float[Tensor, "prompt lens"], marks: Float[Tensor, " lens"]
) -> tuple[dict[str, float], ...]:
    """What each lens reads in prompts of its own concept and in those of all others, firing or not.

    `self_…` over positives, `cross_…` over negatives; fire rates are shares at or above the threshold.
    """
    parts = [
        _metrics_of(matrix.logits[:, some], matrix.labels[:, some], p[:, some], marks[some])
        for some in (slice(at, at + CHUNK) for at in range(0, len(matrix.terms), CHUNK))
    ]
    return tuple(one for part in parts for one in part)


def _metrics_of(logits: Tensor, labels: Tensor, p: Tensor, marks: Tensor) -> list[dict[str, float]]:
    fired, out = logits >= marks, {"f1": f1_at(p, labels), "brier": brier(p, labels)}
    for name, mask in (("self", labels == POSITIVE), ("cross", labels == NEGATIVE)):
        n = mask.sum(0)
        mean = (p * mask).sum(0) / n
        out[f"{name}_mean"] = mean
        out[f"{name}_std"] = (((p - mean) ** 2 * mask).sum(0) / n).sqrt()
        out[f"{name}_fire_rate"] = (fired & mask).sum(0) / n
    columns = {name: values.tolist() for name, values in out.items()}
    return [
        {name: values[at] for name, values in columns.items() if values[at] == values[at]} for at in range(len(marks))
    ]


def _platt(
    logits: Float[Tensor, "prompt lens"], labels: Int8[Tensor, "prompt lens"], plain: Float[Tensor, "state lens"]
) -> PlattMap:
    """The map over prompts and, for every two of them, about one state of plain text."""
    return fit_platt(logits, labels, plain, PLAIN_PER_PROMPT * len(logits) / max(1, len(plain)))


def fit_platt(
    logits: Float[Tensor, "state lens"],
    labels: Int8[Tensor, "state lens"],
    plain: Float[Tensor, "plain lens"] | None = None,
    weight: float = 1.0,
) -> PlattMap:
    """The maps of all lenses, by damped Newton steps in fp64. `plain` states are negatives that count `weight` each.

    Targets are Platt's (1999): (n+1)/(n+2) for positives and 1/(n+2) for negatives, so that a lens that separates its
    few examples perfectly is not given certainty.
    """
    rest = logits[:0] if plain is None else plain
    parts = [
        _fit_some(logits[:, at : at + TOGETHER], labels[:, at : at + TOGETHER], rest[:, at : at + TOGETHER], weight)
        for at in range(0, logits.shape[1], TOGETHER)
    ]
    slope, offset = (torch.cat(each) for each in zip(*parts, strict=True))
    return PlattMap(slope, offset)


def _fit_some(logits: Tensor, labels: Tensor, plain: Tensor, plain_weight: float) -> tuple[Tensor, Tensor]:
    """Slopes and offsets of a few lenses: their states stay in the processor's cache over all steps."""
    positive, said = labels == POSITIVE, labels != UNSAID
    weight = torch.cat([said.double(), torch.full(plain.shape, plain_weight, dtype=torch.float64)])
    n_pos = positive.sum(0).double()
    n_neg = weight.sum(0) - n_pos
    high, low = (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2)
    target = torch.cat([torch.where(positive, high, low), low.expand(plain.shape)])
    x = torch.cat([logits, plain]).double()
    centre, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - centre) / spread
    slope, offset = torch.ones_like(n_pos), ((n_pos + 1) / (n_neg + 1)).log()
    for _ in range(ROUNDS):
        p = torch.sigmoid(x * slope + offset)
        error, curve = (p - target) * weight, (p * (1 - p)).clamp(min=1e-9) * weight
        g_a, g_b = (error * x).sum(0), error.sum(0)
        slanted = curve * x
        h_aa, h_ab, h_bb = (slanted * x).sum(0) + 1e-3, slanted.sum(0), curve.sum(0) + 1e-3
        det = (h_aa * h_bb - h_ab * h_ab).clamp(min=1e-12)
        steps = [(h_bb * g_a - h_ab * g_b) / det, (h_aa * g_b - h_ab * g_a) / det]
        slope, offset = slope - steps[0].clamp(-2, 2), offset - steps[1].clamp(-2, 2)
        if max(float(step.abs().max()) for step in steps) < SETTLED:
            break
    bounded = slope.clamp(FLATTEST, STEEPEST) / spread
    return bounded.float(), (offset - bounded * centre).float()


def thresholds(
    plain_logits: Float[Tensor, "state lens"],
    negative_logits: Float[Tensor, "negative lens"],
    alarms: float = FALSE_ALARMS,
) -> Float[Tensor, " lens"]:
    """The logit from which a reading counts: at most `alarms` of plain states reach it, nor of other concepts' words.

    Conformal: of n states, floor(alarms * (n + 1)) may lie at or above it.
    """
    return torch.maximum(_quantile(plain_logits, alarms), _quantile(negative_logits, alarms))


def false_alarm_rate(
    plain_logits: Float[Tensor, "state lens"], threshold: Float[Tensor, " lens"]
) -> Float[Tensor, " lens"]:
    """Share of plain-text states at or above each lens's threshold."""
    return (plain_logits >= threshold).float().mean(0)


def _quantile(logits: Float[Tensor, "state lens"], alarms: float) -> Float[Tensor, " lens"]:
    """Just above the highest value that is not among the allowed ones. -inf marks states that do not count; where none
    does, nothing is asked, which is -inf again.
    """
    counted = logits.isfinite().sum(0)
    allowed = (alarms * (counted + 1)).long().clamp(max=len(logits) - 1)
    highest = logits.topk(int(allowed.max()) + 1, 0).values.gather(0, allowed[None])[0]
    return torch.where(highest.isfinite(), highest + 1e-4, logits.amax(0))

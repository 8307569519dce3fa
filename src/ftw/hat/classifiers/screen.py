"""The linear screen: which (state, lens) pairs are worth the MLP.

A screen is a linear probe per lens over the same normalised input, fitted to the lens's own logits. What does not pass
reads as 0.
The rule of the file: how far below its expected score a reading may lie is one number for the whole pack, in units of
each lens's own spread. It rests on all readings, so it holds for words that were not seen, where thresholds of single
lenses, each resting on a few readings, do not: on 96 trained lenses with whole words held out, 0.995 of readings passed
against 0.92 with one threshold per lens fitted to that lens's readings alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ftw.substrate.errors import NumericError, UsageError

_WORST = 0.05
"""No lens gives up more than this share of its own readings."""


@dataclass(frozen=True, slots=True)
class ScreenReport:
    """What a screen lets through, on the states it was measured on."""

    recall: float
    """Share of readings at or above their lens's threshold that pass; 1 where there are none."""
    pass_rate: float
    """Share of all (state, lens) pairs that pass."""
    readings: int
    """How many readings lay at or above their threshold."""


@dataclass(frozen=True, slots=True)
class ScreenFit:
    """Thresholds per lens, and what they let through on the states they were fitted on."""

    thresholds: Float[Tensor, " lens"]
    report: ScreenReport


@dataclass(frozen=True, slots=True)
class Screens:
    """One linear probe per lens."""

    weight: Float[Tensor, "lens d_model"]
    bias: Float[Tensor, " lens"]

    def __call__(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row lens"]:
        """The probes' scores of normalised states, fp32."""
        return torch.addmm(self.bias, x.float(), self.weight.T)


def fit_screens(x: Float[Tensor, "row d_model"], logits: Float[Tensor, "row lens"], *, ridge: float = 0.01) -> Screens:
    """Least-squares probes from normalised states to the lenses' logits as they are.

    Not clamped and not turned into labels: on 96 trained lenses, at the same recall, a probe of labels lets six to
    eight times as many pairs pass, one of logits cut three above and below the threshold five to seven times. Raises
    UsageError and NumericError.
    """
    if not len(x) or ridge <= 0:
        raise UsageError(
            f"{len(x)} states and a ridge of {ridge}: a screen needs at least one state and a ridge above 0"
        )
    x, logits = x.float(), logits.float()
    _finite(x, logits)
    middle, level = x.mean(0), logits.mean(0)
    centred = x - middle
    gram = centred.T @ centred / len(x)
    gram.diagonal().add_(ridge)
    weight = torch.linalg.solve(gram, centred.T @ (logits - level) / len(x)).T.contiguous()
    return Screens(weight, level - weight @ middle)


def fit_screen_thresholds(
    screen_scores: Float[Tensor, "row lens"],
    full_logits: Float[Tensor, "row lens"],
    threshold_logit: Float[Tensor, " lens"],
    recall: float = 0.995,
) -> ScreenFit:
    """Screen thresholds that keep at least `recall` of all readings above threshold on these states.

    Each lens expects a screen score where its logit is at the threshold (a line through its states); its screen
    threshold lies below that by the same number of its own standard deviations as every other lens's. The states are
    best ones that the screens were not fitted on. Raises UsageError and NumericError for what cannot be fitted.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall is {recall}: it lies in (0, 1]")
    if not len(screen_scores):
        raise UsageError("a screen is fitted on at least one state: screen_scores has no rows")
    scores, logits = screen_scores.float(), full_logits.float()
    _finite(scores, logits)
    wanted = logits >= threshold_logit
    expected, spread = _expected(scores, logits, threshold_logit)
    reach = ((scores - expected) / spread)[wanted].sort().values
    below = reach[int((1 - recall) * len(reach))] if len(reach) else scores.new_tensor(0.0)
    thresholds = torch.minimum(expected + below * spread, _allowed(scores, wanted)) - 1e-6
    return ScreenFit(thresholds, measure_screen(scores >= thresholds, wanted))


def measure_screen(passed: Bool[Tensor, "row lens"], wanted: Bool[Tensor, "row lens"]) -> ScreenReport:
    """Recall and pass rate of a screen: `wanted` are the pairs whose full logit is at or above its threshold."""
    readings = int(wanted.sum())
    kept = int((passed & wanted).sum())
    return ScreenReport(kept / readings if readings else 1.0, float(passed.float().mean()), readings)


def _expected(scores: Tensor, logits: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Per lens, the screen score that its least-squares line gives for the logit `at`, and the spread around it."""
    middle, level = scores.mean(0), logits.mean(0)
    away, over = scores - middle, logits - level
    slope = (away * over).mean(0) / over.square().mean(0).clamp(min=1e-12)
    spread = (away - slope * over).square().mean(0).sqrt()
    return middle + slope * (at - level), spread + 1e-6 * (1 + middle.abs())


def _allowed(scores: Tensor, wanted: Tensor) -> Tensor:
    """Per lens, the highest threshold that gives up no more than `_WORST` of its readings; inf without any."""
    own = scores.masked_fill(~wanted, float("inf")).sort(0).values
    return own.gather(0, (wanted.sum(0) * _WORST).long()[None])[0]


def _finite(*tensors: Tensor) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise NumericError("the scores that a screen is fitted on hold a NaN or an infinity")

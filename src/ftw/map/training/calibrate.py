"""What a logit means: a probability by a map per lens, a threshold, and the baseline on plain text.

The rule of the file: every figure here comes from states that the fit has not seen.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from ftw.map.training.targets import NEGATIVE, POSITIVE

FLATTEST, STEEPEST = 0.05, 20.0
"""Bounds of a slope: a calibrated score never turns the order of logits around."""
ROUNDS = 30
FALSE_ALARMS = 0.01
"""Share of plain-text states that may read at or above a lens's threshold."""


@dataclass(frozen=True)
class PlattMap:
    """p = sigmoid(slope * logit + offset), per lens."""

    slope: Float[Tensor, " lens"]
    offset: Float[Tensor, " lens"]

    def __call__(self, logits: Float[Tensor, "state lens"]) -> Float[Tensor, "state lens"]:
        return torch.sigmoid(logits * self.slope + self.offset)


def fit_platt(logits: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"]) -> PlattMap:
    """The maps of all lenses at once, by damped Newton steps in fp64.

    Targets are Platt's (1999): (n+1)/(n+2) for positives and 1/(n+2) for negatives, so that a lens that separates its
    few examples perfectly is not given certainty.
    """
    positive, said = labels == POSITIVE, (labels == POSITIVE) | (labels == NEGATIVE)
    n_pos, n_neg = positive.sum(0).double(), (said & ~positive).sum(0).double()
    target = torch.where(positive, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    centre, spread = logits.double().mean(0), logits.double().std(0).clamp(min=1e-6)
    x = (logits.double() - centre) / spread
    weight = said.double()
    slope, offset = torch.ones_like(n_pos), ((n_pos + 1) / (n_neg + 1)).log()
    for _ in range(ROUNDS):
        p = torch.sigmoid(x * slope + offset)
        error, curve = (p - target) * weight, (p * (1 - p)).clamp(min=1e-9) * weight
        g_a, g_b = (error * x).sum(0), error.sum(0)
        h_aa, h_ab, h_bb = (curve * x * x).sum(0) + 1e-3, (curve * x).sum(0), curve.sum(0) + 1e-3
        det = (h_aa * h_bb - h_ab * h_ab).clamp(min=1e-12)
        slope = slope - ((h_bb * g_a - h_ab * g_b) / det).clamp(-2, 2)
        offset = offset - ((h_aa * g_b - h_ab * g_a) / det).clamp(-2, 2)
    bounded = slope.clamp(FLATTEST, STEEPEST) / spread
    return PlattMap(bounded.float(), (offset - bounded * centre).float())


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
    """Just above the highest value that is not among the allowed ones. -inf marks states that do not count."""
    counted = logits.isfinite().sum(0)
    allowed = (alarms * (counted + 1)).long().clamp(max=len(logits) - 1)
    highest = logits.sort(0, descending=True).values.gather(0, allowed[None])[0]
    return torch.where(highest.isfinite(), highest + 1e-4, logits.amax(0).nan_to_num(0, 0, 0))

"""Transduction and calibration of a pack, from one matrix of readings.

The rule of the file: what was measured now stands beside what training measured on synsets that it had held out; the
second is read from the pack's rows and its report, and is null where the pack came without.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.map.training.bootstrap import macro_interval
from ftw.map.training.calibrate import false_alarm_rate
from ftw.map.training.compliance.reading import Judged, mapped
from ftw.map.training.compliance.records import CurveRecord, Figure, LensLine, Property, absent, measured
from ftw.map.training.evaluate import brier, calibration_curve, f1_at, leading, macro
from ftw.map.training.targets import NEGATIVE, POSITIVE, UNSAID

CALIBRATED = 0.05
"""Expected calibration error at most."""
OVER = 1.5
"""False alarms at most this many times the rate chosen."""
TELLS = 0.9
"""Macro AUROC at least."""
DRIFT = 0.02
"""Largest mean change of a baseline since training."""
RELIABLE = 0.8
TOP = 10
NO_REPORT = "the pack came without the report of its training"
BASELINES = {
    "lenses": "lenses",
    "linear": "linear probe (ridge)",
    "centroid": "centroid, channels weighted by rarity",
    "random_twin": "the same lenses on a model with random weights",
    "tfidf": "the text alone (TF-IDF)",
}


def transduction(judged: Judged, training: Mapping[str, Any] | None) -> Property:
    """How much a reading says about its concept, beside what is simpler."""
    matrix = judged.matrix
    n = int(judged.areas.isfinite().sum())
    now = (
        measured(
            "auroc_templates",
            "macro AUROC, templates held out",
            macro_interval(judged.placed, matrix.labels, judged.area_draws),
            "AUROC",
            n=n,
            at_least=TELLS,
        ),
        measured("f1", "macro F1 at a probability of a half", macro(f1_at(judged.p, matrix.labels)), "F1", n=n),
        measured(
            "top10",
            f"own concept among the {TOP} highest readings",
            judged.share(_in_top(judged)),
            "share of prompts",
            n=int((matrix.home >= 0).sum()),
        ),
    )
    return Property(
        name="transduction",
        says="A score carries what the model represents of the concept, in words and sentences that no lens was shown.",
        figures=(*now, *_with_synsets_held(judged), *_baselines(training)),
        notes=("The baselines were read on the same split as the lenses beside them, templates and synsets held out.",),
    )


def calibration(judged: Judged, chosen: float, training: Mapping[str, Any] | None) -> Property:
    """Whether probabilities come true and plain text stays quiet."""
    return Property(
        name="calibration",
        says="A probability of a lens comes true that often, one lens means the same by it as another, and text about "
        "nothing in particular stays below the thresholds.",
        figures=(*_errors(judged, training), *_false_alarms(judged, chosen)),
        notes=(
            f"Thresholds were set for false alarms of {chosen:g}; the bound is {OVER:g} times that, on neutral text "
            "that set no threshold.",
            "The maps were fitted for synsets that lenses have not seen. Those of the prompts read now were seen, so "
            "that lenses do better on them than the maps say.",
        ),
    )


def curves(judged: Judged) -> tuple[CurveRecord, CurveRecord]:
    """Probability against frequency before and after the pack's maps."""
    both = (torch.sigmoid(judged.matrix.logits), judged.p)
    before, after = (CurveRecord.of(calibration_curve(p, judged.matrix.labels)) for p in both)
    return before, after


def lens_lines(judged: Judged) -> tuple[LensLine, ...]:
    """Every lens by itself."""
    matrix, area, p = judged.matrix, judged.areas, judged.p
    low, high = judged.area_draws.nanquantile(torch.tensor([0.025, 0.975]), dim=0)
    fpr = false_alarm_rate(matrix.measuring, judged.marks)
    own, cross = ((p * mask).sum(0) / mask.sum(0) for mask in (matrix.labels == POSITIVE, matrix.labels == NEGATIVE))
    return tuple(
        LensLine(
            term=row.term,
            block=row.block,
            level=row.level,
            auroc=known(area[at]),
            low=known(low[at].minimum(area[at])),
            high=known(high[at].maximum(area[at])),
            auroc_words=row.auroc_words,
            false_alarms=float(fpr[at]),
            self_mean=known(own[at]),
            cross_mean=known(cross[at]),
        )
        for at, row in enumerate(judged.bank.rows)
    )


def known(value: Tensor) -> float | None:
    """A number, or None for NaN."""
    return None if bool(value.isnan()) else float(value)


def _in_top(judged: Judged) -> Float[Tensor, " prompt"]:
    matrix = judged.matrix
    own = matrix.logits.gather(1, matrix.home.clamp(min=0)[:, None])
    rank = (matrix.logits > own).sum(1)
    return torch.where(matrix.home >= 0, (rank < TOP).float(), float("nan"))


def _with_synsets_held(judged: Judged) -> tuple[Figure, ...]:
    """What the rows of the pack say."""
    rows = judged.bank.rows
    words = torch.tensor([math.nan if row.auroc_words is None else row.auroc_words for row in rows])
    lows = torch.tensor([row.reliability.low for row in rows if row.reliability is not None])
    return (
        measured(
            "auroc_words",
            "macro AUROC, synsets held out too (training)",
            macro(words),
            "AUROC",
            n=int(words.isfinite().sum()),
            at_least=TELLS,
            reason="no lens has a figure from held-out synsets",
        ),
        measured(
            "reliable",
            f"lenses with AUROC surely above {RELIABLE:g} (training)",
            float((lows > RELIABLE).float().mean()),
            "share of lenses",
            n=len(lows),
            reason="no lens has an interval",
        ),
    )


def _baselines(training: Mapping[str, Any] | None) -> tuple[Figure, ...]:
    held = (training or {}).get("words_held") or {}
    out = []
    for name, label in BASELINES.items():
        value, said = held.get(name), f"{label}, macro AUROC (training)"
        if value is None:
            out.append(absent(f"baseline_{name}", said, "AUROC", NO_REPORT))
        else:
            out.append(measured(f"baseline_{name}", said, float(value), "AUROC"))
    return tuple(out)


def _errors(judged: Judged, training: Mapping[str, Any] | None) -> tuple[Figure, ...]:
    labels, p = judged.matrix.labels, judged.p
    plain = torch.sigmoid(judged.matrix.logits)
    shown = labels.masked_fill(judged.matrix.logits < judged.marks, UNSAID)
    pairs = int((labels != UNSAID).sum())
    return (
        measured("ece_before", "ECE of sigmoid(logit)", calibration_curve(plain, labels).error, "ECE", n=pairs),
        measured(
            "ece_after",
            "ECE of the pack's maps",
            calibration_curve(p, labels).error,
            "ECE",
            n=pairs,
            at_most=CALIBRATED,
        ),
        measured(
            "ece_shown",
            "ECE above threshold, bins of equal mass",
            calibration_curve(p, shown, adaptive=True).error,
            "ECE",
            n=int((shown != UNSAID).sum()),
            reason="no reading reached its threshold",
        ),
        measured(
            "ece_leading",
            "ECE over the reading that leads",
            calibration_curve(*leading(p, labels)).error,
            "ECE",
            n=len(labels),
        ),
        _trained("ece_words", "ECE, synsets held out (training)", training, "ece_after"),
        _trained("ece_words_shown", "ECE above threshold, synsets held out (training)", training, "ece_shown"),
        measured("brier", "Brier score of the pack's maps", macro(brier(p, labels)), "squared probability", n=pairs),
    )


def _false_alarms(judged: Judged, chosen: float) -> tuple[Figure, ...]:
    matrix = judged.matrix
    fpr = false_alarm_rate(matrix.measuring, judged.marks)
    baseline = torch.tensor([row.baseline.mean for row in judged.bank.rows])
    drift = (mapped(judged.bank, matrix.calibrating).mean(0) - baseline).abs()
    n = len(matrix.measuring)
    return (
        measured(
            "false_alarms",
            "neutral text above threshold, mean of lenses",
            float(fpr.mean()),
            "share of states",
            n=n,
            at_most=OVER * chosen,
        ),
        measured(
            "false_alarms_worst",
            "neutral text above threshold, worst lens",
            float(fpr.max()),
            "share of states",
            n=n,
        ),
        measured(
            "baseline_drift",
            "mean change of baselines since training",
            float(drift.mean()),
            "probability",
            n=len(judged.bank),
            at_most=DRIFT,
        ),
    )


def _trained(name: str, label: str, training: Mapping[str, Any] | None, key: str) -> Figure:
    value = ((training or {}).get("calibration") or {}).get(key)
    if value is None:
        return absent(name, label, "ECE", NO_REPORT, at_most=CALIBRATED)
    return measured(name, label, float(value), "ECE", at_most=CALIBRATED)

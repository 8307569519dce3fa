"""From fitted lenses to rows of a pack: what a logit means, where a reading counts, which states need the MLP at all.

The rule of the file: thresholds, baselines and the screen are measured with the lenses that ship; the map from logits
to probabilities comes from readings of words that no lens had seen, so that it does not promise more for new words.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.index import Baseline, Calibration, LensRow
from ftw.hat.classifiers.screen import ScreenReport, fit_screen_thresholds, measure_screen
from ftw.hat.classifiers.tensors import LensTensors
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.calibrate import PlattMap, false_alarm_rate, fit_platt, thresholds
from ftw.map.training.collect import States
from ftw.map.training.evaluate import auroc, expected_calibration_error
from ftw.map.training.fit import Lenses, fit_ridge
from ftw.map.training.study import Exam, HeldOut
from ftw.map.training.targets import NEGATIVE, UNSAID, Targets

RECALL = 0.995
"""Share of readings above threshold that the screen is set to keep."""
SCREEN_STATES = 15_000
"""States of the fit that the screen's thresholds are fitted on, about."""
REACH = 3.0
"""The screen learns logits up to this far from the threshold; beyond, it is sure anyway."""


@dataclass(frozen=True)
class Finished:
    """Lenses ready for the pack, with what was measured on the way."""

    rows: list[LensRow]
    tensors: LensTensors
    platt: PlattMap
    screen: ScreenReport
    """On states that the screen was not fitted on."""
    templates: Float[Tensor, " lens"]
    """AUROC of the shipped lenses in held carriers."""
    words: Float[Tensor, " lens"]
    """AUROC with carriers and words held out."""
    fpr: Float[Tensor, " lens"]
    ece_before: float
    ece_after: float
    ece_leading: float


def finish(
    lenses: Lenses, exam: Exam, unseen: HeldOut, baseline: States, pack: ConceptPack, targets: Targets, block: int
) -> Finished:
    """Calibrate, set thresholds and screen. `baseline` is plain text that no fit saw."""
    plain = lenses(baseline.at(block))
    held = lenses(exam.states.at(block)[exam.held])
    labels = targets.labels(exam.home[exam.held])
    marks = thresholds(plain, held.masked_fill(labels != NEGATIVE, float("-inf")))
    platt = _platt(unseen, plain)
    tensors, screen = _with_screen(lenses, exam, baseline, block, marks)
    templates, words = auroc(held, labels), unseen.per_lens
    fpr, at_rest = false_alarm_rate(plain, marks), platt(plain)
    before, after, leading = _calibration_errors(unseen, exam)
    n_words = {term: len(pack.get(term).words) for term in targets.terms}
    n_pos, _ = targets.counts(exam.home[~exam.held])
    rows = [
        LensRow(
            term=term,
            block=block,
            row=at,
            threshold_logit=float(marks[at]),
            calibration=Calibration(slope=float(platt.slope[at]), offset=float(platt.offset[at])),
            baseline=Baseline(mean=float(at_rest[:, at].mean()), std=float(at_rest[:, at].std(correction=0))),
            auroc_templates=_known(templates[at]),
            auroc_words=_known(words[at]),
            fpr=float(fpr[at]),
            n_pos=int(n_pos[at]),
            n_words=n_words[term],
            level=pack.get(term).level,
            parent=pack.parent(term),
        )
        for at, term in enumerate(targets.terms)
    ]
    return Finished(rows, tensors, platt, screen, templates, words, fpr, before, after, leading)


def _platt(unseen: HeldOut, plain: Float[Tensor, "state lens"]) -> PlattMap:
    """The map over words of the pack and, for every two of their states, one of plain text."""
    rest = plain.repeat(max(1, len(unseen.logits) // (2 * len(plain))), 1)
    nothing = torch.full(rest.shape, NEGATIVE, dtype=torch.int8)
    return fit_platt(torch.cat([unseen.logits, rest]), torch.cat([unseen.labels, nothing]))


def _calibration_errors(unseen: HeldOut, exam: Exam) -> tuple[float, float, float]:
    """Expected calibration error of sigmoid(logit), of maps fitted on the other folds, and of these maps where a lens
    leads: nearly all other readings are near 0 and say little.
    """
    fold = exam.fold[unseen.rows]
    mapped = torch.empty_like(unseen.logits)
    for at in range(exam.n_folds):
        others = fold != at if bool((fold != at).any()) else fold == at
        mapped[fold == at] = fit_platt(unseen.logits[others], unseen.labels[others])(unseen.logits[fold == at])
    before = expected_calibration_error(torch.sigmoid(unseen.logits), unseen.labels)
    lead = mapped.masked_fill(unseen.labels == UNSAID, -1).argmax(1, keepdim=True)
    leading = expected_calibration_error(mapped.gather(1, lead), unseen.labels.gather(1, lead))
    return before, expected_calibration_error(mapped, unseen.labels), leading


def _with_screen(
    lenses: Lenses, exam: Exam, baseline: States, block: int, marks: Float[Tensor, " lens"]
) -> tuple[LensTensors, ScreenReport]:
    """The tensors of the pack. The screen is a ridge towards the lenses' own logits near their thresholds.

    Its thresholds are fitted on states of the fit and on every other held one, and measured on the rest.
    """
    seen = torch.cat([exam.states.at(block)[~exam.held], exam.plain.at(block)])
    probe = fit_ridge(seen, (lenses(seen) - marks).clamp(-REACH, REACH), ridge=0.01)
    fresh = torch.cat([exam.states.at(block)[exam.held], baseline.at(block)])
    known = torch.cat([seen[:: max(1, len(seen) // SCREEN_STATES)], fresh[::2]])
    fitted = fit_screen_thresholds(probe(known), lenses(known), marks, recall=RECALL)
    full, gate = lenses(fresh[1::2]), probe(fresh[1::2])
    report = measure_screen(gate >= fitted.thresholds, full >= marks)
    return lenses.tensors(probe, fitted.thresholds), report


def _known(value: Float[Tensor, ""]) -> float | None:
    return None if bool(value.isnan()) else float(value)

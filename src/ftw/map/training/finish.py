"""From calibrated lenses to rows of a pack, and the screen that goes before their MLPs.

The rule of the file: a row says what was measured, null where nothing was; nothing here is fitted on what it is then
measured on.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.hat.classifiers.index import Baseline, Calibration, LensRow
from ftw.hat.classifiers.screen import ScreenReport, fit_screen_thresholds, measure_screen
from ftw.hat.classifiers.tensors import LensTensors
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.calibrate import Calibrated
from ftw.map.training.fit import Fitted, fit_ridge

RECALL = 0.995
"""Share of readings above threshold that the screen is set to keep."""
SCREEN_STATES = 15_000
"""States of the fit that the screen's thresholds are fitted on, about."""


def rows_of(
    calibrated: Calibrated,
    pack: ConceptPack,
    block: int,
    n_pos: Int[Tensor, " lens"] | Float[Tensor, " lens"],
    *,
    primary: bool = True,
    trained: str | None = None,
) -> list[LensRow]:
    """The index rows of the lenses of one block, in the order of their tensors. `n_pos`: positives that were fitted."""
    out = []
    for at, term in enumerate(calibrated.terms):
        out.append(
            LensRow(
                term=term,
                block=block,
                row=at,
                threshold_logit=float(calibrated.threshold_logit[at]),
                calibration=Calibration(
                    slope=float(calibrated.platt.slope[at]), offset=float(calibrated.platt.offset[at])
                ),
                baseline=Baseline(
                    mean=float(calibrated.baseline_mean[at]), std=float(calibrated.baseline_std[at].clamp(max=1))
                ),
                auroc_templates=_known(calibrated.auroc_templates[at]),
                auroc_words=_known(calibrated.auroc_words[at]),
                fpr=float(calibrated.fpr[at]),
                n_pos=int(n_pos[at]),
                n_words=len(pack.get(term).words),
                level=pack.get(term).level,
                parent=pack.parent(term),
                metrics=calibrated.metrics[at],
                primary=primary,
                reliability=calibrated.reliability[at],
                trained=trained,
            )
        )
    return out


def screened(
    lenses: Fitted,
    fit_x: Float[Tensor, "state d_model"],
    fresh_x: Float[Tensor, "fresh d_model"],
    marks: Float[Tensor, " lens"],
) -> tuple[LensTensors, ScreenReport]:
    """The tensors of the pack with their screen, a ridge towards the lenses' own logits, `marks` their thresholds.

    Its thresholds are fitted on states of the fit and on every other fresh one, and measured on the rest.
    """
    probe = fit_ridge(fit_x, lenses(fit_x), ridge=0.01)  # uncut: cut ones let far more pairs pass
    known = torch.cat([fit_x[:: max(1, len(fit_x) // SCREEN_STATES)], fresh_x[::2]])
    fitted = fit_screen_thresholds(probe(known), lenses(known), marks, recall=RECALL)
    full, gate = lenses(fresh_x[1::2]), probe(fresh_x[1::2])
    return lenses.tensors(probe, fitted.thresholds), measure_screen(gate >= fitted.thresholds, full >= marks)


def _known(value: Float[Tensor, ""]) -> float | None:
    return None if bool(value.isnan()) else float(value)

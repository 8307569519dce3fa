"""Every threshold: changed, it changes something that is found. One that changes nothing is a lie in the manual."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from ftw.substrate.model import Model, load
from ftw.sweep import milestones, statistics
from ftw.sweep.audits import again, learned, norms, of
from ftw.sweep.audits.grid import Grids
from ftw.sweep.audits.positions import stability
from ftw.sweep.audits.states import Ends
from ftw.sweep.milestones import Thresholds, summary
from ftw.sweep.outcome import Outcome
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable
from ftw.ui.verbs.sweep import thresholds_of
from tests.sweep.audits.tables import made
from tests.sweep.milestones.tables import fact, peaked, table_of

DEEP, VOCAB = 40, 30
BASE = {"resamples": 40, "permutations": 20}


def deep() -> SweepTable:
    """Five facts over 40 blocks that are copied for the first half of the depth and answered from there on."""
    rng = np.random.default_rng(3)
    logits: dict[str, list[np.ndarray]] = {"logit": [], "raw": []}
    for number in range(5):
        for late, name in enumerate(logits):
            turn = 20 + number + late
            ps = (
                np.linspace(0.05, 0.9, DEEP + 1)
                if number
                else np.r_[np.full(turn, 0.72), np.full(DEEP + 1 - turn, 0.6)]
            )
            if not number:
                ps[8:turn] = 0.97
                ps[4:8] = 0.85
                ps[:4] = 0.5
            ps = ps + rng.uniform(-0.02, 0.02, DEEP + 1)
            logits[name].append(peaked(VOCAB, [3] * turn + [5 + number] * (DEEP + 1 - turn), ps.tolist()))
    items = [fact(f"f{number}", answer=5 + number) for number in range(5)]
    return table_of({name: np.stack(each) for name, each in logits.items()}, items)


TABLE = deep()


def rows(thresholds: Thresholds) -> Any:
    """What milestones, summary and statistics say, but for the settings that the statistics repeat."""
    found = milestones.of(TABLE, thresholds)
    told = statistics.of(TABLE, found, thresholds).document()
    return [
        [each.document() for each in found.values()],
        summary.of(TABLE, found, thresholds).document(),
        {name: each for name, each in told.items() if name not in ("level", "resamples", "permutations")},
    ]


EARLY, NEXT, NEVER = [9, 9, 1, 1, 1, 1, 1, 1], [9, 9, 9, 1, 1, 1, 1, 1], [9] * 8
GROWING = [1.0, 1.3, 1.7, 2.2, 2.9, 12.0, 15.0, 20.0]
LENSES = {
    "logit": {
        "resid_norm": [GROWING] * 2,
        "entropy_bits": [[9.5] * 2 + [3.0] * 6] * 2,
        "answer_logprob_scaled": [[[-0.5, -0.5, -7.0, -7.0]] * 8] * 2,
        "answer_logprob": [[-3.0, -2.5, -2.0, -1.5, -1.2, -1.0, -0.9, -0.8]] * 2,
    },
    "next": {"vs_logit_jaccard10": [[0.4] * 8] * 2},
    "raw": {
        "vs_logit_kl_bits": [[0.1, 0.1, 0.1, 0.7, 0.7, 0.7, 0.7, 0.7]] * 2,
        "vs_logit_js_bits": [[0.3, 0.3, 0.2, 0.15, 0.12, 0.05, 0.05, 0.05]] * 2,
        "vs_logit_l1": [[1.0, 1.0, 0.9, 0.7, 0.6, 0.3, 0.3, 0.3]] * 2,
        "vs_logit_jaccard50": [[0.1, 0.2, 0.3, 0.4, 0.45, 0.6, 0.6, 0.6]] * 2,
        "entropy_bits": [[9.5] * 2 + [3.0] * 6] * 2,
    },
    "tuned": {
        "is_finite": [[True] * 4 + [False] + [True] * 3] * 2,
        "kl_bits": [[1.0] * 7 + [0.2]] * 2,
        "answer_logprob": [[-3.0, -2.5, -2.0, -1.5, -1.2, -1.0, -0.9, -0.8]] * 2,
    },
}
RANKS = {"logit": [EARLY, EARLY], "next": [NEXT, EARLY], "raw": [NEVER, EARLY], "tuned": [EARLY, EARLY]}


def audited(thresholds: Thresholds) -> Any:
    """What the audits of rows say."""
    return of(None, made(RANKS, LENSES), thresholds=thresholds).document()


def parts(total: float, cool: float, rotation: float, earlier: float) -> dict[str, Outcome]:
    """A learned lens's figures."""
    named = {"total": total, "temperature": cool, "rotation": rotation}
    figures = {name: Outcome(value) for name, value in named.items()}
    figures |= {f"{name}_p50": Outcome(value) for name, value in named.items()}
    return figures | {"rotation_50%": Outcome(rotation), "layers_earlier": Outcome(earlier)}


def lens(thresholds: Thresholds, total: float, cool: float, rotation: float, earlier: float) -> Any:
    figures = parts(total, cool, rotation, earlier)
    figures["calibration_only"] = learned.calibration_only(figures, thresholds)
    figures["is_off_at_the_end"] = learned.is_off(Outcome(0.1), thresholds)
    figures["prefer"] = learned.prefer(figures, thresholds)
    return figures["calibration_only"], figures["prefer"], learned.judged(figures, thresholds)


def moved(thresholds: Thresholds) -> Any:
    grid = Grids(made({"logit": [EARLY, EARLY]}))
    stable = np.array([True, True, True, False])
    keeps = np.ones(4, dtype=bool)
    return stability(grid, thresholds, [(0, 1), (0, 2), (1, 1), (1, 2)], keeps, stable, stable).document()


def fell(thresholds: Thresholds) -> Any:
    return again.varies(np.array([0] * 99 + [3]), thresholds)


def gap_of_positions(thresholds: Thresholds) -> Any:
    last = made({"logit": [EARLY], "tuned": [EARLY]}, {"tuned": {"kl_bits": [[1.0] * 8]}})
    first = made({"logit": [EARLY], "tuned": [EARLY]}, {"tuned": {"kl_bits": [[2.5] * 8]}})
    columns = {name: np.concatenate([first[name], last[name]]) for name in last.columns}
    columns["pos"] = np.repeat(np.array([0, 1], dtype=np.int32), len(last))
    return of(None, replace(last, columns=columns), thresholds=thresholds)["learned_positions"].severity


MODEL: Model = load("tiny")
SWEEP = Sweep(MODEL, k=10)
RUN = SWEEP.run([[5, 6, 7, 8], [9, 10, 11]])


def last_row(thresholds: Thresholds) -> Any:
    off = replace(MODEL.arch, transform=replace(MODEL.arch.transform, scale=3.0))
    sweep = Sweep(MODEL, k=10)
    sweep.head = type(sweep.head)(off)
    return again.last_layer(sweep, Ends(MODEL, RUN), Grids(RUN), thresholds, [0, 1]).severity


def flipped(thresholds: Thresholds) -> Any:
    ids = RUN["top_ids"].copy()
    ids[:, :2] = ids[:, 1::-1]
    table = replace(RUN, columns={**RUN.columns, "top_ids": ids})
    return again.repeatability(SWEEP, Grids(table), thresholds, [0]).severity


def biased(thresholds: Thresholds) -> Any:
    head = torch.nn.Linear(MODEL.d_model, MODEL.vocab_size)
    sweep = Sweep(MODEL, k=10)
    sweep.model = replace(MODEL, arch=replace(MODEL.arch, head=head))
    return norms.unembed_bias(sweep, Grids(RUN), thresholds).severity


Look = Callable[[Thresholds], Any]
ALL = (0.0, 0.0, 0.0)
NONE = (1e6, 1e6, 1e6)
EFFECTS: Mapping[str, tuple[object, Look]] = {
    "copy_p": (0.7, rows),
    "copy_margin": (0.95, rows),
    "copy_window": (2, rows),
    "copy_sweep": ((0.7, 0.8), rows),
    "copy_stable_layers": (8, rows),
    "copy_stable_share": (0.3, rows),
    "copy_fragile_layers": (4, rows),
    "copy_fragile_share": (0.05, rows),
    "soft_p": (0.6, rows),
    "soft_windows": ((1, 2), rows),
    "soft_extra": ((0.5,), rows),
    "low_entropy_bits": (3.0, rows),
    "uniform_margin": (0.7, rows),
    "top2_gap": (5.0, rows),
    "answer_gaps": ((0.5,), rows),
    "kl_bits": ((2.0, 0.5), rows),
    "ranks": ((1,), rows),
    "cosines": ((0.9,), rows),
    "surface_margin": (0.75, rows),
    "geometry_margin": (0.0, rows),
    "coverage_p": (0.1, rows),
    "confirm_window": (0, rows),
    "gate_scales": ((0.1, 1.1), rows),
    "depths": ((0.1, 0.9), rows),
    "interval_level": (0.5, rows),
    "resamples": (30, rows),
    "permutations": (10, rows),
    "few": (6, rows),
    "gate_stable_share": (0.25, audited),
    "last_kl_bits": (0.15, audited),
    "raw_kl_bits": ((0.5, 0.05), audited),
    "raw_js_bits": (0.18, audited),
    "raw_l1": (0.8, audited),
    "raw_jaccard": (0.25, audited),
    "raw_radius": ((1, 2), audited),
    "artefact_tiers": ((0.0, 0.0), audited),
    "flat_share": (0.99, audited),
    "agreement": (0.5, audited),
    "same_onset_layers": (0, audited),
    "spike_factor": (20.0, audited),
    "spike_deviations": (1000.0, audited),
    "skip_share": (0.9, audited),
    "rank_deviation": (2, fell),
    "flip_share": (0.001, fell),
    "position_share": (0.8, moved),
    "position_gap_bits": (3.0, gap_of_positions),
    "rotation_bits": (0.05, lambda t: lens(t, 1.0, 0.9, 0.1, 0.0)),
    "calibration_share": (0.95, lambda t: lens(t, 1.0, 0.9, 0.1, 3.0)),
    "earlier_layers": (4, lambda t: lens(t, 1.0, 0.5, 0.1, 3.0)),
    "grade_spread": (ALL, audited),
    "grade_inconsistent": (
        NONE,
        lambda t: of(None, made({"logit": [EARLY], "next": [NEVER]}), thresholds=t).document(),
    ),
    "grade_norm_only": (NONE, audited),
    "grade_disagreement": (NONE, lambda t: disagreeing(t)),
    "grade_unstable_positions": (ALL, moved),
    "grade_thin_onsets": (NONE, lambda t: audited(t.model_copy(update={"uniform_margin": 0.99}))),
    "grade_scale_sensitive": (NONE, audited),
    "grade_flips": (NONE, flipped),
    "grade_not_finite": (NONE, audited),
    "grade_last_row_bits": (NONE, last_row),
    "grade_spikes": (NONE, audited),
    "grade_bias": (NONE, biased),
    "grade_calibration": (NONE, lambda t: lens(t, 1.0, 0.5, 0.1, 0.0)),
}
"""By threshold a value other than the default, and where it shows."""


def disagreeing(thresholds: Thresholds) -> Any:
    table = made({"logit": [EARLY], "next": [EARLY]}, {"next": {"vs_logit_jaccard10": [[0.1] * 8]}})
    return of(None, table, thresholds=thresholds).document()


@cache
def usual(look: Look) -> Any:
    """What is found with the defaults."""
    return look(Thresholds(**BASE))


def test_every_threshold_is_looked_at() -> None:
    """But for one that can have a single value, the depth that a column of the table was made for."""
    assert set(EFFECTS) == set(Thresholds.model_fields) - {"coverage_k"}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_threshold_that_is_changed_changes_what_is_found(name: str) -> None:
    value, look = EFFECTS[name]
    assert look(Thresholds(**{**BASE, name: value})) != usual(look)


def test_grades_can_be_set_where_the_other_thresholds_are() -> None:
    assert thresholds_of(["grade_flips=0.1,0.2,0.3"]).grade_flips == (0.1, 0.2, 0.3)

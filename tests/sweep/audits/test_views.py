"""Norm views, artefacts, agreement, gates: what the audits say of tables whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.substrate.errors import UsageError
from ftw.sweep.audits import of
from ftw.sweep.audits.agreement import lens_agreement
from ftw.sweep.audits.artefact import compare, raw_vs_norm, score, window
from ftw.sweep.audits.gates import gate_stability, onset_margin
from ftw.sweep.audits.grid import Grids
from ftw.sweep.audits.norm_views import decoding_point, spread_over_views
from ftw.sweep.lenses.views import VIEWS
from ftw.sweep.milestones import Thresholds
from ftw.sweep.milestones import of as milestones_of
from ftw.sweep.milestones.grid import LOGIT, NORMED, RAW, grids
from tests.sweep.audits.tables import item, made

LIMITS = Thresholds()
EARLY, LATE, NEVER = [9, 9, 1, 1, 1, 1], [9, 9, 9, 9, 1, 1], [9, 9, 9, 9, 9, 9]


def test_views_that_agree_have_no_spread() -> None:
    found = spread_over_views(Grids(made({lens: [EARLY, LATE] for lens in ("logit", "next", "raw")})), LIMITS)
    assert (found.severity, found.figures["median_spread_layers"].value) == ("fine", 0.0)


def test_the_spread_is_latest_minus_earliest_onset() -> None:
    table = made({"logit": [EARLY], "next": [LATE], "own": [EARLY[1:]], "raw": [NEVER]})
    found = spread_over_views(Grids(table), LIMITS)
    assert found.figures["median_spread_layers"].value == 2.0
    assert found.prompts["p0"]["onset_raw"].why == "never"
    assert found.figures["share_without_onset_raw"].value == 1.0
    assert found.severity == "serious"  # 2 of 5 layers


def test_without_views_the_spread_is_not_measured() -> None:
    found = spread_over_views(Grids(made({"logit": [EARLY]})), LIMITS)
    assert (found.severity, found.why) == (None, "no_view")


def test_the_decoding_point_can_be_consistent_where_early_ranks_differ() -> None:
    """Rank 5 is reached elsewhere under each norm; only onsets count, so the gate does not fail by construction."""
    table = made({"logit": [[9, 5, 4, 1, 1, 1]], "next": [[9, 9, 9, 1, 1, 1]], "own": [[8, 8, 8, 1, 1]]})
    found = decoding_point(Grids(table), LIMITS)
    assert found.figures["share_consistent"].value == 1.0
    assert found.severity == "fine"


def test_a_view_without_an_onset_is_not_consistent() -> None:
    found = decoding_point(Grids(made({"logit": [EARLY], "next": [NEVER]})), LIMITS)
    assert found.figures["share_consistent"].value == 0.0
    assert found.prompts["p0"]["spread_layers"].why == "never"


def test_a_fact_that_nobody_answers_is_missing_and_not_inconsistent() -> None:
    found = decoding_point(Grids(made({"logit": [EARLY, NEVER], "next": [EARLY, NEVER]})), LIMITS)
    assert (found.figures["share_consistent"].value, found.figures["n_without_onset"].value) == (1.0, 1)


@settings(max_examples=12)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=4))
def test_the_spread_is_at_least_zero_and_zero_only_for_one_onset(onsets: list[int]) -> None:
    lenses = ("logit", "next", "own", "raw")[: len(onsets)]
    ranks = {lens: [[9] * at + [1] * (6 - at)] for lens, at in zip(lenses, onsets, strict=True)}
    spread = spread_over_views(Grids(made(ranks)), LIMITS).figures["median_spread_layers"].value
    assert spread == max(onsets) - min(onsets)


def raw_table(kl: list[float], entropy: list[float], raw_ranks: list[int]) -> Grids:
    given_columns = {
        "raw": {"vs_logit_kl_bits": [kl], "entropy_bits": [entropy]},
        "logit": {"entropy_bits": [entropy]},
    }
    return Grids(made({"logit": [EARLY], "raw": [raw_ranks]}, given_columns))


def test_the_score_is_the_published_formula() -> None:
    grid = raw_table([2.0, 2.0, 2.0, 0.1, 0.1, 0.1], [3.0] * 6, EARLY)
    found = compare(grid, 0, LIMITS)
    v1, v2 = score(found, np.ones(6, dtype=bool), LIMITS)
    assert v1 == pytest.approx(0.6 * 0.5 + 0.1 * 2 / 5)
    assert v2 == pytest.approx(v1 + 0.1 * 0.02 / 0.1 + 0.05 * 0.1 / 0.5)


def test_an_answer_that_only_the_norm_makes_counts_three_tenths() -> None:
    alike = compare(raw_table([0.0] * 6, [3.0] * 6, EARLY), 0, LIMITS)
    alone = compare(raw_table([0.0] * 6, [3.0] * 6, LATE), 0, LIMITS)
    everywhere = np.ones(6, dtype=bool)
    assert score(alone, everywhere, LIMITS)[0] - score(alike, everywhere, LIMITS)[0] == pytest.approx(0.3)


def test_layers_at_which_both_lenses_are_flat_do_not_make_a_low_score() -> None:
    """Nine of ten layers close to uniform under both norms say nothing: they are counted, not scored."""
    flat = 0.95 * np.log2(1000)
    kl, entropy = [0.0, 0.0, 0.0, 0.0, 2.0, 2.0], [flat, flat, flat, flat, 3.0, 3.0]
    found = raw_vs_norm(raw_table(kl, entropy, LATE), LIMITS)
    mine = found.prompts["p0"]
    assert mine["flat_share"].value == pytest.approx(4 / 6)
    assert mine["score"].value == pytest.approx(0.6 + 0.1 * 2 / 5)
    assert float(mine["score_all_layers"].value or 0) < 0.6
    everything_flat = raw_vs_norm(raw_table([0.0] * 6, [flat] * 6, EARLY), LIMITS)
    assert everything_flat.prompts["p0"]["score"].why == "too_few"
    assert everything_flat.figures["tier"].why == "too_few"


def test_the_window_widens_where_the_whole_sweep_shows_a_risk() -> None:
    calm = compare(raw_table([0.1] * 6, [3.0] * 6, EARLY), 0, LIMITS)
    risky = compare(raw_table([0.1] * 5 + [9.0], [3.0] * 6, EARLY), 0, LIMITS)
    assert window(calm, [2, -1], LIMITS)[:2] == (4, [2])
    assert window(risky, [2], LIMITS)[0] == 8
    assert np.flatnonzero(window(calm, [0], LIMITS)[2]).tolist() == [0, 1, 2, 3, 4]


def test_an_onset_that_raw_confirms_nearby_is_no_artefact_whatever_the_divergence() -> None:
    found = raw_vs_norm(raw_table([50.0] * 6, [3.0] * 6, LATE), LIMITS)
    assert (found.severity, found.figures["tier"].value) == ("fine", "high")
    assert raw_vs_norm(raw_table([50.0] * 6, [3.0] * 6, NEVER), LIMITS).severity == "serious"


def test_every_fact_has_its_own_raw_figures() -> None:
    columns = {"raw": {"vs_logit_kl_bits": [[1.0] * 6, [7.0] * 6]}}
    found = raw_vs_norm(Grids(made({"logit": [EARLY, LATE], "raw": [EARLY, LATE]}, columns)), LIMITS)
    assert [found.prompts[prompt]["max_kl_bits"].value for prompt in ("p0", "p1")] == [1.0, 7.0]


def test_without_the_raw_view_there_is_no_artefact_score() -> None:
    assert raw_vs_norm(Grids(made({"logit": [EARLY]})), LIMITS).why == "no_view"


def test_lenses_are_compared_at_the_onset() -> None:
    jaccard = [[0.9, 0.9, 0.1, 0.9, 0.9, 0.9]]  # low at the onset only
    grid = Grids(made({"logit": [EARLY], "next": [EARLY]}, {"next": {"vs_logit_jaccard10": jaccard}}))
    found = lens_agreement(grid, LIMITS)
    assert found.figures["next_jaccard10"].value == pytest.approx(0.1)
    assert (found.figures["next_share_low"].value, found.severity) == (1.0, "serious")
    assert {row["target"] for row in found.tables["targets"]} >= {"rank_le_10", "semantic", "semantic_strong"}


def test_lenses_cannot_be_compared_without_a_second_one_or_an_onset() -> None:
    assert lens_agreement(Grids(made({"logit": [EARLY]})), LIMITS).why == "no_lens"
    assert lens_agreement(Grids(made({"logit": [NEVER], "next": [EARLY]})), LIMITS).why == "no_onset"


def test_a_rank_close_to_uniform_is_a_thin_onset() -> None:
    thin = {"logit": {"answer_logprob": [[-9.0] * 6]}}
    found = onset_margin(Grids(made({"logit": [EARLY]}, thin)), LIMITS)
    assert (found.figures["share_thin"].value, found.severity) == (1.0, "serious")
    assert onset_margin(Grids(made({"logit": [EARLY]})), LIMITS).severity == "fine"
    assert onset_margin(Grids(made({"logit": [NEVER]})), LIMITS).why == "no_onset"


def test_gates_that_fall_when_logits_are_rescaled_are_sensitive() -> None:
    assert gate_stability(Grids(made({"logit": [EARLY]})), LIMITS).severity == "fine"
    scaled = {"logit": {"answer_logprob_scaled": [[[-9.0, -9.0, -1.0, -1.0]] * 6]}}
    found = gate_stability(Grids(made({"logit": [EARLY]}, scaled)), LIMITS)
    assert found.figures["min_share_strong"].value == 0.5
    assert found.severity == "serious"
    assert gate_stability(Grids(made({"logit": [NEVER]})), LIMITS).why == "no_onset"


def test_a_negative_control_is_no_fact() -> None:
    table = made({"logit": [EARLY, LATE]})
    table = replace(table, items=(item(0), item(1, "control")))
    assert Grids(table).facts().tolist() == [True, False]


def test_onsets_are_the_milestones_own() -> None:
    table = made({"logit": [EARLY, NEVER], "raw": [LATE, EARLY]})
    found = milestones_of(table)
    grid = Grids(table, found)
    for lens in table.lenses:
        for prompt in (0, 1):
            own = found[prompt, lens]["semantic"].value
            assert grid.onset(lens)[prompt] == (-1 if own is None else own)


def test_an_audit_that_there_is_not_is_an_error() -> None:
    audit = of(None, made({"logit": [EARLY]}))
    with pytest.raises(UsageError, match="there is no audit 'colour'"):
        audit["colour"]


def test_the_lenses_that_choose_a_norm_are_those_that_a_model_can_make() -> None:
    assert {*NORMED, RAW} == {LOGIT, *VIEWS}


def test_audits_and_charts_take_their_numbers_from_the_milestones_grids() -> None:
    broken = {"logit": {"is_finite": [[True, False, True, True, True, True]]}}
    table = made({"logit": [EARLY], "own": [EARLY[1:]]}, broken)
    for lens in table.lenses:
        grid, whole = grids(table)[lens], Grids(table)
        for name in ("answer_rank", "kl_bits", "resid_norm", "control_id"):
            there = whole.matrix(lens, name)[:, list(grid.layers)]
            assert np.array_equal(there, grid.numbers(name), equal_nan=True)
    assert np.isnan(Grids(table).ranks("logit")[0]).tolist() == [False, True, False, False, False, False]
    assert np.isfinite(Grids(table).matrix("logit", "resid_norm")).all()
    assert np.isnan(Grids(table).matrix("own", "kl_bits")[:, 0]).all()
    assert np.isnan(Grids(table).matrix("logit", "control_id")).all()

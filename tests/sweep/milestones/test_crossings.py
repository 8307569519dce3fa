"""Crossings: thresholds passed by curves, against the words of the prompt, a control, and the relation's answers."""

import numpy as np
import pytest

from ftw.sweep import milestones
from ftw.sweep.milestones import Milestones
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.table import Item, SweepTable
from tests.sweep.milestones.tables import fact, peaked, table_of

A, B, C = 5, 6, 7
VOCAB = 16


def found(z: np.ndarray, item: Item | None = None, thresholds: Thresholds | None = None) -> Milestones:
    return milestones.of(table_of({"logit": z[None]}, [item or fact(answer=A)]), thresholds)[0, "logit"]


def staircase() -> np.ndarray:
    """The answer's rank goes 12, 10, 6, 5, 2, 1."""
    z = np.tile(np.arange(VOCAB, 0, -1.0), (6, 1))
    z[:, A] = 0
    for layer, rank in enumerate((12, 10, 6, 5, 2, 1)):
        others = np.delete(z[layer], A)
        z[layer, A] = np.sort(others)[::-1][rank - 1] + 0.5
    return z


def test_ranks_are_crossed_where_they_are_reached() -> None:
    one = found(staircase())
    assert {rank: each.value for rank, each in one.ranks.items()} == {10: 1, 5: 3, 1: 5}
    assert one["rank_le_5_frac"].value == pytest.approx(3 / 5)
    assert one["semantic"].value == 5


def test_a_rank_of_zero_is_no_rank() -> None:
    one = found(staircase(), fact(answer=None))
    assert all(each.why == "no_answer" for each in one.ranks.values())
    for name in (
        "semantic",
        "surface",
        "geometry",
        "p_at_semantic",
        "control_margin_first",
        "pool_first_stays",
        "delta",
    ):
        assert one[name].why == "no_answer", name
    assert one["kl_le_1"].value is not None


def test_divergence_and_cosine_are_crossed_in_their_units() -> None:
    table = table_of({"logit": staircase()[None]}, [fact(answer=A)])
    table.columns["kl_bits"][:] = [9, 3, 1.01, 1.0, 0.5, 0]
    table.columns["cos_logits"][:] = [-0.9, 0.1, 0.2, 0.3, 0.7, 1]
    one = milestones.of(table)[0, "logit"]
    assert {bits: each.value for bits, each in one.kl.items()} == {1.0: 3, 0.5: 4}
    assert {least: each.value for least, each in one.cosines.items()} == {0.2: 2, 0.4: 4, 0.6: 4}
    assert [one[f"kl_at_p{share}"].value for share in (25, 50, 75)] == pytest.approx([3, 1.01, 0.5])  # layers 1, 2, 4


def masses(**columns: list[float]) -> SweepTable:
    table = table_of({"logit": staircase()[None]}, [fact(answer=A)])
    for name, values in columns.items():
        table.columns[name][:] = values
    return table


def test_the_surface_crossover_is_where_the_answer_outweighs_the_prompt_by_the_margin() -> None:
    table = masses(answer_mass=[0, 0.1, 0.34, 0.36, 0.5, 0.9], echo_mass=[0.9, 0.5, 0.3, 0.3, 0.1, 0])
    one = milestones.of(table)[0, "logit"]
    assert one["surface"].value == 3
    assert one["surface_answer_mass"].value == pytest.approx(0.36)
    assert one["surface_echo_mass"].value == pytest.approx(0.3)


def test_the_geometric_crossover_is_where_the_answers_direction_is_closer_by_the_margin() -> None:
    table = masses(cos_answer=[-0.2, 0, 0.11, 0.13, 0.4, 0.5], cos_echo_max=[0.5, 0.3, 0.1, 0.1, 0, 0])
    one = milestones.of(table)[0, "logit"]
    assert one["geometry"].value == 3
    assert one["geometry_cos_answer"].value == pytest.approx(0.13)
    assert one["geometry_cos_echo_max"].value == pytest.approx(0.1)


def test_a_prompt_without_words_has_no_geometric_crossover() -> None:
    table = masses(cos_answer=[1.0] * 6, cos_echo_max=[float("nan")] * 6)
    one = milestones.of(table)[0, "logit"]
    assert one["geometry"].why == "never"
    assert one["geometry_cos_answer"].why == "no_onset"


def test_coverage_has_decayed_where_the_prompts_words_hold_a_third_or_less() -> None:
    one = milestones.of(masses(echo_mass_top50=[0.9, 0.5, 0.34, 0.32, 0.1, 0]))[0, "logit"]
    assert one["coverage"].value == 3
    assert one["coverage_mass"].value == pytest.approx(0.32)


def test_entropy_gaps_are_percentiles_over_layers_beside_the_models_own() -> None:
    bits = [7.0, 6, 5, 4, 3, 2]
    table = table_of({"logit": staircase()[None], "own": staircase()[None, 1:]}, [fact(answer=A)])
    table.columns["entropy_bits"][:] = [*bits, *[each + 1 for each in bits[1:]]]
    both = milestones.of(table)
    gaps = [each - 2 for each in bits]
    for share, name in zip((0.25, 0.5, 0.75), ("p25", "p50", "p75"), strict=True):
        assert both[0, "logit"][f"entropy_gap_{name}"].value == pytest.approx(np.quantile(gaps, share))
        assert both[0, "own"][f"entropy_gap_{name}"].value == pytest.approx(np.quantile(gaps[1:], share) + 1)
    assert both[0, "own"]["entropy_gap_samples"].value == 5


def test_a_control_is_beaten_for_good_only_where_it_stays_so() -> None:
    z = np.zeros((5, VOCAB))
    z[:, A], z[:, B] = [1, 0, 3, 3, 4], [0, 1, 2, 4, 1]
    one = found(z, fact(answer=A, control=B))
    assert one["control_margin_first"].value == 0
    assert one["control_margin_stays"].value == one["control_whole_stays"].value == 4
    assert one["control_strong"].value == 0
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert one["control_margin_max"].value == pytest.approx(float((p[:, A] - p[:, B]).max()), abs=1e-6)
    assert one["control_margin_last"].value == pytest.approx(float(p[4, A] - p[4, B]), abs=1e-6)
    assert one["control_gap_max"].value == pytest.approx(3.0, abs=1e-5)


def test_a_prompt_without_a_control_says_so_and_one_that_never_leads_has_no_gap() -> None:
    assert found(staircase())["control_margin_stays"].why == "no_control"
    never = found(peaked(VOCAB, [9, 9], 0.9), fact(answer=A, control=B))
    assert never["control_gap_max"].why == "never"
    assert never["control_margin_max"].value == pytest.approx(0, abs=1e-6)


def test_a_whole_answer_is_there_from_where_it_keeps_half_of_its_last_probability() -> None:
    table = masses(answer_whole_logprob=np.log([0.9, 0.1, 0.2, 0.26, 0.4, 0.5]).tolist())
    one = milestones.of(table)[0, "logit"]
    assert one["whole_half_stays"].value == 3
    assert one["whole_p_last"].value == pytest.approx(0.5)
    del table.columns["answer_whole_logprob"]  # type: ignore[attr-defined]
    assert milestones.of(table)[0, "logit"]["whole_half_stays"].why == "not_asked"


def test_the_pool_is_beaten_where_no_other_answer_of_the_relation_ranks_before() -> None:
    z = np.zeros((4, VOCAB))
    z[:, A], z[:, B], z[:, C] = [1, 3, 2, 5], [2, 1, 3, 1], [3, 0, 0, 0]
    one = found(z, fact(answer=A, pool=[B, C]))
    assert one["pool_first_stays"].value == 3
    assert one["pool_place_last"].value == 0
    assert found(z[:3], fact(answer=A, pool=[B, C]))["pool_place_last"].value == 1
    assert found(z)["pool_first_stays"].why == "no_control"


def test_a_column_that_was_not_measured_is_not_asked_and_never_zero() -> None:
    names = (
        "kl_bits",
        "cos_logits",
        "entropy_bits",
        "cos_answer",
        "echo_mass_top50",
        "echo_mass",
        "pool_ranks",
        "answer_logprob_scaled",
    )
    table = table_of({"logit": staircase()[None]}, [fact(answer=A)])
    for name in names:
        del table.columns[name]  # type: ignore[attr-defined]
    one = milestones.of(table)[0, "logit"]
    for name in (
        "kl_le_1",
        "kl_at_p50",
        "cos_ge_0.2",
        "low_entropy",
        "entropy_gap_p50",
        "entropy_gap_samples",
        "geometry",
        "geometry_cos_answer",
        "coverage",
        "coverage_mass",
        "surface",
        "pool_first_stays",
        "pool_place_last",
        "gate_both_semantic",
    ):
        assert one[name].why == "not_asked", name
    assert one["semantic"].value == 5


def test_layers_that_are_no_distribution_are_told_apart_from_never() -> None:
    z = peaked(VOCAB, [9, 9, 9], 0.9)
    z[1] = np.nan
    one = found(z)
    assert one["semantic"].why == "not_finite"
    assert one["entropy_gap_samples"].value == 2
    broken = found(np.full_like(z, np.nan))
    assert broken["entropy_gap_p50"].why == "not_finite"

"""Meaning: where the answer comes first, by how much, and whether it would at another scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from ftw.substrate.errors import UsageError
from ftw.sweep import milestones
from ftw.sweep.milestones.semantics import (
    behind,
    control_gaps,
    control_margins,
    gaps,
    gate_holds,
    is_accepted,
    is_answer,
    margins,
    strong,
)
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.table import SCALES
from tests.sweep.milestones.tables import fact, peaked, table_of

A, B, C = 5, 6, 7
VOCAB = 16


def random_logits(seed: int, layers: int = 5, scale: float = 2.0) -> Float[np.ndarray, "1 layer vocab"]:
    return np.random.default_rng(seed).normal(size=(1, layers, VOCAB)) * scale


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z - z.max(-1, keepdims=True)) / np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.05, 0.5, 3.0]))
def test_flags_and_figures_follow_from_the_logits(seed: int, scale: float) -> None:
    z = random_logits(seed, scale=scale)
    table = table_of({"logit": z}, [fact(answer=A, control=B, accepted=[C])])
    p = softmax(z[0])
    second = np.sort(z[0], axis=1)[:, -2]
    first = z[0].argmax(1) == A
    assert is_answer(table).tolist() == first.tolist()
    assert is_accepted(table).tolist() == np.isin(z[0].argmax(1), [A, C]).tolist()
    np.testing.assert_allclose(margins(table), p[:, A] - 1 / VOCAB, atol=1e-6)
    np.testing.assert_allclose(gaps(table), np.where(first, z[0, :, A] - second, np.nan), atol=1e-5)
    np.testing.assert_allclose(behind(table), np.where(first, np.nan, z[0, :, A] - z[0].max(1)), atol=1e-5)
    np.testing.assert_allclose(control_margins(table), p[:, A] - p[:, B], atol=1e-6)
    np.testing.assert_allclose(control_gaps(table), gaps(table))
    np.testing.assert_array_equal(strong(table, 0.1, 0.2), first & (margins(table) >= 0.1) & (gaps(table) >= 0.2))


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), data=st.data())
def test_milestones_do_not_change_when_logits_shift_or_tokens_are_renamed(
    seed: int, shift: float, data: st.DataObject
) -> None:
    logits = {"logit": random_logits(seed), "raw": random_logits(seed + 1)}
    renamed = np.array(data.draw(st.permutations(range(VOCAB))))
    moved = {lens: np.empty_like(z) for lens, z in logits.items()}
    for lens, z in logits.items():
        moved[lens][..., renamed] = z + shift
    ids = (1, 2, 3)
    one = milestones.of(table_of(logits, [fact(ids=ids, answer=A, control=B)]))
    other = milestones.of(
        table_of(moved, [fact(ids=[int(renamed[at]) for at in ids], answer=int(renamed[A]), control=int(renamed[B]))])
    )
    for key, found in one.items():
        for name, outcome in found.outcomes().items():
            there = other[key][name]
            assert outcome.why == there.why, name
            assert outcome.value == pytest.approx(there.value, abs=1e-4) if outcome.value is not None else True, name


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 1.0, 3.0]))
def test_gates_under_rescaling_are_those_of_the_rescaled_logits(seed: int, scale: float) -> None:
    z = random_logits(seed, scale=scale)
    t = Thresholds(uniform_margin=0.05, top2_gap=0.3)
    uniform, top2 = gate_holds(table_of({"logit": z}, [fact(answer=A)]), t)
    for at, s in enumerate(SCALES):
        p = softmax(z[0] * s)
        lead = np.where(z[0].argmax(1) == A, z[0, :, A] - np.sort(z[0], axis=1)[:, -2], np.nan) * s
        clear = np.abs(p[:, A] - 1 / VOCAB - t.uniform_margin) > 1e-6
        np.testing.assert_array_equal(uniform[clear, at], (p[:, A] - 1 / VOCAB >= t.uniform_margin)[clear])
        sure = ~(np.abs(lead - t.top2_gap) < 1e-6)
        np.testing.assert_array_equal(top2[sure, at], (lead >= t.top2_gap)[sure])


def test_a_gate_that_holds_at_three_scales_of_four_is_a_share_of_three_quarters() -> None:
    z = np.zeros((1, 3, VOCAB))
    z[0, 0, 9], z[0, 1:, A] = 1, 0.5 / 0.93  # at 0.90 the lead falls below half a logit
    found = milestones.of(table_of({"logit": z}, [fact(answer=A)]))[0, "logit"]
    assert found["gate_top2_semantic"].value == pytest.approx(0.75)
    assert found["gate_uniform_strong"].value == 1.0
    assert found["gate_both_strong_run2"].value == pytest.approx(0.75)
    assert found["gate_both_least"].value == pytest.approx(0.75)
    assert found["gate_both_confirmed"].why == "no_onset"


def test_a_run_must_hold_at_both_layers_at_the_same_scale() -> None:
    z = np.zeros((1, 3, VOCAB))
    z[0, 0, 9], z[0, 1, A], z[0, 2, A] = 1.0, 3.0, 0.5 / 0.93
    found = milestones.of(table_of({"logit": z}, [fact(answer=A)]))[0, "logit"]
    assert found["gate_both_strong"].value == 1.0
    assert found["gate_both_strong_run2"].value == pytest.approx(0.75)


def test_a_scale_that_the_table_does_not_hold_is_not_asked() -> None:
    table = table_of({"logit": peaked(VOCAB, [A, A], 0.9)[None]}, [fact(answer=A)])
    found = milestones.of(table, Thresholds(gate_scales=(0.5, 1.1)))[0, "logit"]
    assert found["gate_top2_semantic"].value == 1.0
    assert found["gate_uniform_semantic"].why == found["gate_both_least"].why == "not_asked"
    del table.columns["answer_logprob_scaled"]  # type: ignore[attr-defined]
    assert milestones.of(table)[0, "logit"]["gate_both_semantic"].why == "not_asked"


def test_a_row_that_is_no_distribution_never_ranks_the_answer_first() -> None:
    z = peaked(VOCAB, [A, A, A], 0.9)[None]
    z[0, 0] = np.nan
    table = table_of({"logit": z}, [fact(answer=A, control=B)])
    table.columns["answer_rank"][:] = 1  # what counting greater logits among NaN gives
    assert is_answer(table).tolist() == [False, True, True]
    for values in (margins(table), gaps(table), control_margins(table)):
        assert np.isnan(values).tolist() == [True, False, False]
    assert milestones.of(table)[0, "logit"]["semantic"].value == 1


def test_one_listed_token_is_too_few_for_a_gap() -> None:
    table = table_of({"logit": peaked(VOCAB, [A], 0.9)[None]}, [fact(answer=A)], k=1)
    with pytest.raises(UsageError, match="gaps need the second best"):
        gaps(table)


def test_answer_and_control_of_one_token_are_not_told_apart() -> None:
    table = table_of({"logit": peaked(VOCAB, [A, A], 0.9)[None]}, [fact(answer=A, control=A)])
    assert np.isnan(control_margins(table)).all()
    found = milestones.of(table)[0, "logit"]
    assert found["control_margin_first"].why == found["control_margin_max"].why == "not_told_apart"
    assert found["control_whole_stays"].why == "never"  # whole answers may still differ: here they do not

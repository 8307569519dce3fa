"""Copying: strict, soft, how much it hangs on its threshold, and low entropy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import UsageError
from ftw.sweep import milestones
from ftw.sweep.milestones.copy import best_two, copy_soft, copy_strict, low_entropy, stability
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.table import SweepTable
from tests.sweep.milestones.tables import fact, peaked, table_of


def one(tokens: list[int], p: float | list[float] = 0.97, **options: object) -> SweepTable:
    """One prompt (ids 1, 2, 3) whose best token at each layer has probability p."""
    return table_of({"logit": peaked(16, tokens, p)[None]}, [fact(ids=(1, 2, 3))], **options)  # type: ignore[arg-type]


def test_a_strict_copy_is_a_sure_word_of_the_prompt() -> None:
    assert copy_strict(one([2, 2, 9], [0.97, 0.94, 0.97])).tolist() == [True, False, False]
    assert copy_strict(one([2, 2, 9], [0.97, 0.94, 0.97]), 0.9).tolist() == [True, True, False]


def test_a_strict_copy_leads_by_the_margin_and_a_soft_one_need_not() -> None:
    z = np.full((1, 2, 16), -30.0)
    z[0, :, 2], z[0, :, 9] = np.log(0.55), np.log([0.44, 0.46])
    z[0, 1, 2] = np.log(0.53)
    table = table_of({"logit": z}, [fact(ids=(1, 2, 3))])
    assert copy_strict(table, 0.5, 0.1).tolist() == [True, False]
    assert copy_soft(table, 0.5).tolist() == [True, True]


def test_blanks_and_punctuation_are_copied_softly_only() -> None:
    table = one([2, 3], symbols=[2])
    assert copy_strict(table).tolist() == [False, True]
    assert copy_soft(table).tolist() == [True, True]


def test_special_tokens_are_no_copy() -> None:
    assert not copy_soft(one([2], special=[2])).any()


def test_the_published_margin_is_between_probabilities_not_above_them() -> None:
    # p1 - p2 = 0.97: far above a margin of 0.10, whatever the threshold is
    z = np.full((1, 1, 16), -60.0)
    z[0, 0, 2], z[0, 0, 9] = np.log(0.98), np.log(0.01)
    assert copy_strict(table_of({"logit": z}, [fact(ids=(1, 2, 3))]), 0.9, 0.10).all()


def test_a_soft_copy_of_two_needs_two_layers_and_two_neighbours() -> None:
    assert copy_soft(one([1, 2, 1, 3]), 0.33, 2).tolist() == [False, True, False, False]


def test_low_entropy_is_of_any_token() -> None:
    assert low_entropy(one([9, 9], [0.99, 0.5])).tolist() == [True, False]


def test_a_row_that_is_no_distribution_is_no_copy_and_not_decided() -> None:
    z = peaked(16, [2, 2], 0.97)[None]
    z[0, 0, 7] = np.nan
    table = table_of({"logit": z}, [fact(ids=(1, 2, 3))])
    table.columns["entropy_bits"][:] = 0.0
    for flags in (copy_strict(table), copy_soft(table), low_entropy(table)):
        assert flags.tolist() == [False, True]
    assert np.isnan(best_two(table)[0]).tolist() == [True, False]


def test_one_listed_token_is_too_few_for_a_margin() -> None:
    with pytest.raises(UsageError, match="lists one token per row: sweep with k of at least 2"):
        copy_strict(one([2], k=1))


def test_onsets_of_the_sweep_are_found_by_number() -> None:
    found = milestones.of(one([9, 2, 2, 2, 2], [0.99, 0.75, 0.85, 0.92, 0.97]))[0, "logit"]
    assert [found.copies[p].value for p in (0.7, 0.8, 0.9, 0.95)] == [1, 2, 3, 4]
    assert found["copy"] == found.copies[0.95] == found["copy_at_0.95"]
    assert found["copy_stability"].value == "fragile"  # 3 of 4 layers apart
    assert found["copy_frac"].value == 1.0
    assert found.soft[1, 0.33].value == 1
    assert found.soft[2, 0.33].why == "never"


@given(low=st.integers(0, 80), high=st.integers(0, 80), n=st.integers(1, 80))
def test_every_stability_can_be_reached_and_follows_the_layers_between(low: int, high: int, n: int) -> None:
    apart = abs(low - high)
    expected = (
        "stable" if apart <= 2 or apart / n <= 0.05 else "fragile" if apart >= 6 or apart / n >= 0.15 else "mixed"
    )
    assert stability(Outcome(low), Outcome(high), n, Thresholds()).value == expected


def test_identical_onsets_are_stable_one_missing_is_mixed_none_is_no_copy() -> None:
    never = Outcome.none("never")
    assert stability(Outcome(0), Outcome(0), 42, Thresholds()).value == "stable"
    assert stability(Outcome(0), Outcome(4), 42, Thresholds()).value == "mixed"
    assert stability(Outcome(0), never, 42, Thresholds()).value == "mixed"
    assert stability(never, never, 42, Thresholds()).why == "no_copy"
    assert stability(never, Outcome.none("not_finite"), 42, Thresholds()).why == "not_finite"


def test_no_thresholds_to_sweep_is_not_asked() -> None:
    found = milestones.of(one([2, 2]), Thresholds(copy_sweep=()))[0, "logit"]
    assert found["copy_stability"].why == "not_asked"


def test_a_copy_is_the_norms_work_where_the_raw_lens_has_none_nearby() -> None:
    logit = peaked(16, [2] * 2 + [9] * 10, 0.97)[None]
    near, far = peaked(16, [9] * 4 + [2] + [9] * 7, 0.97)[None], peaked(16, [9] * 11 + [2], 0.97)[None]
    for raw, expected in ((near, False), (far, True)):
        table = table_of({"logit": logit, "raw": raw}, [fact(ids=(1, 2, 3))])
        assert milestones.of(table)[0, "logit"].copies_norm_only[0.95].value is expected
    alone = milestones.of(table_of({"logit": logit}, [fact(ids=(1, 2, 3))]))[0, "logit"]
    assert alone.copies_norm_only[0.95].why == "no_view"
    nothing = milestones.of(table_of({"logit": far[:, :3], "raw": far[:, :3]}, [fact(ids=(1, 2, 3))]))
    assert nothing[0, "logit"].copies_norm_only[0.95].why == "no_copy"


def test_raw_is_looked_at_further_away_where_the_whole_sweep_shows_a_risk() -> None:
    """The answer (5) is first by the norm alone at one layer, far from the copy: the radius is the wider one."""
    logit = peaked(16, [9, 9, 2] + [9] * 9 + [5, 9], 0.97)[None]
    calm = peaked(16, [9] * 8 + [2] + [9] * 3 + [5, 9], 0.97)[None]  # 6 layers later
    risky = peaked(16, [9] * 8 + [2] + [9] * 5, 0.97)[None]
    for raw, expected in ((calm, True), (risky, False)):
        table = table_of({"logit": logit, "raw": raw}, [fact(ids=(1, 2, 3))])
        assert milestones.of(table)[0, "logit"].copies_norm_only[0.95].value is expected
    apart = table_of({"logit": logit, "raw": calm}, [fact(ids=(1, 2, 3))], given={"vs_logit_kl_bits": 3.0})
    assert milestones.of(apart)[0, "logit"].copies_norm_only[0.95].value is False

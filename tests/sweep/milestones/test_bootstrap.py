"""Intervals over facts: what they are, what they cover, and what they do with onsets that never come."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from ftw.substrate.errors import UsageError
from ftw.sweep.milestones.bootstrap import Bootstrap, sign_test

INF = float("inf")


def boot(resamples: int = 999, seed: int = 1, few: int = 3) -> Bootstrap:
    return Bootstrap(0.95, resamples, few, seed)


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert boot().mean(values) == boot().mean(values)
    assert boot().mean(values) != boot(seed=2).mean(values)


def test_bca_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).lognormal(size=40)
    mine = boot(4000).mean(values)
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(1))
    assert mine.low.value == pytest.approx(theirs.confidence_interval.low, rel=0.03)
    assert mine.high.value == pytest.approx(theirs.confidence_interval.high, rel=0.03)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng, found = np.random.default_rng(7), 0
    for seed in range(200):
        interval = boot(400, seed).mean(rng.normal(5, 2, 25))
        found += interval.low.value <= 5 <= interval.high.value  # type: ignore[operator]
    assert 0.88 <= found / 200 <= 0.99


@settings(max_examples=30)
@given(values=st.lists(st.sampled_from([1.0, 2.0, 3.0, 7.0, INF]), min_size=3, max_size=12))
def test_an_interval_of_a_median_holds_the_median_and_never_comes_last(values: list[float]) -> None:
    interval = boot(200).median(np.array(values))
    median = float(np.median(values))
    assert interval.value.value == (median if math.isfinite(median) else None)
    low, high = (INF if end.why == "never" else end.value for end in (interval.low, interval.high))
    assert low <= median <= high  # type: ignore[operator]
    assert interval.n_facts == len(values)


def test_a_median_that_never_comes_says_so() -> None:
    interval = boot().median(np.array([INF, INF, INF, 3.0]))
    assert interval.value.why == interval.high.why == "never"
    assert interval.document()["high"] is None


def test_a_mean_is_over_those_that_have_a_value_and_says_how_many() -> None:
    interval = boot().mean(np.array([1.0, 2.0, 3.0, INF, np.nan]))
    assert (interval.value.value, interval.n_facts) == (2.0, 3)
    assert 1 <= interval.low.value <= 2 <= interval.high.value <= 3  # type: ignore[operator]
    assert boot().mean(np.array([INF, INF])).value.why == "never"


def test_equal_values_have_an_interval_of_no_width() -> None:
    interval = boot().mean(np.full(8, 7.0))
    assert (interval.low.value, interval.value.value, interval.high.value) == (7.0, 7.0, 7.0)


def test_too_few_facts_have_a_figure_and_no_interval() -> None:
    for interval in (
        boot().mean(np.array([1.0, 2.0])),
        boot().median(np.array([1.0, 2.0])),
        boot().share(np.array([1.0])),
    ):
        assert interval.value.value is not None
        assert interval.low.why == interval.high.why == "too_few"
    for interval in (boot().mean(np.array([])), boot().median(np.array([])), boot().share(np.array([]))):
        assert interval.value.why == "too_few"


def test_a_band_holds_its_curve_and_is_open_where_facts_are_too_few() -> None:
    curves = np.random.default_rng(0).integers(0, 2, (20, 6)).astype(float)
    mean, low, high = boot().band(curves)
    assert (low <= mean).all()
    assert (mean <= high).all()
    np.testing.assert_allclose(mean, curves.mean(axis=0))
    assert np.isnan(boot().band(curves[:2])[1]).all()


def test_facts_are_drawn_so_that_many_wordings_do_not_narrow_an_interval() -> None:
    per_fact = np.random.default_rng(0).normal(size=10)
    once, tenfold = boot().mean(per_fact), boot().mean(np.repeat(per_fact, 10))
    width = [one.high.value - one.low.value for one in (once, tenfold)]  # type: ignore[operator]
    assert width[1] < 0.5 * width[0]  # what resampling prompts would have pretended


@given(positive=st.integers(0, 40), more=st.integers(0, 40))
def test_the_sign_test_is_the_exact_binomial_one(positive: int, more: int) -> None:
    n = positive + more
    if not n:
        assert sign_test(0, 0).why == "too_few"
    else:
        assert sign_test(positive, n).value == pytest.approx(binomtest(positive, n).pvalue)


def test_more_positive_signs_than_signs_is_an_error() -> None:
    with pytest.raises(UsageError, match="5 of 3 signs cannot be positive"):
        sign_test(5, 3)


def test_the_level_is_the_normal_one_for_symmetric_values() -> None:
    values = np.random.default_rng(5).normal(size=400)
    interval = boot(3000).mean(values)
    half = NormalDist().inv_cdf(0.975) * values.std() / math.sqrt(400)
    assert (interval.high.value - interval.low.value) / 2 == pytest.approx(half, rel=0.1)  # type: ignore[operator]

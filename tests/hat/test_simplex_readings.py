import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.hat.classifiers.tripole import SimplexBinding, SimplexRow, Spread
from ftw.hat.monitoring import Combined, combined, deviation, trend
from ftw.hat.monitoring.simplex import is_shown, simplex_score


def row_of(**binding: object) -> SimplexRow:
    return SimplexRow(
        name="Mood",
        block=1,
        row=0,
        poles=("sad", "even", "glad"),
        baseline=Spread(mean=0.1, std=0.2),
        binding=SimplexBinding.model_validate(binding),
    )


def test_a_deviation_needs_ten_values_that_differ() -> None:
    assert deviation([0.0, 1.0] * 4, 9.0, 100) == 0
    assert deviation([0.5] * 50, 0.9, 100) == 0
    assert deviation([0.0, 1.0] * 5, 2.0, 100) == pytest.approx(3)


def test_a_deviation_looks_back_no_further_than_its_window() -> None:
    old = [100.0] * 50
    assert deviation([*old, *([0.0, 1.0] * 5)], 2.0, 10) == pytest.approx(3)


@given(st.lists(st.floats(-1, 1), min_size=10, max_size=60), st.floats(-1, 1))
def test_a_deviation_is_finite_and_has_the_sign_of_the_difference(earlier: list[float], value: float) -> None:
    z = deviation(earlier, value, 100)
    assert np.isfinite(z)
    assert z == 0 or (z > 0) == (value > np.mean(earlier))


def test_a_trend_is_the_slope_per_token() -> None:
    assert trend([0.25 * at for at in range(40)], 500) == pytest.approx(0.25)
    assert trend([*([9.0] * 30), *(0.5 * at for at in range(20))], 20) == pytest.approx(0.5)
    assert trend([1.0, 2.0], 500) == 0


@pytest.mark.parametrize(
    ("concept", "simplex", "told"),
    [
        (0.6, 0.6, "active_elevated"),
        (0.9, 0.59, "discussing_not_activated"),
        (0.59, 0.9, "implicit_elevated"),
        (0.1, 0.1, "not_relevant"),
        (0.9, None, "hierarchical_only"),
        (None, 0.9, "simplex_only"),
        (None, None, "unknown"),
    ],
)
def test_a_concept_and_its_simplex_say_together(concept: float | None, simplex: float | None, told: Combined) -> None:
    assert combined(concept, simplex) == told


def test_a_simplex_is_measured_against_the_text_and_against_neutral_text() -> None:
    score = simplex_score(row_of(concept="Sadness"), (0.7, 0.2, 0.1), [0.0, 0.2] * 10, 0.9)
    assert score.spread == pytest.approx(-0.6)
    assert score.z == pytest.approx(-7)
    assert score.z_neutral == pytest.approx(-3.5)
    assert score.trend == pytest.approx(trend([*([0.0, 0.2] * 10), -0.6], 500))
    assert (score.alert, score.combined, score.concept) == (True, "active_elevated", "Sadness")
    still = row_of().model_copy(update={"baseline": Spread()})
    assert simplex_score(still, (0.7, 0.2, 0.1), [], None).z_neutral == 0


def test_a_simplex_is_shown_where_it_matters() -> None:
    quiet = ((0.3, 0.4, 0.3), [0.0, 0.1] * 10)
    for binding, concept, told in (
        ({}, None, True),
        ({"concept": "Sadness"}, 0.1, False),
        ({"concept": "Sadness", "always_on": True}, 0.1, True),
        ({"concept": "Sadness"}, 0.9, True),
        ({"concept": "Sadness", "alert_threshold": 0.5}, 0.1, True),
    ):
        row = row_of(**binding)
        assert is_shown(row, simplex_score(row, *quiet, concept)) is told

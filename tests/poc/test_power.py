"""How often a verdict's binomial test flags: against scipy, and against published figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftw.poc.binomial import log_tail, tail
from ftw.poc.power import flagged, mixed, reject_from
from ftw.substrate.errors import ConfigError


@given(st.integers(1, 500), st.floats(1e-4, 0.9), st.floats(1e-6, 0.5), st.floats(0.0, 1.0))
def test_the_power_is_that_of_scipy(n: int, p: float, cutoff: float, rate: float) -> None:
    least = reject_from(n, p, cutoff)
    tails = stats.binom.sf([least - 2, least - 1], n, p)
    assert tails[1] < cutoff * (1 + 1e-9) or least == n + 1
    assert tails[0] >= cutoff * (1 - 1e-9)
    assert flagged(n, p, cutoff, rate) == pytest.approx(stats.binom.sf(least - 1, n, rate), rel=1e-7, abs=1e-300)


def test_the_wire_defaults_convict_from_three_mismatches() -> None:
    assert reject_from(200, 0.001, 0.01) == 3


def test_the_free_ride_of_a_loose_test_is_the_published_one() -> None:
    assert reject_from(200, 0.1, 0.05) == 28
    caught = [flagged(200, 0.1, 0.05, mixed(0.01, 1.0, share)) for share in (0.08, 0.10, 0.12, 0.15)]
    assert caught == pytest.approx([0.01, 0.11, 0.37, 0.80], abs=0.035)


def test_the_calibrated_test_flags_as_published() -> None:
    assert flagged(200, 0.02, 0.05, 0.024) == pytest.approx(0.11, abs=0.005)
    assert flagged(200, 0.02, 0.05, 0.04) == pytest.approx(515 / 1000, abs=0.05)
    assert flagged(200, 0.02, 0.05, mixed(0.018, 1.0, 0.05)) == pytest.approx(0.98, abs=0.02)


def test_the_published_honest_pair_and_cheat_have_the_published_p_values() -> None:
    assert tail(35, 2000, 0.02) == pytest.approx(0.809, abs=5e-4)
    assert tail(1540, 2000, 0.02) == 0.0  # 77 % of the nonces of a 4-bit copy
    assert log_tail(1540, 2000, 0.02) < -4000
    assert [tail(m, 200, 0.001) for m in (1, 2, 3)] == pytest.approx([0.181, 0.0175, 0.0011], abs=5e-4)


def test_a_test_that_no_sample_can_fail_never_flags() -> None:
    assert reject_from(3, 0.5, 0.01) == 4
    assert flagged(3, 0.5, 0.01, 1.0) == 0.0


def test_a_test_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="check at least 1"):
        reject_from(0, 0.1, 0.1)


@pytest.mark.parametrize(("p", "cutoff"), [(0.0, 0.05), (1.0, 0.05), (0.1, 0.0), (0.1, 1.0), (float("nan"), 0.1)])
def test_a_probability_must_lie_between(p: float, cutoff: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        reject_from(10, p, cutoff)

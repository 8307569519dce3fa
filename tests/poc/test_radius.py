"""Chord distances on the sphere, against scipy, against the published table, and against drawn points."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from ftw.poc.radius import coordinate_cdf, density, moments, radius_of, rate_of
from ftw.substrate.errors import ConfigError

KS = st.integers(2, 4000)
TABLE = {
    10: (0.6001, 0.7936, 0.9784, 1.0783, 1.1979),
    12: (0.6757, 0.8557, 1.0236, 1.1134, 1.2205),
    64: (1.1168, 1.1933, 1.2603, 1.2953, 1.3370),
    1024: (1.3443, 1.3619, 1.3774, 1.3856, 1.3955),
    8192: (1.3899, 1.3959, 1.4013, 1.4042, 1.4076),
    151936: (1.4086, 1.4100, 1.4112, 1.4119, 1.4127),
}


@given(st.floats(0.0, 2.0), KS)
def test_the_rate_is_that_of_scipy(radius: float, k: int) -> None:
    expected = special.betainc((k - 1) / 2, (k - 1) / 2, radius * radius / 4)
    assert rate_of(radius, k) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@settings(max_examples=30)
@given(st.floats(1e-6, 1 - 1e-6), KS)
def test_radius_and_rate_are_inverse(rate: float, k: int) -> None:
    assert rate_of(radius_of(rate, k), k) == pytest.approx(rate, rel=1e-8)


@given(st.floats(0.0, 2.0), KS)
def test_a_radius_and_its_mirror_share_the_sphere(radius: float, k: int) -> None:
    assert rate_of(radius, k) + rate_of(math.sqrt(4.0 - radius * radius), k) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("k", TABLE)
def test_the_published_radii_come_out(k: int) -> None:
    found = [radius_of(rate, k) for rate in (0.001, 0.01, 0.05, 0.10, 0.20)]
    assert found == pytest.approx(TABLE[k], abs=6e-5)


def test_the_known_figures_of_64_dimensions() -> None:
    assert radius_of(0.10, 64) == pytest.approx(1.295344, abs=1e-6)
    assert rate_of(1.30, 64) == pytest.approx(0.1088, abs=5e-5)
    assert rate_of(1.34, 64) == pytest.approx(0.2089, abs=5e-5)
    assert rate_of(1.39, 64) == pytest.approx(0.394, abs=5e-4)


def test_the_known_figures_of_8196_dimensions() -> None:
    assert rate_of(1.4013564660458173, 8196) == pytest.approx(0.0506, abs=5e-5)
    assert rate_of(1.398077, 8196) == pytest.approx(0.020, abs=5e-4)
    assert 1 / rate_of(1.3931334028176634, 8196) == pytest.approx(270, abs=4)


@pytest.mark.parametrize(
    ("k", "mean", "sd"), [(64, 1.41141, 0.08900), (12, 1.39827, 0.21175), (8192, 1.41419, 0.00781)]
)
def test_mean_and_sd_are_the_published_ones(k: int, mean: float, sd: float) -> None:
    assert moments(k) == (pytest.approx(mean, abs=6e-6), pytest.approx(sd, abs=6e-6))


@pytest.mark.parametrize("k", [2, 3, 12, 64, 199, 200, 201, 1024])
def test_the_density_has_mass_one_and_the_same_moments(k: int) -> None:
    def against(power: int) -> float:
        value, _ = integrate.quad(
            lambda d: d**power * float(density(np.array([d]), k)[0]), 0, 2, points=[math.sqrt(2)], limit=400
        )
        return float(value)

    mean, sd = moments(k)
    assert against(0) == pytest.approx(1.0, abs=1e-6)
    assert against(1) == pytest.approx(mean, abs=1e-6)
    assert against(2) - mean**2 == pytest.approx(sd**2, abs=1e-5)


@pytest.mark.parametrize("k", [2, 3, 12, 64])
def test_points_drawn_at_random_agree(k: int) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 40_000, k))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    d = np.linalg.norm(x - y, axis=1)
    for rate in (0.05, 0.3, 0.8):
        sd = math.sqrt(rate * (1 - rate) / len(d))
        assert np.mean(d < radius_of(rate, k)) == pytest.approx(rate, abs=4 * sd)
    assert np.mean(coordinate_cdf(x[:, 0], k)) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / len(d)))


@pytest.mark.parametrize("k", [2, 3, 12, 64])
def test_a_coordinate_is_distributed_as_the_theory_says(k: int) -> None:
    x = np.linspace(-0.99, 0.99, 41)
    expected = np.where(
        x < 0,
        special.betainc((k - 1) / 2, 0.5, 1 - x**2) / 2,
        1 - special.betainc((k - 1) / 2, 0.5, 1 - x**2) / 2,
    )
    assert coordinate_cdf(x, k) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("radius", [-0.1, 2.1, math.nan])
def test_a_radius_off_the_sphere_is_refused(radius: float) -> None:
    with pytest.raises(ConfigError, match=r"lie in 0\.\.2"):
        rate_of(radius, 64)


@pytest.mark.parametrize("rate", [0.0, 1.0, math.nan])
def test_a_rate_that_no_radius_has_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        radius_of(rate, 64)


def test_one_dimension_is_no_sphere_of_directions() -> None:
    with pytest.raises(ConfigError, match="at least 2 dimensions"):
        moments(1)


def test_a_sphere_too_wide_to_sum_is_named() -> None:
    from ftw.substrate.errors import NumericError

    with pytest.raises(NumericError, match="did not converge"):
        rate_of(math.sqrt(2.0), 10**14)

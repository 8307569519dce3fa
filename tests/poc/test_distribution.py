"""Uniformity of directions: uniform vectors pass, crooked ones are named."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ftw.poc.distribution import _kolmogorov, _uniform, distribution
from ftw.poc.sets import read_file
from ftw.substrate.errors import ConfigError

SETS = read_file(Path(__file__).parents[1] / "data/poc/poc_gpu_artifacts.npz")


def test_published_vectors_are_as_even_as_uniform_ones() -> None:
    for one in SETS[-2:]:
        found = distribution(one.vectors, targets=500)
        assert found.uneven == ()
        assert found.mean_norm.ideal == pytest.approx(1 / math.sqrt(found.n), rel=0.1)


def test_uniform_vectors_are_called_uneven_as_rarely_as_promised() -> None:
    rng = np.random.default_rng(3)
    found = [distribution(_uniform(200, 6, rng), targets=60, replicas=100, seed=seed) for seed in range(10)]
    assert sum(bool(one.uneven) for one in found) <= 1  # 0.1 are expected
    assert 0.15 < np.median([one.bubble_sd.p for one in found]) < 0.85
    assert 0.15 < np.median([one.largest.p for one in found]) < 0.85


def test_a_leaning_cloud_is_named_by_its_mean() -> None:
    x = _uniform(1000, 12, np.random.default_rng(1))
    x[:, 0] += 0.15
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = distribution(x, targets=500)
    assert "mean vector" in found.uneven
    assert found.mean_norm.value > found.mean_norm.high


def test_a_flat_cloud_is_named_by_its_spectrum_and_by_the_rates_at_targets() -> None:
    x = _uniform(1000, 12, np.random.default_rng(1))
    x[:, 0] *= 0.1
    x[:, 1] *= 2.0
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = distribution(x, targets=500)
    assert {"largest eigenvalue", "smallest eigenvalue", "spread of the rates", "coordinates"} <= set(found.uneven)
    assert found.spectrum[0] > found.spectrum_high[0]


def test_the_rate_at_targets_is_that_of_the_theory() -> None:
    found = distribution(_uniform(2000, 64, np.random.default_rng(2)), rate=0.2089, targets=400, replicas=100)
    assert found.radius == pytest.approx(1.34, abs=1e-3)
    assert found.bubble_mean.value == pytest.approx(0.2089, abs=0.002)
    assert found.bubble_sd.ideal == pytest.approx(math.sqrt(0.2089 * 0.7911 / 2000))
    assert found.distances.sum() == pytest.approx(1.0)


def test_the_ideal_spread_is_the_published_one() -> None:
    # 50,000 vectors, one percent: 0.000445, whatever the dimension
    assert math.sqrt(0.01 * 0.99 / 50_000) == pytest.approx(0.000445, abs=1e-6)
    found = distribution(_uniform(10_000, 10, np.random.default_rng(0)), rate=0.01, targets=200, replicas=100)
    assert found.bubble_sd.ideal == pytest.approx(0.000445 * math.sqrt(5), abs=1e-6)
    assert found.radius == pytest.approx(0.7936, abs=1e-4)
    assert found.uneven == ()


def test_the_eigenvalues_sum_to_k() -> None:
    found = distribution(_uniform(100, 5, np.random.default_rng(0)), targets=50)
    assert found.spectrum.sum() == pytest.approx(5.0)
    assert (np.diff(found.spectrum) <= 0).all()


@pytest.mark.parametrize("n", [30, 1000])
def test_the_p_of_a_gap_is_that_of_scipy(n: int) -> None:
    for gap in (0.5, 1.0, 1.5, 2.0):
        assert _kolmogorov(gap / math.sqrt(n), n) == pytest.approx(stats.kstwo.sf(gap / math.sqrt(n), n), abs=0.02)


def test_too_few_vectors_say_nothing() -> None:
    with pytest.raises(ConfigError, match="at least 20"):
        distribution(_uniform(19, 4, np.random.default_rng(0)))


@pytest.mark.parametrize(("targets", "replicas"), [(5, 100), (50, 10)])
def test_too_few_draws_say_nothing(targets: int, replicas: int) -> None:
    with pytest.raises(ConfigError, match="draw at least"):
        distribution(_uniform(50, 4, np.random.default_rng(0)), targets=targets, replicas=replicas)

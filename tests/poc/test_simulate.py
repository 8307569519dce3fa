"""The vote of a network: against the binomial, and against the published simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.poc.power import flagged
from ftw.poc.simulate import Network, normal_share, shares, spread, vote
from ftw.substrate.errors import ConfigError

PUBLISHED = {"n": 200, "p_mismatch": 0.02, "cutoff": 0.05}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=40)
@given(st.integers(2, 60), st.floats(0.0, 0.2), st.integers(0, 50))
def test_the_mean_weight_is_the_chance_of_one_vote(validators: int, rate: float, seed: int) -> None:
    network = Network(spread(validators), **PUBLISHED)
    found = vote(network, rate, rounds=400, rng=rng(seed))
    p = flagged(rate=rate, **PUBLISHED)
    assert found.p_vote == pytest.approx(p)
    votes = validators * 400
    assert found.weights.mean() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / votes) + 6 / votes)


def test_equal_validators_give_the_published_middle_of_the_honest_and_the_cheating_vote() -> None:
    network = Network(spread(377), **PUBLISHED)
    honest, cheat = (vote(network, rate, rounds=4000, rng=rng(1)) for rate in (0.02, 0.04))
    assert honest.quantile(0.5) == pytest.approx(0.0413, abs=0.01)  # published with weights that are not public
    assert cheat.quantile(0.5) == pytest.approx(0.5511, abs=0.005)
    assert honest.decided(1 / 2) == 0.0


def test_unequal_validators_give_the_whole_published_vote() -> None:
    network = Network(spread(377, 47.0), **PUBLISHED)
    honest, cheat = (vote(network, rate, rounds=20_000, rng=rng(1)) for rate in (0.02, 0.04))
    assert honest.quantile(0.5) == pytest.approx(0.0413, abs=0.002)
    assert honest.quantile(0.95) == pytest.approx(0.1234, abs=0.008)
    assert honest.most == pytest.approx(0.2643, abs=0.05)
    assert honest.decided(1 / 2) == 0.0
    assert cheat.quantile(0.5) == pytest.approx(0.5511, abs=0.003)
    assert cheat.quantile(0.95) == pytest.approx(0.6705, abs=0.006)
    assert cheat.decided(1 / 2) == pytest.approx(0.73563, abs=0.015)


def test_the_draws_agree_with_the_normal_limit() -> None:
    network = Network(spread(2000), **PUBLISHED)
    found = vote(network, 0.038, rounds=5000, rng=rng(2))
    assert found.decided(1 / 2) == pytest.approx(normal_share(network, found.p_vote, 1 / 2), abs=0.03)


def test_a_node_that_never_or_always_mismatches_leaves_no_doubt() -> None:
    network = Network(spread(10), **PUBLISHED)
    assert vote(network, 0.0, rounds=50, rng=rng()).most == 0.0
    everyone = vote(network, 1.0, rounds=50, rng=rng())
    assert everyone.weights == pytest.approx(np.ones(50))
    assert normal_share(network, everyone.p_vote, 2 / 3) == 1.0


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50))
def test_rounding_of_weights_leaves_no_chance_above_one(weights: list[float]) -> None:
    network = Network(shares(weights), **PUBLISHED)
    found = vote(network, 1.0, rounds=1, rng=rng())
    assert found.p_vote <= 1.0
    assert 0.0 <= normal_share(network, found.p_vote, 1 / 2) <= 1.0


def test_several_rates_are_shared_out_by_weight() -> None:
    network = Network(shares([4.0, 3.0, 2.0, 1.0]), **PUBLISHED)
    found = vote(network, [0.0, 1.0], rounds=3, rng=rng())
    assert found.weights == pytest.approx([0.4] * 3)
    assert found.rate == pytest.approx(0.4)


def test_one_seed_gives_one_result() -> None:
    network = Network(spread(30, 8.0), **PUBLISHED)
    first, again = (vote(network, 0.04, rounds=100, rng=rng(7)).weights for _ in range(2))
    assert np.array_equal(first, again)


@given(st.integers(3, 300), st.floats(0.05, 0.99))
def test_weights_spread_as_asked(validators: int, share: float) -> None:
    effective = max(1.5, share * validators)
    network = Network(spread(validators, effective), **PUBLISHED)
    assert network.effective == pytest.approx(effective, rel=1e-6)
    assert network.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("effective", [0.5, 1.0, 11.0])
def test_a_spread_that_cannot_be_is_refused(effective: float) -> None:
    with pytest.raises(ConfigError, match="cannot vote like"):
        spread(10, effective)


def test_nobody_cannot_vote() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        spread(0)


@pytest.mark.parametrize("weights", [[], [-1.0, 2.0], [0.0], [float("nan")]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights must be finite"):
        shares(weights)


@pytest.mark.parametrize("rates", [[], [1.5], [float("nan")]])
def test_rates_that_are_none_are_refused(rates: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"each in 0\.\.1"):
        vote(Network(spread(3), **PUBLISHED), rates, rounds=1, rng=rng())


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="simulate at least 1"):
        vote(Network(spread(3), **PUBLISHED), 0.1, rounds=0, rng=rng())

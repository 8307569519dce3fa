"""Calibration: the facts of published artifacts, and what the pools may hold."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ftw.poc.calibrate import Calibration, auc_of, calibrate, compare, distances_of
from ftw.poc.sets import ArtifactSet, chosen, read_file
from ftw.substrate.errors import ConfigError

SETS = read_file(Path(__file__).parents[1] / "data/poc/poc_gpu_artifacts.npz")


def noisy(name: str, noise: float, *, seed: int, n: int = 400, k: int = 12, first: int = 0) -> ArtifactSet:
    """A machine's vectors: shared directions with noise of this length."""
    x = np.random.default_rng(0).standard_normal((n, k))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = x + noise * np.random.default_rng(seed).standard_normal((n, k)) / np.sqrt(k)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return ArtifactSet(name, np.arange(first, first + n), x.astype(np.float16))


@pytest.fixture(scope="module")
def minimax() -> Calibration:
    cheat = chosen(SETS, ["awq"], "--cheat")
    honest = [one for one in SETS if "minimax" in one.name and one not in cheat]
    return calibrate(honest, cheat)


def test_identical_hardware_differs_by_exactly_nothing(minimax: Calibration) -> None:
    (same,) = [pair for pair in minimax.pairs if pair.identical]
    assert {same.a, same.b} == {"2026-05__minimax-m27-fp8-2xb200__1000", "2026-05__minimax_m27_2xb200_ohio_pr36__1000"}


def test_honest_gpus_of_two_kinds_differ_as_published(minimax: Calibration) -> None:
    (qwen,) = compare(chosen(SETS, ["qwen"], "--honest"))
    assert qwen.distances.mean() == pytest.approx(0.088, abs=0.003)
    (pair,) = [p for p in minimax.pairs if p.pooled and p.a.endswith("fp8-2xb200__1000") and "4xh100" in p.b]
    assert pair.distances.mean() == pytest.approx(0.294, abs=0.001)


def test_the_wire_default_calls_almost_every_honest_nonce_a_mismatch(minimax: Calibration) -> None:
    nulls = [pair for pair in minimax.pairs if pair.kind == "honest" and pair.pooled]
    assert all(0.98 <= pair.above(0.02) <= 1.0 for pair in (*nulls, *compare(chosen(SETS, ["qwen"], "--honest"))))


def test_a_cheaper_model_is_told_apart(minimax: Calibration) -> None:
    assert minimax.auc is not None
    assert minimax.auc.value == pytest.approx(0.962, abs=0.001)
    assert minimax.auc.low < minimax.auc.value < minimax.auc.high
    assert minimax.threshold.low < minimax.threshold.value < minimax.threshold.high
    best = minimax.tests[0]
    assert best.power == pytest.approx(1.0)
    assert best.false_alarm_worst < minimax.cutoff


def test_the_auc_is_that_of_scikit_learn(minimax: Calibration) -> None:
    honest, cheat = minimax.pool("honest"), minimax.pool("cheat")
    labels = np.r_[np.zeros(len(honest)), np.ones(len(cheat))]
    assert minimax.auc is not None
    assert minimax.auc.value == pytest.approx(roc_auc_score(labels, np.r_[honest, cheat]), abs=1e-12)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2]), min_size=1), st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1))
def test_ties_count_half(honest: list[float], cheat: list[float]) -> None:
    pairs = [(b > a) + 0.5 * (a == b) for a in honest for b in cheat]
    found = auc_of(np.array(honest, dtype=np.float32), np.array(cheat, dtype=np.float32))
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_copies_of_a_set_change_no_threshold() -> None:
    a, b, c = (noisy(name, 0.1, seed=seed) for seed, name in enumerate("abc"))
    copy = ArtifactSet("copy", a.nonces, a.vectors)
    plain, doubled = calibrate([a, b], [c]), calibrate([a, copy, b], [c])
    assert doubled.threshold == plain.threshold
    assert doubled.auc == plain.auc
    assert len(doubled.pool("honest")) == len(plain.pool("honest"))


def test_the_threshold_leaves_the_chosen_share_above() -> None:
    found = calibrate([noisy(name, 0.1, seed=seed, n=1000) for seed, name in enumerate("abc")], quantile=0.9)
    assert (found.pool("honest") > found.threshold.value).mean() == pytest.approx(0.1, abs=0.002)
    assert found.auc is None
    assert found.power_by_share == ()
    assert all(test.power is None for test in found.tests)


def test_more_noise_is_caught_more_often() -> None:
    honest = [noisy("a", 0.1, seed=1), noisy("b", 0.1, seed=2)]
    powers = [calibrate(honest, [noisy("c", noise, seed=3)], n=50).tests[0].power for noise in (0.1, 0.15, 0.2, 0.4)]
    assert powers == sorted(powers)
    assert powers[-1] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_intervals() -> None:
    sets = [noisy("a", 0.1, seed=1), noisy("b", 0.1, seed=2)]
    assert calibrate(sets, seed=4).threshold == calibrate(sets, seed=4).threshold


def test_only_common_nonces_are_compared() -> None:
    a, b = noisy("a", 0.0, seed=1, n=30), noisy("b", 0.0, seed=2, n=30, first=20)
    nonces, _ = distances_of(a, b)
    assert nonces.tolist() == list(range(20, 30))


def test_sets_without_a_common_nonce_are_refused() -> None:
    with pytest.raises(ConfigError, match="share no nonce"):
        compare([noisy("a", 0.1, seed=1, n=5), noisy("b", 0.1, seed=2, n=5, first=9)])


def test_sets_of_two_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="12 numbers, 'b' of 16"):
        compare([noisy("a", 0.1, seed=1), noisy("b", 0.1, seed=2, k=16)])


def test_sets_of_two_rounds_are_refused() -> None:
    one = noisy("a", 0.1, seed=1)
    a, b = (ArtifactSet(name, one.nonces, one.vectors, (("block_hash", name),)) for name in "ab")
    with pytest.raises(ConfigError, match="only sets of one round"):
        compare([a, b])


def test_one_honest_set_is_too_few() -> None:
    with pytest.raises(ConfigError, match="make no pair"):
        calibrate([noisy("a", 0.1, seed=1)])


def test_honest_sets_that_agree_to_the_last_bit_calibrate_nothing() -> None:
    with pytest.raises(ConfigError, match="agree to the last bit"):
        calibrate([noisy("a", 0.1, seed=1), noisy("b", 0.1, seed=1)])


def test_a_set_has_one_label() -> None:
    a, b = noisy("a", 0.1, seed=1), noisy("b", 0.1, seed=2)
    with pytest.raises(ConfigError, match="labelled honest and cheat"):
        calibrate([a, b], [b])


def test_a_quantile_must_lie_between() -> None:
    with pytest.raises(ConfigError, match=r"for example 0\.98"):
        calibrate([noisy("a", 0.1, seed=1), noisy("b", 0.1, seed=2)], quantile=1.0)

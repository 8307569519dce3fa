"""Verdicts: the binomial test is exact, every way to fail has a reason, and real machines are told apart."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ftw.poc.binomial import log_tail, tail
from ftw.poc.codec import Artifact, decode, encode
from ftw.poc.verify import StatTest, distance, judge, sort_claims, validate
from ftw.substrate.errors import ConfigError

GPU = Path(__file__).parents[1] / "data/poc/poc_gpu_artifacts.npz"


def units(n, seed=0, k=12):
    v = torch.randn(n, k, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(v, dim=-1).half()


def claims_of(vectors, nonces=None):
    nonces = range(len(vectors)) if nonces is None else nonces
    return [Artifact(int(nonce), text) for nonce, text in zip(nonces, encode(vectors), strict=True)]


def honest(vectors):
    rows = vectors.numpy()
    return lambda asked: [rows[i] for i in asked]


# --- the binomial test


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 3000), st.floats(1e-6, 1 - 1e-6), st.data())
def test_the_tail_agrees_with_scipy(n, p, data):
    k = data.draw(st.integers(0, n))
    expected = float(stats.binomtest(k, n, p, alternative="greater").pvalue)
    assert tail(k, n, p) == pytest.approx(expected, rel=1e-9, abs=1e-290)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.fractions(0, 1, max_denominator=50), st.data())
def test_the_tail_agrees_with_exact_fractions(n, p, data):
    k = data.draw(st.integers(0, n))
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert tail(k, n, float(p)) == pytest.approx(float(exact), rel=1e-12, abs=1e-300)


def test_the_tail_stays_exact_where_probabilities_underflow():
    n, k = 1_000_000, 900_000
    log_comb = math.log(math.comb(2000, 1800))
    assert log_tail(1800, 2000, 1e-3) == pytest.approx(
        log_comb + 1800 * math.log(1e-3) + 200 * math.log1p(-1e-3) + math.log1p(200 / 1801 * 1e-3), rel=1e-7
    )
    assert tail(k, n, 0.001) == 0.0
    assert -math.inf < log_tail(k, n, 0.001) < -1e6


def test_published_examples_of_the_test():
    assert tail(1, 5, 0.001) == pytest.approx(0.00499, abs=1e-5)
    assert tail(3, 200, 0.001) == pytest.approx(0.00113, abs=1e-5)
    assert tail(35, 2000, 0.02) == pytest.approx(0.809, abs=1e-3)


def test_the_ends_of_the_tail():
    assert tail(0, 0, 0.5) == 1.0
    assert tail(0, 9, 0.0) == 1.0
    assert tail(1, 9, 0.0) == 0.0
    assert tail(9, 9, 1.0) == 1.0
    assert tail(9, 9, 0.5) == pytest.approx(0.5**9)


def test_impossible_counts_and_probabilities_are_errors():
    with pytest.raises(ConfigError, match=r"must lie in 0..3"):
        log_tail(4, 3, 0.5)
    with pytest.raises(ConfigError, match=r"a probability lies in 0..1"):
        log_tail(1, 3, float("nan"))


# --- verdicts


def test_an_honest_claim_passes():
    vectors = units(200)
    verdict = validate(range(200), claims_of(vectors), 12, honest(vectors))
    assert (verdict.n_total, verdict.n_mismatch, verdict.p_value, verdict.fraud_detected) == (200, 0, 1.0, False)
    assert verdict.test == StatTest(0.02, 0.001, 0.01)
    assert set(verdict.distances.values()) == {0.0}


def test_another_model_is_fraud_with_the_distance_of_each_nonce():
    verdict = validate(range(5), claims_of(units(5, seed=1)), 12, honest(units(5)))
    assert verdict.mismatch_nonces == (0, 1, 2, 3, 4)
    assert {one.reason for one in verdict.mismatches} == {"distance"}
    assert all(one.distance > 0.4 for one in verdict.mismatches)
    assert verdict.fraud_detected


def test_every_bad_claim_is_a_mismatch_and_counts():
    vectors = units(8)
    good = claims_of(vectors)
    claimed = [good[0], Artifact(1, ""), Artifact(2, "?"), Artifact(3, good[3].vector_b64[:8]), good[4], good[4]]
    claimed += [Artifact(5, encode(torch.zeros(1, 12).half())[0]), Artifact(6, good[6].vector_b64 + "AAAA")]
    verdict = validate(range(8), claimed, 12, honest(vectors))
    assert {one.nonce: one.reason for one in verdict.mismatches} == {
        1: "empty",
        2: "undecodable",
        3: "short",
        4: "duplicate",
        5: "non-unit",
        6: "long",
        7: "missing",
    }
    assert verdict.n_total == 8
    assert verdict.fraud_detected


def test_no_forward_pass_is_spent_on_claims_that_cannot_be_compared():
    asked_of_the_model = []

    def recompute(nonces):
        asked_of_the_model.extend(nonces)
        return [units(3).numpy()[nonce] for nonce in nonces]

    validate(range(3), [Artifact(0, ""), claims_of(units(3))[1]], 12, recompute)
    assert asked_of_the_model == [1]
    validate(range(3), [], 12, lambda _nonces: pytest.fail("there is nothing to recompute"))


def test_the_threshold_itself_is_no_mismatch():
    a, b = units(1), units(1, seed=1)
    gap = distance(a.numpy()[0], b.numpy()[0])
    at = validate([0], claims_of(a), 12, honest(b), StatTest(dist_threshold=gap))
    below = validate([0], claims_of(a), 12, honest(b), StatTest(dist_threshold=gap * 0.999))
    assert (at.n_mismatch, below.n_mismatch) == (0, 1)


def test_nothing_asked_is_no_fraud():
    verdict = validate([], [], 12, lambda _nonces: [])
    assert (verdict.p_value, verdict.fraud_detected) == (1.0, False)


def test_a_verdict_tells_sizes_apart_that_underflow():
    verdict = validate(range(300), [], 12, lambda _nonces: [])
    assert verdict.p_value == 0.0
    assert verdict.log_p_value == pytest.approx(300 * math.log(0.001))


def test_a_request_that_makes_no_sense_is_an_error():
    with pytest.raises(ConfigError, match=r"nonces \[1\] are asked for more than once"):
        sort_claims([1, 1], [], 12)
    with pytest.raises(ConfigError, match=r"claims for nonces \[9\], which were not asked for"):
        sort_claims([1], [Artifact(9, "")], 12)
    with pytest.raises(ConfigError, match=r"nonces \[0\] were not recomputed"):
        judge(sort_claims([0], claims_of(units(1)), 12), {}, StatTest())


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"dist_threshold": 1e9}, "dist_threshold"),
        ({"dist_threshold": float("nan")}, "dist_threshold"),
        ({"p_mismatch": 0.0}, "p_mismatch"),
        ({"fraud_threshold": 1.0}, "fraud_threshold"),
    ],
)
def test_parameters_that_make_no_test_are_errors(values, named):
    with pytest.raises(ConfigError, match=f"{named} is "):
        StatTest(**values)


# --- artifacts of real machines


@pytest.fixture(scope="module")
def sets():
    with np.load(GPU) as data:
        names = {key.split("|")[0] for key in data.files}
        return {name: (data[f"{name}|nonces"], data[f"{name}|vectors"]) for name in names}


def pair(sets, one, other):
    """Nonces that two sets share, with both machines' vectors."""
    found = [next(value for name, value in sorted(sets.items()) if part in name) for part in (one, other)]
    shared, i, j = np.intersect1d(found[0][0], found[1][0], return_indices=True)
    return shared[:200], torch.from_numpy(found[0][1][i][:200]), found[1][1][j][:200]


def verdict_of(sets, prover, validator, test):
    nonces, claimed, mine = pair(sets, prover, validator)
    truth = dict(zip(nonces.tolist(), mine, strict=True))
    return validate(nonces.tolist(), claims_of(claimed, nonces), 12, lambda asked: [truth[n] for n in asked], test)


def test_real_artifacts_are_unit_vectors_that_survive_the_codec(sets):
    for _, vectors in sets.values():
        for text, row in zip(encode(torch.from_numpy(vectors[:100])), vectors[:100], strict=True):
            assert decode(text, 12).tobytes() == row.astype("<f2").tobytes()


def test_real_honest_machines_pass_and_a_cheaper_model_is_caught(sets):
    test = StatTest(dist_threshold=0.75, p_mismatch=0.1, fraud_threshold=0.05)  # the network's numbers for this model
    assert not verdict_of(sets, "fp8-2xh200", "fp8-2xb200", test).fraud_detected
    assert not verdict_of(sets, "fp8-4xh100", "fp8-2xb200", test).fraud_detected
    cheat = verdict_of(sets, "awq4bit-2xh100", "fp8-2xb200", test)
    honest_mean = np.mean(list(verdict_of(sets, "fp8-2xh200", "fp8-2xb200", test).distances.values()))
    assert np.mean(list(cheat.distances.values())) > 1.3 * honest_mean


def test_the_default_threshold_convicts_honest_machines_of_different_kind(sets):
    verdict = verdict_of(sets, "qwen235b-fp8-4xh100", "qwen235b-fp8-2xb200", StatTest())
    assert verdict.fraud_detected  # why the threshold must be calibrated per model
    assert 0.05 < np.mean(list(verdict.distances.values())) < 0.13

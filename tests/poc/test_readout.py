"""The readout is the reference's: picks in their order, rotations, targets; and the artifact to the last bit."""

import json
import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from ftw.poc.codec import encode
from ftw.poc.inputs import input_embeddings
from ftw.poc.profiles import ARTIFACT_K12, DISTANCE_K64
from ftw.poc.readout import chord, pick, readout, rotate_chain, rotate_qr, target
from ftw.poc.reflections import layer_vectors
from ftw.poc.seeds import SeedStrings
from ftw.substrate.errors import ConfigError, NumericError

GOLDEN = json.loads((Path(__file__).parents[1] / "data/poc/poc_reference_vectors.json").read_text())
STRINGS = SeedStrings("block_alpha", "node_A")


def name(case):
    return f"{case['block_hash']}-{case['public_key']}"


def of(case):
    return SeedStrings(case["block_hash"], case["public_key"])


def last_rows(case):
    inputs = input_embeddings(
        of(case), case["nonces"], case["seq_len"], case["hidden_size"], stronger=case["poc_stronger_rng"]
    )
    return inputs[:, -1]


@pytest.mark.parametrize("case", GOLDEN, ids=name)
def test_picks_equal_the_reference_in_set_and_order(case):
    got = pick(of(case), case["nonces"], case["hidden_size"], case["k_dim"], ARTIFACT_K12)
    assert got.sort(-1).values.tolist() == case["pick_set"]
    assert got.tolist() == case["pick_order"]


def test_picks_of_a_wide_model_equal_the_reference():
    got = pick(STRINGS, [0], 1024, 12, ARTIFACT_K12)[0].tolist()
    assert got == [22, 209, 344, 439, 562, 607, 637, 758, 817, 906, 985, 798]


@pytest.mark.parametrize("case", GOLDEN, ids=name)
def test_readouts_equal_the_reference_and_artifacts_to_the_last_bit(case):
    y = readout(last_rows(case), of(case), case["nonces"], ARTIFACT_K12, case["k_dim"])
    assert torch.allclose(y, torch.tensor(case["readout_of_last_input_row"]), atol=1e-6, rtol=0)
    assert encode(y.half()) == case["artifact_b64"]


@pytest.mark.parametrize("case", GOLDEN, ids=name)
def test_layer_vectors_and_targets_equal_the_reference(case):
    vectors = layer_vectors(case["block_hash"], 3, case["hidden_size"])
    assert torch.allclose(vectors[:, :6], torch.tensor(case["layer_vectors_first6"]), atol=1e-6, rtol=0)
    assert torch.allclose(target(of(case), 64)[:8], torch.tensor(case["target64_first8"]), atol=1e-6, rtol=0)


def test_the_chain_turns_the_first_axis_as_the_reference_does():
    x = torch.eye(12)[:1]
    expected = [-0.27272, -0.21223, -0.13106, -0.06981, -0.16475, 0.16055, 0.73072, 0.24664, 0.02432, -0.01129, 0.05590]
    assert torch.allclose(rotate_chain(x, STRINGS, [0])[0, :11], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rotate", [rotate_chain, rotate_qr])
def test_rotations_keep_lengths_and_angles(rotate):
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(2))
    turned, other = rotate(x, STRINGS, [4]), rotate(z, STRINGS, [4])
    assert torch.allclose(turned.norm(), x.norm(), rtol=1e-5)
    assert torch.allclose((turned * other).sum(), (x * z).sum(), atol=1e-4)


def test_the_qr_rotation_is_haar_and_the_chain_is_not():
    x = torch.eye(12)[:1].expand(3000, 12)
    nonces = range(3000)
    haar = rotate_qr(x, STRINGS, nonces)[:, 0].mean()
    chain = rotate_chain(x, STRINGS, nonces)[:, 0].mean()
    assert abs(float(haar)) < 4 / math.sqrt(12 * 3000)
    assert abs(float(chain) - (1 - 2 / 12) ** 11) < 0.03


def test_a_nonce_is_read_alike_in_any_company():
    hidden = torch.randn(6, 96, generator=torch.Generator().manual_seed(0))
    for profile in (ARTIFACT_K12, DISTANCE_K64):
        k = profile.k_dim
        together = readout(hidden, STRINGS, range(6), profile, k)
        turned = readout(hidden.flip(0), STRINGS, list(reversed(range(6))), profile, k)
        assert torch.equal(together.half(), turned.flip(0).half())


def test_rates_within_a_radius_are_those_of_random_points():
    hidden = torch.randn(4000, 80, generator=torch.Generator().manual_seed(0))
    y = readout(hidden, STRINGS, range(4000), DISTANCE_K64, 64)
    distances = chord(y, target(STRINGS, 64))
    for radius, rate in ((1.34, 0.2089), (DISTANCE_K64.radius, 0.10)):
        sigma = math.sqrt(rate * (1 - rate) / 4000)
        assert abs(float((distances < radius).float().mean()) - rate) < 3 * sigma


def test_the_radius_of_the_profile_is_the_ten_percent_radius():
    t = float(stats.t.isf(0.10, 63))
    assert math.sqrt(2 - 2 * t / math.sqrt(63 + t * t)) == pytest.approx(DISTANCE_K64.radius, abs=1e-4)


def test_a_target_is_bound_to_the_key():
    assert not torch.equal(target(STRINGS, 64), target(SeedStrings("block_alpha", "node_B"), 64))


def test_a_state_that_is_not_finite_is_an_error_that_names_the_nonce():
    hidden = torch.randn(2, 32)
    hidden[1, 3] = float("nan")
    with pytest.raises(NumericError, match=r"nonces \[8\] are not finite"):
        readout(hidden, STRINGS, [7, 8], ARTIFACT_K12, 12)


@pytest.mark.parametrize("k", [1, 33])
def test_a_k_that_the_model_does_not_have_is_an_error(k):
    with pytest.raises(ConfigError, match=f"k_dim is {k}.*choose 2..32"):
        readout(torch.randn(1, 32), STRINGS, [0], ARTIFACT_K12, k)

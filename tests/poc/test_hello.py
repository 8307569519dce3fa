"""The first proof: an honest recomputation agrees to the last bit, a cheaper copy of the model does not."""

import itertools
import json

import pytest
import torch

from ftw.poc import hello as hello_module
from ftw.poc.hello import four_bits, hello
from ftw.poc.profiles import DISTANCE_K64
from ftw.substrate.errors import ConfigError
from ftw.substrate.model import load
from ftw.substrate.reference import tiny


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def greeting(model):
    ticks = itertools.count()
    return hello(model, block_hash="block", seq_len=8, clock=lambda: float(next(ticks)))


def test_eight_nonces_prove_themselves(greeting, model):
    assert greeting.ok
    assert [one.nonce for one in greeting.artifacts] == list(range(8))
    assert greeting.recomputed.identical
    assert greeting.recomputed.max_abs_difference == 0.0
    assert greeting.recomputed.verdict.n_mismatch == 0
    assert greeting.fingerprint == model.fingerprint


def test_a_cheaper_copy_is_caught(greeting):
    assert greeting.cheaper.verdict.fraud_detected
    assert min(greeting.cheaper.distances) > 0.02
    assert not greeting.cheaper.identical
    assert greeting.cheaper.what == "blocks 0..3 of 4 in 4 bits"


def test_rates_come_from_the_clock(greeting):
    assert greeting.seconds == 1.0
    assert greeting.nonces_per_second == 8.0
    assert greeting.total_seconds == 3.0


def test_the_record_is_plain_json(greeting):
    record = json.loads(json.dumps(greeting.record(), allow_nan=False))
    assert record["ok"] is True
    assert record["profile"] == "artifact-k12/1"
    assert record["recomputed"]["distances_l2"] == [0.0] * 8
    assert record["cheaper"]["fraud_detected"] is True


def test_the_model_is_left_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    hello(model, n=3, seq_len=4, rows=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.net.state_dict().items())


def test_a_round_is_fresh_unless_it_is_given(model):
    first, second = (hello(model, n=1, seq_len=4, rows=1) for _ in range(2))
    assert first.block_hash != second.block_hash
    assert first.artifacts != second.artifacts


def test_k_is_at_most_the_width_of_the_model(model):
    assert hello(model, n=2, seq_len=4, rows=2, profile=DISTANCE_K64).k_dim == model.d_model


def test_progress_is_told(model):
    told = []
    hello(model, n=1, seq_len=4, rows=1, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_proof_of_nothing_is_an_error(model):
    with pytest.raises(ConfigError, match="n is 0"):
        hello(model, n=0)


def test_a_large_model_is_rounded_as_far_as_memory_goes(model, monkeypatch):
    monkeypatch.setattr(hello_module, "CHEAT_BYTES", 1)
    blocks, weights = four_bits(model)
    assert blocks == 1
    assert all(".0." in name for name in weights)


def test_four_bits_are_sixteen_values_per_group(model):
    _, weights = four_bits(model)
    original = dict(model.net.base_model.named_parameters())
    for name, weight in weights.items():
        assert weight.shape == original[name].shape
        assert weight[0, :32].unique().numel() <= 16
        assert not torch.equal(weight, original[name])


def test_the_bundled_model_proves_itself():
    found = hello(load("reference"), block_hash="block", seq_len=32, rows=4)
    assert found.ok
    assert min(found.cheaper.distances) > 0.02

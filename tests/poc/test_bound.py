"""The ftw-1 profile: seeds that bind everything and never meet, exact normals, picks in order, true Haar rotations."""

import hashlib
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftw.poc import bound
from ftw.poc.bound import BoundSeeds, bound_normals, bound_pick, bound_units, fill_bound, haar, quantiles
from ftw.poc.forward import Prover, Round, artifacts
from ftw.poc.hello import hello
from ftw.poc.inputs import input_embeddings
from ftw.poc.profiles import FTW_1
from ftw.poc.readout import chord, pick, readout, target
from ftw.poc.reflections import LayerVectors, layer_vectors
from ftw.substrate.errors import ConfigError
from ftw.substrate.reference import tiny

SEEDS = BoundSeeds("a1b2", "block", "key", 8, 12)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def round_(model):
    return Round("block", "key", FTW_1, seq_len=8, fingerprint=model.fingerprint)


@pytest.fixture(scope="module")
def six(model, round_):
    return Prover(model, round_, rows=4).vectors(range(6))


# --- seeds


def test_seeds_and_normals_keep_their_bits():
    assert SEEDS.digest("inputs", 0).hex() == "76a742ae7fb22ebd60f282f2419edef8c83063f9528cf8eb85db65b2ed6e6be1"
    assert SEEDS.digest("pick", -3).hex() == "9fb701d29c8804938f22ded4441f91f4735d4a71a217ab9454e8377286bc1eb1"
    whole = (bound_normals(SEEDS.words("inputs"), 4096) * 2**20).to(torch.int32)
    assert whole[0, :4].tolist() == [484565, -397269, -643221, -640705]
    assert (
        hashlib.sha256(whole.numpy().astype("<i4").tobytes()).hexdigest()
        == "cbac353590a049516a3d3f49138ef2eb372a30e7e28b568bba6a27fcdf78267a"
    )


def test_a_digest_is_sha256_over_fields_that_follow_their_lengths():
    fields = [b"ftw proof of compute", b"ftw-1/1", b"layer", b"a1b2", b"block", b"key"]
    fields += [(8).to_bytes(8, "big"), (12).to_bytes(8, "big"), (5).to_bytes(16, "big", signed=True)]
    message = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
    assert SEEDS.digest("layer", 5) == hashlib.sha256(message).digest()


def test_everything_that_a_round_binds_changes_every_seed():
    others = [
        replace(SEEDS, fingerprint="a1b3"),
        replace(SEEDS, block_hash="block2"),
        replace(SEEDS, public_key="key2"),
        replace(SEEDS, seq_len=9),
        replace(SEEDS, k_dim=13),
    ]
    purposes = ("inputs", "layer", "pick", "rotation", "target")
    digests = {one.digest(purpose, index) for one in (SEEDS, *others) for purpose in purposes for index in (-1, 0, 1)}
    assert len(digests) == 6 * 5 * 3


@given(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4), st.text(max_size=4))
def test_no_two_pairs_of_texts_meet_whatever_is_moved_between_them(a, b, c, d):
    one, other = BoundSeeds("f", a, b, 8, 12), BoundSeeds("f", c, d, 8, 12)
    assert (one.digest("inputs") == other.digest("inputs")) == ((a, b) == (c, d))
    shifted = BoundSeeds(a, b, c, 8, 12).digest("inputs") == BoundSeeds("f" + a, b, c, 8, 12).digest("inputs")
    assert not shifted


def test_words_are_the_digest():
    words = SEEDS.words("pick", [7, -1])
    assert words.shape == (2, 8)
    whole = b"".join((int(word) & 0xFFFFFFFF).to_bytes(4, "big") for word in words[1])
    assert whole == SEEDS.digest("pick", -1)


# --- normals


def test_the_table_keeps_its_bits_and_no_entry_is_near_another_rounding():
    table = (quantiles(torch.float32, CPU) * 2**20).to(torch.int32)
    assert (
        hashlib.sha256(table.numpy().astype("<i4").tobytes()).hexdigest()
        == "7030c40868edff0a36b70d4a06ceacbf25ac02eb87069f34786f8258a1e9a44d"
    )
    exact = torch.tensor(stats.norm.ppf([(i + 0.5) / 65536 for i in range(65536)])) * 2**20
    assert float((exact - table).abs().max()) < 0.5 - 1e-5
    assert torch.equal(table, -table.flip(0))
    assert table.unique().numel() == 65536


def test_the_table_has_the_moments_that_are_documented():
    table = quantiles(torch.float32, CPU).double()
    assert float(table.mean()) == 0.0
    assert float(table.square().mean()) - 1 == pytest.approx(-2.03e-5, abs=1e-7)
    assert float(table.pow(4).mean() / table.square().mean() ** 2) - 3 == pytest.approx(-7.5e-4, abs=5e-5)
    assert float(table.max()) == pytest.approx(4.325, abs=1e-3)


def test_normals_are_normal_and_neither_neighbours_nor_rows_are_related():
    z = bound_normals(SEEDS.words("inputs", range(4)), 100_000)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.001
    assert float(z.mean().abs()) < 4 / math.sqrt(z.numel())
    assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / z.numel())
    assert float(torch.corrcoef(z).triu(1).abs().max()) < 4.5 / math.sqrt(100_000)
    for lag in (1, 12_500, 25_000):
        assert abs(float((z[:, lag:] * z[:, :-lag]).mean())) < 4.5 / math.sqrt(z[:, lag:].numel())


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000, 3 * 8 * 64 + 5])
def test_threads_blocks_and_company_change_no_bit(count, monkeypatch):
    seeds = SEEDS.words("inputs", range(3))
    whole = bound_normals(seeds, count)
    assert torch.equal(bound_normals(seeds[1:2], count), whole[1:2])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            monkeypatch.setattr(bound, "CPU_COUNTERS", 64)
            assert torch.equal(bound_normals(seeds, count), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrower_dtypes_are_rounded_once(dtype):
    seeds = SEEDS.words("inputs", range(2))
    out = torch.empty(2, 999, dtype=dtype)
    fill_bound(out, seeds)
    assert torch.equal(out, bound_normals(seeds, 999).to(dtype))


def test_a_short_stream_is_no_prefix_of_a_longer_one():
    seeds = SEEDS.words("inputs")
    assert not torch.equal(bound_normals(seeds, 64)[0], bound_normals(seeds, 128)[0, :64])


def test_nothing_asked_gives_nothing():
    assert bound_normals(SEEDS.words("inputs", []), 5).shape == (0, 5)
    assert input_embeddings(SEEDS, [], 3, 4).shape == (0, 3, 4)


def test_inputs_are_the_normals_of_the_nonce():
    x = input_embeddings(SEEDS, [3, 9], 5, 7)
    assert torch.equal(x.flatten(1), bound_normals(SEEDS.words("inputs", [3, 9]), 35))


# --- picks, reflections, rotations


def test_picks_ascend_and_every_dimension_is_picked_as_often():
    picks = bound_pick(SEEDS, range(4000), 20, 5)
    assert bool((picks[:, 1:] > picks[:, :-1]).all())
    counts = picks.flatten().bincount(minlength=20).double()
    assert float(((counts - 1000) / math.sqrt(4000 * 0.25 * 0.75)).abs().max()) < 4
    assert torch.equal(pick(SEEDS, [5], 20, 5, FTW_1), picks[5:6])


def test_layer_vectors_are_unit_vectors_that_the_key_is_mixed_into():
    vectors = layer_vectors(SEEDS, 3, 64)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(3))
    other = layer_vectors(replace(SEEDS, public_key="other"), 3, 64)
    assert float((vectors * other).sum(-1).abs().max()) < 0.6
    assert not torch.equal(target(SEEDS, 64), bound_units(SEEDS.words("layer"), 64)[0])
    cache = LayerVectors()
    assert cache.get(SEEDS, 3, 64) is cache.get(replace(SEEDS), 3, 64)


def test_rotations_are_orthogonal_and_haar():
    n, k = 3000, 12
    q = haar(SEEDS, range(n), k)
    assert torch.allclose(q @ q.mT, torch.eye(k).expand(n, k, k), atol=1e-5)
    entries = q.flatten(1)
    assert float(entries.mean(0).abs().max()) < 4.5 / math.sqrt(k * n)
    assert float((entries.square().mean(0) - 1 / k).abs().max()) < 4.5 * math.sqrt(2 / n) / k
    traces = q.diagonal(dim1=1, dim2=2).sum(-1)
    assert float(traces.mean().abs()) < 4 / math.sqrt(n)  # of Haar: mean 0, variance 1
    assert float(traces.var()) == pytest.approx(1, abs=0.12)
    assert float((q @ q).diagonal(dim1=1, dim2=2).sum(-1).mean()) == pytest.approx(1, abs=0.12)
    assert float(torch.linalg.det(q.double()).mean().abs()) < 4 / math.sqrt(n)
    squares = stats.beta(0.5, (k - 1) / 2)
    for row, column in ((0, 0), (0, k - 1), (k - 1, 0), (k - 1, k - 1), (4, 7)):
        assert stats.kstest(q[:, row, column].double().square().numpy(), squares.cdf).pvalue > 0.0005


def test_what_is_read_keeps_nothing_of_the_original_direction():
    hidden = torch.ones(3000, 12)
    y = readout(hidden, SEEDS, range(3000), FTW_1, 12)
    x = torch.ones(12) / math.sqrt(12)
    along = y @ x
    assert float(along.mean().abs()) < 4 / math.sqrt(12 * 3000)
    assert stats.kstest(along.double().square().numpy(), stats.beta(0.5, 5.5).cdf).pvalue > 0.001
    assert float((chord(y, target(SEEDS, 12)).square().mean() - 2).abs()) < 0.05


@pytest.mark.parametrize("k", [2, 3])
def test_small_rotations_are_orthogonal_too(k):
    q = haar(SEEDS, range(50), k)
    assert torch.allclose(q @ q.mT, torch.eye(k).expand(50, k, k), atol=1e-6)


# --- vectors


def test_company_batches_and_threads_change_no_bit(model, round_, six):
    prover = Prover(model, round_, rows=4)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for nonces in ([5], [5, 3, 0], [4, 100, 2, 1, 0]):
                for nonce, vector in zip(nonces, prover.vectors(nonces), strict=True):
                    assert nonce > 5 or torch.equal(vector, six[nonce])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "change", [{"block_hash": "other"}, {"public_key": "other"}, {"seq_len": 9}], ids=lambda change: next(iter(change))
)
def test_whatever_a_round_binds_changes_the_vectors(model, round_, six, change):
    other = Prover(model, replace(round_, **change), rows=4).vectors(range(6))
    assert float((other.float() - six.float()).norm(dim=-1).min()) > 0.05


def test_a_call_gives_the_round_the_fingerprint_of_its_model(model, six):
    made = artifacts(model, FTW_1, "block", "key", [2], 8, rows=4)
    assert made[0].nonce == 2
    found = hello(model, n=3, profile=FTW_1, seq_len=8, rows=2)
    assert found.recomputed.identical


def test_a_round_of_another_model_or_of_none_is_an_error(model, round_):
    with pytest.raises(ConfigError, match="ftw-1/1 binds the model: give the round its fingerprint"):
        Round("block", "key", FTW_1)
    with pytest.raises(ConfigError, match="the round binds the model 00ff, and tiny is "):
        Prover(model, replace(round_, fingerprint="00ff"))
    with pytest.raises(ConfigError, match="ftw-1/1 has no poc_stronger_rng"):
        replace(round_, stronger_rng=True)

"""Normals and input embeddings are the reference's, and a row depends on its nonce alone."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from ftw.poc import inputs_cpu
from ftw.poc.inputs import fill_normals, fill_with_torch, input_embeddings
from ftw.poc.normals import normals, uniforms, unit_normals
from ftw.poc.seeds import SeedStrings, mix, seed32, seed_words

GOLDEN = json.loads((Path(__file__).parents[1] / "data/poc/poc_reference_vectors.json").read_text())
STRINGS = SeedStrings("block", "key")


def name(case):
    return f"{case['block_hash']}-{case['public_key']}"


def test_normals_equal_the_reference():
    seed = torch.tensor(0x0D11E7C0)
    expected = torch.tensor([-0.423058, -0.144594, 0.420126, 0.205250, 0.555916, 1.501649, -0.359042, 0.667099])
    assert torch.allclose(normals(seed, 8), expected, atol=1e-6, rtol=0)


def test_uniforms_round_the_whole_integer_once():
    assert uniforms(torch.tensor(0x0D11E7C0), 1).item() == torch.tensor(0xC8921CAF).float().item() / 2**32


def test_normals_have_the_moments_of_a_normal():
    z = normals(torch.tensor([3]), 200_000)[0]
    assert abs(float(z.mean())) < 0.01
    assert abs(float(z.var()) - 1) < 0.01
    assert float(z.abs().max()) < 6.8


def test_unit_normals_have_norm_one():
    assert torch.allclose(unit_normals(torch.arange(5), 33).norm(dim=-1), torch.ones(5))


@pytest.mark.parametrize("case", GOLDEN, ids=name)
def test_inputs_equal_the_reference(case):
    strings = SeedStrings(case["block_hash"], case["public_key"])
    x = input_embeddings(
        strings, case["nonces"], case["seq_len"], case["hidden_size"], stronger=case["poc_stronger_rng"]
    ).flatten(1)
    assert torch.allclose(x[:, :8], torch.tensor(case["input_first8"]), atol=1e-6, rtol=0)
    assert torch.allclose(x[:, -4:], torch.tensor(case["input_last4"]), atol=1e-6, rtol=0)
    assert torch.allclose(x.double().sum(1), torch.tensor(case["input_sum"]).double(), atol=1e-4, rtol=0)


SEEDS = [*(seed32(f"row {i}") for i in range(9)), 0, 0xFFFFFFFF, 0x80000000]
COUNTS = [1, 2, 7, 64, 1023, 3 * inputs_cpu.PAIRS + 5]


@pytest.mark.parametrize("count", COUNTS)
def test_the_form_for_any_device_equals_the_plain_one_to_the_last_bit(count):
    out = torch.empty(len(SEEDS), count)
    fill_with_torch(out, SEEDS)
    assert torch.equal(out, normals(torch.tensor(SEEDS), count))


@pytest.mark.parametrize("count", COUNTS)
def test_the_form_for_a_cpu_equals_the_plain_one_to_the_last_bit(count):
    out = torch.empty(len(SEEDS), count)
    fill_normals(out, SEEDS)
    assert torch.equal(out, normals(torch.tensor(SEEDS), count))


def test_the_hash_for_a_cpu_equals_the_plain_one():
    index = np.arange(4096, dtype=np.uint32) * np.uint32(1048583)
    bits, spare = np.empty_like(index), np.empty_like(index)
    for seed in SEEDS:
        inputs_cpu.hashed(inputs_cpu.premixed(index), seed, bits, spare)
        expected = mix(torch.from_numpy(index.astype(np.int64)), torch.tensor(seed))
        assert np.array_equal(bits.astype(np.int64), expected.numpy())


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
def test_the_triton_kernel_is_within_a_millionth_of_the_plain_form():
    script = Path(__file__).with_name("triton_inputs.py")
    root = script.parents[2]
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, env=env)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.triton
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
def test_the_triton_kernel_compiles_for_a_gpu_that_is_not_there(tmp_path):
    script = Path(__file__).with_name("triton_compiles.py")
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(script.parents[2] / "src")}
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, env=env)
    assert ran.returncode == 0, ran.stderr


def test_a_stronger_stream_is_eight_streams_in_a_row():
    x = input_embeddings(STRINGS, [5], 3, 7, stronger=True).flatten()  # 21 numbers: segments of 3
    words = torch.tensor(seed_words(STRINGS.inputs(5)))
    assert torch.equal(x, torch.cat([normals(word, 3) for word in words[:7]]))


def test_a_row_does_not_depend_on_its_neighbours():
    together = input_embeddings(STRINGS, [3, 9, 4], 50, 333)
    alone = input_embeddings(STRINGS, [9], 50, 333)
    assert torch.equal(together[1], alone[0])


def test_the_number_of_threads_changes_no_bit():
    before = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made.append(input_embeddings(STRINGS, range(10), 300, 256))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_block_size_changes_no_bit(monkeypatch):
    whole = input_embeddings(STRINGS, [1], 10, 101)
    monkeypatch.setattr(inputs_cpu, "PAIRS", 37)
    monkeypatch.setattr(inputs_cpu, "ROWS", 1)
    assert torch.equal(whole, input_embeddings(STRINGS, [1], 10, 101))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_are_rounded_once_from_fp32(dtype):
    exact = input_embeddings(STRINGS, [1, 2], 9, 11)
    assert torch.equal(input_embeddings(STRINGS, [1, 2], 9, 11, dtype=dtype), exact.to(dtype))


def test_a_given_tensor_is_filled():
    out = torch.empty(2, 3, 4)
    assert input_embeddings(STRINGS, [0, 1], 3, 4, stronger=True, out=out) is out
    assert torch.equal(out, input_embeddings(STRINGS, [0, 1], 3, 4, stronger=True))


def test_nothing_asked_gives_nothing():
    assert input_embeddings(STRINGS, [], 3, 4).shape == (0, 3, 4)

"""Inputs lie in two buffers that take turns, and are the same whether they were made ahead or on demand."""

import pytest
import torch

from ftw.poc.forward import Prover, Round
from ftw.poc.inputs import fill_normals, fill_with_torch
from ftw.poc.prefetch import Prefetch
from ftw.poc.profiles import FTW_1
from ftw.substrate.reference import tiny

SHAPE = (2, 3)


class Recorder:
    """Writes nonces as inputs, and remembers for which it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, nonces, out):
        self.asked.append(tuple(nonces))
        out.copy_(torch.tensor(nonces, dtype=out.dtype)[:, None].expand(out.shape))


def test_a_cpu_makes_inputs_on_demand_and_reuses_its_buffer():
    make = Recorder()
    ahead = Prefetch(make, SHAPE, torch.float32, torch.device("cpu"))
    first = ahead.take([1, 2])
    assert first.tolist() == [[1.0] * 3, [2.0] * 3]
    ahead.prepare([3, 4])
    assert make.asked == [(1, 2)]
    assert ahead.take([3, 4]).data_ptr() == first.data_ptr()


@pytest.mark.gpu
def test_what_was_made_ahead_is_taken_once_and_what_was_not_is_made():
    make = Recorder()
    ahead = Prefetch(make, SHAPE, torch.float32, torch.device("cuda"))
    ahead.take([1, 2])
    ahead.prepare([3, 4])
    assert ahead.take([3, 4]).tolist() == [[3.0] * 3, [4.0] * 3]
    assert make.asked == [(1, 2), (3, 4)]
    ahead.prepare([5, 6])
    assert ahead.take([7, 8]).tolist() == [[7.0] * 3, [8.0] * 3]
    assert ahead.take([5, 6]).tolist() == [[5.0] * 3, [6.0] * 3]
    ahead.prepare([])
    assert ahead.take([5, 6]).tolist() == [[5.0] * 3, [6.0] * 3]


@pytest.mark.gpu
@pytest.mark.parametrize("profile", ["artifact-k12", "ftw-1"])
def test_on_a_gpu_inputs_made_ahead_change_no_bit(profile):
    model = tiny()
    model.net.to("cuda")
    round_ = Round("block", "key", seq_len=8)
    if profile == "ftw-1":
        round_ = Round("block", "key", FTW_1, seq_len=8, fingerprint=model.fingerprint)
    prover = Prover(model, round_, rows=2)
    alone = [prover.batch([at, at + 1]).artifacts for at in (0, 2, 4)]
    ahead = [prover.batch([at, at + 1], [at + 2, at + 3]).artifacts for at in (0, 2, 4)]
    assert ahead == alone


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_a_gpu_the_kernel_is_within_a_millionth_of_the_plain_form(dtype):
    seeds = [0, 7, 0x80000000, 0xFFFFFFFF]
    for count in (1, 2, 999, 300_001):
        exact = torch.empty(4, count, device="cuda")
        fill_with_torch(exact, seeds)
        got = torch.empty(4, count, device="cuda", dtype=dtype)
        fill_normals(got, seeds)
        step = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
        assert torch.allclose(got.float(), exact, atol=1e-6, rtol=step * 1.01)

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import LensBank, LensRow, LensTensors, Readout, Tree
from ftw.hat.classifiers.readout import Pending
from ftw.substrate.errors import NumericError, UsageError
from ftw.substrate.types import Site

States = Callable[[int], Tensor]


def test_a_graph_without_a_gpu_is_refused(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> None:
    bank = LensBank.from_tensors(blocks, rows)
    with pytest.raises(UsageError, match="a CUDA graph needs a GPU: this bank is on cpu"):
        Readout(bank, Tree.of(rows), k=2, margin=0.1).capture(1, torch.float32)


def test_what_a_device_packs_is_what_the_host_chooses(
    blocks: dict[int, LensTensors], rows: tuple[LensRow, ...], states: States
) -> None:
    bank = LensBank.from_tensors(blocks, rows, dtype=torch.float32)
    readout = Readout(bank, Tree.of(rows), k=4, margin=0.15, pinned=(3,))
    resid = {Site(1): states(20), Site(2): states(20)}
    host = readout(resid, full=True).result()
    pending = Pending(readout._whole(bank.score(resid, full=True)), (20, readout.columns), 0)
    assert pending.is_here
    packed = pending.result()
    assert np.array_equal(host.lens, packed.lens)
    assert np.array_equal(host.above, packed.above)
    for one, other in zip(host[1:4], packed[1:4], strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_a_packed_nan_is_not_handed_out(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> None:
    bank = LensBank.from_tensors(blocks, rows)
    readout = Readout(bank, Tree.of(rows), k=4, margin=0.15)
    nowhere = torch.full((1, bank.d_model), float("nan"))
    with pytest.raises(NumericError, match="not finite"):
        Pending(readout._whole(bank.score({Site(1): nowhere, Site(2): nowhere}, full=True)), (1, 4), 0)


@pytest.mark.gpu
def test_a_captured_readout_reads_what_the_plain_one_reads(
    blocks: dict[int, LensTensors], rows: tuple[LensRow, ...], states: States
) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        bank = LensBank.from_tensors(blocks, rows, device="cuda", dtype=dtype)
        readout = Readout(bank, Tree.of(rows), k=4, margin=0.15)
        captured = readout.capture(3, torch.float32)
        for _ in range(2):
            resid = {Site(1): states(3).cuda(), Site(2): states(3).cuda()}
            wanted, got = readout(resid, full=True).result(), captured(resid).result()
            assert np.array_equal(wanted.lens, got.lens)
            assert np.allclose(wanted.p, got.p, atol=1e-4)


@pytest.mark.gpu
def test_a_bank_on_a_gpu_reads_what_one_on_the_cpu_reads(
    blocks: dict[int, LensTensors], rows: tuple[LensRow, ...], states: States
) -> None:
    resid = {Site(1): states(3), Site(2): states(3)}
    there = {site: x.cuda() for site, x in resid.items()}
    for dtype, error in ((torch.float32, 1e-4), (torch.bfloat16, 0.05), (torch.int8, 0.05)):
        here = LensBank.from_tensors(blocks, rows, dtype=dtype, refined=0).score(resid, full=True)
        gpu = LensBank.from_tensors(blocks, rows, device="cuda", dtype=dtype).score(there, full=True)
        assert torch.allclose(here.p, gpu.p.cpu(), atol=error)

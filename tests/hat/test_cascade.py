"""Screens, gates and trunks as a bank uses them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import Gate, LensBank, LensRow, LensTensors, Trunk, fit_trunk, normalise
from ftw.hat.classifiers.forms.screens import ScreenTable
from ftw.hat.classifiers.forms.trunk import Trunked
from ftw.substrate.errors import PackError
from ftw.substrate.types import Site

CPU = torch.device("cpu")
States = Callable[[int], Tensor]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.int8, 0.1)])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_screens_read_the_same_for_few_and_many_states(dtype: torch.dtype, tolerance: float, rows: int) -> None:
    torch.manual_seed(0)
    weight, x, bias = torch.randn(300, 32) / 32**0.5, torch.randn(rows, 32), torch.randn(300)
    screens = ScreenTable(weight, CPU, dtype)
    expected = x @ weight.T + bias
    assert torch.allclose(screens.margins(x, bias), expected, atol=tolerance)
    assert torch.allclose(screens.some(x, bias[40:90], 40), expected[:, 40:90], atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("n", [1, 9])
def test_a_bank_on_a_trunk_that_keeps_everything_reads_as_without(
    blocks: dict[int, LensTensors], rows: tuple[LensRow, ...], states: States, dtype: torch.dtype, n: int
) -> None:
    resid = {Site(1): states(n), Site(2): states(n)}
    seen = {block: normalise(states(400)) for block in blocks}
    trunks = {block: fit_trunk(x, 32, blocks[block]) for block, x in seen.items()}
    plain = LensBank.from_tensors(blocks, rows, dtype=torch.float32)
    bank = LensBank.from_tensors(blocks, rows, dtype=dtype, trunks=trunks)
    assert bank.d_model == 32
    tolerance = 1e-3 if dtype == torch.float32 else 0.15
    expected = plain.score(resid, full=True).logit
    assert torch.allclose(bank.score(resid, full=True).logit, expected, atol=tolerance)
    some = bank.score(resid)
    assert torch.allclose(some.logit[some.passed], expected[some.passed], atol=tolerance)
    sure = plain.screen_scores(resid).abs() > 0.15
    assert torch.equal((bank.screen_scores(resid) >= 0)[sure], (plain.screen_scores(resid) >= 0)[sure])


def test_a_gate_before_a_bank_leaves_out_closed_branches_on_a_trunk_too(
    blocks: dict[int, LensTensors], rows: tuple[LensRow, ...], states: States
) -> None:
    weight = torch.zeros(2, 32)
    weight[0, 0] = weight[1, 1] = 1
    gate = Gate(1, weight, torch.zeros(2), torch.tensor([-1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, -1]))
    resid = {Site(1): states(30), Site(2): states(30)}
    trunks = {block: fit_trunk(normalise(states(400)), 32) for block in blocks}
    x = normalise(resid[Site(1)])
    told = torch.cat([x[:, :2] >= 0, torch.ones(30, 1, dtype=torch.bool)], 1)[:, gate.branch_of]
    for bank in (
        LensBank.from_tensors(blocks, rows, dtype=torch.float32),
        LensBank.from_tensors(blocks, rows, dtype=torch.float32, trunks=trunks),
    ):
        free, shut = bank.score(resid), bank.gated(gate).score(resid)
        assert torch.equal(shut.passed, free.passed & told)
        assert 0 < shut.computed < free.computed


def test_trunks_of_different_shapes_do_not_make_one_bank(blocks: dict[int, LensTensors]) -> None:
    basis = torch.eye(32)
    odd = [Trunk(basis[:rank], torch.zeros(32), basis[:, :rank]) for rank in (3, 4)]
    with pytest.raises(PackError, match=r"2 sites and trunks of \[rank, width\] \[\(3, 32\), \(4, 32\)\]"):
        Trunked(list(blocks.values()), odd, CPU, torch.float32)

import pytest
import torch

from ftw.hat.classifiers import LensTensors, fit_gate
from ftw.hat.classifiers.forms.pairs import Pairwise
from ftw.hat.classifiers.gate import Gate
from ftw.substrate.errors import UsageError

CPU = torch.device("cpu")
BRANCHES = ((1, 3, 4), (2, 5, 6))
"""Of seven lenses: lens 0 belongs to none, and 1 and 2 lie above the two families."""


def world(rows: int = 2000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States of which few stir a branch, and logits that follow them."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 16, generator=rng)
    branch_of = torch.tensor([0, 1, 2, 1, 1, 2, 2])
    logits = 3 * x[:, branch_of] + 0.3 * torch.randn(rows, 7, generator=rng)
    return x, logits, torch.full((7,), 5.0)


def test_a_fitted_gate_opens_for_nearly_all_readings_and_for_few_other_states() -> None:
    fit = fit_gate(*world(), BRANCHES, block=4)
    assert fit.report.recall >= 0.99
    assert fit.report.pass_rate < 0.2
    assert fit.gate.block == 4
    x, logits, threshold = world(500)
    wanted = torch.stack([(logits >= threshold)[:, list(places)].any(1) for places in BRANCHES], 1)
    assert float((fit.gate.open(x) & wanted).sum() / wanted.sum()) >= 0.98


def test_branches_must_be_apart_and_within_the_lenses() -> None:
    x, logits, threshold = world(50)
    for branches in (((1, 2), (2, 3)), ((), (1,)), ((6, 7),), ((-1,),)):
        with pytest.raises(UsageError, match=r"branch \d is empty, shares a lens"):
            fit_gate(x, logits, threshold, branches, block=0)


def gate(bias: tuple[float, float]) -> Gate:
    """Branch 0 looks at channel 0, branch 1 at channel 1."""
    weight = torch.zeros(2, 32)
    weight[0, 0] = weight[1, 1] = 1
    return Gate(1, weight, torch.tensor(bias), torch.tensor([-1, 0, 1, 0, 0, 1, 1, -1, -1, -1, -1, -1]))


@pytest.fixture
def pairs(blocks: dict[int, LensTensors]) -> Pairwise:
    return Pairwise([blocks[1], blocks[2]], CPU, torch.float32)


@pytest.mark.parametrize("rows", [1, 6])
def test_behind_a_gate_open_branches_read_as_before_and_closed_ones_not_at_all(pairs: Pairwise, rows: int) -> None:
    torch.manual_seed(1)
    x, bias = torch.randn(2, rows, 32), torch.zeros(12)
    shut = pairs.gated(gate((0.0, 0.0)), site=0).margins(x, bias)
    free = pairs.margins(x, bias)
    opened = torch.cat([torch.ones(rows, 1, dtype=torch.bool), x[0, :, :2] >= 0], 1)
    seen = opened[:, gate((0.0, 0.0)).branch_of + 1]
    assert torch.allclose(shut[seen], free[seen], atol=1e-5)
    assert bool((shut[~seen] == -1e9).all())
    some = pairs.gated(gate((0.0, 0.0)), site=0).some(x, bias, None, 1 << 20)
    assert some.flat.tolist() == (seen & (free >= 0)).view(-1).nonzero().view(-1).tolist()


def test_a_gate_that_is_shut_computes_only_what_belongs_to_no_branch(pairs: Pairwise) -> None:
    closed = gate((-100.0, -100.0))
    runs = list(closed.runs(torch.randn(1, 32), closed.segments(), 0, 12))
    assert [(run.start, run.end, run.shut) for run in runs] == [(0, 1, None), (7, 12, None)]
    assert list(closed.runs(torch.randn(1, 32), closed.segments(), 1, 5)) == []


def test_neighbouring_branches_that_are_open_are_one_run() -> None:
    opened = gate((100.0, 100.0))
    assert [run[:2] for run in opened.runs(torch.randn(1, 32), opened.segments(), 0, 12)] == [(0, 12)]


def test_what_is_pinned_is_read_behind_a_shut_gate(pairs: Pairwise) -> None:
    bias = torch.zeros(12)
    bias[5] = 1e9
    some = pairs.gated(gate((-100.0, -100.0)), site=0).some(torch.randn(2, 1, 32), bias, None, 1 << 20)
    assert 5 in some.flat.tolist()
    assert not {1, 2, 3, 4, 6} & set(some.flat.tolist())


def test_a_nan_opens_every_branch(pairs: Pairwise) -> None:
    x = torch.full((2, 1, 32), float("nan"))
    some = pairs.gated(gate((-100.0, -100.0)), site=0).some(x, torch.zeros(12), None, 1 << 20)
    assert len(some.flat) == 12
    assert bool(some.logits.isnan().all())

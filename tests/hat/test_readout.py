from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import Calibration, LensBank, LensRow, LensTensors, Tree
from ftw.hat.classifiers.readout import Pending, Readout, Soon
from ftw.substrate.errors import NumericError, UsageError
from ftw.substrate.types import Site

States = Callable[[int], Tensor]
PARENTS = {"B1R1": "B1R0", "B1R2": "B1R0", "B2R0": "B1R1", "B2R1": "B1R1"}


@pytest.fixture
def bank(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> LensBank:
    placed = [row.model_copy(update={"parent": PARENTS.get(row.term)}) for row in rows]
    return LensBank.from_tensors(blocks, placed, dtype=torch.float32)


def both(resid: Tensor) -> dict[Site, Tensor]:
    return {Site(1): resid, Site(2): resid + 1}


def test_it_gives_the_strongest_visible_readings_and_then_the_pinned(bank: LensBank, states: States) -> None:
    tree, resid = Tree.of(bank.rows), both(states(30))
    seen = Readout(bank, tree, k=3, margin=0.15, pinned=(11, 0))(resid, full=True).result()
    scores = bank.score(resid, full=True)
    threshold = torch.tensor([row.threshold_logit for row in bank.rows])
    above = scores.logit >= threshold
    shown = tree.visible(scores.p, above, margin=0.15)
    assert shown.sum() < above.sum()
    odds = torch.tensor([row.calibration.slope for row in bank.rows]) * scores.logit
    odds += torch.tensor([row.calibration.offset for row in bank.rows])
    for row in range(30):
        best = sorted(shown[row].nonzero().flatten().tolist(), key=lambda at: -float(odds[row, at]))[:3]
        assert seen.lens[row].tolist() == [*best, *[-1] * (3 - len(best)), 11, 0]
        for column in [*range(len(best)), 3, 4]:
            at = int(seen.lens[row, column])
            assert seen.logit[row, column] == pytest.approx(float(scores.logit[row, at]), abs=1e-5)
            assert seen.p[row, column] == pytest.approx(float(scores.p[row, at]), abs=1e-5)
            assert bool(seen.above[row, column]) == bool(above[row, at])
            among = list(tree.siblings(at))
            share = float(odds[row, among].softmax(0)[among.index(at)])
            assert seen.sibling_p[row, column] == pytest.approx(share, abs=1e-5)


def test_chunks_give_the_same_as_one_call(bank: LensBank, states: States) -> None:
    tree, resid = Tree.of(bank.rows), both(states(23))
    whole = Readout(bank, tree, k=4, margin=0.1)(resid).result()
    parts = Readout(bank, tree, k=4, margin=0.1, room=10 * 4 * len(tree) * 5)(resid).result()
    for one, other in zip(whole, parts, strict=True):
        assert one.shape == other.shape == (23, 4)
    # a row of a chunk may differ from the same row of the whole in the last bit of a product
    assert np.array_equal(whole.lens, parts.lens)
    assert np.allclose(whole.logit[whole.lens >= 0], parts.logit[parts.lens >= 0], atol=1e-4)


def test_what_is_not_allowed_neither_shows_nor_explains(bank: LensBank, states: States) -> None:
    tree, resid = Tree.of(bank.rows), both(states(40))
    allowed = torch.ones(len(tree), dtype=torch.bool)
    allowed[[1, 2]] = False
    seen = Readout(bank, tree, k=12, margin=1.0, allow=lambda p: allowed.expand_as(p))(resid, full=True).result()
    free = Readout(bank, tree, k=12, margin=1.0)(resid, full=True).result()
    assert not np.isin(seen.lens, (1, 2)).any()
    assert np.isin(free.lens, (1, 2)).any()
    above = bank.score(resid, full=True).logit[:, 0] >= bank.rows[0].threshold_logit
    assert (seen.lens == 0).any(1).tolist() == above.tolist()  # without its children nothing explains it
    assert (free.lens == 0).sum() < above.sum()


def test_an_empty_step_and_no_columns_are_fine(bank: LensBank, states: States) -> None:
    tree = Tree.of(bank.rows)
    assert Readout(bank, tree, k=3, margin=0.1)(both(states(0))).result().lens.shape == (0, 3)
    assert Readout(bank, tree, k=0, margin=0.1)(both(states(2))).result().lens.shape == (2, 0)
    assert Readout(bank, tree, k=99, margin=0.1)(both(states(2))).result().lens.shape == (2, len(bank))


def test_a_nan_is_not_handed_out(bank: LensBank, states: States) -> None:
    with pytest.raises(NumericError, match="not finite"):
        Readout(bank, Tree.of(bank.rows), k=3, margin=0.1)(both(states(1) * float("nan"))).result()


def test_parts_of_different_banks_are_refused(bank: LensBank) -> None:
    tree = Tree.of(bank.rows)
    with pytest.raises(UsageError, match="k is -1"):
        Readout(bank, tree, k=-1, margin=0.1)
    with pytest.raises(UsageError, match="12 lenses, 11 rows, a tree of 12"):
        Readout(bank, tree, k=1, margin=0.1, rows=bank.rows[:-1])
    with pytest.raises(UsageError, match="a tree of 3"):
        Readout(bank, Tree.of(bank.rows[:3]), k=1, margin=0.1)


def test_calibrations_are_those_of_the_rows_given(bank: LensBank, states: States) -> None:
    rows = [row.model_copy(update={"calibration": Calibration(slope=0.1, offset=-1)}) for row in bank.rows]
    seen = Readout(bank, Tree.of(rows), k=0, margin=0.1, rows=rows, pinned=(4,))(both(states(3)), full=True).result()
    assert seen.p[:, 0] == pytest.approx(1 / (1 + np.exp(1 - 0.1 * seen.logit[:, 0])), abs=1e-6)


def test_a_pinned_lens_that_is_not_allowed_still_says_whether_it_is_above(bank: LensBank, states: States) -> None:
    never = Readout(bank, Tree.of(bank.rows), k=2, margin=0.1, pinned=(0,), allow=lambda p: p > 2)
    resid = both(states(40))
    seen = never(resid, full=True).result()
    assert (seen.lens[:, :2] == -1).all()
    above = bank.score(resid, full=True).logit[:, 0] >= bank.rows[0].threshold_logit
    assert seen.above[:, 2].tolist() == above.tolist()
    assert above.any()


@pytest.mark.parametrize("k", [0, 1, 3, 12])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("scoped", [False, True])
def test_the_host_reads_what_the_device_reads(bank: LensBank, states: States, k: int, flat: bool, scoped: bool) -> None:
    rows = [row.model_copy(update={"parent": None}) for row in bank.rows] if flat else bank.rows
    tree, resid = Tree.of(rows), both(states(50))
    readout = Readout(
        bank, tree, k=k, margin=0.3, pinned=(2, 7), rows=rows, allow=(lambda p: p.roll(1, 1) > 0.2) if scoped else None
    )
    with torch.inference_mode():
        for scores in (bank.score(resid, full=True), bank.score(resid)):  # with all pairs, and with -inf among them
            device = Pending(readout._whole(scores), (50, readout.columns), 0).result()
            host = readout._host(scores.raw, readout._allowed(scores.raw))
            assert device.lens.tolist() == host.lens.tolist()
            assert device.above.tolist() == host.above.tolist()
            for one, other in zip(device[1:4], host[1:4], strict=True):
                assert one.dtype == other.dtype == np.float32
                assert np.allclose(one, other, atol=1e-5)


def test_steps_whose_readings_are_chosen_together_read_as_each_alone(bank: LensBank, states: States) -> None:
    tree = Tree.of(bank.rows)
    readout, alone = (Readout(bank, tree, k=3, margin=0.1, pinned=[2]) for _ in range(2))
    steps = [both(states(1 + at % 3)) for at in range(150)]  # more than are kept waiting
    soon = [readout(step, full=True) for step in steps]
    assert sum(isinstance(one, Soon) and one.made is not None for one in soon) == 128
    for step, one in zip(steps, soon, strict=True):
        for mine, its in zip(one.result(), alone(step, full=True).result(), strict=True):
            np.testing.assert_array_equal(mine, its)


def test_a_nan_is_told_in_its_own_step_and_spoils_no_other(bank: LensBank, states: States) -> None:
    readout = Readout(bank, Tree.of(bank.rows), k=3, margin=0.1)
    good = readout(both(states(2)), full=True)
    bad = readout(both(torch.full_like(states(1), float("nan"))), full=True)
    with pytest.raises(NumericError, match="not finite"):
        bad.check()
    assert good.result().lens.shape == (2, 3)

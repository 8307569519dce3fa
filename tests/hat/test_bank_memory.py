"""What a bank holds and takes: int8 packs in their own bytes, and no more between the layers than was allowed."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import (
    Gate,
    LensBank,
    LensRow,
    LensTensors,
    PackInfo,
    fit_trunk,
    load_bank,
    load_pack,
    normalise,
    save_gate,
    save_pack,
    save_trunks,
)
from ftw.hat.classifiers.forms.separate import Separate
from ftw.hat.classifiers.gate import GATE, load_gate
from ftw.hat.classifiers.packfile import write_tensors
from ftw.hat.classifiers.quantise import Int8Tensor, dequantise_rows, quantise_rows, stored_rows
from ftw.substrate.errors import NumericError, PackError, StorageError, UsageError
from ftw.substrate.types import Site
from tests.hat.test_bank_dtypes import SITE, random_lenses, rows_for, some_states

States = Callable[[int], Tensor]
Blocks = dict[int, LensTensors]


@pytest.fixture
def stored() -> tuple[Int8Tensor, Tensor]:
    rows = quantise_rows(torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0)))
    return Int8Tensor(rows), dequantise_rows(rows)


CUTS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda t: t[2:4],
    lambda t: t[3],
    lambda t: t[:, 1:3],
    lambda t: t[torch.tensor([4, 0, 4])],
    lambda t: t[[1, 2]],
    lambda t: t[:, torch.tensor([True, False, True, True, False])],
    lambda t: t.reshape(-1, 8),
    lambda t: t[:, 1:3].reshape(-1, 8),
    lambda t: torch.split(t, 4)[1],
    lambda t: t[1:3, 2],
    lambda t: t.view(6, 5, 8),
)
USES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda t: t[..., 2:5],
    lambda t: t[:, :, torch.tensor([1, 3])],
    lambda t: t[-2].T,
    lambda t: t.float() * 2,
    lambda t: torch.mv(t.reshape(-1, 8), torch.arange(8.0)),
    lambda t: t.transpose(1, 2).contiguous(),
    lambda t: t.view(-1),
    lambda t: t.sum((1, 2)),
    lambda t: t.to(torch.bfloat16),
    lambda t: torch.cat([t, t.float()]),
    lambda t: torch.empty(6, 5, 8).copy_(t),
)


@pytest.mark.parametrize("at", range(len(CUTS)))
def test_whole_rows_of_int8_stay_int8(stored: tuple[Int8Tensor, Tensor], at: int) -> None:
    own, plain = (CUTS[at](each) for each in stored)
    assert isinstance(own, Int8Tensor)
    assert own.shape == plain.shape
    assert torch.equal(own + 0, plain)
    with torch.inference_mode():
        assert torch.equal(CUTS[at](stored[0]) + 0, plain)


@pytest.mark.parametrize("at", range(len(USES)))
def test_int8_is_fp32_where_it_is_used(stored: tuple[Int8Tensor, Tensor], at: int) -> None:
    own, plain = (USES[at](each) for each in stored)
    assert not isinstance(own, Int8Tensor)
    assert torch.equal(own, plain)
    assert own.dtype == plain.dtype


def test_stored_rows_are_not_made_anew(stored: tuple[Int8Tensor, Tensor]) -> None:
    own, plain = stored
    assert stored_rows(own).values.data_ptr() == own.rows.values.data_ptr()
    assert torch.equal(stored_rows(plain).values, own.rows.values)
    assert repr(own) == "Int8Tensor([6, 5, 8])"


@pytest.fixture
def folder(tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...], blocks: Blocks) -> Path:
    save_pack(tmp_path, info, rows, blocks, storage="int8")
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_bank_of_an_int8_pack_keeps_its_bytes_and_reads_what_it_says(
    folder: Path, info: PackInfo, states: States, dtype: torch.dtype
) -> None:
    bank = load_bank(folder, fingerprint=info.model.fingerprint, dtype=dtype)
    assert isinstance(bank._form, Separate)
    for part in bank._form.parts:
        for weight in (part.w1, part.w2):
            assert isinstance(weight, Int8Tensor)
            assert weight.rows.values.nbytes == weight.numel()
    files = load_pack(folder)
    assert not isinstance(files.blocks[1].w1, Int8Tensor)
    resid = {Site(1): states(9), Site(2): states(9)}
    plain = LensBank.from_tensors(files.blocks, files.rows, dtype=dtype)
    for full in (True, False):
        assert torch.equal(bank.score(resid, full=full).raw, plain.score(resid, full=full).raw)
    assert torch.equal(bank.module("B2R3")(resid[Site(2)]), plain.module("B2R3")(resid[Site(2)]))


def test_int8_lenses_are_served_from_the_very_numbers_that_are_stored(
    folder: Path, info: PackInfo, monkeypatch: pytest.MonkeyPatch, states: States
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("quantised again")

    bank = load_bank(folder, fingerprint=info.model.fingerprint, dtype=torch.int8)
    screens = bank.screen_scores({Site(1): states(3), Site(2): states(3)})  # screens are stored as floats
    assert screens.shape == (3, 12)
    monkeypatch.setattr("ftw.hat.classifiers.quantise.quantise_rows", never)
    bank.score({Site(1): states(3), Site(2): states(3)}, full=True)


def test_a_pack_in_int8_can_be_served_on_its_trunk_and_behind_its_gate(
    folder: Path, info: PackInfo, blocks: Blocks, states: States
) -> None:
    whose = info.model.fingerprint
    seen = {block: normalise(states(400)) for block in blocks}
    save_trunks(folder, {block: fit_trunk(x, 32, blocks[block]) for block, x in seen.items()})
    save_gate(folder, Gate(1, torch.zeros(1, 32), torch.full((1,), -1.0), torch.tensor([0] * 3 + [-1] * 9)))
    resid = {Site(1): states(9), Site(2): states(9)}
    plain = load_bank(folder, fingerprint=whose, dtype=torch.float32)
    trunk = load_bank(folder, fingerprint=whose, dtype=torch.float32, trunk=True)
    assert torch.allclose(trunk.score(resid, full=True).logit, plain.score(resid, full=True).logit, atol=1e-3)
    assert type(trunk._form) is not type(plain._form)
    gated = load_bank(folder, fingerprint=whose, dtype=torch.float32, gate=True).score(resid)
    free = plain.score(resid)
    assert not bool(gated.passed[:, :3].any())
    assert bool(free.passed[:, :3].any())
    assert torch.equal(gated.raw[:, 3:], free.raw[:, 3:])


def test_a_pack_without_a_trunk_or_a_gate_says_how_to_make_one(folder: Path, info: PackInfo) -> None:
    with pytest.raises(StorageError, match=r"holds no trunk.safetensors: make one with `ftw lens trunk "):
        load_bank(folder, fingerprint=info.model.fingerprint, trunk=True)
    with pytest.raises(StorageError, match=r"holds no gate.safetensors: make one with `fit_gate`"):
        load_bank(folder, fingerprint=info.model.fingerprint, gate=True)


def test_a_gate_survives_its_file_and_a_broken_one_is_named(tmp_path: Path) -> None:
    gate = Gate(4, torch.randn(2, 8), torch.randn(2), torch.tensor([-1, 0, 1, 1]))
    save_gate(tmp_path, gate)
    found = load_gate(tmp_path)
    assert found.block == 4
    assert all(torch.equal(getattr(found, name), getattr(gate, name)) for name in ("weight", "bias", "branch_of"))

    def write(weight: Tensor, bias: Tensor, branch_of: Tensor) -> None:
        tensors = {"block4.weight": weight, "block4.bias": bias, "block4.branch_of": branch_of}
        write_tensors(tmp_path / GATE, tensors, {})

    for odd in (torch.tensor([0, 2]), torch.tensor([-2]), torch.tensor([0.5])):
        write(gate.weight, gate.bias, odd)
        with pytest.raises(PackError, match=r"branch_of are \[\[2, 8\], \[2\]"):
            load_gate(tmp_path)
    write_tensors(tmp_path / GATE, {"block4.weight": gate.weight}, {})
    with pytest.raises(PackError, match=r"holds block4.weight: weight, bias, branch_of of one block"):
        load_gate(tmp_path)


def test_a_gate_of_numbers_that_are_not_finite_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Gate(4, torch.full((1, 8), float("nan")), torch.zeros(1), torch.tensor([0]))
    with pytest.raises(NumericError, match="weight holds a NaN"):
        save_gate(tmp_path, bad)
    monkeypatch.setattr("ftw.hat.classifiers.packfile.finite", lambda *_: None)
    save_gate(tmp_path, bad)
    with pytest.raises(NumericError, match="the gate holds a NaN"):
        load_gate(tmp_path)


def test_a_gate_of_another_width_is_refused() -> None:
    bank = LensBank.from_tensors({3: random_lenses(2)}, rows_for(2))
    with pytest.raises(UsageError, match="a gate of 2 lenses of width 8 at block 3 does not fit: this bank has 2"):
        bank.gated(Gate(3, torch.zeros(1, 8), torch.zeros(1), torch.tensor([0, 0])))


def test_fields_that_share_one_tensor_are_saved(tmp_path: Path, info: PackInfo, rows: tuple[LensRow, ...]) -> None:
    none = torch.zeros(7)
    part = random_lenses(7, 32)
    same = replace(part, b3=none, screen_b=none, screen_threshold=none, screen_w=none[:, None].expand(7, 32))
    own = [row for row in rows if row.block == 2]
    save_pack(tmp_path, info.model_copy(update={"sites": (2,)}), own, {2: same}, storage="bfloat16")
    found = load_pack(tmp_path).blocks[2]
    for each in fields(LensTensors):
        wanted = getattr(same, each.name)
        wanted = wanted.bfloat16() if each.name in ("w1", "w2") else wanted
        assert torch.equal(getattr(found, each.name), wanted), each.name


def peak(work: Callable[[], object]) -> int:
    """The most bytes that were alive at once on the CPU while `work` ran, counted allocation by allocation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    alive = most = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        alive += one.nbytes()
        most = max(most, alive)
    return most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("full", [True, False])
def test_no_more_memory_is_in_use_than_was_allowed(dtype: torch.dtype, full: bool) -> None:
    lenses, rows, memory = 300, 400, 4 << 20
    part = replace(random_lenses(lenses, 64), screen_w=torch.randn(lenses, 64))  # every pair passes: the worst there is
    bank = LensBank.from_tensors({3: part}, rows_for(lenses), dtype=dtype, refined=0)
    states = {SITE: some_states(rows, 64)}
    wanted = bank.score(states, full=full).raw  # lays the weights out
    scores = (
        4 * lenses * rows * (1 if full else 8)  # of pairs also the places (int64), both twice where parts are joined
    )
    inputs = 4 * rows * 64 * 4
    assert peak(lambda: bank.score(states, full=full, memory=memory)) <= memory + scores + inputs
    free = peak(lambda: bank.score(states, full=full, memory=1 << 30))
    assert free > 4 * (memory + scores + inputs)  # the bound is one: without it far more is taken
    assert torch.allclose(bank.score(states, full=full, memory=memory).raw, wanted, atol=0.1)

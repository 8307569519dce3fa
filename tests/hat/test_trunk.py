from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ftw.hat.classifiers import (
    MLP,
    LensTensors,
    LinearProbe,
    Trunk,
    fit_trunk,
    load_trunks,
    reexpress,
    save_trunks,
    trunk_report,
)
from ftw.hat.classifiers.packfile import write_tensors
from ftw.hat.classifiers.trunk import TRUNK
from ftw.substrate.errors import NumericError, PackError, UsageError

D = 24


def lenses(n: int = 6, *, hears: int = D) -> LensTensors:
    """Lenses that read the first `hears` channels only."""
    torch.manual_seed(0)
    made = LensTensors.stack([MLP(D) for _ in range(n)], [LinearProbe(D) for _ in range(n)], torch.zeros(n))
    made.w1[:, :, hears:] = 0
    made.w1.mul_(4)
    return made


def by_modules(part: LensTensors, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([part.module(at)(x) for at in range(len(part.b3))], 1)


def states(rows: int = 600) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(rows, D) @ torch.randn(D, D) / D**0.5 + torch.randn(D)


def share(logits: Tensor, labels: Tensor) -> Tensor:
    """A stand-in for AUROC: the share of signs that agree."""
    return ((logits > 0) == (labels == 1)).float().mean(0)


def test_at_full_rank_lenses_and_screens_read_a_trunk_as_they_read_the_state() -> None:
    part, x = lenses(), states()
    for trunk in (fit_trunk(x, D, part), fit_trunk(x, D)):
        again = reexpress(part, trunk)
        assert torch.allclose(by_modules(again, trunk(x)), by_modules(part, x), atol=1e-3)
        screen = x @ part.screen_w.T + part.screen_b
        assert torch.allclose(trunk(x) @ again.screen_w.T + again.screen_b, screen, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(rank=st.integers(1, D))
def test_what_a_trunk_keeps_it_gives_back(rank: int) -> None:
    trunk = fit_trunk(states(), rank)
    z = torch.randn(5, rank)
    assert torch.allclose(trunk(trunk.mean + z @ trunk.back.T), z, atol=1e-2)
    assert trunk.rank == rank
    assert trunk.d_model == D


def test_with_lenses_a_trunk_keeps_what_they_listen_to_and_pca_what_varies() -> None:
    part, x = lenses(hears=4), states()
    x[:, :4] *= 0.1
    report = trunk_report(part, fit_trunk(x, 4, part), x, (by_modules(part, x) > 0).to(torch.int8), share)
    plain = trunk_report(part, fit_trunk(x, 4), x, (by_modules(part, x) > 0).to(torch.int8), share)
    assert report.logit_error < 1e-3
    assert plain.logit_error > 0.1
    assert report.auroc == 1
    assert abs(report.loss) <= 1e-6 <= plain.loss
    assert plain.worst >= plain.loss
    assert 0 <= plain.worst_lens < 6


def test_a_first_layer_that_is_shared_stays_shared() -> None:
    part = lenses()
    part.w1[:], part.b1[:] = part.w1[0].clone(), part.b1[0].clone()
    again = reexpress(part, fit_trunk(states(), 5))
    assert again.is_shared
    assert again.w1.stride(0) == 0


def test_bf16_lenses_stay_bf16() -> None:
    part = lenses()
    half = LensTensors(*(getattr(part, name).bfloat16() for name in part.__slots__))
    assert reexpress(half, fit_trunk(states(), 5)).w1.dtype == torch.bfloat16


def test_a_trunk_survives_its_file(tmp_path: Path) -> None:
    trunks = {block: fit_trunk(states(), block + 2) for block in (1, 10)}
    save_trunks(tmp_path, trunks)
    found = load_trunks(tmp_path)
    assert list(found) == [1, 10]
    for block, trunk in trunks.items():
        assert all(torch.equal(getattr(found[block], name), getattr(trunk, name)) for name in trunk.__slots__)


def test_bad_values_are_refused() -> None:
    with pytest.raises(UsageError, match="a trunk of rank 25 from 600 states of width 24"):
        fit_trunk(states(), 25)
    with pytest.raises(UsageError, match="rank 3 from 1 states"):
        fit_trunk(states()[:1], 3)
    with pytest.raises(NumericError, match="that a trunk is fitted on"):
        fit_trunk(states().fill_(float("nan")), 3)
    with pytest.raises(PackError, match="width 24 does not fit lenses of width 8"):
        reexpress(LensTensors.stack([MLP(8)], [LinearProbe(8)]), fit_trunk(states(), 3))
    nothing = torch.full((600, 6), -1, dtype=torch.int8)
    with pytest.raises(UsageError, match="no lens has positives and negatives"):
        trunk_report(lenses(), fit_trunk(states(), 3), states(), nothing, lambda a, b: torch.full((6,), float("nan")))


def test_a_trunk_file_that_is_not_whole_is_named(tmp_path: Path) -> None:
    trunk = fit_trunk(states(), 3)

    def write(**tensors: Tensor) -> None:
        write_tensors(tmp_path / TRUNK, {f"block1.{name}": each for name, each in tensors.items()}, {})

    write(basis=trunk.basis, mean=trunk.mean)
    with pytest.raises(PackError, match=r"trunk.safetensors holds block1.basis, block1.mean: basis, mean and back"):
        load_trunks(tmp_path)
    write(basis=trunk.basis, mean=trunk.mean, other=trunk.back)
    with pytest.raises(PackError, match=r"lacks block1.back"):
        load_trunks(tmp_path)
    write(basis=trunk.basis, mean=trunk.mean, back=trunk.basis + 0)
    with pytest.raises(PackError, match=r"are \[\[3, 24\], \[24\], \[3, 24\]\]"):
        load_trunks(tmp_path)


def test_a_trunk_of_numbers_that_are_not_finite_is_neither_saved_nor_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = fit_trunk(states(), 3)
    bad = Trunk(trunk.basis, trunk.mean * float("nan"), trunk.back)
    with pytest.raises(NumericError, match=r"block1.mean holds a NaN"):
        save_trunks(tmp_path, {1: bad})
    monkeypatch.setattr("ftw.hat.classifiers.packfile.finite", lambda *_: None)
    save_trunks(tmp_path, {1: bad})
    with pytest.raises(NumericError, match="the trunk of block1 holds a NaN"):
        load_trunks(tmp_path)

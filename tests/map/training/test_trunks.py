"""Trunks for packs that are there: what they lose and save is measured, and what cannot have one is named."""

import itertools
from pathlib import Path

import pytest
import torch

from ftw.hat.classifiers import LensTensors, load_bank, load_pack, save_pack, save_trunks
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import PackRecord
from ftw.map.training.trunks import make_trunks
from ftw.substrate.errors import FingerprintMismatch, PackError, UsageError
from ftw.substrate.model import Model, load
from ftw.substrate.types import Site
from tests.map.training.small_packs import BLOCK, concepts, lens_pack


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


@pytest.fixture(scope="module")
def pack(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lens_pack(tmp_path_factory.mktemp("trunks") / "p", model, storage="int8")


def clock() -> "itertools.count[int]":
    return itertools.count()


def test_a_trunk_that_keeps_nearly_everything_loses_nearly_nothing_and_serves(
    model: Model, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftw.map.training.compliance.efficiency.RUNS", 3)
    ticks = clock()
    made = make_trunks(model, pack, concepts(), model.d_model - 1, clock=lambda: float(next(ticks)))
    assert abs(made.reports[BLOCK].loss) < 0.02
    assert made.reports[BLOCK].logit_error < 0.1
    assert (made.lenses, made.ms_full, made.ms_on_trunk) == (4, 1000, 1000)
    assert made.worst_term in ("Animal", "Food", "Bird", "Dog")
    assert min(made.fitted, made.measured) > 0
    save_trunks(pack, made.by_block)
    states = {Site(BLOCK): 5 * torch.randn(6, model.d_model)}
    full, small = (
        load_bank(pack, fingerprint=model.fingerprint, dtype=torch.float32, trunk=trunk).score(states, full=True)
        for trunk in (False, True)
    )
    assert not torch.equal(full.logit, small.logit)


def test_a_narrower_trunk_reads_fewer_bytes_and_loses_more(model: Model, pack: Path) -> None:
    ticks = clock()
    made = [make_trunks(model, pack, concepts(), r, clock=lambda: float(next(ticks)), prompts=60) for r in (2, 20)]
    assert made[0].bytes_on_trunk < made[1].bytes_on_trunk < made[1].bytes_full == made[0].bytes_full
    assert made[0].worst.logit_error > made[1].worst.logit_error
    assert made[0].measured < 60


def test_packs_that_can_have_no_trunk_are_named(model: Model, pack: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a trunk of rank 999: it saves work from 1 to"):
        make_trunks(model, pack, concepts(), 999, clock=lambda: 0.0)
    with pytest.raises(FingerprintMismatch, match="was made for tiny"):
        make_trunks(load("reference"), pack, concepts(), 3, clock=lambda: 0.0)
    other = lens_pack(tmp_path / "b", model)
    with pytest.raises(PackError, match="lenses read concepts that"):
        make_trunks(model, other, _three(), 3, clock=lambda: 0.0)
    files = load_pack(pack)
    part = files.blocks[BLOCK]
    shared = LensTensors(part.w1[:1].expand_as(part.w1), part.b1[:1].expand_as(part.b1), *_rest(part))
    save_pack(tmp_path / "shared", files.info, files.rows, {BLOCK: shared})
    with pytest.raises(UsageError, match="share their first layer, which is computed once"):
        make_trunks(model, tmp_path / "shared", concepts(), 3, clock=lambda: 0.0)
    (tmp_path / "b" / "level1.safetensors").unlink()
    with pytest.raises(PackError, match="is partial: level 1"):
        make_trunks(model, tmp_path / "b", concepts(), 3, clock=lambda: 0.0)


def _rest(part: LensTensors) -> tuple[torch.Tensor, ...]:
    names = ("w2", "b2", "w3", "b3", "screen_w", "screen_b", "screen_threshold")
    return tuple(getattr(part, name) for name in names)


def _three() -> ConceptPack:
    """Without one of the four."""
    records = [record for term, record in concepts().records.items() if term != "Dog"]
    return ConceptPack(PackRecord(pack_id="three", version="2.0.0"), records)

"""Lens packs are found by name, by folder or by model, and what is not there is answered with what is."""

from pathlib import Path

import pytest

from ftw.hat.steering.table import load_directions
from ftw.map.registry.lens_pack import bundled_lens_packs, open_lens_pack
from ftw.substrate.errors import FingerprintMismatch, PackError
from ftw.substrate.model import Model, load


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load("tiny")


def test_an_unknown_pack_is_answered_with_those_there_are(tiny: Model) -> None:
    with pytest.raises(PackError, match=r"no lens pack nowhere: neither a folder nor .*reference_everyday"):
        open_lens_pack("nowhere", tiny)


def test_a_folder_without_pack_json_is_no_pack(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"holds no pack\.json"):
        open_lens_pack(tmp_path, tiny)


def test_a_model_without_a_bundled_pack_is_told_how_to_get_one(tiny: Model) -> None:
    with pytest.raises(FingerprintMismatch, match="Pull one with `ftw pack pull`, or train one with `ftw lens train`"):
        open_lens_pack(None, tiny)


def test_a_bundled_pack_of_another_model_does_not_open(tiny: Model) -> None:
    with pytest.raises(FingerprintMismatch, match="reference_everyday"):
        open_lens_pack("reference_everyday", tiny)


def test_the_bundled_pack_is_found_by_the_reference_model_and_keeps_its_promises() -> None:
    model = load("reference")
    pack = open_lens_pack(None, model)
    assert pack.folder == bundled_lens_packs()["reference_everyday"]
    assert len(pack.rows) >= 300
    assert sum(f.stat().st_size for f in pack.folder.rglob("*") if f.is_file()) <= 16 * 2**20
    rated = [row.auroc_words for row in pack.rows if row.auroc_words is not None]
    assert sum(rated) / len(rated) >= 0.90
    templates = [row.auroc_templates for row in pack.rows if row.auroc_templates is not None]
    assert sum(templates) / len(templates) >= 0.95
    assert load_directions(pack.folder, fingerprint=model.fingerprint).terms == pack.bank.terms

"""Fitted lenses: one that was made for the same weights under another config is another model's."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ftw.substrate.canonical import canonical_json
from ftw.substrate.errors import FingerprintMismatch
from ftw.substrate.model import Model, load
from ftw.sweep.identity import config_sha256
from ftw.sweep.lenses.fitted import ModelOf, is_made_for
from ftw.sweep.lenses.prism import load_prism
from ftw.sweep.lenses.tuned import load_tuned
from ftw.sweep.shelf import open_lenses
from tests.sweep.folders import reference_with

BUNDLED = Path(str(files("ftw"))) / "bundled" / "vocab-lenses"
READ: dict[str, Any] = {"reference-tuned": load_tuned, "reference-prism": load_prism}


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same weights with another norm epsilon."""
    return load(str(reference_with(tmp_path_factory.mktemp("models") / "other", rms_norm_eps=0.1)))


def without_config(name: str, folder: Path) -> Path:
    """A bundled lens as an earlier version wrote it: its manifest does not name the config."""
    folder.mkdir(parents=True)
    body = json.loads((BUNDLED / name / "manifest.json").read_text())
    del body["model"]["config_sha256"]
    (folder / "manifest.json").write_bytes(canonical_json(body))
    (folder / "tensors.safetensors").symlink_to(BUNDLED / name / "tensors.safetensors")
    return folder


@pytest.mark.parametrize("name", READ)
def test_the_same_weights_with_another_config_are_refused_with_both_digests(
    name: str, model: Model, other: Model
) -> None:
    assert READ[name](BUNDLED / name, model).manifest.model == ModelOf.of(model)
    verb = name.replace("reference", "fit")
    told = rf"config {config_sha256(model)[:8]}, other has .* {config_sha256(other)[:8]} .*`ftw sweep {verb}`"
    with pytest.raises(FingerprintMismatch, match=told):
        READ[name](BUNDLED / name, other)


def test_by_default_it_is_left_out_and_by_name_it_is_an_error(model: Model, other: Model) -> None:
    assert "tuned" in [lens.name for lens in open_lenses(model, folders=[BUNDLED]).lenses]
    assert "tuned" not in [lens.name for lens in open_lenses(other, folders=[BUNDLED]).lenses]
    with pytest.raises(FingerprintMismatch, match="there is no tuned lens for other"):
        open_lenses(other, ["tuned"], folders=[BUNDLED])


@pytest.mark.parametrize("name", READ)
def test_one_that_does_not_name_its_config_is_read(name: str, other: Model, tmp_path: Path) -> None:
    assert READ[name](without_config(name, tmp_path / "lens"), other).manifest.model.config_sha256 is None


def test_and_a_note_says_so(model: Model, tmp_path: Path) -> None:
    assert open_lenses(model, ["tuned"], folders=[BUNDLED]).notes == ()
    without_config("reference-tuned", tmp_path / "lens")
    (note,) = open_lenses(model, ["tuned"], folders=[tmp_path]).notes
    assert "does not say for which config it was made" in note


@pytest.mark.parametrize("manifest", [{}, {"model": None}, {"model": {"fingerprint": "x"}}])
def test_a_manifest_that_names_no_model_or_another_is_not_ones_own(model: Model, manifest: dict[str, Any]) -> None:
    assert not is_made_for(manifest, model)

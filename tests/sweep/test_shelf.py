"""Lenses by name: what is asked for is there or an error, what is left out by default is told."""

import json
from pathlib import Path

import pytest
import torch

from ftw.substrate.errors import ConfigError, FingerprintMismatch
from ftw.substrate.model import Model, from_net
from ftw.substrate.reference import tiny
from ftw.sweep.lenses.tuned import ModelName, TunedLens, TunedManifest, save_tuned
from ftw.sweep.shelf import NAMES, Shelf, home_of, homes, is_accepted, manifest_of, open_lenses
from tests.substrate.families import build


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def put(folder: Path, model: Model, *, accepted: bool, fingerprint: str | None = None, bias: float = 0.1) -> Path:
    """A tuned lens that adds `bias` to every state."""
    manifest = TunedManifest(
        model=ModelName(name="tiny", fingerprint=fingerprint or model.fingerprint),
        d_model=model.d_model,
        n_layers=model.n_layers,
        lens="bias",
        accepted=accepted,
        acceptance={},
        source={},
    )
    lens = TunedLens(model.arch, torch.full((model.n_layers, model.d_model), bias), manifest=manifest)
    save_tuned(folder, lens)
    return folder


def names(shelf: Shelf) -> tuple[list[str], list[str]]:
    return [lens.name for lens in shelf.lenses], [lens.name for lens in shelf.at_end]


def test_by_default_the_logit_lens_reads_everywhere_and_the_norm_views_at_the_end(model: Model) -> None:
    shelf = open_lenses(model)
    assert names(shelf) == (["logit"], ["next", "own", "raw"])
    assert shelf.notes == ()


@pytest.mark.filterwarnings("ignore")
def test_a_view_that_a_model_does_not_have_is_left_out_by_default_and_told() -> None:
    shelf = open_lenses(from_net(build("olmo2")))
    assert names(shelf) == (["logit"], ["raw"])
    assert any("has no view 'next': block 0" in note for note in shelf.notes)


@pytest.mark.filterwarnings("ignore")
def test_a_view_that_a_model_does_not_have_is_an_error_by_name() -> None:
    with pytest.raises(ConfigError, match="has no view 'next'"):
        open_lenses(from_net(build("olmo2")), ["logit", "next"])


def test_lenses_asked_for_by_name_read_everywhere_and_the_logit_lens_is_among_them(model: Model) -> None:
    assert names(open_lenses(model, ["raw"])) == (["logit", "raw"], [])


@pytest.mark.parametrize("asked", [["tunned"], ["logit", "Raw"]])
def test_a_name_that_is_not_known_is_an_error_with_those_that_are(model: Model, asked: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"there is no lens .*: use logit, next, own, raw, tuned, prism"):
        open_lenses(model, asked)
    assert NAMES == ("logit", "next", "own", "raw", "tuned", "prism")


@pytest.mark.parametrize("asked", [[], ["raw", "raw"]])
def test_no_name_or_one_twice_is_an_error(model: Model, asked: list[str]) -> None:
    with pytest.raises(ConfigError, match="name at least one, each once"):
        open_lenses(model, asked)


def test_an_accepted_lens_is_offered_by_default(model: Model, tmp_path: Path) -> None:
    put(tmp_path / "a", model, accepted=True)
    shelf = open_lenses(model, folders=[tmp_path])
    assert names(shelf) == (["logit", "tuned"], ["next", "own", "raw"])
    assert shelf.notes == ()


def test_one_that_was_not_accepted_is_left_out_and_told_and_taken_by_name_with_a_reservation(
    model: Model, tmp_path: Path
) -> None:
    folder = put(tmp_path / "a", model, accepted=False)
    shelf = open_lenses(model, folders=[tmp_path])
    assert names(shelf)[0] == ["logit"]
    assert shelf.notes == (
        f"the tuned lens in {folder} did not pass its acceptance and is left out: --lens tuned takes it",
    )
    shelf = open_lenses(model, ["tuned"], folders=[tmp_path])
    assert names(shelf)[0] == ["logit", "tuned"]
    assert "read its figures with care" in shelf.notes[0]


def test_an_accepted_one_goes_before_one_that_is_not_and_the_first_folder_before_the_second(
    model: Model, tmp_path: Path
) -> None:
    put(tmp_path / "one" / "a", model, accepted=False, bias=0.1)
    put(tmp_path / "two" / "b", model, accepted=True, bias=0.2)
    put(tmp_path / "three" / "c", model, accepted=True, bias=0.3)
    found = open_lenses(model, ["tuned"], folders=[tmp_path / name for name in ("one", "two", "three")])
    lens = found.lenses[1]
    assert isinstance(lens, TunedLens)
    assert float(lens.bias[0, 0]) == pytest.approx(0.2)


def test_a_folder_that_is_named_is_taken_whether_accepted_or_not(model: Model, tmp_path: Path) -> None:
    folder = put(tmp_path / "a", model, accepted=False)
    shelf = open_lenses(model, tuned=folder)
    assert names(shelf)[0] == ["logit", "tuned"]
    assert "did not pass" in shelf.notes[0]


def test_a_folder_for_a_lens_that_is_not_among_the_names_is_an_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tuned gives a folder, but tuned is not among the lenses logit, raw: add"):
        open_lenses(model, ["logit", "raw"], tuned=tmp_path)


def test_a_lens_that_is_nowhere_is_an_error_with_the_way_to_fit_one(model: Model, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match=r"no prism lens for tiny \w{8}: fit one with `ftw sweep fit-prism tiny`"):
        open_lenses(model, ["prism"], folders=[tmp_path, tmp_path / "missing"])


def test_one_for_another_model_only_is_a_mismatch(model: Model, tmp_path: Path) -> None:
    put(tmp_path / "a", model, accepted=True, fingerprint="0" * 64)
    with pytest.raises(FingerprintMismatch, match=r"no tuned lens for tiny \w{8} \(1 for other models\)"):
        open_lenses(model, ["tuned"], folders=[tmp_path])
    with pytest.raises(FingerprintMismatch, match="00000000"):
        open_lenses(model, tuned=tmp_path / "a")
    assert names(open_lenses(model, folders=[tmp_path]))[0] == ["logit"]


def test_what_is_fitted_now_is_found_again(model: Model, tmp_path: Path) -> None:
    put(home_of(model, "tuned", tmp_path), model, accepted=True)
    assert names(open_lenses(model, folders=homes(tmp_path)))[0] == ["logit", "tuned"]


def test_without_a_cache_only_what_ships_is_looked_through() -> None:
    assert [home.parent.name for home in homes(None)] == ["bundled"]


def test_a_manifest_that_cannot_be_read_accepts_nothing(tmp_path: Path) -> None:
    assert manifest_of(tmp_path) == {}
    (tmp_path / "manifest.json").write_text(json.dumps([1]))
    assert not is_accepted(manifest_of(tmp_path))


def test_a_lens_of_another_package_is_read_from_its_folder_and_said_to_be_unjudged(
    model: Model, tmp_path: Path
) -> None:
    config = {"base_model_name_or_path": "tiny", "d_model": model.d_model, "num_hidden_layers": model.n_layers}
    (tmp_path / "config.json").write_text(json.dumps({**config, "bias": True, "lens_type": "linear_tuned_lens"}))
    width = model.d_model
    parts = {f"{layer}.weight": torch.zeros(width, width) for layer in range(model.n_layers)}
    torch.save(parts | {f"{layer}.bias": torch.zeros(width) for layer in range(model.n_layers)}, tmp_path / "params.pt")
    shelf = open_lenses(model, tuned=tmp_path)
    assert names(shelf)[0] == ["logit", "tuned"]
    assert "was not judged on held-out text here" in shelf.notes[0]

"""Lenses by name: what is asked for is there or an error, what is left out by default is told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftw.substrate.anatomy import Arch
from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import ConfigError, FingerprintMismatch, PackError
from ftw.substrate.manifest import load_artifact, save_artifact
from ftw.substrate.model import Model, from_net
from ftw.substrate.reference import tiny
from ftw.substrate.unembed import head_input
from ftw.sweep import shelf as shelf_
from ftw.sweep.files.rundir import read_document
from ftw.sweep.job import Job
from ftw.sweep.lenses import kinds
from ftw.sweep.lenses.fitted import ModelOf
from ftw.sweep.lenses.tuned import TunedLens, TunedManifest, save_tuned
from ftw.sweep.shelf import Shelf, check_folder, home_of, homes, is_accepted, manifest_of, open_lenses
from ftw.sweep.worker import run_job
from tests.substrate.families import build


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def put(folder: Path, model: Model, *, accepted: bool, fingerprint: str | None = None, bias: float = 0.1) -> Path:
    """A tuned lens that adds `bias` to every state."""
    manifest = TunedManifest(
        model=ModelOf.of(model).model_copy(update={"fingerprint": fingerprint} if fingerprint else {}),
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
    assert shelf_.names() == ("logit", "next", "own", "raw", "tuned", "prism")


def test_a_folder_for_what_is_no_fitted_lens_is_an_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the lens raw has no folder: the model makes it. Folders are for tuned, prism"
    ):
        open_lenses(model, named={"raw": tmp_path})
    with pytest.raises(ConfigError, match="there is no lens 'foo': use logit"):
        open_lenses(model, named={"foo": tmp_path})


def test_a_folder_is_checked_without_the_model(model: Model, tmp_path: Path) -> None:
    folder = put(tmp_path / "lens", model, accepted=True)
    check_folder("tuned", folder)
    check_folder("tuned", folder, fingerprint=lambda: model.fingerprint)
    with pytest.raises(FingerprintMismatch, match=r"made for \w{8}, the model is 00000000: .* `ftw sweep fit-tuned`"):
        check_folder("tuned", folder, fingerprint=lambda: "0" * 64)
    with pytest.raises(PackError, match=r"is of kind 'tuned-lens', not 'prism-lens'"):
        check_folder("prism", folder)
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere: give that of a tuned lens, or fit one with"):
        check_folder("tuned", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"holds no tuned lens: it has no manifest.json"):
        check_folder("tuned", tmp_path)
    blob = (folder / "tensors.safetensors").read_bytes()
    (folder / "tensors.safetensors").write_bytes(blob[:-1] + b"?")
    with pytest.raises(PackError, match="is not what was saved"):
        check_folder("tuned", folder)
    for name in ("config.json", "params.pt"):
        (tmp_path / name).write_text("{}")
    check_folder("tuned", tmp_path)  # in another package's form
    with pytest.raises(ConfigError, match="holds no prism lens"):
        check_folder("prism", tmp_path)


@dataclass(frozen=True)
class Doubled:
    """A fifth lens: twice the state, by a factor that it reads from its folder."""

    arch: Arch
    factor: float
    name: str = "doubled"
    digest: str = "doubled"

    @property
    def layers(self) -> range:
        return range(self.arch.n_layers + 1)

    def head_inputs(self, resid: Tensor, layers: Sequence[int]) -> Tensor:
        return head_input(self.arch, self.factor * resid.float())


def test_a_fifth_lens_is_one_file_and_a_line_on_the_shelf(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(folder: Path, model: Model) -> Doubled:
        _, tensors = load_artifact(folder)
        return Doubled(model.arch, float(tensors["factor"]))

    monkeypatch.setattr(shelf_, "KINDS", (*shelf_.KINDS, kinds.learned("doubled", read)))
    body = {"kind": "doubled-lens", "model": {"fingerprint": model.fingerprint}, "accepted": True}
    save_artifact(tmp_path / "home" / "mine", body, {"factor": torch.tensor(2.0)})
    folder = tmp_path / "home" / "mine"
    assert names(open_lenses(model, folders=[tmp_path / "home"]))[0] == ["logit", "doubled"]
    assert shelf_.fitted_bytes(None, {"doubled": folder}, (), n_layers=1, widths=[1]) == {"doubled": 4}
    assert not shelf_.is_norm_view("doubled")
    with pytest.raises(
        ConfigError, match=r"there is no doubled lens .*: give its folder with --lens-folder doubled=FOL"
    ):
        open_lenses(model, ["doubled"])
    battery = tmp_path / "facts.csv"
    battery.write_text("text,answer\nthe cat sat on,mat\none two three,four\nred and blue,green\n")
    job = Job(
        model=ModelSpec(name="tiny"),
        battery=str(battery),
        folder=tmp_path / "run",
        lenses=("logit", "doubled"),
        folders={"doubled": folder},
        legacy="none",
    )
    job.folder.mkdir()
    run_job(job, Silent())
    document = read_document(job.folder)
    assert set(document["prompts"][0]["milestones"]) == {"logit", "doubled"}
    audits = {(one["name"], one["subject"]) for one in document["audit"]["findings"]}
    assert ("learned_lens", "doubled") in audits


class Silent:
    """Nobody listens."""

    def step(self, what: str, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


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
    shelf = open_lenses(model, named={"tuned": folder})
    assert names(shelf)[0] == ["logit", "tuned"]
    assert "did not pass" in shelf.notes[0]


def test_a_folder_for_a_lens_that_is_not_among_the_names_is_an_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="a folder for the lens tuned, but tuned is not among the lenses logit, raw: add"
    ):
        open_lenses(model, ["logit", "raw"], named={"tuned": tmp_path})


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
        open_lenses(model, named={"tuned": tmp_path / "a"})
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
    shelf = open_lenses(model, named={"tuned": tmp_path})
    assert names(shelf)[0] == ["logit", "tuned"]
    assert "was not judged on held-out text here" in shelf.notes[0]

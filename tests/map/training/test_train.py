"""A whole training on a tiny model: what is written opens, what is reported was measured, bad requests are named."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ftw.hat.classifiers.store import load_pack
from ftw.hat.classifiers.tripole import load_simplexes
from ftw.hat.steering.table import Directions, load_directions, save_directions
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord
from ftw.map.registry.lens_pack import open_lens_pack
from ftw.map.registry.simplex_record import Pole, SimplexRecord
from ftw.map.training.baselines import random_twin
from ftw.map.training.fit import FitConfig
from ftw.map.training.mlps import MlpConfig
from ftw.map.training.report import Report
from ftw.map.training.train import Part, TrainConfig, merge, train, train_part
from ftw.substrate.errors import ConfigError, FingerprintMismatch, SiteError
from ftw.substrate.model import Model, load
from ftw.substrate.types import Site
from tests.map.training.small_packs import TREE, concepts

CONFIG = TrainConfig(per_word=3, held_per_word=2, folds=2, fit=FitConfig(epochs=2, batch=512), growth=1)


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


@pytest.fixture(scope="module")
def trained(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("packs") / "tiny_four"
    return out, train(model, concepts(), out, seed=3, blocks=[1, 2], config=CONFIG)


def test_a_trained_pack_opens_for_its_model(trained: tuple[Path, Report], model: Model) -> None:
    pack = open_lens_pack(trained[0], model)
    assert pack.bank.terms == ("Animal", "Food", "Bird", "Dog")
    assert pack.children("animal") == ("Bird", "Dog")
    assert pack.info.concept_pack.sha256 == concepts().sha256
    assert "carriers and words held out" in pack.report
    row, lens = pack.fetch(["bird"])[0]
    assert row.parent == "Animal"
    assert lens(torch.zeros(2, model.d_model)).shape == (2,)


def test_a_trained_pack_does_not_open_for_another_model(trained: tuple[Path, Report], model: Model) -> None:
    with pytest.raises(FingerprintMismatch, match="tiny_four"):
        open_lens_pack(trained[0], random_twin(model))


def test_every_row_carries_what_was_measured(trained: tuple[Path, Report]) -> None:
    out, report = trained
    rows = load_pack(out).rows
    assert [row.term for row in rows] == [lens.term for lens in report.lenses]
    for row in rows:
        assert row.block == report.block
        assert row.auroc_words is not None
        assert row.fpr is not None
        assert row.fpr <= 0.02  # 0.01 on other plain text
        assert 0 <= row.baseline.mean <= 1
    assert rows[0].n_words == 16


def test_the_report_is_written_as_data_and_as_text(trained: tuple[Path, Report]) -> None:
    out, report = trained
    told = json.loads((out / "report.json").read_text())
    assert told["words_held"]["lenses"] == report.words_held.lenses
    assert {b["block"] for b in told["blocks"]} == {1, 2}
    assert told["prompts"] == 22 * 5 + 12  # each concept's definition twice, and twice what is above it
    assert f"read after block {report.block}" in (out / "report.md").read_text()


@pytest.mark.slow  # without directions, the tests of killed and shared trainings show the same
def test_the_same_seed_trains_the_same_pack(trained: tuple[Path, Report], model: Model, tmp_path: Path) -> None:
    train(model, concepts(), tmp_path / "again", seed=3, blocks=[1, 2], config=CONFIG)
    assert files_of(tmp_path / "again") == files_of(trained[0])


def test_progress_names_every_stage(model: Model, tmp_path: Path) -> None:
    stages: list[str] = []
    train(
        model,
        concepts(),
        tmp_path / "p",
        blocks=[1],
        config=CONFIG,
        directions=False,
        progress=lambda what, done, of: stages.append(what),
    )
    assert list(dict.fromkeys(stages))[:5] == [
        "reading states",
        "comparing blocks",
        "fitting 1 of 3, block1 fold0",
        "fitting 2 of 3, block1 fold1",
        "fitting 3 of 3, block1 all",
    ]


@pytest.fixture(scope="module")
def bare(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack without directions, trained in one go."""
    out = tmp_path_factory.mktemp("packs") / "bare"
    train(model, concepts(), out, seed=3, blocks=[1, 2], config=CONFIG, directions=False)
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a pack but the report, which tells its seconds."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith("report")}


@pytest.mark.parametrize("stage", ["reading states", "fitting 2 of 3, block1 fold1", "fitting the random twin"])
def test_a_killed_training_goes_on_and_gives_the_same_pack(
    bare: Path, model: Model, tmp_path: Path, stage: str
) -> None:
    class Killed(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if what == stage and 2 * done >= total:
            raise Killed

    with pytest.raises(Killed):
        train(model, concepts(), tmp_path / "p", seed=3, blocks=[1, 2], config=CONFIG, directions=False, progress=stop)
    assert (tmp_path / "p.training" / "states").is_dir()
    assert not (tmp_path / "p").exists()
    stages: list[str] = []
    train(
        model,
        concepts(),
        tmp_path / "p",
        seed=3,
        blocks=[1, 2],
        config=CONFIG,
        directions=False,
        progress=lambda what, done, of: stages.append(what),
    )
    assert files_of(tmp_path / "p") == files_of(bare)
    assert ("fitting 1 of 3, block1 fold0" in stages) == (stage == "reading states")
    assert not (tmp_path / "p.training").exists()


def test_shares_on_one_folder_give_the_same_pack(bare: Path, model: Model, tmp_path: Path) -> None:
    def share(part: int) -> Part:
        return train_part(model, concepts(), tmp_path / "p", part=part, of=2, seed=3, blocks=[1, 2], config=CONFIG)

    first = share(0)
    assert first.texts > 0
    assert first.batches_left > 0
    assert first.fits_left is None
    second, third = share(1), share(0)
    assert second.batches_left == 0
    assert second.fits + third.fits == 3
    assert third.is_all
    stages: list[str] = []
    train(
        model,
        concepts(),
        tmp_path / "p",
        seed=3,
        blocks=[1, 2],
        config=CONFIG,
        directions=False,
        progress=lambda what, done, of: stages.append(what),
    )
    assert not [what for what in stages if what.endswith("block1 all")]
    assert files_of(tmp_path / "p") == files_of(bare)


def test_shares_of_two_machines_are_merged_and_give_the_same_pack(bare: Path, model: Model, tmp_path: Path) -> None:
    for part in range(2):
        train_part(model, concepts(), tmp_path / f"m{part}", part=part, of=2, seed=3, blocks=[1, 2], config=CONFIG)
    others = [tmp_path / "m0", tmp_path / "m1.training"]
    part = merge(model, concepts(), tmp_path / "p", others, seed=3, blocks=[1, 2], config=CONFIG)
    assert part.texts > 0
    assert part.batches_left == 0
    assert part.fits_left == 3
    train(model, concepts(), tmp_path / "p", seed=3, blocks=[1, 2], config=CONFIG, directions=False)
    assert files_of(tmp_path / "p") == files_of(bare)


def test_a_folder_that_no_share_wrote_is_not_merged(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no work folder of a training"):
        merge(model, concepts(), tmp_path / "p", [tmp_path / "none"], config=CONFIG)


def test_another_training_does_not_go_on_in_the_same_work_folder(model: Model, tmp_path: Path) -> None:
    train_part(model, concepts(), tmp_path / "p", part=0, of=2, blocks=[1, 2], config=CONFIG)
    with pytest.raises(ConfigError, match="holds states of other blocks"):
        train(model, concepts(), tmp_path / "p", blocks=[1], config=CONFIG)
    train(model, concepts(), tmp_path / "p", blocks=[1], config=CONFIG, resume=False, keep_work=True, directions=False)
    assert (tmp_path / "p.training" / "fits").is_dir()


def test_separate_lenses_of_every_depth_make_a_pack_too(model: Model, tmp_path: Path) -> None:
    config = replace(
        CONFIG, form="separate", per_depth=True, mlp=MlpConfig(steps=20, batch=24, check=10), target=0.99, growth=1
    )
    out = tmp_path / "p"
    train(model, concepts(), out, seed=3, blocks=[0, 3], config=config, directions=False)
    files = load_pack(out)
    assert files.info.sites == (0, 3)
    assert sum(row.primary for row in files.rows) == 4
    assert {(row.term, row.block) for row in files.rows} == {(t, b) for t in TREE for b in (0, 3)}
    assert any("growth_rounds" in row.metrics for row in files.rows)
    assert not files.blocks[0].is_shared


def test_a_pack_without_words_gets_lenses_and_no_figure_about_words(model: Model, tmp_path: Path) -> None:
    """Each concept is known by its name alone: what leaves it out has nothing to learn the concept from."""
    records = [ConceptRecord(term=term, layer=0, definition=f"a {term}") for term in ("Bird", "Dog", "Food")]
    report = train(
        model,
        ConceptPack(PackRecord(pack_id="bare", version="1"), records),
        tmp_path / "p",
        blocks=[1, 2],
        config=CONFIG,
        directions=False,
    )
    assert math.isnan(report.words_held.lenses)
    assert report.templates.lenses > 0.5
    for row in load_pack(tmp_path / "p").rows:
        assert (row.auroc_words, row.reliability, row.n_words) == (None, None, 0)
        assert row.auroc_templates is not None
        assert row.calibration is not None
        assert row.calibration.slope > 0
    assert json.loads((tmp_path / "p" / "report.json").read_text())["words_held"]["lenses"] is None


def test_directions_of_another_pack_can_be_taken_over(model: Model, tmp_path: Path) -> None:
    table = Directions(("Bird", "Dog"), Site(1), torch.eye(2, model.d_model), torch.ones(2), model.fingerprint)
    (tmp_path / "old").mkdir()
    save_directions(tmp_path / "old", table)
    train(model, concepts(), tmp_path / "p", blocks=[1], config=CONFIG, directions=tmp_path / "old")
    own = load_directions(tmp_path / "p", fingerprint=model.fingerprint)
    assert own.terms == table.terms
    assert torch.equal(own.vectors, table.vectors)


def test_a_pack_with_simplexes_gets_lenses_for_them(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftw.map.training.tripoles.STEPS", 20)
    poles = [
        Pole(name=name, words=words.split(), examples=[f"So much {name}.", f"No {name}?"])
        for name, words in (("cold", "ice snow frost"), ("neither", "cup chair door"), ("heat", "fire sun oven"))
    ]
    simplex = SimplexRecord(name="Warmth", negative=poles[0], neutral=poles[1], positive=poles[2], concept="Food")
    pack = ConceptPack(concepts().meta, concepts().records.values(), [simplex])
    train(model, pack, tmp_path / "p", blocks=[1, 2], config=CONFIG, directions=False)
    bank = load_simplexes(tmp_path / "p")
    assert bank is not None
    (row,) = bank.rows
    assert row.poles == ("cold", "neither", "heat")
    assert row.binding.concept == "Food"
    assert 0 <= row.metrics["f1"] <= 1
    assert bank.score({Site(row.block): torch.randn(3, model.d_model)}).shape == (3, 1, 3)


def test_a_block_that_the_model_lacks_is_an_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"no such block: \[4\]. This model has blocks 0..3"):
        train(model, concepts(), tmp_path / "p", blocks=[1, 4], config=CONFIG)


def test_no_block_at_all_is_an_error(model: Model, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="none named"):
        train(model, concepts(), tmp_path / "p", blocks=[], config=CONFIG)


@pytest.mark.parametrize("bad", [{"per_word": 0}, {"held_per_word": 0}, {"folds": 1}])
def test_a_training_without_carriers_or_folds_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one carrier of each part and two folds"):
        TrainConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.6, -1.0])
def test_a_share_of_false_alarms_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"a share above 0 and at most 0\.5"):
        TrainConfig(false_alarms=share)


def test_a_random_twin_has_other_matrices_and_leaves_the_model_alone(model: Model) -> None:
    before = model.fingerprint
    twin = random_twin(model, seed=1)
    assert twin.fingerprint != before
    assert load("tiny").fingerprint == before
    for mine, other in zip(model.net.parameters(), twin.net.parameters(), strict=True):
        assert torch.equal(mine, other) == (mine.ndim < 2)

"""A whole training on a tiny model: what is written opens, what is reported was measured, bad requests are named."""

import json
from pathlib import Path

import pytest
import torch

from ftw.hat.classifiers.store import load_pack
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Wordnet
from ftw.map.registry.lens_pack import open_lens_pack
from ftw.map.training.baselines import random_twin
from ftw.map.training.fit import FitConfig
from ftw.map.training.report import Report
from ftw.map.training.train import TrainConfig, train
from ftw.substrate.errors import ConfigError, FingerprintMismatch, SiteError
from ftw.substrate.model import Model, load

CONFIG = TrainConfig(per_word=3, held_per_word=2, folds=2, fit=FitConfig(epochs=3, batch=64))
TREE = {"Animal": None, "Bird": "Animal", "Dog": "Animal", "Food": None}
MEMBERS = {
    "Animal": "beast brute creature critter",
    "Bird": "owl hen gull wren crow duck",
    "Dog": "hound pug collie poodle beagle spitz",
    "Food": "bread soup cheese rice stew jam",
}


def concepts() -> ConceptPack:
    records = [
        ConceptRecord(
            term=term,
            layer=0 if parent is None else 1,
            parent_concepts=[] if parent is None else [parent],
            definition=f"a {term}",
            wordnet=Wordnet(pos="n", words={f"{word}.n.01": [word] for word in MEMBERS[term].split()}),
        )
        for term, parent in TREE.items()
    ]
    return ConceptPack(PackRecord(pack_id="four", version="2.0.0"), records)


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
        assert row.fpr <= 0.011
        assert 0 <= row.baseline.mean <= 1
    assert rows[0].n_words == 16


def test_the_report_is_written_as_data_and_as_text(trained: tuple[Path, Report]) -> None:
    out, report = trained
    told = json.loads((out / "report.json").read_text())
    assert told["words_held"]["lenses"] == report.words_held.lenses
    assert {b["block"] for b in told["blocks"]} == {1, 2}
    assert told["prompts"] == 22 * 5
    assert f"read after block {report.block}" in (out / "report.md").read_text()


def test_the_same_seed_trains_the_same_pack(trained: tuple[Path, Report], model: Model, tmp_path: Path) -> None:
    train(model, concepts(), tmp_path / "again", seed=3, blocks=[1, 2], config=CONFIG)
    for name in ("lenses.safetensors", "index.json", "pack.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained[0] / name).read_bytes()


def test_progress_names_every_stage(model: Model, tmp_path: Path) -> None:
    stages: list[str] = []
    train(
        model,
        concepts(),
        tmp_path / "p",
        blocks=[1],
        config=CONFIG,
        progress=lambda what, done, of: stages.append(what),
    )
    assert list(dict.fromkeys(stages))[:5] == [
        "reading states",
        "comparing blocks",
        "holding out words 1/2",
        "holding out words 2/2",
        "fitting lenses",
    ]


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


def test_a_random_twin_has_other_matrices_and_leaves_the_model_alone(model: Model) -> None:
    before = model.fingerprint
    twin = random_twin(model, seed=1)
    assert twin.fingerprint != before
    assert load("tiny").fingerprint == before
    for mine, other in zip(model.net.parameters(), twin.net.parameters(), strict=True):
        assert torch.equal(mine, other) == (mine.ndim < 2)

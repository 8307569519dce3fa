"""Simplexes: three poles from words, balanced, measured on words that no fit saw."""

import json
from pathlib import Path

import pytest
import torch

from ftw.hat.classifiers.modules import normalise
from ftw.map.registry.concept_pack import ConceptPack, bundled_concept_pack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord
from ftw.map.registry.simplex_record import SIMPLEXES, Monitoring, Pole, SimplexRecord, read_simplexes
from ftw.map.training import tripoles
from ftw.map.training.plan import Plan
from ftw.map.training.prompts import bundled_carriers
from ftw.map.training.states import States
from ftw.map.training.tripoles import TrainedSimplexes, train_simplexes
from ftw.substrate.errors import PackError
from ftw.substrate.model import Model, load

POLES = [
    Pole(name="cold", words=[f"cold{i}" for i in range(10)], pos="a", examples=["It froze.", "Ice, ice."]),
    Pole(name="neither", words=[f"thing{i}" for i in range(4)]),
    Pole(name="heat", words=[f"heat{i}" for i in range(10)], pos="v"),
]
WATCHED = Monitoring(baseline_window=60, alert_threshold=3.5, trend_window=700)
RECORD = SimplexRecord(
    name="Warmth", negative=POLES[0], neutral=POLES[1], positive=POLES[2], always_on=True, monitoring=WATCHED
)
SPOTS = {"cold": -2.0, "It f": -2.0, "Ice,": -2.0, "heat": 2.0}


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def trained() -> TrainedSimplexes:
    """On states that stand where their pole is along one direction, at block 1; the others hold noise."""
    model = load("tiny")
    texts: list[str] = []
    rng = torch.Generator().manual_seed(0)

    def planted(model: Model, plan: Plan, blocks: tuple[int, ...], progress: object) -> States:
        x = torch.randn(len(blocks), plan.rows, model.d_model, generator=rng)
        for at, text in enumerate(plan.texts):
            words = model.decode(text.ids)
            texts.append(words)
            spot = next((v for word, v in SPOTS.items() if word in words), 0.0)
            x[blocks.index(1), plan.first_row[at], 0] += 4 * spot
        moments = torch.ones(len(blocks), plan.rows)
        return States(tuple(blocks), normalise(x).half(), moments, moments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tripoles, "collect", planted)
        patch.setattr(tripoles, "STEPS", 160)
        noise = torch.randn(3, 50, model.d_model, generator=rng)
        plain = States((0, 1, 3), normalise(noise).half(), torch.ones(3, 50), torch.ones(3, 50))
        made = train_simplexes(
            model, [RECORD], bundled_carriers(), plain, lambda b: plain.at(b), primary=0, seed=0, progress=quiet
        )
    assert len(set(texts)) == len(texts)  # each text ran once
    return made


def test_words_that_no_fit_saw_are_read_at_their_pole(trained: TrainedSimplexes) -> None:
    (row,) = trained.rows
    assert row.metrics["f1"] > 0.8
    assert min(row.metrics[f"f1_{pole}"] for pole in ("negative", "neutral", "positive")) > 0.7  # four words or ten
    assert row.poles == ("cold", "neither", "heat")


def test_how_a_simplex_is_to_be_watched_reaches_its_row(trained: TrainedSimplexes) -> None:
    binding = trained.rows[0].binding
    assert binding.always_on
    assert {name: getattr(binding, name) for name in WATCHED.model_dump()} == WATCHED.model_dump()


def test_poles_of_three_texts_each_are_trained_though_none_can_be_held_out() -> None:
    model = load("tiny")
    poles = [Pole(name=name, examples=[f"{name} {end}" for end in "abc"]) for name in ("low", "level", "high")]
    record = SimplexRecord(name="Height", negative=poles[0], neutral=poles[1], positive=poles[2])
    noise = torch.randn(1, 20, model.d_model)
    plain = States((1,), normalise(noise).half(), torch.ones(1, 20), torch.ones(1, 20))
    (row,) = train_simplexes(
        model, [record], bundled_carriers(), plain, lambda b: plain.at(b), primary=1, seed=0, progress=quiet
    ).rows
    assert row.temperature == 1.0
    assert row.metrics["n"] == 0


def test_the_poles_lie_where_their_words_lie(trained: TrainedSimplexes) -> None:
    weight = trained.weight[0, :, 0]
    assert float(weight[0]) < float(weight[1]) < float(weight[2])
    assert abs(trained.rows[0].baseline.mean) < 0.2


def test_of_the_blocks_at_the_same_depth_the_one_that_reads_the_poles_is_chosen(trained: TrainedSimplexes) -> None:
    assert trained.rows[0].block == 1


def test_a_pack_keeps_its_simplexes_and_its_digest_knows_them(tmp_path: Path) -> None:
    records = [ConceptRecord(term=t, layer=0, definition=f"a {t}") for t in "AB"]
    meta = PackRecord(pack_id="p", version="1")
    pack = ConceptPack(meta, records, [RECORD])
    pack.save(tmp_path / "p")
    again = ConceptPack.load(tmp_path / "p")
    assert again.simplexes == (RECORD,)
    assert again.sha256 == pack.sha256 != ConceptPack(meta, records).sha256
    ConceptPack(meta, records).save(tmp_path / "none")
    assert not (tmp_path / "none" / SIMPLEXES).exists()


def test_the_bundled_pack_has_simplexes_that_name_concepts_it_holds() -> None:
    pack = bundled_concept_pack()
    assert len(pack.simplexes) >= 2
    for simplex in pack.simplexes:
        assert simplex.concept is None or simplex.concept in pack.concepts
        sizes = [len(pole.words) + len(pole.examples) for pole in simplex.poles]
        assert max(sizes) <= 2 * min(sizes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"neutral": {"name": "few", "words": ["a", "b"]}}, "fewer than 3 words and examples"),
        ({"positive": {"name": "heat", "words": ["x", "y", "Cold1"]}}, "'Cold1' stands for cold and for heat"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_simplex_that_cannot_be_trained_is_refused(tmp_path: Path, change: dict[str, object], match: str) -> None:
    (tmp_path / SIMPLEXES).write_text(json.dumps([RECORD.model_dump() | change]))
    with pytest.raises(PackError, match=match):
        read_simplexes(tmp_path)


def test_two_simplexes_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / SIMPLEXES).write_text(json.dumps([RECORD.model_dump()] * 2))
    with pytest.raises(PackError, match="Warmth stands twice"):
        read_simplexes(tmp_path)

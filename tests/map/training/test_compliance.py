"""The compliance report: measured on the model, bound to the pack's bytes, null with a reason where nothing was."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from ftw.hat.steering.table import Directions, save_directions
from ftw.map.training.compliance import (
    ComplianceReport,
    Figure,
    Property,
    measure_compliance,
    read_compliance,
    write_compliance,
)
from ftw.map.training.compliance.measure import training_report
from ftw.map.training.compliance.reading import all_states, last_states, score
from ftw.map.training.compliance.records import measured, pack_digest, schema
from ftw.substrate.errors import FingerprintMismatch, PackError, StorageError
from ftw.substrate.model import Model, load
from ftw.substrate.types import Site
from tests.map.training.small_packs import BLOCK, concepts, lens_pack

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def little_text() -> Iterator[None]:
    """Steered text is counted elsewhere; here a few words of it will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftw.map.training.compliance.control.REPEATS", 1)
        patch.setattr("ftw.map.training.compliance.control.PLAIN_REPEATS", 1)
        patch.setattr("ftw.map.training.compliance.reading.NEUTRAL", 12)
        patch.setattr("ftw.map.training.compliance.efficiency.RUNS", 4)
        yield


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


def measure(model: Model, folder: Path, **more: object) -> ComplianceReport:
    ticks = count()
    return measure_compliance(
        model,
        folder,
        concepts(),
        now=lambda: WHEN,
        clock=lambda: next(ticks) / 1000,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = lens_pack(tmp_path_factory.mktemp("packs") / "tiny_four", model)
    vectors = torch.eye(model.d_model)[:2]
    table = Directions(("Bird", "Dog"), Site(1), vectors, torch.tensor([0.2, 0.2]), model.fingerprint)
    save_directions(made, table)
    return made


@pytest.fixture(scope="module")
def report(model: Model, folder: Path) -> ComplianceReport:
    return measure(model, folder)


def test_all_five_properties_are_reported_for_the_exact_pair(
    report: ComplianceReport, model: Model, folder: Path
) -> None:
    assert [one.name for one in report.properties] == [
        "locality",
        "transduction",
        "calibration",
        "efficiency",
        "control_authority",
    ]
    assert report.model.fingerprint == model.fingerprint
    assert report.lens_pack.sha256 == pack_digest(folder)
    assert report.setting.date == "2026-01-02T03:04:05+00:00"
    assert report.setting.prompts == 22
    assert [one.term for one in report.lenses] == ["Animal", "Food", "Bird", "Dog"]


def test_a_reading_of_a_causal_model_does_not_depend_on_what_follows(report: ComplianceReport) -> None:
    local = report.property("locality")
    assert (local.figure("future_change").value or 0) < 1e-3
    assert (local.figure("state_alone").value or 0) < 1e-2


def test_lenses_drawn_at_random_do_not_pass_for_transducers(report: ComplianceReport) -> None:
    told = report.property("transduction")
    assert told.verdict == "not met"
    area = told.figure("auroc_templates")
    assert (area.low or 0) <= (area.value or 0) <= (area.high or 0)


def test_the_rate_that_the_pack_was_made_for_sets_the_bound(report: ComplianceReport) -> None:
    assert report.property("calibration").figure("false_alarms").at_most == pytest.approx(0.03)


def test_what_only_training_can_say_is_null_with_the_reason(report: ComplianceReport) -> None:
    figure = report.property("transduction").figure("baseline_linear")
    assert (figure.value, figure.reason) == (None, "the pack came without the report of its training")
    assert report.property("transduction").figure("auroc_words").reason == "no lens has a figure from held-out synsets"


def test_steering_is_measured_by_what_the_lens_reads(report: ComplianceReport) -> None:
    assert {line.term for line in report.control} == {"Bird", "Dog"}
    told = report.property("control_authority")
    assert told.figure("logit_change").value is not None
    assert (told.figure("gradient_push").value or 0) > 0


def test_a_pack_without_directions_says_so(model: Model, tmp_path: Path) -> None:
    bare = measure(model, lens_pack(tmp_path / "p", model))
    told = bare.property("control_authority")
    assert told.figure("rises").reason == "the pack has no directions.safetensors"
    assert told.verdict == "not measured"


def test_figures_of_training_are_taken_over_under_their_own_names(model: Model, folder: Path, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "p", model)
    told = {
        "words_held": {"lenses": 0.9, "linear": 0.8, "centroid": 0.7, "random_twin": 0.5, "tfidf": None},
        "calibration": {"ece_after": 0.01, "ece_shown": 0.02},
        "steering": [{"multiple": 7.0, "perplexity_ratio": 1.2}],
    }
    (made / "report.json").write_text(json.dumps(told))
    save_directions(
        made, Directions(("Bird",), Site(1), torch.eye(model.d_model)[:1], torch.ones(1), model.fingerprint)
    )
    found = measure(model, made)
    assert found.property("transduction").figure("baseline_centroid").value == 0.7
    assert found.property("calibration").figure("ece_words_shown").value == 0.02
    counted = found.property("control_authority").figure("word_multiple")
    assert (counted.value, counted.label.endswith("(training)")) == (7.0, True)


def test_the_report_is_kept_with_the_pack_and_read_again(report: ComplianceReport, folder: Path) -> None:
    write_compliance(report, folder)
    assert read_compliance(folder) == report


def test_a_pack_that_changed_since_has_no_report(report: ComplianceReport, model: Model, tmp_path: Path) -> None:
    other = lens_pack(tmp_path / "other", model, seed=1)
    write_compliance(report, other)
    with pytest.raises(FingerprintMismatch, match="measure it again with `ftw lens report --measure`"):
        read_compliance(other)


def test_a_pack_that_was_not_measured_says_how(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="measure it with `ftw lens report --measure`"):
        read_compliance(tmp_path)


@pytest.mark.parametrize("body", ["{", "[]", '{"format": "other"}'])
def test_a_damaged_report_is_named(tmp_path: Path, body: str) -> None:
    (tmp_path / "compliance.json").write_text(body)
    with pytest.raises(PackError, match="is no compliance report"):
        read_compliance(tmp_path)


def test_a_folder_that_is_no_pack_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is this a lens pack"):
        pack_digest(tmp_path)


def test_lenses_of_other_concepts_are_refused(model: Model, folder: Path) -> None:
    with pytest.raises(PackError, match="name the right one with --concepts"):
        measure_compliance(model, folder, concepts(version="3.0.0"), now=lambda: WHEN, clock=lambda: 0.0)


def test_a_damaged_training_report_is_named(tmp_path: Path) -> None:
    assert training_report(tmp_path) is None
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(PackError, match="is not valid JSON"):
        training_report(tmp_path)


def test_a_figure_has_a_value_or_a_reason_never_neither() -> None:
    with pytest.raises(ValidationError, match="exactly one is given"):
        Figure(name="a", label="a", value=None, unit="u")
    assert measured("a", "a", float("nan"), "u").reason == "too few examples"


def test_a_verdict_needs_every_bound_that_was_measured() -> None:
    good, bad = measured("a", "a", 0.2, "u", at_most=0.3), measured("b", "b", 0.2, "u", at_least=0.3)
    unmeasured = measured("c", "c", float("nan"), "u", at_most=1.0)

    def verdict(*figures: Figure) -> str:
        return Property(name="locality", says="", figures=figures).verdict

    assert verdict(good, unmeasured) == "met"
    assert verdict(good, bad) == "not met"
    assert verdict(unmeasured) == "not measured"


def test_the_schema_describes_what_is_written(report: ComplianceReport) -> None:
    described = schema()
    assert set(described["properties"]) == set(report.model_dump())
    document = report.as_json()
    assert document["properties"][0]["verdict"] == report.properties[0].verdict
    json.dumps(document, allow_nan=False)


def test_states_of_a_batch_are_those_of_each_text_alone(model: Model) -> None:
    texts, site = ["one two three", "four", "five six"], Site(BLOCK)
    together, lengths = all_states(model, texts, [site])
    ends = torch.tensor(lengths).cumsum(0) - 1
    assert torch.allclose(last_states(model, texts, [site])[site], together[site][ends], atol=1e-5)
    alone = torch.cat([last_states(model, [text], [site])[site] for text in texts])
    assert torch.allclose(alone, together[site][ends], atol=1e-4)


def test_a_pack_too_large_to_read_whole_reads_fewer_prompts(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftw.map.training.compliance.reading.MOST_PAIRS", 40)
    assert measure(model, folder).setting.prompts <= 10


def test_scores_come_in_pieces_of_any_size(model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftw.hat.classifiers.store import load_bank

    bank = load_bank(folder, fingerprint=model.fingerprint, dtype=torch.float32)
    states = {Site(BLOCK): torch.randn(1030, model.d_model)}
    assert score(bank, states).shape == (1030, 4)

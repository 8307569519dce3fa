"""Study: the document of a run says what the table says, in plain JSON, and the same again with the same seed."""

import json
import math

import pytest
import torch

from ftw.substrate.model import Model, from_net, load
from ftw.substrate.reference import tiny
from ftw.sweep.battery import Battery
from ftw.sweep.lenses.views import view
from ftw.sweep.milestones import Thresholds
from ftw.sweep.run import Sweep
from ftw.sweep.study import Study, study, tempered


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="module")
def found(model: Model) -> Study:
    battery = Battery.read("germany")
    sweep = Sweep(model, at_end=[view(model, name) for name in ("next", "own", "raw")], k=20)
    return study(sweep, sweep.run(battery), battery=battery, seed=3)


def test_the_document_is_plain_json_with_every_block(found: Study) -> None:
    document = found.document()
    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))
    blocks = (
        "provenance", "gate", "model", "battery", "sweep", "prompts", "temperatures", "thresholds", "ablations",
        "controls", "facts", "statistics", "audit", "guidance",
    )  # fmt: skip
    assert set(blocks) <= set(document)
    assert document["model"]["n_layers"] == 8
    assert document["battery"]["name"] == "germany"
    assert document["provenance"]["seed"] == 3


def test_each_prompt_stands_with_its_answers_tokens_and_milestones(found: Study) -> None:
    document = found.document()
    prompts = document["prompts"]
    assert [each["id"] for each in prompts] == [item.id for item in found.table.items]
    fact = next(each for each in prompts if each["kind"] == "fact")
    assert fact["answer"]["text"] == "Berlin"
    assert fact["answer"]["ids"] == list(found.table.items[0].answer)
    assert "".join(fact["answer"]["pieces"]).strip() == "Berlin"
    assert set(fact["milestones"]) == {"logit", "next", "own", "raw"}
    onset = fact["milestones"]["logit"]["semantic"]
    rows = found.table.view("logit", 0)
    first = rows["layer"][rows["answer_rank"] == 1]
    assert onset == ({"value": int(first[0]), "why": None} if len(first) else {"value": None, "why": "never"})


def test_a_probe_has_no_answer_and_says_why_it_has_no_onset(found: Study) -> None:
    probe = next(each for each in found.document()["prompts"] if each["kind"] == "probe")
    assert probe["answer"] is None
    assert probe["milestones"]["logit"]["semantic"] == {"value": None, "why": "no_answer"}


def test_other_temperatures_are_those_of_the_battery_and_of_the_model(found: Study, model: Model) -> None:
    listed = found.document()["temperatures"]
    assert [each["temperature"] for each in listed] == [0.1, 2.0]
    assert all(len(each["top"]) == 15 for each in listed)
    with torch.no_grad():
        z = model.net(input_ids=torch.tensor([found.table.items[0].ids])).logits[0, -1].double()
    for each in listed:
        p = (z / each["temperature"]).softmax(-1)
        assert each["top"][0]["p"] == pytest.approx(float(p.max()), rel=1e-4)
        assert each["entropy_bits"] == pytest.approx(float(-(p * p.clamp_min(1e-300).log2()).sum()), abs=1e-4)


def test_no_temperatures_no_list(found: Study, model: Model) -> None:
    assert tempered(Sweep(model), found.table, ()) == []


def test_the_thresholds_of_the_document_are_those_that_were_used(found: Study, model: Model) -> None:
    sweep = Sweep(model, k=20)
    strict = Thresholds(uniform_margin=0.999)
    other = study(sweep, sweep.run(Battery.read("germany")), thresholds=strict)
    assert other.document()["thresholds"]["uniform_margin"] == 0.999
    assert other.milestones[0, "logit"]["semantic_margin_ok"].value is None
    assert Thresholds(**found.document()["thresholds"]) == found.thresholds


def test_a_model_without_a_tokenizer_is_studied_by_ids() -> None:
    sweep = Sweep(from_net(tiny().net), k=5)
    document = study(sweep, sweep.run([[1, 2, 3]])).document()
    assert document["prompts"][0]["ids"] == [1, 2, 3]
    assert document["prompts"][0]["text"] is None
    assert document["battery"] is None
    assert not any(isinstance(value, float) and math.isnan(value) for value in document["gate"].values())

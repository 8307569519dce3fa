"""The bundled batteries: the published suite as it is, and one whose every prompt the bundled model answers."""

from collections import Counter

import pytest
import torch

from ftw.substrate.model import Model, load
from ftw.sweep.battery import Aligned, Battery, align_all


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="module")
def aligned(model: Model) -> list[Aligned]:
    return align_all(Battery.read("reference").prompts(), model)


def greedy(model: Model, batch: list[Aligned]) -> list[tuple[int, ...]]:
    """What the model itself says at the positions that predict the answers. Rows are padded on the right."""
    golds = [each.gold for each in batch if each.gold]
    longest = max(len(gold.forced_ids) for gold in golds)
    ids = torch.tensor([[*gold.forced_ids, *[0] * (longest - len(gold.forced_ids))] for gold in golds])
    with torch.inference_mode():
        best = model.net(input_ids=ids, use_cache=False).logits.argmax(-1)
    return [
        tuple(row[len(gold.prompt_ids) - 1 : len(gold.forced_ids)].tolist())
        for row, gold in zip(best, golds, strict=True)
    ]


def test_the_bundled_model_writes_the_whole_answer_to_every_prompt(model: Model, aligned: list[Aligned]) -> None:
    asked = [each for each in aligned if each.gold]
    once = list({each.ids: each for each in asked}.values())
    said: list[tuple[int, ...]] = []
    for start in range(0, len(once), 64):
        said += greedy(model, once[start : start + 64])
    wrong = [
        (each.prompt.id, model.pieces(ids))
        for each, ids in zip(once, said, strict=True)
        if each.gold and each.gold.ids != ids
    ]
    assert wrong == []


def test_its_answers_are_told_apart_from_the_controls_by_the_first_token(aligned: list[Aligned]) -> None:
    assert [each.prompt.id for each in aligned if not each.is_told_apart] == []
    assert all(each.control for each in aligned if each.gold)


def test_it_has_answers_of_several_tokens_and_several_prompts_for_each_fact(aligned: list[Aligned]) -> None:
    assert Counter(each.gold.is_single for each in aligned if each.gold)[False] >= 20
    per_fact = Counter((e.prompt.relation, e.prompt.fact_id) for e in aligned if e.prompt.kind == "fact")
    assert min(per_fact.values()) >= 2
    assert {relation for relation, _ in per_fact} == {"capital", "country", "kind", "opposite"}


def test_controls_cost_no_further_forward_pass(aligned: list[Aligned]) -> None:
    facts = {each.ids for each in aligned if each.prompt.kind == "fact"}
    assert all(each.ids in facts for each in aligned if each.prompt.kind == "control")


def test_the_germany_suite_is_the_published_one() -> None:
    battery = Battery.read("germany")
    prompts = battery.prompts()
    assert Counter(each.kind for each in prompts) == {"fact": 10, "control": 1, "probe": 14}
    assert len({each.text for each in prompts}) == 24
    assert battery.temperatures == (0.1, 2.0)
    keys = ["Germany→Berlin", "France→Paris", "Italy→Rome", "Japan→Tokyo", "Canada→Ottawa"]
    assert list(dict.fromkeys(each.fact_id for each in prompts if each.kind == "fact")) == keys


def test_the_germany_suite_begins_with_its_baseline_ablation_and_control() -> None:
    first, second, third, *_ = Battery.read("germany").prompts()
    assert first.text == "Give the city name only, plain text. The capital of Germany is called simply"
    assert (first.variant, first.gold, first.control_answer) == ("orig", ("Berlin",), "Paris")
    assert (second.variant, second.text) == ("no_filler", first.text.removesuffix(" simply"))
    assert (third.kind, third.text) == ("control", first.text.replace("Germany", "France"))
    assert (third.gold, third.control_answer) == (("Paris",), "Berlin")


def test_the_germany_suites_adverb_is_all_that_its_ablation_takes_away() -> None:
    facts = [each for each in Battery.read("germany").prompts() if each.kind == "fact"]
    for plain, ablated in zip(facts[::2], facts[1::2], strict=True):
        assert plain.text == f"{ablated.text} simply"
        assert plain.answer == ablated.answer

"""Which prompts the legacy files show, and under which tags."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ftw.substrate.errors import ConfigError
from ftw.sweep.legacy.passes import Suite, suite
from ftw.sweep.legacy.source import Source
from ftw.sweep.table import Item

Tagger = Callable[..., Suite]


@pytest.fixture
def tagged(source: Source) -> Tagger:
    """Tags the prompts of a document whose table has these prompts."""

    def tag(*entries: dict[str, Any]) -> Suite:
        items = tuple(Item(entry["id"], (0,)) for entry in entries)
        return suite({"prompts": entries}, replace(source.table, items=items))

    return tag


def entry(id_: str, kind: str = "fact", variant: str = "orig", **more: str) -> dict[str, Any]:
    relation, fact, template = (*id_.split("/"), "", "")[:3]
    return {
        "id": id_,
        "kind": kind,
        "variant": variant,
        "relation": relation,
        "fact_id": fact,
        "template": template,
    } | more


def tags(found: Suite) -> list[tuple[Any, ...]]:
    return [(one.prompt_id, one.prompt_variant, one.fact_key, one.fact_index) for one in found.passes]


def test_the_published_suite_is_tagged_as_published(source: Source) -> None:
    assert tags(source.suite) == [
        ("pos", "orig", "a\nb→x", 0),
        ("pos", "no_filler", "a\nb→x", 0),
        ("pos", "orig", "c→y", 1),
        ("pos", "no_filler", "c→y", 1),
        ("ctl", "orig", None, None),
    ]
    assert source.suite.baseline.tags == {
        "fact_key": "a\nb→x",
        "fact_index": 0,
        "prompt_id": "pos",
        "prompt_variant": "orig",
    }
    assert [entry["text"] for _, entry in source.suite.probes] == ["free"]


def test_the_seed_contract_shows_one_fact_its_variants_and_its_control(source: Source) -> None:
    shown = [(one.prompt_id, one.prompt_variant) for one in source.suite.of("seed")]
    assert shown == [("pos", "orig"), ("pos", "no_filler"), ("ctl", "orig")]
    assert source.suite.of("extended") == source.suite.passes
    assert source.suite.ablated is not None
    assert source.suite.ablated.prompt_variant == "no_filler"


def test_another_templates_wording_carries_the_templates_name(tagged: Tagger) -> None:
    found = tagged(entry("r/f/t/1"), entry("r/f/u/1"), entry("r/f/u/2", variant="short"))
    assert [one.prompt_variant for one in found.passes] == ["orig", "u.orig", "u.short"]
    assert [one.prompt_variant for one in found.of("seed")] == ["orig"]
    assert found.ablated is None


def test_controls_carry_their_fact_where_there_are_several(tagged: Tagger) -> None:
    found = tagged(entry("r/f/t/1"), entry("r/f/t/c", "control"), entry("r/g/t/1"), entry("r/g/t/c", "control"))
    assert tags(found) == [
        ("pos", "orig", "f", 0),
        ("pos", "orig", "g", 1),
        ("ctl", "orig", "f", 0),
        ("ctl", "orig", "g", 1),
    ]
    assert found.control is found.passes[2]


def test_a_fact_of_two_relations_is_named_with_its_relation(tagged: Tagger) -> None:
    found = tagged(entry("r/f/t/1"), entry("s/f/t/1"), entry("s/g/t/1"))
    assert [one.fact_key for one in found.passes] == ["r/f", "s/f", "g"]
    assert [one.fact_index for one in found.facts] == [0, 1, 2]


def test_no_two_prompts_share_their_tags(tagged: Tagger) -> None:
    found = tagged(*(entry(f"r/f/t/{at}") for at in range(3)), entry("r/f/u/1", variant="t"))
    assert len(set(tags(found))) == 4
    assert [one.prompt_variant for one in found.passes] == ["orig", "orig.2", "orig.3", "u.t"]


def test_without_answers_every_probe_is_a_pass(tagged: Tagger) -> None:
    found = tagged(entry("one", "probe"), entry("two", "probe"))
    assert tags(found) == [("pos", "orig", "one", 0), ("pos", "orig", "two", 1)]
    assert found.control is None
    assert len(found.probes) == 2


def test_a_document_of_another_run_is_refused(source: Source) -> None:
    with pytest.raises(ConfigError, match=r"lists 1 prompts and the table 6.*take both from one run"):
        suite({"prompts": [entry("r/f/t/1")]}, source.table)

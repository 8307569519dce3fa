"""Reading melds: the published format with its quirks is read as meant, and what is not known is an error."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftw.map.meld.operations import Merge, Split
from ftw.map.meld.request import MeldRequest, meld_of, read_meld, term_of
from ftw.substrate.errors import PackError, StorageError
from tests.map.meld.zoo import candidate, meld, melded, operations

PUBLISHED: dict[str, Any] = {
    "meld_request_id": "org.example/shown@0.2.0",
    "target_pack_spec_id": "org.example/zoo@1.2.3",
    "metadata": {
        "name": "Shown",
        "description": "every key that published melds are known to carry",
        "source": "manual",
        "author": "someone",
        "created": "2025-12-10T00:00:00Z",
        "version": "0.2.0",
        "changelog": "first",
        "rationale": "to show",
        "generator_model": "a model",
        "llm_review": {"model": "a model", "mappings": {"A": None}},
    },
    "attachment_points": [
        {
            "target_concept_id": "org.example/zoo@1.2.3::concept/Animal",
            "relationship": "parent_of",
            "candidate_concept": "Bird",
        },
        {
            "target_concept_id": "org.example/zoo@1.2.3::concept/Thing",
            "relationship": "related_to",
            "candidate_concept": "Bird",
        },
    ],
    "candidates": [
        {
            "term": "Bird",
            "role": "concept",
            "parent_concepts": [],
            "layer_hint": 1,
            "definition": "an animal with feathers and wings",
            "definition_source": "a dictionary",
            "domain": "World",
            "aliases": ["Fowl"],
            "wordnet": {"synsets": ["bird.n.01"], "canonical_synset": "bird.n.01", "lemmas": ["bird"], "pos": None},
            "relationships": {
                "related": ["Feather"],
                "antonyms": [],
                "part_of": [],
                "has_part": [],
                "opposite": ["Cat", "Dog"],
                "opposite_rationale": "they hunt it",
            },
            "safety_tags": {
                "risk_level": "none",
                "impacts": [],
                "treaty_relevant": False,
                "harness_relevant": True,
                "protection_level": "standard",
            },
            "simplex_mapping": {"status": "mapped", "monitor": "CalmMonitor", "unmapped_justification": None},
            "training_hints": {
                "positive_examples": ["a bird sings", "the bird flies", "a small bird"],
                "negative_examples": ["a dog barks", "the cat sleeps", "a stone"],
                "disambiguation": "the animal",
                "key_features": ["feathers"],
                "confusable_with": ["Cat"],
                "discovery_context": {"gap_activations": [0.4]},
            },
            "children": ["Puppy:2"],
        }
    ],
    "be_context": {"be_instance_id": "one"},
    "validation": {"status": "applied", "errors": []},
    "protection_assessment": {"protection_level": "elevated", "triggers": []},
}


def changed(**fields: Any) -> dict[str, Any]:
    return PUBLISHED | {"candidates": [PUBLISHED["candidates"][0] | fields]}


def test_every_key_of_the_published_format_is_read() -> None:
    request = meld_of(PUBLISHED, source="here")
    (bird,) = request.candidates
    assert [point.target for point in request.attachment_points] == ["Animal", "Thing"]
    assert bird.relationships.opposite == ["Cat", "Dog"]
    assert bird.simplex == "CalmMonitor"
    assert bird.children == ["Puppy"]
    assert request.target_pack == ("zoo", "1.2.3")


def test_a_published_meld_can_be_applied_and_loses_nothing_that_training_reads() -> None:
    record = melded(meld_of(PUBLISHED, source="here")).pack.records["Bird"]
    assert record.training_hints.key_features == ["feathers"]
    assert record.training_hints.confusable_with == ["Cat"]
    assert record.relationships.opposite == "Cat"
    assert record.relationships.related == ["Feather", "Dog", "Thing"]
    assert record.safety_tags.risk_level == "low"


@pytest.mark.parametrize("key", ["mapped_simplex", "target_simplex", "monitor"])
def test_a_mapping_is_read_under_each_of_its_published_names(key: str) -> None:
    request = meld_of(changed(simplex_mapping={"status": "mapped", key: "AutonomyDrive"}), source="here")
    assert request.candidates[0].simplex == "AutonomyDrive"


def test_a_mapping_that_says_unmapped_maps_to_nothing() -> None:
    request = meld_of(changed(simplex_mapping={"status": "unmapped", "mapped_simplex": "X"}), source="here")
    assert request.candidates[0].simplex is None


def test_one_opposite_is_read_as_a_list_of_one() -> None:
    request = meld_of(changed(relationships={"opposite": "Cat"}), source="here")
    assert request.candidates[0].relationships.opposite == ["Cat"]


def test_examples_beside_the_hints_are_the_hints() -> None:
    plain = candidate("Bird") | {"training_hints": {"disambiguation": "x"}, "positive_examples": ["a", "b"]}
    hints = meld(plain).candidates[0].training_hints
    assert (hints.positive_examples, hints.disambiguation) == (["a", "b"], "x")


def test_examples_in_both_places_are_an_error() -> None:
    with pytest.raises(PackError, match="positive_examples stand beside training_hints and in it"):
        meld(candidate("Bird") | {"positive_examples": ["a"]})


def test_the_neutral_pole_is_read_under_both_names() -> None:
    poles = {"positive": {"examples": ["p"]}, "negative": {"examples": ["n"]}}
    for name in ("null", "neutral"):
        request = meld(candidate("Calm", simplex_binding={"poles": poles | {name: {"label": "zero"}}}))
        binding = request.candidates[0].simplex_binding
        assert binding is not None
        assert binding.poles is not None
        assert binding.poles.neutral.label == "zero"


def test_a_meld_of_operations_alone_needs_no_candidates() -> None:
    document = {
        "meld_request_id": "a/b@1",
        "target_pack_spec_id": "zoo",
        "structural_operations": [
            {
                "operation": "split",
                "target_concept": "Cat:1",
                "priority": "high",
                "rationale": "two senses",
                "split_into": [{"term": "A", "synsets_detail": [{"id": "1.n", "lemma": "x"}], "note": "one"}],
                "split_rationale": {"evidence": {"distinct_sense_groups": 2}},
            },
            {"operation": "merge", "source_concepts": ["Lion", "Kitten"], "target_concept": "Lion"},
        ],
    }
    split, merge = meld_of(document, source="here").structural_operations
    assert isinstance(split, Split)
    assert isinstance(merge, Merge)
    assert split.source_concept == "Cat"


def test_source_and_target_of_a_split_must_be_one_concept() -> None:
    with pytest.raises(PackError, match="source_concept is Cat and target_concept is Dog"):
        operations({"operation": "split", "source_concept": "Cat", "target_concept": "Dog"})


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (PUBLISHED | {"candidats": []}, "candidats: Extra inputs"),
        (changed(colour="red"), r"candidates\.Bird\.colour: Extra inputs"),
        (changed(role="animal"), r"candidates\.Bird\.role: Input should be"),
        (changed(layer_hint=-1), r"candidates\.Bird\.layer_hint"),
        (changed(safety_tags={"risk_level": "dire"}), r"candidates\.Bird\.safety_tags\.risk_level"),
        (PUBLISHED | {"attachment_points": [{"target_concept_id": "A"}]}, "candidate_concept: Field required"),
        (PUBLISHED | {"structural_operations": [{"operation": "domain_restructure"}]}, "structural_operations"),
        ({"target_pack_spec_id": "zoo"}, "meld_request_id: Field required"),
        ([], "the file: Input should be"),
    ],
)
def test_what_is_not_of_the_format_is_an_error_that_names_the_place(document: Any, told: str) -> None:
    with pytest.raises(PackError, match=told):
        meld_of(document, source="here")


def test_a_file_is_read_with_the_fence_that_some_end_with(tmp_path: Path) -> None:
    file = tmp_path / "shown.json"
    file.write_text(json.dumps(PUBLISHED) + "\n```\n")
    assert isinstance(read_meld(file), MeldRequest)


def test_a_file_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"meld_request_id": ')
    with pytest.raises(PackError, match=r"x\.json is no JSON"):
        read_meld(tmp_path / "x.json")


def test_a_file_that_is_not_there_or_not_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"x\.json cannot be read as a meld: No such file"):
        read_meld(tmp_path / "x.json")
    (tmp_path / "y.json").write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match="not UTF-8"):
        read_meld(tmp_path / "y.json")


@pytest.mark.parametrize("name", ["Wine", "Wine:4", "a/p@1.0::concept/Wine", "a/p@1.0::concept/Wine:4", " Wine "])
def test_a_term_is_found_in_every_form_of_an_id(name: str) -> None:
    assert term_of(name) == "Wine"


def test_a_file_that_is_nested_without_end_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000)
    with pytest.raises(PackError, match=r"deep\.json is nested too deep"):
        read_meld(file)
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(PackError, match="the test is nested too deep"):
        meld_of(PUBLISHED | {"validation": deep}, source="the test")

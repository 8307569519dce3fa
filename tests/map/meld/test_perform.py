"""Split, merge, move and deprecate: each does what it says to the tree, and says why where it cannot."""

from typing import Any

import pytest

from ftw.map.meld.draft import Draft
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.errors import PackError
from tests.map.meld.zoo import candidate, errors, meld, melded, operations, warnings, zoo

PARTS = [
    {"term": "HouseCat", "definition": "a cat that lives with people", "synsets": ["cat.n.01"]},
    {"term": "WildCat", "definition": "a cat that lives in the wild"},
]


def split(**fields: Any) -> dict[str, Any]:
    return {"operation": "split", "source_concept": "Cat", "split_into": PARTS} | fields


def merge(*sources: str, to: str, **fields: Any) -> dict[str, Any]:
    return {"operation": "merge", "source_concepts": list(sources), "target_concept": to} | fields


def move(concept: str, source: str, to: str, **fields: Any) -> dict[str, Any]:
    return {"operation": "move", "concept": concept, "from_parent": source, "to_parent": to} | fields


def deprecate(concept: str, disposition: str = "cascade_deprecate", **fields: Any) -> dict[str, Any]:
    return {"operation": "deprecate", "target_concept": concept, "child_disposition": disposition} | fields


def after(*each: dict[str, Any]) -> ConceptPack:
    return melded(operations(*each)).pack


# split


def test_a_split_that_keeps_its_source_hangs_the_parts_under_it() -> None:
    pack = after(split(child_assignment={"Lion": "WildCat"}))
    assert pack.children("Cat") == ("HouseCat", "Kitten", "WildCat")
    assert pack.parent("Lion") == "WildCat"
    assert pack.concepts["Lion"].level == 3
    assert pack.records["HouseCat"].domain == "World"


def test_a_part_takes_the_words_of_its_synsets_from_the_source() -> None:
    pack = after(split())
    assert pack.records["HouseCat"].wordnet.words == {"cat.n.01": ["cat"]}
    assert pack.records["HouseCat"].wordnet.canonical_synset == "cat.n.01"
    kept = pack.records["Cat"].wordnet
    assert (kept.synsets, kept.lemmas, kept.canonical_synset) == (["cat.n.02"], ["cat two"], "")
    assert pack.get("Cat").groups["cat.n.01"] == ("cat",)


def test_a_part_is_defined_by_its_synset_where_the_author_wrote_nothing() -> None:
    parts = [
        {
            "term": "HouseCat",
            "synsets": ["02121620.n", "02121808.n"],
            "representative_synset": "02121808.n",
            "representative_label": "domestic cat (any…)",
            "synsets_detail": [
                {"id": "02121808.n", "lemma": "domestic cat", "definition": "any domesticated member", "pos": "n"},
                {"id": "02121620.n", "lemma": "cat", "all_lemmas": ["cat", "true_cat"], "pos": "n"},
            ],
        },
        {"term": "WildCat", "representative_label": "wildcat (any small or medium-sized cat)"},
    ]
    pack = after(split(split_into=parts))
    house = pack.records["HouseCat"]
    assert house.definition == "any domesticated member"
    assert house.wordnet.words == {"02121620.n": ["cat", "true cat"], "02121808.n": ["domestic cat"]}
    assert pack.records["WildCat"].definition == "wildcat (any small or medium-sized cat)"


def test_a_split_that_deletes_puts_the_parts_in_the_place_of_the_source() -> None:
    request = operations(split(source_disposition="delete", child_assignment={"Lion": "WildCat", "Kitten": "HouseCat"}))
    found = melded(request)
    assert found.pack.children("Animal") == ("Dog", "HouseCat", "WildCat")
    assert found.diff.removed == ["Cat"]
    assert found.replaced == {"Cat": ("HouseCat", "WildCat")}


def test_a_split_that_deprecates_marks_the_source_and_keeps_its_other_children() -> None:
    pack = after(split(source_disposition="deprecate", deprecation={"reason": "too broad"}))
    mark = pack.records["Cat"].deprecated
    assert mark is not None
    assert mark.reason == "too broad"
    assert pack.parent("WildCat") == "Animal"
    assert pack.children("Cat") == ("Kitten", "Lion")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"source_concept": "Moon"}, "Moon is not in the pack"),
        ({"split_into": PARTS[:1]}, "split_into names 1 concepts: a split makes two or more"),
        ({"split_into": [], "bucket_suggestions": [{"bucket_name": "x"}]}, "bucket_suggestions are no definitions yet"),
        ({"split_into": [*PARTS, {"term": "Dog", "definition": "x"}]}, "makes Dog, but the pack holds Dog"),
        ({"split_into": [*PARTS, PARTS[0]]}, "split_into names HouseCat twice"),
        ({"split_into": [*PARTS, {"term": "a/b", "definition": "x"}]}, "a/b is no term"),
        ({"split_into": [*PARTS, {"term": "Ghost"}]}, "makes Ghost without a definition"),
        ({"child_assignment": {"Dog": "WildCat"}}, "child_assignment names Dog, which is no child of Cat"),
        ({"child_assignment": {"Lion": "Tiger"}}, "sends Lion to Tiger, which split_into does not name"),
        (
            {"source_disposition": "delete", "child_assignment": {"Lion": "WildCat"}},
            "Cat goes, but child_assignment leaves Kitten without a parent",
        ),
    ],
)
def test_a_split_that_cannot_be_is_an_error(fields: dict[str, Any], told: str) -> None:
    assert any(told in each for each in errors(operations(split(**fields))))


def test_short_definitions_and_missing_examples_of_parts_are_warnings() -> None:
    request = operations(split(split_into=[PARTS[0], {"term": "WildCat", "definition": "a wild one"}]))
    assert errors(request) == []
    assert warnings(request) == [
        "operation 1, split makes HouseCat with 0 examples of 2",
        "operation 1, split makes WildCat with a definition of 10 characters",
        "operation 1, split makes WildCat with 0 examples of 2",
    ]


def test_the_parts_of_a_root_that_goes_are_roots() -> None:
    parts = [{"term": name, "definition": f"what {name} means, shortly"} for name in ("Fraud", "Trick")]
    operation = split(
        source_concept="Deception", split_into=parts, source_disposition="delete", child_assignment={"Lie": "Trick"}
    )
    pack = after(operation)
    assert pack.roots == ("Animal", "Fraud", "Thing", "Trick")
    assert pack.concepts["Lie"].level == 1


def test_roots_merge_into_a_root() -> None:
    assert after(merge("Deception", "Thing", to="Thing")).roots == ("Animal", "Thing")


# merge


def test_a_merge_into_one_of_its_sources_joins_words_examples_children_and_aliases() -> None:
    pack = after(merge("Dog", "Cat", to="Cat"))
    assert pack.children("Animal") == ("Cat",)
    assert pack.children("Cat") == ("Kitten", "Lion", "Puppy")
    record = pack.records["Cat"]
    assert set(record.wordnet.words) == {"cat.n.01", "cat.n.02", "dog.n.01", "dog.n.02"}
    assert record.aliases == ["Dog"]
    assert record.training_hints.positive_examples == ["a cat", "a dog"]
    assert record.training_hints.negative_examples == ["a stone"]
    assert record.definition.startswith("what Cat means")


def test_a_merge_into_a_new_concept_takes_its_definition() -> None:
    definition = {"term": "Pet", "definition": "an animal that people live with"}
    pack = after(merge("Dog", "Cat", to="Pet", target_definition=definition))
    assert pack.children("Animal") == ("Pet",)
    assert pack.records["Pet"].definition == "an animal that people live with"
    assert pack.records["Pet"].aliases == ["Dog", "Cat"]


def test_what_named_a_merged_concept_names_the_merged_one() -> None:
    pack = after(merge("Kitten", "Lion", to="Lion"))
    assert pack.records["Puppy"].relationships.related == ["Lion"]


def test_a_merge_with_a_concept_below_takes_the_place_of_the_upper_one() -> None:
    up, down = after(merge("Knife", "Edge", to="Knife")), after(merge("Knife", "Edge", to="Edge"))
    assert up.parent("Knife") == "Tool"
    assert up.children("Knife") == ("Blade", "Burr")
    assert down.parent("Edge") == "Tool"
    assert down.children("Edge") == ("Blade", "Burr")


def test_a_merge_is_as_risky_as_its_riskiest_source() -> None:
    assert after(merge("Tool", "Knife", to="Tool")).records["Tool"].safety_tags.risk_level == "high"


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (merge("Dog", "Moon", to="Dog"), "Moon is not in the pack"),
        (merge("Dog", "Dog", to="Dog"), "source_concepts names only Dog"),
        (merge("Dog", "Cat", to="Pet"), "Pet is new: give its target_definition"),
        (merge("Dog", "Cat", to="Tool"), "Tool is in the pack and is no source"),
        (
            merge("Dog", "Cat", to="Pet", target_definition={"term": "Pets", "definition": "x"}),
            "target_definition is of Pets, target_concept is Pet",
        ),
        (merge("Dog", "Cat", to="Cat", child_disposition="require_manual"), "Puppy of Dog, Kitten of Cat"),
        (merge("Dog", "Cat", to="Pet", target_definition={"term": "Pet"}), "makes Pet without a definition"),
    ],
)
def test_a_merge_that_cannot_be_is_an_error(operation: dict[str, Any], told: str) -> None:
    assert any(told in each for each in errors(operations(operation)))


# move


def test_a_move_takes_everything_below_along() -> None:
    pack = after(move("Knife", "Tool", "Animal", new_domain="Moved"))
    assert pack.ancestors("Speck") == ("Burr", "Edge", "Blade", "Knife", "Animal")
    assert pack.concepts["Speck"].level == 5
    assert pack.records["Speck"].domain == "Moved"
    assert pack.records["Tool"].domain == "World"


def test_a_move_can_go_under_a_candidate_and_a_candidate_under_a_part() -> None:
    request = meld(
        candidate("Tiger", "WildCat"),
        candidate("Beast"),
        structural_operations=[split(), move("Lion", "Cat", "Beast")],
    )
    pack = melded(request).pack
    assert pack.parent("Lion") == "Beast"
    assert pack.ancestors("Tiger") == ("WildCat", "Cat", "Animal")


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (move("Lion", "Dog", "Animal"), "from_parent is Dog, but Lion stands under Cat"),
        (move("Animal", "Thing", "Dog"), "from_parent is Thing, but Animal stands under nothing"),
        (move("Cat", "Animal", "Lion"), "to_parent Lion is Cat itself or stands below it: that makes a cycle"),
        (move("Cat", "Animal", "Cat"), "to_parent Cat is Cat itself"),
        (move("Cat", "Animal", "Moon"), "Moon is not in the pack"),
        (move("Cat", "Animal", "Animal"), "Cat stands under Animal already"),
    ],
)
def test_a_move_that_cannot_be_is_an_error(operation: dict[str, Any], told: str) -> None:
    assert any(told in each for each in errors(operations(operation)))


def test_operations_are_done_in_their_order() -> None:
    pack = after(move("Lion", "Cat", "Dog"), move("Lion", "Dog", "Animal"))
    assert pack.parent("Lion") == "Animal"
    assert errors(operations(move("Lion", "Dog", "Animal"), move("Lion", "Cat", "Dog"))) != []


# deprecate


def test_a_deprecated_concept_stays_and_is_marked() -> None:
    pack = after(deprecate("Lion", "orphan_check", deprecation={"reason": "unused", "superseded_by": ["Cat"]}))
    mark = pack.records["Lion"].deprecated
    assert mark is not None
    assert (mark.reason, mark.superseded_by) == ("unused", ["Cat"])


def test_children_of_a_deprecated_concept_go_where_they_are_sent_or_are_marked_too() -> None:
    sent = after(deprecate("Cat", "reassign", reassign_children_to="Dog"))
    assert sent.children("Dog") == ("Kitten", "Lion", "Puppy")
    marked = after(deprecate("Cat"))
    assert all(marked.records[term].deprecated is not None for term in ("Cat", "Kitten", "Lion"))
    assert marked.records["Dog"].deprecated is None


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (deprecate("Moon"), "Moon is not in the pack"),
        (deprecate("Cat", "orphan_check"), "Cat has the children Kitten, Lion"),
        (deprecate("Cat", "reassign"), "name reassign_children_to"),
        (deprecate("Cat", "reassign", reassign_children_to="Moon"), "Moon is not in the pack"),
        (deprecate("Cat", "reassign", reassign_children_to="Lion"), "Lion is Cat itself or stands below it"),
    ],
)
def test_a_deprecation_that_cannot_be_is_an_error(operation: dict[str, Any], told: str) -> None:
    assert any(told in each for each in errors(operations(operation)))


def test_a_pack_that_lists_children_lists_the_new_ones() -> None:
    pack = zoo()
    records = [
        record.model_copy(update={"children": list(pack.children(term)), "child_count": len(pack.children(term))})
        for term, record in pack.records.items()
    ]
    listing = ConceptPack(pack.meta, records)
    moved = melded(operations(move("Lion", "Cat", "Dog")), listing).pack
    assert moved.records["Dog"].children == ["Lion", "Puppy"]
    assert moved.records["Cat"].child_count == 1
    assert melded(operations(move("Lion", "Cat", "Dog"))).pack.records["Dog"].children == []


def test_a_draft_that_is_no_tree_is_no_pack() -> None:
    draft = Draft(zoo())
    draft.move("Cat", "Lion")
    with pytest.raises(PackError, match="the parents of Cat > Lion > Cat make a cycle"):
        draft.pack(zoo().meta)
    draft.move("Cat", "Moon")
    with pytest.raises(PackError, match="Cat stands under Moon, which the pack does not hold"):
        draft.pack(zoo().meta)

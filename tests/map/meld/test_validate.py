"""Validation: every rule finds what it is for, all findings come at once, and a good meld has none."""

from pathlib import Path
from typing import Any

import pytest

from ftw.map.meld.request import MeldRequest, read_meld
from ftw.map.meld.synsets import Synsets
from ftw.map.meld.validate import validate
from ftw.map.registry.concept_pack import ConceptPack, bundled_concept_pack
from ftw.substrate.errors import StorageError
from tests.map.meld.zoo import candidate, errors, meld, melded, verdict, warnings, zoo

GOOD = meld(candidate("Bird", layer_hint=1), candidate("Hen", "Bird", layer_hint=2))


def test_a_good_meld_has_no_findings() -> None:
    found = verdict(GOOD)
    assert found.findings == ()
    assert found.is_valid


def test_all_findings_come_at_once() -> None:
    bad = meld(candidate("Cat", definition=""), candidate("Hen", "Nowhere"), candidate("Egg", None))
    assert len(errors(bad)) == 4


# id, target, history


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("more.json", []),
        ("more@1.0.0.json", []),
        ("less.json", ["the file is called less.json, the meld more"]),
        (None, []),
    ],
)
def test_the_file_is_held_against_the_id(name: str | None, told: list[str]) -> None:
    assert [str(finding) for finding in validate(GOOD, zoo(), file_name=name).findings] == told


def test_an_id_of_another_form_is_a_warning() -> None:
    assert warnings(meld(candidate("Bird"), meld_request_id="more")) == ["the id more is not authority/name@version"]


def test_a_meld_for_another_pack_is_an_error() -> None:
    (told,) = errors(meld(candidate("Bird"), target_pack_spec_id="test/park@1.2.3"))
    assert told.startswith("the meld is for park, this pack is zoo")


@pytest.mark.parametrize("fork", ["park@1.0.0", "org/park@1.0.0", {"pack_id": "park", "version": "1.0.0"}])
def test_a_meld_for_the_pack_that_this_one_was_forked_from_is_a_warning(fork: Any) -> None:
    request = meld(candidate("Bird"), target_pack_spec_id="test/park@1.2.3")
    assert errors(request, zoo(forked_from=fork)) == []
    assert warnings(request, zoo(forked_from=fork)) == ["the meld was written for park 1.2.3, this pack is zoo 1.2.3"]


def test_a_meld_for_another_version_is_a_warning() -> None:
    assert warnings(meld(candidate("Bird"), target_pack_spec_id="test/zoo")) == [
        "the meld was written for zoo of any version, this pack is zoo 1.2.3"
    ]


def test_a_meld_is_applied_once() -> None:
    (told,) = errors(GOOD, zoo(melds_applied=[{"meld_request_id": "test/more@1.0.0"}]))
    assert "is among melds_applied" in told


def test_an_empty_meld_is_an_error() -> None:
    assert errors(meld()) == ["the meld has neither candidates nor structural operations"]


def test_a_pack_without_a_policy_is_said() -> None:
    assert "zoo has no meld_policy: the rules of the published packs are used" in warnings(GOOD, zoo(None))


# terms, definitions, words


@pytest.mark.parametrize("term", ["Cat", "cat"])
def test_a_term_of_the_pack_cannot_be_added_in_any_case(term: str) -> None:
    (told,) = errors(meld(candidate(term)))
    assert told.startswith(
        f"{term} {'is in the pack' if term == 'Cat' else 'differs from Cat of the pack only in case'}"
    )


def test_a_term_stands_once_among_the_candidates() -> None:
    told = errors(meld(candidate("Bird"), candidate("BIRD", "Thing")))
    assert told == [f"{term} stands more than once among the candidates" for term in ("Bird", "BIRD")]


@pytest.mark.parametrize("term", ["../Bird", "a/b", "a\\b", ".hidden", "Bird\n", "-Bird"])
def test_a_term_that_is_no_file_name_is_an_error(term: str) -> None:
    assert any("is no term" in told for told in errors(meld(candidate(term))))


def test_a_term_that_is_not_camel_case_is_a_warning() -> None:
    assert warnings(meld(candidate("Guide dog"))) == ["Guide dog is not written in CamelCase"]
    assert warnings(meld(candidate("Dog_Guide"))) == []


@pytest.mark.parametrize(("text", "told"), [("", "has no definition"), ("a dog", "of 5 characters: 20 are needed")])
def test_a_definition_says_something(text: str, told: str) -> None:
    (found,) = errors(meld(candidate("Bird", definition=text)))
    assert told in found


def test_domains_and_aliases_are_warned_of() -> None:
    found = warnings(meld(candidate("Bird", domain="", aliases=["cat"]), candidate("Hen", "Bird", domain="Moon")))
    assert found == [
        "Bird has the alias cat, and Cat is a concept of the pack",
        "Bird names no domain: it takes its parent's",
        "Hen has the domain Moon, new to this pack",
    ]


def test_synsets_are_looked_up(tmp_path: Path) -> None:
    synsets = Synsets(dictionary(tmp_path))
    words = {"synsets": ["tea.n.02", "tea.n.03", "nothing.n.01", "nonsense", "00000020.n", "00000099.n"]}
    found = validate(meld(candidate("Bird", wordnet=words)), zoo(), synsets=synsets)
    assert [str(finding) for finding in found.findings] == [
        "Bird names the synset tea.n.03, which WordNet does not have",
        "Bird names the synset nothing.n.01, which WordNet does not have",
        "Bird names the synset nonsense, which is not written lemma.pos.number",
        "Bird names the synset 00000099.n, which WordNet does not have",
    ]


def test_a_synset_is_found_under_every_form_of_its_name(tmp_path: Path) -> None:
    synsets = Synsets(dictionary(tmp_path))
    assert all(name in synsets for name in ("tea.n.01", "Tea.n.1", "green_tea.n.01", "brown.a.01", "brown.s.01"))
    assert all(name not in synsets for name in ("te.n.01", "tea.n.0", "tea.v.01", "tea", "ea.n.01"))


def test_a_folder_without_wordnet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no WordNet"):
        Synsets(tmp_path)


def dictionary(folder: Path) -> Path:
    for name in ("noun", "verb", "adj", "adv"):
        (folder / f"index.{name}").write_text("  1 licence\n")
        (folder / f"data.{name}").write_text("  1 licence\n")
    (folder / "index.noun").write_text("  1 licence\ngreen_tea n 1 0 1 0 00000020\ntea n 2 0 2 1 00000010 00000020\n")
    (folder / "index.adj").write_text("  1 licence\nbrown a 1 0 1 0 00000030\n")
    (folder / "data.noun").write_text("  1 licence\n00000010 03 n 01 tea 0 000 | a\n00000020 03 n 01 tea 0 000 | b\n")
    return folder


def test_a_synset_that_a_concept_of_the_pack_is_is_a_warning() -> None:
    (told,) = warnings(meld(candidate("Hound", wordnet={"canonical_synset": "dog.n.01"})))
    assert told == "Hound has the synset dog.n.01, which is Dog of the pack"


# the tree


def test_a_parent_that_is_nowhere_is_an_error_with_the_nearest() -> None:
    assert errors(meld(candidate("Bird", "Animals"))) == [
        "Bird has the parent Animals, which neither the pack nor the meld holds (near: Animal)"
    ]


def test_an_orphan_is_an_error() -> None:
    (told,) = errors(meld(candidate("Bird", None)))
    assert told.startswith("Bird is an orphan")


def test_a_parent_comes_from_an_attachment_point_or_from_who_lists_the_child() -> None:
    point = {"target_concept_id": "test/zoo@1.2.3::concept/Animal", "candidate_concept": "Bird"}
    request = meld(candidate("Hen", None), candidate("Bird", None, children=["Hen"]), attachment_points=[point])
    found = verdict(request)
    assert found.findings == ()
    assert found.draft.parents["Hen"] == "Bird"
    assert found.draft.parents["Bird"] == "Animal"


def test_a_cycle_is_an_error_that_shows_it() -> None:
    found = errors(meld(candidate("A", "C"), candidate("B", "A"), candidate("C", "B")))
    assert found == ["A stands above itself: A > C > B > A"]


def test_a_concept_that_is_its_own_parent_is_a_cycle() -> None:
    assert errors(meld(candidate("A", "A"))) == ["A stands above itself: A > A"]


def test_of_two_parents_the_first_is_taken_and_the_other_is_said() -> None:
    found = verdict(meld(candidate("Bird", parent_concepts=["Animal", "Thing"])))
    assert [str(each) for each in found.findings] == [
        "Bird names the parents Animal, Thing: Animal is taken, the others are kept as related"
    ]
    assert found.draft.records["Bird"].relationships.related == ["Thing"]


def test_an_attachment_of_nobody_is_an_error_and_a_relation_to_nothing_a_warning() -> None:
    points = [
        {"target_concept_id": "Animal", "candidate_concept": "Hen"},
        {"target_concept_id": "Moon", "relationship": "related_to", "candidate_concept": "Bird"},
    ]
    request = meld(candidate("Bird"), attachment_points=points)
    assert errors(request) == ["Hen is attached to Animal, but is no candidate of the meld"]
    assert warnings(request) == ["Bird is related to Moon, which the pack does not hold"]


def test_levels_within_a_meld_grow_downwards() -> None:
    request = meld(candidate("Bird", layer_hint=2), candidate("Hen", "Bird", layer_hint=2))
    assert errors(request) == ["Hen has the layer_hint 2, its parent Bird 2: a child stands deeper"]
    deepest = meld(candidate("Bird", "Edge", layer_hint=4), candidate("Hen", "Bird", layer_hint=4))
    assert errors(deepest) == []


def test_a_hint_that_the_pack_contradicts_is_a_warning() -> None:
    assert warnings(meld(candidate("Bird", "Burr", layer_hint=1))) == [
        "Bird has the layer_hint 1 and will stand on level 6"
    ]


def test_children_of_the_parent_move_under_a_concept_put_between() -> None:
    found = verdict(meld(candidate("BigCat", "Cat", children=["Lion", "Puppy", "Moon", "Kitten"])))
    assert found.draft.children("BigCat") == ["Kitten", "Lion"]
    assert [str(each) for each in found.findings] == [
        "BigCat lists the child Puppy, which stays under Dog: add a move to bring it here",
        "BigCat lists the child Moon, which neither the pack nor the meld holds",
    ]


def test_a_child_that_two_candidates_list_is_an_error() -> None:
    request = meld(candidate("Big", "Cat", children=["Lion"]), candidate("Wild", "Cat", children=["Lion"]))
    assert errors(request) == ["Wild lists the child Lion, as does Big: a concept has one parent"]


def test_a_listed_candidate_with_a_parent_of_its_own_is_said() -> None:
    assert warnings(meld(candidate("Bird", children=["Hen"]), candidate("Hen", "Thing"))) == [
        "Bird lists the child Hen, whose own parent is Thing"
    ]


# simplexes


@pytest.mark.parametrize("parents", [("Deception",), ("Lie",), ("Fib", "Lie")])
def test_a_candidate_under_a_mandatory_root_says_what_watches_it(parents: tuple[str, ...]) -> None:
    first = [candidate("Fib", parents[1], 9, simplex_mapping={"status": "not_applicable"})] if len(parents) > 1 else []
    assert errors(meld(*first, candidate("WhiteLie", parents[0], 9))) == [
        "WhiteLie stands under Deception: it needs a simplex_mapping (mapped, unmapped or not_applicable)"
    ]


def test_a_harness_relevant_candidate_says_what_watches_it() -> None:
    (told,) = errors(meld(candidate("Bird", examples=9, safety_tags={"harness_relevant": True})))
    assert told.startswith("Bird is harness relevant: it needs a simplex_mapping")


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"status": "mapped"}, "Bird is mapped, but names no mapped_simplex"),
        ({"status": "unmapped"}, "Bird is unmapped without an unmapped_justification"),
        ({"status": "unmapped", "unmapped_justification": " "}, "Bird is unmapped without an unmapped_justification"),
    ],
)
def test_a_mapping_says_what_its_status_asks_for(mapping: dict[str, str], told: str) -> None:
    assert errors(meld(candidate("Bird", simplex_mapping=mapping))) == [told]


def poles(n: int, shared: int = 0) -> dict[str, Any]:
    names = ("negative", "null", "positive")
    return {
        name: {
            "label": name,
            "examples": [f"{name} {i}" for i in range(n - shared)] + [f"same {i}" for i in range(shared)],
        }
        for name in names
    }


def bound(n: int, term: str = "Bird", name: str = "Calm", **fields: Any) -> MeldRequest:
    return meld(candidate(term, examples=9, simplex_binding={"simplex_term": name, "poles": poles(n)}, **fields))


def test_poles_are_counted_and_short_ones_weigh_by_the_level() -> None:
    assert errors(bound(15)) == []
    assert warnings(bound(14)) == [
        f"Bird has 14 examples for the {pole} pole of Calm: 15 are needed"
        for pole in ("negative", "neutral", "positive")
    ]
    assert len(errors(bound(14, safety_tags={"risk_level": "medium"}))) == 3
    assert errors(bound(6, name="DeceptionDetector")) == []
    assert len(errors(bound(5, name="DeceptionDetector"))) == 3


def test_poles_that_share_a_text_are_an_error() -> None:
    request = meld(candidate("Bird", examples=9, simplex_binding={"poles": poles(15, shared=1)}))
    (told,) = errors(request)
    assert "brings a simplex that is none" in told


def test_a_binding_without_poles_and_a_simplex_without_a_binding_are_errors() -> None:
    assert errors(meld(candidate("Bird", simplex_binding={}))) == [
        "Bird brings the simplex Bird without its three poles"
    ]
    assert errors(meld(candidate("Calm", None, role="simplex"))) == ["Calm is a simplex without a simplex_binding"]


def test_a_simplex_stands_outside_the_tree() -> None:
    binding = {"poles": poles(15)}
    assert verdict(meld(candidate("Calm", None, role="simplex", simplex_binding=binding))).findings == ()
    (told,) = errors(meld(candidate("Calm", "Animal", role="simplex", simplex_binding=binding)))
    assert told.startswith("Calm is a simplex and stands outside the tree, but names the parent Animal")


def test_a_simplex_has_one_owner() -> None:
    first, second = bound(15), bound(15, term="Hen")
    request = first.model_copy(update={"candidates": [*first.candidates, *second.candidates]})
    assert errors(request) == [
        "Bird brings the simplex Calm, which Hen has already",
        "Hen brings the simplex Calm, which Bird has already",
    ]


# examples


def test_examples_are_counted_by_level_and_weigh_by_it() -> None:
    assert warnings(meld(candidate("Bird", examples=1))) == [
        f"Bird has 1 {kind} examples: 2 are needed (standard)" for kind in ("positive", "negative")
    ]
    risky = {"risk_level": "high"}
    assert errors(meld(candidate("Bird", examples=4, safety_tags=risky))) == []
    assert errors(meld(candidate("Bird", examples=3, safety_tags=risky))) == [
        f"Bird has 3 {kind} examples: 4 are needed (protected)" for kind in ("positive", "negative")
    ]


def test_an_example_that_stands_twice_counts_once() -> None:
    hints = {"positive_examples": ["a", "a"], "negative_examples": ["b", "c"]}
    assert warnings(meld(candidate("Bird", training_hints=hints))) == [
        "Bird has 1 positive examples: 2 are needed (standard)"
    ]


def test_a_text_is_not_both_positive_and_negative() -> None:
    hints = {"positive_examples": ["a", "b"], "negative_examples": ["b", "c"]}
    assert errors(meld(candidate("Bird", training_hints=hints))) == [
        "Bird has the same text as a positive and as a negative example: 'b'"
    ]


def test_a_level_that_the_author_misjudged_is_said() -> None:
    request = meld(candidate("Bird"), protection_assessment={"protection_level": "CRITICAL"})
    assert warnings(request) == ["the meld says its protection level is critical; it is standard"]


def test_the_bundled_pack_takes_the_melds_of_the_tests() -> None:
    file = Path(__file__).parents[2] / "data" / "melds" / "drinks.json"
    found = validate(read_meld(file), bundled_concept_pack(), file_name=file.name)
    assert found.errors == ()


def test_a_term_that_reads_like_another_is_said_and_makes_a_sound_pack(tmp_path: Path) -> None:
    found = verdict(meld(candidate("Ani_mal", "Thing")))
    assert [str(each) for each in found.warnings] == [
        "Ani_mal reads like Animal of the pack: who asks for one may get it"
    ]
    pack = melded(meld(candidate("Ani_mal", "Thing"))).pack
    assert pack.children("Ani_mal") == ()
    pack.save(tmp_path / "pack")
    assert ConceptPack.load(tmp_path / "pack").children("Animal") == ("Cat", "Dog")


def test_a_term_that_is_too_long_for_a_file_is_an_error() -> None:
    assert "AAAAAAAAAAAAAAAAAAAA… has 300 characters: 200 at most" in errors(meld(candidate("A" * 300)))


def test_a_version_that_does_not_count_is_found_before_anything_is_applied() -> None:
    pack = zoo()
    odd = ConceptPack(pack.meta.model_copy(update={"version": "2025"}), pack.records.values())
    assert "zoo has the version 2025: a meld counts on from major.minor.patch, such as 1.0.0" in errors(
        meld(candidate("Bird")), odd
    )


def test_a_mapping_to_a_simplex_that_nobody_has_is_a_warning() -> None:
    mapping = {"status": "mapped", "mapped_simplex": "DeceptionDetectr"}
    assert warnings(meld(candidate("Bird", simplex_mapping=mapping))) == [
        "Bird is mapped to DeceptionDetectr, which neither the pack nor the meld holds"
    ]
    there = mapping | {"mapped_simplex": "AutonomyDrive"}
    assert warnings(meld(candidate("Bird", examples=5, simplex_mapping=there))) == []


def test_a_simplex_of_a_concept_that_is_nowhere_is_a_warning() -> None:
    poles = {pole: {"label": pole, "examples": [f"{pole} {n}" for n in range(15)]} for pole in ("negative", "positive")}
    poles["neutral"] = {"label": "neutral", "examples": [f"even {n}" for n in range(15)]}
    glee = candidate("Glee", None, role="simplex", simplex_binding={"poles": poles}, related_concept="Nonesuch")
    assert warnings(meld(glee)) == ["Glee belongs to Nonesuch, which neither the pack nor the meld holds"]


def test_an_operation_may_not_make_what_differs_from_a_candidate_in_case_alone() -> None:
    parts = [{"term": "bird", "definition": "a definition of some length"}, {"term": "Hen", "definition": "x" * 20}]
    split = {"operation": "split", "source_concept": "Dog", "split_into": parts}
    assert errors(meld(candidate("Bird"), structural_operations=[split])) == ["bird differs from Bird only in case"]


def test_the_nearest_terms_are_looked_up_for_some_missing_parents_only() -> None:
    found = errors(meld(*(candidate(f"New{n}", f"Dgo{n}") for n in range(30))))
    assert sum("(near: " in each for each in found) == 20
    assert len(found) == 30


def test_a_tree_that_grows_too_deep_is_an_error() -> None:
    chain = [candidate("New0", "Animal"), *(candidate(f"New{n}", f"New{n - 1}") for n in range(1, 100))]
    assert errors(meld(*chain[:99])) == []
    assert errors(meld(*chain)) == ["New99 would stand on level 100: a tree has 99 at most"]

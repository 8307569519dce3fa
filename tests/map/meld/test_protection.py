"""One protection level for a meld, from named triggers, by the pack's own policy."""

from typing import Any

import pytest

from ftw.map.meld.policy import Policy, Protection, policy_of
from ftw.map.meld.protection import Assessment, assess
from ftw.map.meld.request import MeldRequest
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.errors import PackError
from tests.map.meld.zoo import POLICY, candidate, meld, operations, verdict, zoo


def assessed(request: MeldRequest, policy: Any = POLICY) -> Assessment:
    pack = zoo(policy)
    return assess(request, pack, policy_of(pack.meta))


def tagged(**tags: Any) -> MeldRequest:
    return meld(candidate("Bird", safety_tags=tags))


@pytest.mark.parametrize(
    ("tags", "level"),
    [
        ({}, Protection.STANDARD),
        ({"risk_level": "none"}, Protection.STANDARD),
        ({"risk_level": "medium"}, Protection.ELEVATED),
        ({"harness_relevant": True}, Protection.ELEVATED),
        ({"risk_level": "high"}, Protection.PROTECTED),
        ({"treaty_relevant": True}, Protection.PROTECTED),
        ({"risk_level": "medium", "treaty_relevant": True}, Protection.PROTECTED),
        ({"risk_level": "critical"}, Protection.CRITICAL),
        ({"protection_level": "protected"}, Protection.PROTECTED),
        ({"protection_level": "elevated", "risk_level": "high"}, Protection.PROTECTED),
    ],
)
def test_tags_raise_the_level_and_the_highest_counts(tags: dict[str, Any], level: Protection) -> None:
    assert assessed(tagged(**tags)).level == level


@pytest.mark.parametrize("key", ["mapped_simplex", "target_simplex", "monitor"])
def test_a_mapping_to_a_critical_simplex_is_critical_under_each_name(key: str) -> None:
    found = assessed(meld(candidate("Bird", simplex_mapping={"status": "mapped", key: "DeceptionDetector"})))
    assert found.level == Protection.CRITICAL
    assert "DeceptionDetector" in found.reasons[0].what


def test_a_mapping_to_another_simplex_raises_nothing() -> None:
    found = assessed(meld(candidate("Bird", simplex_mapping={"status": "mapped", "mapped_simplex": "Other"})))
    assert found.level == Protection.STANDARD
    assert found.examples == {"Bird": 2}


def test_a_mapping_asks_for_the_examples_of_its_simplex() -> None:
    mapping = {"status": "mapped", "mapped_simplex": "AutonomyDrive"}
    assert assessed(meld(candidate("Bird", simplex_mapping=mapping))).examples == {"Bird": 5}
    risky = {"risk_level": "critical"}
    assert assessed(meld(candidate("Bird", simplex_mapping=mapping, safety_tags=risky))).examples == {"Bird": 6}


@pytest.mark.parametrize("always_on", [True, False])
def test_a_simplex_that_is_always_on_is_critical(always_on: bool) -> None:
    binding = {"simplex_term": "Calm", "always_on": always_on}
    found = assessed(meld(candidate("Bird", simplex_binding=binding)))
    assert (found.level == Protection.CRITICAL) is always_on


def test_a_binding_that_is_off_raises_nothing() -> None:
    binding = {"simplex_term": "DeceptionDetector", "always_on": True, "enabled": False}
    assert assessed(meld(candidate("Bird", simplex_binding=binding))).level == Protection.STANDARD


def test_a_simplex_of_the_registry_is_critical_by_its_own_name() -> None:
    assert assessed(meld(candidate("AutonomyDrive", None, role="simplex"))).level == Protection.CRITICAL
    binding = {"simplex_term": "AutonomyDrive"}
    assert assessed(meld(candidate("Bird", simplex_binding=binding))).level == Protection.CRITICAL


@pytest.mark.parametrize("by", ["parent", "attachment"])
def test_a_child_of_a_watched_concept_is_critical(by: str) -> None:
    point = {"target_concept_id": "test/zoo@1::concept/Lie", "candidate_concept": "Fib"}
    request = (
        meld(candidate("Fib", "Lie")) if by == "parent" else meld(candidate("Fib", None), attachment_points=[point])
    )
    found = assessed(request)
    assert found.level == Protection.CRITICAL
    assert found.reasons[0].trigger == "adds_child_to_bound_concept"


def test_an_operation_on_a_watched_concept_is_critical() -> None:
    move = {"operation": "move", "concept": "Lie", "from_parent": "Deception", "to_parent": "Thing"}
    assert assessed(operations(move)).level == Protection.CRITICAL


def test_an_operation_has_the_level_of_what_it_touches() -> None:
    move = {"operation": "move", "concept": "Knife", "from_parent": "Tool", "to_parent": "Thing"}
    assert assessed(operations(move)).level == Protection.PROTECTED
    move = {"operation": "move", "concept": "Lion", "from_parent": "Cat", "to_parent": "Animal"}
    assert assessed(operations(move)).level == Protection.STANDARD


def test_more_than_ten_operations_are_elevated() -> None:
    move = {"operation": "move", "concept": "Lion", "from_parent": "Cat", "to_parent": "Animal"}
    assert assessed(operations(*[move] * 10)).level == Protection.STANDARD
    assert assessed(operations(*[move] * 11)).level == Protection.ELEVATED


def test_the_name_of_a_concept_raises_nothing() -> None:
    assert assessed(meld(candidate("AIDeceptionWeaponControl"))).level == Protection.STANDARD


def test_a_pack_may_place_a_trigger_on_another_level() -> None:
    rules = {"protection_level_rules": {"critical_triggers": ["treaty_relevant"]}}
    assert assessed(tagged(treaty_relevant=True), POLICY | rules).level == Protection.CRITICAL


def test_a_pack_without_a_policy_gets_the_published_numbers() -> None:
    policy = policy_of(zoo(None).meta)
    assert policy == Policy()
    assert [policy.examples[level] for level in Protection] == [5, 10, 15, 20]
    assert policy.for_simplex("DeceptionDetector") == 20
    assert policy.for_simplex("AutonomyDrive") == 15
    assert len(policy.mandatory_roots) == 16
    assert len(policy.critical_simplexes) == 5
    assert policy.bound["Misdirection"] == "DeceptionDetector"


def test_the_policy_of_the_published_pack_is_read() -> None:
    published = {
        "version": "1.0.0",
        "description": "Policy",
        "mandatory_simplex_mapping_roots": {"description": "below these", "concepts": ["Consent", "Deception"]},
        "critical_simplex_registry": {"description": "these", "simplexes": ["ConsentMonitor"]},
        "critical_bound_concepts": {"description": "watched", "concepts": {"ConsentMonitor": ["Consent", "Coercion"]}},
        "protection_level_rules": {
            "description": "rules",
            "critical_triggers": ["touches_critical_simplex", "new_always_on_simplex", "adds_child_to_bound_concept"],
            "protected_triggers": ["treaty_relevant", "risk_level_high"],
            "elevated_triggers": ["harness_relevant", "risk_level_medium"],
        },
        "training_requirements": {
            "description": "examples",
            "minimum_examples_by_level": {"STANDARD": 5, "ELEVATED": 10, "PROTECTED": 15, "CRITICAL": 20},
            "minimum_examples_for_simplex_mapped": {"description": "more", "ConsentMonitor": 15},
            "rationale": "more is better",
        },
        "lens_performance_requirements": {"thresholds_by_level": {"STANDARD": {"min_test_f1": 0.6}}},
    }
    policy = policy_of(zoo(published).meta)
    assert policy.bound == {"Consent": "ConsentMonitor", "Coercion": "ConsentMonitor"}
    assert policy.for_simplex("ConsentMonitor") == 15
    assert not policy.is_default


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"colour": 1}, "meld_policy of zoo: colour: Extra"),
        ("strict", "meld_policy of zoo: the file: |meld_policy of zoo: meld_policy: "),
        (
            {"protection_level_rules": {"critical_triggers": ["moon"]}},
            "names the trigger moon; triggers are adds_child",
        ),
        ({"training_requirements": {"minimum_examples_by_level": {"HIGH": 3}}}, "names HIGH; levels are STANDARD"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_an_error(policy: Any, told: str) -> None:
    with pytest.raises(PackError, match=told):
        policy_of(zoo(policy).meta)


@pytest.mark.parametrize(
    "operation",
    [
        {"operation": "merge", "source_concepts": ["Fib", "Boast"], "target_concept": "Brag"}
        | {"target_definition": {"term": "Brag", "definition": "a tall story that is told"}},
        {"operation": "split", "source_concept": "Fib", "source_disposition": "delete"}
        | {"split_into": [{"term": f"Fib{n}", "definition": "a small lie of one kind"} for n in (1, 2)]},
    ],
)
def test_what_an_operation_puts_beside_its_source_stands_under_the_watched_parent(operation: dict[str, Any]) -> None:
    below = meld(candidate("Fib", "Lie", 6), candidate("Boast", "Lie", 6))
    pack = draft_pack(below)
    found = assess(meld(structural_operations=[operation]), pack, policy_of(pack.meta))
    assert {reason.trigger for reason in found.reasons} == {"adds_child_to_bound_concept"}
    assert found.level == Protection.CRITICAL


def draft_pack(request: MeldRequest) -> ConceptPack:
    """The pack of the tests with a meld in it, whatever the rules say of that."""
    found = verdict(request)
    return found.draft.pack(found.pack.meta)

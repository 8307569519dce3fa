"""What changed between two packs, and which lenses that calls into question."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.map.meld.diff import Changed, Moved, diff_packs
from ftw.map.meld.impact import Impact, PendingTraining, impact_of
from ftw.map.registry.concept_pack import ConceptPack
from tests.map.meld.test_perform import deprecate, merge, move, split
from tests.map.meld.zoo import TREE, candidate, meld, melded, operations, zoo


def impact(*candidates: dict[str, Any], operation: dict[str, Any] | None = None) -> Impact:
    return melded(meld(*candidates, structural_operations=[operation] if operation else [])).impact


def test_a_pack_and_itself_do_not_differ() -> None:
    found = diff_packs(zoo(), zoo())
    assert found.is_empty
    assert impact_of(zoo(), zoo()) == Impact((), (), (), (), ())


def test_a_diff_tells_what_is_new_gone_moved_and_said_otherwise() -> None:
    request = meld(
        candidate("Bird"),
        structural_operations=[merge("Kitten", "Lion", to="Lion"), move("Puppy", "Dog", "Animal"), deprecate("Burr")],
    )
    found = diff_packs(zoo(), melded(request).pack)
    assert [(each.concept, each.parent, each.level) for each in found.added] == [("Bird", "Animal", 1)]
    assert found.removed == ["Kitten"]
    assert found.moved == [Moved(concept="Puppy", from_parent="Dog", to_parent="Animal", from_level=2, to_level=1)]
    assert Changed(concept="Puppy", fields=["relationships"]) in found.changed
    assert Changed(concept="Burr", fields=["deprecated"]) in found.changed
    assert found.deprecated == ["Burr", "Speck"]
    assert (found.before.version, found.after.version) == ("1.2.3", "2.0.0")


def test_a_level_that_follows_from_a_move_above_is_no_change_of_its_own() -> None:
    found = diff_packs(zoo(), melded(operations(move("Blade", "Knife", "Tool"))).pack)
    assert [each.concept for each in found.moved] == ["Blade"]
    assert found.changed == []


def test_a_diff_read_backwards_adds_what_it_removed() -> None:
    other = melded(operations(split())).pack
    there, back = diff_packs(zoo(), other), diff_packs(other, zoo())
    assert [each.concept for each in there.added] == back.removed
    assert there.removed == [each.concept for each in back.added]


def test_a_new_concept_is_trained_and_its_parent_must_be_its_siblings_should_be() -> None:
    found = impact(
        candidate("Tiger", "Cat", relationships={"antonyms": ["Dog"], "opposite": "Thing", "related": ["Lie"]})
    )
    assert found.new == ("Tiger",)
    assert found.must == ("Cat",)
    assert set(found.should) == {"Kitten", "Lion", "Dog", "Thing"}
    assert set(found.optional) == {"Animal", "Lie"}


def test_a_new_branch_calls_only_the_concept_that_it_hangs_on_into_question() -> None:
    found = impact(candidate("Bird"), candidate("Hen", "Bird"), candidate("Chick", "Hen"))
    assert found.must == ("Animal",)
    assert set(found.should) == {"Dog", "Cat"}
    assert found.n_training == 4


def test_a_move_calls_both_parents_and_the_moved_one_into_question() -> None:
    found = impact(operation=move("Lion", "Cat", "Dog"))
    assert found.must == ("Cat", "Dog", "Lion")
    assert found.should == ("Puppy",)
    assert found.optional == ("Animal",)


def test_a_concept_put_between_has_its_children_retrained() -> None:
    found = impact(candidate("BigCat", "Cat", children=["Lion"]))
    assert found.new == ("BigCat",)
    assert found.must == ("Cat", "Lion")
    assert found.should == ("Kitten",)


def test_a_merge_drops_lenses_and_retrains_the_target_and_who_lost_children() -> None:
    found = impact(operation=merge("Puppy", "Kitten", to="Kitten"))
    assert found.removed == ("Puppy",)
    assert found.must == ("Kitten", "Dog")


def test_a_concept_that_is_called_otherwise_elsewhere_keeps_its_lens() -> None:
    assert "Puppy" not in impact(operation=merge("Kitten", "Lion", to="Lion")).must


def test_a_deprecated_concept_is_retrained() -> None:
    assert impact(operation=deprecate("Lion", "orphan_check")).must == ("Lion",)


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from(sorted(TREE)), min_size=1, max_size=4),
    st.lists(st.sampled_from(sorted(TREE)), max_size=3),
)
def test_every_concept_stands_in_one_list_at_most(parents: list[str], related: list[str]) -> None:
    new = [
        candidate(
            f"New{n}",
            parent,
            9,
            relationships={"related": related, "antonyms": related},
            simplex_mapping={"status": "not_applicable"},
        )
        for n, parent in enumerate(parents)
    ]
    found = impact(*new)
    lists = [found.new, found.must, found.should, found.optional]
    assert sum(map(len, lists)) == len({term for each in lists for term in each})
    assert set(found.new) == {f"New{n}" for n in range(len(parents))}
    assert set(found.must) == set(parents)


def test_a_retrained_lens_is_pending_once() -> None:
    def pending(**lists: list[str]) -> PendingTraining:
        return PendingTraining(concept_pack="zoo", from_version="1", to_version="2", **lists)  # type: ignore[arg-type]

    earlier = pending(new=["A", "B"], should_retrain=["C", "D"], removed=["Z"])
    both = pending(must_retrain=["C"], optional_retrain=["D"], removed=["B"]).after(earlier)
    assert both.new == ["A"]
    assert both.must_retrain == ["C"]
    assert both.should_retrain == ["D"]
    assert both.optional_retrain == []
    assert both.removed == ["Z"]
    assert pending(new=["A"]).after(None) == pending(new=["A"])


def test_packs_of_the_tests_are_seven_levels_deep() -> None:
    assert max(concept.level for concept in ConceptPack(zoo().meta, zoo().records.values()).concepts.values()) == 6

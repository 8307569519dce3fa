"""Which readings are drawn, and which one leads."""

import math

from ftw.ui.visualization.marks import Mark, Word, leading, loud, tracks

TREE = {"Bread": "Food", "Food": "Substance", "Substance": None, "Dog": "Animal", "Animal": None}


def mark(concept: str, p: float, *, baseline: float = 0.02) -> Mark:
    return Mark(concept, p, baseline, 10.0, 0.95, above=p >= 0.5)


def test_a_reading_at_its_usual_level_is_not_drawn() -> None:
    assert not loud([mark("Food", 0.9, baseline=0.91)], TREE.get)
    assert not loud([mark("Food", 0.3)], TREE.get)
    assert leading([mark("Food", 0.3)], TREE.get) is None


def test_a_parent_is_left_out_where_a_child_explains_it() -> None:
    found = loud([mark("Food", 0.95), mark("Bread", 0.9), mark("Substance", 0.97)], TREE.get)
    assert [each.concept for each in found] == ["Bread"]


def test_a_parent_stays_where_its_child_is_much_less_likely() -> None:
    found = loud([mark("Food", 0.95), mark("Bread", 0.6)], TREE.get)
    assert [each.concept for each in found] == ["Food", "Bread"]


def test_a_grandparent_is_explained_through_a_quiet_parent() -> None:
    found = loud([mark("Substance", 0.9), mark("Food", 0.1), mark("Bread", 0.85)], TREE.get)
    assert [each.concept for each in found] == ["Bread"]


def test_the_most_likely_reading_leads_whatever_the_order() -> None:
    marks = [mark("Dog", 0.7), mark("Bread", 0.8)]
    assert leading(marks, TREE.get) == leading(marks[::-1], TREE.get) == marks[1]


def test_tracks_hold_one_value_per_word_and_only_what_is_drawn() -> None:
    words = [Word("a"), Word(" dog", (mark("Dog", 0.9),)), Word(" ate", (mark("Dog", 0.3), mark("Bread", 0.6)))]
    dog, bread = tracks(words, TREE.get, 5)
    assert dog.concept == "Dog"
    assert dog.p == (0.0, 0.9, 0.0)
    assert dog.peak == 0.9
    assert dog.peak_at == 1
    assert bread.p == (0.0, 0.0, 0.6)


def test_tracks_are_at_most_so_many_with_the_weightiest_first() -> None:
    words = [Word("x", (mark("Dog", 0.9),)), Word("y", (mark("Bread", 0.6),)), Word("z", (mark("Bread", 0.6),))]
    assert [track.concept for track in tracks(words, TREE.get, 1)] == ["Bread"]


def test_a_concept_asked_for_has_a_track_even_when_it_is_quiet() -> None:
    words = [Word("x", (mark("Dog", 0.1),)), Word("y", (mark("Dog", 0.2),))]
    dog, bread = tracks(words, TREE.get, 1, always=("Dog", "Bread"))
    if dog.concept != "Dog":
        dog, bread = bread, dog
    assert dog.p == (0.0, 0.0)
    assert dog.peak == 0.2
    assert math.isnan(bread.baseline)


def test_a_reading_above_its_baseline_but_unlikely_has_a_track_and_names_no_word() -> None:
    weak = Mark("Dog", 0.3, 0.02, 9.0, 0.95)
    assert leading([weak], TREE.get) is None
    (track,) = tracks([Word("x", (weak,))], TREE.get, 5)
    assert track.p == (0.3,)

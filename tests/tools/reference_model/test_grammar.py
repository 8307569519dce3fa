import random

import pytest

from tools.reference_model.grammar import article, fill, inflect, noun_phrase, plural, verb


@pytest.mark.parametrize(
    ("noun", "wanted"),
    [("apple", "an apple"), ("unicorn", "a unicorn"), ("hour", "an hour"), ("~bread", "some bread"), ("dog", "a dog")],
)
def test_article(noun: str, wanted: str) -> None:
    assert article(noun) == wanted


@pytest.mark.parametrize(("noun", "wanted"), [("music", "music"), ("trousers", "trousers"), ("dog", "a dog")])
def test_mass_nouns_and_plurals_take_no_article(noun: str, wanted: str) -> None:
    assert noun_phrase(noun) == wanted


@pytest.mark.parametrize(
    ("noun", "wanted"),
    [("box", "boxes"), ("city", "cities"), ("policeman", "policemen"), ("sick person", "sick people")],
)
def test_plural(noun: str, wanted: str) -> None:
    assert plural(noun) == wanted


def test_verb_forms() -> None:
    assert [verb("carry", "past"), verb("go", "past"), verb("watch", "present"), verb("run", "ing")] == [
        "carried",
        "went",
        "watches",
        "running",
    ]


def test_marked_verbs_take_the_tense_too() -> None:
    assert inflect("add some water and ^wait", "past") == "added some water and waited"
    assert inflect("^stay and ^make a fire", "base") == "stay and make a fire"


def test_nested_choices_and_slots_are_resolved() -> None:
    text = fill("[one|[two|three]] {a adj+t}. {He} went.", {"adj": "old", "t": "~tea", "He": "she"}, random.Random(0))
    assert text.endswith("some old tea. She went.")
    assert not set(text) & set("[]{}|")


def test_an_unknown_slot_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        fill("{nothing}", {}, random.Random(0))

from pathlib import Path

import pytest

from ftw.map.ontology.wordnet import WordNet, split_gloss
from ftw.substrate.errors import PackError, StorageError

LICENCE = "  1 This is the licence.\n"


@pytest.fixture
def tiny(tmp_path: Path) -> WordNet:
    """Three synsets: animal, dog below it, and a dog with a name."""
    nouns = (
        '00000010 03 n 01 animal 0 001 ~ 00000020 n 0000 | a living thing that moves; "animals eat"\n'
        "00000020 03 n 02 dog 0 hot_dog 0 001 @ 00000010 n 0000 | a (tame) animal that barks; it guards the house\n"
        "00000030 03 n 01 Rex 0 001 @i 00000020 n 0000 | a dog of that name\n"
    )
    index = "animal n 1 1 ~ 1 1 00000010\ndog n 1 1 @ 1 1 00000020\nhot_dog n 1 1 @ 1 0 00000020\n"
    for name in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{name}").write_text(LICENCE + (nouns if name == "noun" else ""))
        (tmp_path / f"index.{name}").write_text(LICENCE + (index if name == "noun" else ""))
    (tmp_path / "cntlist.rev").write_text("dog%1:03:00:: 1 42\n")
    return WordNet(tmp_path)


def test_a_synset_has_words_counts_and_a_gloss_without_notes(tiny: WordNet) -> None:
    dog = tiny.get("dog.n.1")
    assert (dog.words, dog.count, dog.gloss, dog.note) == (("dog", "hot dog"), 42, "a animal that barks", "tame")


def test_names_round_trip(tiny: WordNet) -> None:
    assert tiny.get(tiny.name(tiny.get("dog.n.1"))) is tiny.get("dog.n.1")


def test_ancestors_and_descendants_mirror_each_other(tiny: WordNet) -> None:
    dog, animal = tiny.get("dog.n.1"), tiny.get("animal.n.1")
    assert tiny.ancestors(dog) == [animal]
    assert tiny.below(animal) == [dog]


def test_an_individual_is_not_a_kind(tiny: WordNet) -> None:
    rex = tiny.synsets["n", 30]
    assert rex.is_instance
    assert rex not in tiny.below(tiny.get("animal.n.1"))


def test_an_unknown_sense_is_named(tiny: WordNet) -> None:
    with pytest.raises(PackError, match="has 1 senses"):
        tiny.get("dog.n.2")
    with pytest.raises(PackError, match=r"lemma\.pos\.number"):
        tiny.get("dog")


def test_missing_files_and_foreign_lines_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"data\.noun cannot be read.*wordnet-base"):
        WordNet(tmp_path)
    (tmp_path / "data.noun").write_text("nonsense\n")
    with pytest.raises(PackError, match=r"data\.noun.*not a line"):
        WordNet(tmp_path)


def test_examples_leave_the_gloss() -> None:
    assert split_gloss('a thing (rare); "one thing"; "two things"') == ("a thing", "rare", ("one thing", "two things"))

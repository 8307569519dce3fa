"""Each weakness of a pack is found, named, and found only where it is."""

from pathlib import Path

import pytest

from ftw.map.ontology.quality import REMEDIES, Kind, Standards, examine, tally
from ftw.map.ontology.wordnet import WordNet
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Wordnet

GOOD = "something that a person can describe: "


def record(
    term: str, parent: str = "", level: int = 0, n: int = 6, definition: str = "", **own: object
) -> ConceptRecord:
    said = {f"{term}.n.01": [f"{term} {at}" for at in range(n)]}
    return ConceptRecord(
        term=term,
        parent_concepts=[parent] if parent else [],
        layer=level,
        definition=definition or GOOD + term,
        wordnet=Wordnet.model_validate({"words": said} | own),
    )


def found(*records: ConceptRecord, wordnet: WordNet | None = None, **own: int) -> list[tuple[Kind, str]]:
    pack = ConceptPack(PackRecord(pack_id="p", version="1"), records)
    return [(one.kind, one.term) for one in examine(pack, wordnet, Standards(**own))]


def test_a_sound_pack_has_no_findings() -> None:
    assert found(record("A"), record("B", "A", 1), record("C", "A", 1)) == []


def test_a_lone_child_and_a_crowd_are_found() -> None:
    assert found(record("A"), record("B", "A", 1)) == [("single_child", "A")]
    three = [record(term, "A", 1) for term in "BCD"]
    assert found(record("A"), *three, most_children=2) == [("many_children", "A")]


def test_few_words_and_thin_definitions_are_found() -> None:
    assert found(record("A", n=2)) == [("few_words", "A")]
    assert found(record("A", definition="a thing")) == [("short_definition", "A")]
    same = "one and the same definition"
    assert found(record("A", definition=same), record("B", definition=same)) == [("same_definition", "B")]


def test_a_word_of_two_concepts_is_found_unless_one_is_above_the_other() -> None:
    one = {"words": {"bank.n.01": ["bank", "a", "b", "c", "d"]}}
    two = {"words": {"bank.n.02": ["bank", "e", "f", "g", "h"]}}
    assert found(record("A", **one), record("B", **two)) == [("shared_word", "B")]
    above = (record("A", **one), record("B", "A", 1, **two), record("C", "A", 1))
    assert found(*above) == []


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    """`bank` means an institution first and a slope second; `dog` and `hot dog` share a hypernym."""
    nouns = (
        "00000010 03 n 01 institution 0 000 | an organisation\n"
        "00000020 03 n 01 bank 0 001 @ 00000010 n 0000 | it keeps money\n"
        "00000030 03 n 01 slope 0 000 | land that rises\n"
        "00000040 03 n 01 bank 1 001 @ 00000030 n 0000 | beside a river\n"
    )
    index = "bank n 2 1 @ 2 1 00000020 00000040\ninstitution n 1 0 1 0 00000010\nslope n 1 0 1 0 00000030\n"
    for name in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{name}").write_text(nouns if name == "noun" else "")
        (tmp_path / f"index.{name}").write_text(index if name == "noun" else "")
    return WordNet(tmp_path)


def test_a_word_that_means_something_else_more_often_is_found(wordnet: WordNet) -> None:
    slope = record("Slope", words={"bank.n.02": ["bank", "a", "b", "c", "d"]})
    money = record("Money", words={"bank.n.01": ["bank", "e", "f", "g", "h"]})
    assert ("polysemous_word", "Slope") in found(slope, wordnet=wordnet)
    assert ("polysemous_word", "Money") not in found(money, wordnet=wordnet)


def test_a_synset_that_is_not_there_is_found(wordnet: WordNet) -> None:
    lost = record("Lost", words={"nowhere.n.01": ["a", "b", "c", "d", "e"]})
    assert found(lost, wordnet=wordnet) == [("unknown_synset", "Lost")]


def test_findings_are_counted_and_each_kind_has_a_remedy() -> None:
    pack = ConceptPack(PackRecord(pack_id="p", version="1"), [record("A", n=1), record("B", n=1)])
    assert tally(examine(pack)) == {"few_words": 2}
    assert set(REMEDIES) == set(Kind.__args__)

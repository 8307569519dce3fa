"""Concept packs: what loads is sound, what is not is named, and a person finds a concept by any spelling."""

import json
from pathlib import Path

import pytest

from ftw.map.registry.concept_pack import ConceptPack, bundled_concept_pack, label_of
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Wordnet
from ftw.substrate.errors import PackError, StorageError, UnknownConcept


def record(term: str, layer: int = 0, parent: str | None = None, **words: list[str]) -> ConceptRecord:
    return ConceptRecord(
        term=term,
        layer=layer,
        parent_concepts=[parent] if parent else [],
        definition=f"what {term} means",
        wordnet=Wordnet(
            synsets=list(words),
            canonical_synset=f"{term.lower()}.n.01",
            lemmas=[w for group in words.values() for w in group],
            pos="n",
            words=dict(words),
        ),
    )


def small() -> ConceptPack:
    return ConceptPack(
        PackRecord(pack_id="small", version="1.0.0"),
        [
            record("Animal", thing=["animal"]),
            record("WildDog", 1, "Animal", wolf=["wolf", "grey wolf"], fox=["fox"]),
            record("Bird", 1, "Animal", hen=["hen"]),
            record("RedFox", 2, "WildDog", red_fox=["vixen"]),
            record("Food", bread=["bread"]),
        ],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small().save(tmp_path / "small")
    return tmp_path / "small"


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_what_is_saved_loads_as_the_same_pack(folder: Path) -> None:
    again = ConceptPack.load(folder)
    assert again.sha256 == small().sha256
    assert dict(again.concepts) == dict(small().concepts)


def test_saving_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    ConceptPack.load(folder).save(tmp_path / "again")
    for file in folder.rglob("*.json"):
        assert (tmp_path / "again" / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_a_folder_that_holds_something_is_not_written_over(folder: Path) -> None:
    with pytest.raises(StorageError, match="is not empty"):
        small().save(folder)


def test_the_tree_is_known_upwards_and_downwards() -> None:
    pack = small()
    assert pack.roots == ("Animal", "Food")
    assert pack.children("Animal") == ("Bird", "WildDog")
    assert pack.descendants("Animal") == ("Bird", "WildDog", "RedFox")
    assert pack.ancestors("RedFox") == ("WildDog", "Animal")
    assert pack.parent("Food") is None


def test_concepts_stand_in_tree_order_with_siblings_together() -> None:
    assert list(small().concepts) == ["Animal", "Bird", "WildDog", "RedFox", "Food"]


def test_a_concept_holds_the_words_of_the_concepts_below_it() -> None:
    pack = small()
    assert set(pack.get("Animal").words) == {"animal", "wolf", "grey wolf", "fox", "hen", "vixen"}
    assert set(pack.get("Animal").synsets) == {"thing", "wolf", "fox", "hen", "red_fox"}
    assert pack.get("WildDog").own_groups == {"wolf": ("wolf", "grey wolf"), "fox": ("fox",)}


@pytest.mark.parametrize("name", ["WildDog", "wilddog", "wild dog", "WILD-DOG", "wild_dog"])
def test_a_person_finds_a_concept_by_any_spelling(name: str) -> None:
    assert small().get(name).term == "WildDog"


def test_an_unknown_concept_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownConcept, match="no concept wildog; the nearest are WildDog"):
        small().get("wildog")


def test_an_unknown_concept_like_no_other_is_answered_with_roots() -> None:
    with pytest.raises(UnknownConcept, match="the nearest are Animal, Food"):
        small().get("xyzzyq")


def test_a_member_word_is_answered_with_its_concept() -> None:
    with pytest.raises(UnknownConcept, match="wolf is no concept of small, but a word of WildDog"):
        small().get("wolf")


def test_terms_are_read_as_words() -> None:
    assert [label_of(t) for t in ("SkilledWorker", "AIAgent", "Food")] == ["skilled worker", "ai agent", "food"]


def test_published_keys_with_levels_are_read_as_names(folder: Path) -> None:
    file = folder / "hierarchy.json"
    told = json.loads(file.read_text())
    children = {f"{k}:0": [f"{c}:1" for c in v] for k, v in told["parent_to_children"].items()}
    parents = {f"{c}:9": f"{p}:3" for c, p in told["child_to_parent"].items()}
    change(file, parent_to_children=children, child_to_parent=parents, root_concepts=["Animal:0", "Food:0"])
    assert ConceptPack.load(folder).children("Animal") == ("Bird", "WildDog")


def test_published_records_without_word_groups_have_their_lemmas(folder: Path) -> None:
    wordnet = {"synsets": ["00019128.n"], "canonical_synset": "00019128.n", "lemmas": ["daily_bread"], "pos": "noun"}
    change(folder / "concepts" / "layer0" / "food.json", wordnet=wordnet)
    food = ConceptPack.load(folder).get("food")
    assert food.groups == {"00019128.n": ("daily bread",)}
    assert food.pos == "n"


def test_an_unknown_key_is_an_error_that_names_file_and_field(folder: Path) -> None:
    change(folder / "concepts" / "layer0" / "food.json", definiton="typo")
    with pytest.raises(PackError, match=r"food\.json: definiton: Extra inputs"):
        ConceptPack.load(folder)


@pytest.mark.parametrize("text", ["", "   "])
def test_a_definition_must_say_something(folder: Path, text: str) -> None:
    change(folder / "concepts" / "layer0" / "food.json", definition=text)
    with pytest.raises(PackError, match=r"food\.json: definition"):
        ConceptPack.load(folder)


def test_two_parents_are_one_too_many(folder: Path) -> None:
    change(folder / "concepts" / "layer1" / "bird.json", parent_concepts=["Animal", "Food"])
    with pytest.raises(PackError, match=r"bird\.json: parent_concepts"):
        ConceptPack.load(folder)


def test_a_term_stands_once(folder: Path) -> None:
    twin = folder / "concepts" / "layer1" / "twin.json"
    twin.write_bytes((folder / "concepts" / "layer1" / "bird.json").read_bytes())
    with pytest.raises(PackError, match=r"twin\.json: term Bird stands in .*bird\.json too"):
        ConceptPack.load(folder)


def test_terms_that_differ_in_case_only_are_one_term() -> None:
    with pytest.raises(PackError, match=r"term food stands twice \(as Food\)"):
        ConceptPack(PackRecord(pack_id="p", version="1"), [record("Food"), record("food")])


def test_a_parent_must_be_in_the_pack(folder: Path) -> None:
    change(folder / "concepts" / "layer1" / "bird.json", parent_concepts=["Plant"])
    with pytest.raises(PackError, match=r"bird\.json: parent_concepts names Plant"):
        ConceptPack.load(folder)


def test_the_level_is_the_parents_plus_one(folder: Path) -> None:
    (folder / "concepts" / "layer3").mkdir()
    (folder / "concepts" / "layer1" / "bird.json").rename(folder / "concepts" / "layer3" / "bird.json")
    change(folder / "concepts" / "layer3" / "bird.json", layer=3)
    with pytest.raises(PackError, match=r"bird\.json: layer is 3, but its parent Animal is on 0: it must be 1"):
        ConceptPack.load(folder)


def test_a_concept_without_parent_is_on_level_0() -> None:
    with pytest.raises(PackError, match="layer is 2, but it has no parent"):
        ConceptPack(PackRecord(pack_id="p", version="1"), [record("Food", 2)])


def test_a_cycle_cannot_load() -> None:
    with pytest.raises(PackError, match="means a cycle"):
        ConceptPack(PackRecord(pack_id="p", version="1"), [record("A", 1, "B"), record("B", 1, "A")])


def test_a_record_lies_in_the_folder_of_its_level(folder: Path) -> None:
    (folder / "concepts" / "layer1" / "bird.json").rename(folder / "concepts" / "layer0" / "bird.json")
    with pytest.raises(PackError, match=r"bird\.json: layer is 1, but the file lies in layer0"):
        ConceptPack.load(folder)


def test_hierarchy_and_records_tell_the_same_parents(folder: Path) -> None:
    change(folder / "hierarchy.json", child_to_parent={"Bird": "Food", "WildDog": "Animal", "RedFox": "WildDog"})
    with pytest.raises(PackError, match=r"child_to_parent gives Bird Food, its record gives it Animal"):
        ConceptPack.load(folder)


def test_hierarchy_lists_every_child(folder: Path) -> None:
    change(folder / "hierarchy.json", parent_to_children={"Animal": ["Bird", "WildDog"]})
    with pytest.raises(PackError, match="parent_to_children gives RedFox no parent, its record gives it WildDog"):
        ConceptPack.load(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "pack.json").unlink()
    with pytest.raises(PackError, match=r"pack\.json is missing"):
        ConceptPack.load(folder)


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "concepts" / "layer0" / "food.json").write_text('{"term": "Food", ')
    with pytest.raises(PackError, match=r"food\.json: the file: Invalid JSON"):
        ConceptPack.load(folder)


def test_a_pack_without_concepts_is_no_pack(folder: Path) -> None:
    for file in (folder / "concepts").rglob("*.json"):
        file.unlink()
    with pytest.raises(PackError, match="holds no concept"):
        ConceptPack.load(folder)


def test_an_unknown_bundled_pack_is_answered_with_those_there_are() -> None:
    with pytest.raises(PackError, match="no bundled concept pack every-day; there are: everyday"):
        bundled_concept_pack("every-day")


def test_the_bundled_pack_has_300_concepts_on_3_to_5_levels_under_several_roots() -> None:
    pack = bundled_concept_pack()
    levels = {c.level for c in pack.concepts.values()}
    assert len(pack.concepts) >= 300
    assert 3 <= len(levels) <= 5
    assert len(pack.roots) >= 10
    wanted = "person animal plant food feeling illness place communication music money weather attack falsehood move"
    assert {pack.get(name).term for name in wanted.split()}


def test_every_bundled_concept_has_words_of_several_synsets_to_hold_out() -> None:
    assert min(len(c.synsets) for c in bundled_concept_pack().concepts.values()) >= 6

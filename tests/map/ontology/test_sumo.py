"""SUMO's KIF and mapping files become a taxonomy with WordNet's words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.map.ontology.records import pack_of
from ftw.map.ontology.sumo import Expression, expressions, mappings, sumo_taxonomy
from ftw.map.ontology.taxonomy import Limits
from ftw.map.ontology.wordnet import WordNet
from ftw.substrate.errors import PackError, StorageError

KIF = """
;; A few classes; (subclass Ghost Entity) in a comment counts nothing
(subclass Physical Entity) (subclass Abstract Entity)
(subclass Animal Physical)
(subclass Plant Physical)
(documentation Animal EnglishLanguage "An &%Organism that moves; it has
 parentheses (like these). A second sentence.")
(documentation Animal FrenchLanguage "Un animal")
(=> (instance ?X Animal) (exists (?Y) (parent ?X ?Y)))
"""
NOUNS = (
    '00000010 03 n 01 animal 0 001 ~ 00000020 n 0000 | a living thing that moves; "animals eat"\n'
    "00000020 03 n 01 dog 0 001 @ 00000010 n 0000 | an animal that barks\n"
    "00000030 03 n 01 Rex 0 001 @i 00000020 n 0000 | a dog of that name\n"
)
MARKS = ("&%Animal=", "&%Animal+ &%Plant+", "&%Animal@")


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    folder = tmp_path / "dict"
    folder.mkdir()
    index = "animal n 1 1 ~ 1 1 00000010\ndog n 1 1 @ 1 1 00000020\nrex n 1 1 @ 1 0 00000030\n"
    for name in ("noun", "verb", "adj", "adv"):
        (folder / f"data.{name}").write_text(NOUNS if name == "noun" else "")
        (folder / f"index.{name}").write_text(index if name == "noun" else "")
    return WordNet(folder)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """A KIF file and a folder with a mapping file."""
    (tmp_path / "Merge.kif").write_text(KIF)
    lines = [f"{line} {mark}\n" for line, mark in zip(NOUNS.splitlines(), MARKS, strict=True)]
    (tmp_path / "WordNetMappings30-noun.txt").write_text(";; a note\n" + "".join(lines))
    return tmp_path / "Merge.kif", tmp_path


def test_a_quoted_word_within_a_string_does_not_end_it(tmp_path: Path) -> None:
    file = tmp_path / "a.kif"
    file.write_text(
        r"""(subclass Dog Animal) (documentation Dog EnglishLanguage "What says \"woof (loudly\" often.")"""
    )
    assert sumo_taxonomy([file], None, None).nodes["Dog"].definition == 'What says "woof (loudly" often'


def test_classes_words_and_documentation_come_together(sources: tuple[Path, Path], wordnet: WordNet) -> None:
    taxonomy = sumo_taxonomy([sources[0]], sources[1], wordnet)
    animal = taxonomy.nodes["Animal"]
    assert animal.parents == ("Physical",)
    assert animal.definition == "An Organism that moves; it has parentheses (like these)"
    assert animal.words == {"animal.n.01": ("animal",), "dog.n.01": ("dog",)}
    assert animal.examples == ("animals eat",)
    assert set(taxonomy.nodes) == {"Entity", "Physical", "Abstract", "Animal", "Plant"}


def test_without_mappings_a_class_is_called_by_its_name(sources: tuple[Path, Path]) -> None:
    taxonomy = sumo_taxonomy([sources[0]], None, None)
    tree = taxonomy.choose(["Entity"], Limits(9, fewest_words=1))
    pack = pack_of(tree, name="p", version="1", description="", source="SUMO")
    assert {term: concept.parent for term, concept in pack.concepts.items()} == {
        "Entity": None,
        "Abstract": "Entity",
        "Physical": "Entity",
        "Animal": "Physical",
        "Plant": "Physical",
    }
    assert pack.get("Physical").words == ("physical", "animal", "plant")


def test_an_instance_and_a_second_mark_say_no_kind(sources: tuple[Path, Path]) -> None:
    found = mappings(sources[1])
    assert found == {("n", 10): ("Animal", "="), ("n", 20): ("Animal", "+"), ("n", 30): ("Animal", "@")}


def test_complements_are_left_out(tmp_path: Path) -> None:
    line = "00000010 03 n 01 still 0 000 | not moving &%Motion[\n"
    (tmp_path / "WordNetMappings30-noun.txt").write_text(line)
    assert mappings(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(a (b)\n", "line 1: an expression that begins here does not end"),
        ("(a))", "line 1: a closing bracket"),
        ("\n\nword (a)", "line 3: 'word' stands outside"),
        ('(a "b', "line 1: a string that begins here"),
    ],
)
def test_what_is_no_kif_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(PackError, match=said):
        list(expressions(text))


def test_files_that_are_not_there_are_named(tmp_path: Path, wordnet: WordNet) -> None:
    with pytest.raises(StorageError, match=r"none\.kif cannot be read"):
        sumo_taxonomy([tmp_path / "none.kif"], None, None)
    with pytest.raises(StorageError, match=r"holds none of WordNetMappings30-noun\.txt"):
        mappings(tmp_path)
    (tmp_path / "empty.kif").write_text("(instance a b)")
    with pytest.raises(PackError, match="no \\(subclass"):
        sumo_taxonomy([tmp_path / "empty.kif"], None, None)


words = st.from_regex(r"[A-Za-z?=>-]{1,8}", fullmatch=True)
trees = st.recursive(st.lists(words, max_size=3), lambda inner: st.lists(st.one_of(words, inner), max_size=4))


def written(one: Expression | str) -> str:
    return one if isinstance(one, str) else f"({' '.join(map(written, one))})"


@given(st.lists(trees, max_size=4))
def test_what_is_written_is_read_back(found: list[Expression]) -> None:
    assert list(expressions("\n".join(map(written, found)))) == found

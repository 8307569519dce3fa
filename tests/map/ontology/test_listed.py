"""The bundled concept pack is what the builder makes of its list and WordNet."""

import filecmp
from pathlib import Path

import pytest

import ftw
from ftw.map.ontology.listed import pack_of_list, read_list
from ftw.map.ontology.wordnet import HOME, WordNet, licence
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.errors import ConfigError, PackError, StorageError
from ftw.ui.cli import run

LIST = Path(__file__).parents[3] / "tools" / "concepts" / "everyday.toml"
ABOUT = "Everyday concepts: people, animals, plants, food, things, places, feelings, illness, talk, motion and more."

NOTICE = "  1 A notice of rights.  \n  2   \n  3 Keep it.  \n"
NOUNS = (
    '{0:08d} 03 n 02 beast 0 brute 1 001 ~ {1:08d} n 0000 | a living thing that moves; (formal) "a wild beast"  \n',
    "{1:08d} 03 n 01 hound 0 001 @ {0:08d} n 0000 | a dog used for hunting  \n",
)
TREE_TEXT = """
[[concept]]
term = "Beast"
synset = "beast.n.01"
label = "beast"
[concept.members]
"beast.n.01" = ["beast", "brute"]

[[concept]]
term = "Hound"
synset = "hound.n.01"
label = "hound"
parent = "Beast"
[concept.members]
"hound.n.01" = ["hound"]
"""


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    """A WordNet of two synsets, in the files of the real one."""
    folder = tmp_path / "dict"
    folder.mkdir()
    first = len(NOTICE)
    second = first + len(NOUNS[0].format(0, 0))
    (folder / "data.noun").write_text(NOTICE + "".join(NOUNS).format(first, second))
    index = f"beast n 1 1 ~ 1 0 {first:08d}  \nbrute n 1 1 ~ 1 0 {first:08d}  \nhound n 1 1 @ 1 0 {second:08d}  \n"
    (folder / "index.noun").write_text(NOTICE + index)
    for pos in ("verb", "adj", "adv"):
        (folder / f"data.{pos}").write_text(NOTICE)
        (folder / f"index.{pos}").write_text(NOTICE)
    (folder / "cntlist.rev").write_text("hound%1:03:00:: 1 2\n")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    file = tmp_path / "tree.toml"
    file.write_text(TREE_TEXT)
    return file


def made(tree: Path, wordnet: Path) -> ConceptPack:
    return pack_of_list(read_list(tree), WordNet(wordnet), name="small", version="1.0.0", description="")


def test_the_pack_has_the_lists_concepts_and_wordnets_definitions(tree: Path, wordnet: Path) -> None:
    pack = made(tree, wordnet)
    assert pack.get("Hound").definition == "a dog used for hunting"
    assert pack.get("Beast").definition == "a living thing that moves"
    assert pack.get("Beast").groups == {"beast.n.01": ("beast", "brute"), "hound.n.01": ("hound",)}
    assert pack.records["Hound"].domain == "Beast"
    assert pack.meta.concept_metadata["total_concepts"] == 2


def test_usage_examples_with_a_member_word_become_training_hints(tree: Path, wordnet: Path) -> None:
    pack = made(tree, wordnet)
    assert pack.records["Beast"].training_hints.positive_examples == ["a wild beast"]
    assert pack.records["Hound"].training_hints.positive_examples == []


def test_the_licence_is_wordnets_own_without_line_numbers(wordnet: Path) -> None:
    assert licence(wordnet) == "A notice of rights.\n\nKeep it.\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concept = 3", "concept"),
        ("[[concept", "not TOML"),
        (TREE_TEXT + TREE_TEXT, "Beast stands twice"),
        (TREE_TEXT.replace('parent = "Beast"', 'parent = "Animal"'), "parent of Hound is Animal"),
        (TREE_TEXT.replace('label = "beast"', 'parent = "Hound"'), "lead back"),
        (TREE_TEXT.replace('synset = "hound.n.01"', 'synset = "hound.n.07"'), "1 senses"),
        (TREE_TEXT + 'colour = "red"', "colour"),
    ],
)
def test_a_list_that_is_wrong_is_named(text: str, said: str, tmp_path: Path, wordnet: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises((PackError, ConfigError), match=said):
        made(file, wordnet)


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_list(tmp_path / "none.toml")


def test_the_bundled_pack_is_what_the_builder_makes(tree: Path, wordnet: Path, tmp_path: Path) -> None:
    """With WordNet installed, of the real list; elsewhere, that the small one is the same twice."""
    out, wanted = tmp_path / "out", tmp_path / "wanted"
    about = ["--name", "everyday", "--version", "1.1.0", "--description", ABOUT]
    if (HOME / "data.noun").exists():
        assert run(["pack", "build", "--list", str(LIST), "--out", str(out), *about]) == 0
        wanted = Path(ftw.__file__).parent / "bundled" / "concept-packs" / "everyday"
    else:
        for folder in (out, wanted):
            called = ["pack", "build", "--list", str(tree), "--wordnet", str(wordnet), "--out", str(folder), *about]
            assert run(called) == 0
    names = sorted(str(f.relative_to(out)) for f in out.rglob("*") if f.is_file())
    kept = (f for f in wanted.rglob("*") if f.is_file() and not f.name.startswith("simplexes"))  # written by hand
    assert names == sorted(str(f.relative_to(wanted)) for f in kept)
    assert filecmp.cmpfiles(out, wanted, names, shallow=False) == (names, [], [])

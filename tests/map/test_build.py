"""The bundled concept pack is what its builder makes of the tree and WordNet."""

import filecmp
from pathlib import Path

import pytest

import ftw
from ftw.map.registry.concept_pack import ConceptPack
from tools.concepts.build import TREE, build, licence, write
from tools.reference_model.wordnet import WordNet

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


def test_the_pack_has_the_trees_concepts_and_wordnets_definitions(tree: Path, wordnet: Path) -> None:
    pack = build(tree, WordNet(wordnet))
    assert pack.get("Hound").definition == "a dog used for hunting"
    assert pack.get("Beast").definition == "a living thing that moves"
    assert pack.get("Beast").groups == {"beast.n.01": ("beast", "brute"), "hound.n.01": ("hound",)}
    assert pack.records["Hound"].domain == "Beast"
    assert pack.meta.concept_metadata["total_concepts"] == 2


def test_the_licence_is_wordnets_own_without_line_numbers(wordnet: Path) -> None:
    assert licence(wordnet) == "A notice of rights.\n\nKeep it.\n"


def test_writing_replaces_what_was_there(tree: Path, wordnet: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    out.mkdir()
    (out / "old.json").write_text("{}")
    write(build(tree, WordNet(wordnet)), "notice\n", out)
    assert not (out / "old.json").exists()
    assert (out / "WORDNET-LICENSE").read_text() == "notice\n"
    assert list(ConceptPack.load(out).concepts) == ["Beast", "Hound"]


def test_the_bundled_pack_is_what_the_builder_makes(tree: Path, wordnet: Path, tmp_path: Path) -> None:
    """With WordNet installed, of the real tree; elsewhere, that the small one is the same twice."""
    real = Path("/usr/share/wordnet")
    made, wanted = tmp_path / "made", tmp_path / "wanted"
    if (real / "data.noun").exists():
        write(build(TREE, WordNet(real)), licence(real), made)
        wanted = Path(ftw.__file__).parent / "bundled" / "concept-packs" / "everyday"
    else:
        for out in (made, wanted):
            write(build(tree, WordNet(wordnet)), licence(wordnet), out)
    names = sorted(str(f.relative_to(made)) for f in made.rglob("*") if f.is_file())
    assert names == sorted(str(f.relative_to(wanted)) for f in wanted.rglob("*") if f.is_file())
    assert filecmp.cmpfiles(made, wanted, names, shallow=False) == (names, [], [])

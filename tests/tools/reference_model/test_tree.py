from collections import Counter
from pathlib import Path

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model import tree
from tools.reference_model.tree import Concept, all_words, lineage


def test_the_file_is_what_wordnet_and_the_list_give(wn: WordNet, everyday: dict[str, Concept]) -> None:
    assert {c.term: c for c in tree.derive(wn)} == everyday


def test_the_tree_is_a_hierarchy_of_three_to_five_levels(everyday: dict[str, Concept]) -> None:
    depths = Counter(len(lineage(everyday, term)) for term in everyday)
    assert 300 <= len(everyday) <= 400
    assert set(depths) <= {1, 2, 3, 4, 5}
    assert depths[3] > 50
    assert len([c for c in everyday.values() if not c.parent]) > 5


def test_every_concept_has_enough_members(everyday: dict[str, Concept]) -> None:
    sizes = {term: len(set(all_words(everyday, term))) for term in everyday}
    assert min(sizes.values()) >= tree.FEWEST
    assert sum(size >= 16 for size in sizes.values()) > 0.9 * len(sizes)


def test_members_belong_to_everything_above(everyday: dict[str, Concept]) -> None:
    assert set(everyday["Dog"].words) <= set(all_words(everyday, "Animal"))
    assert lineage(everyday, "Dog")[-1] == "Animal"


def test_a_word_is_a_direct_member_once(everyday: dict[str, Concept]) -> None:
    nouns = Counter(w for c in everyday.values() if ".n." in c.synset for w in c.words)
    assert [w for w, n in nouns.items() if n > 1] == []


def test_members_are_plain_lower_case_words(everyday: dict[str, Concept]) -> None:
    unfit = tree.unfit_words()
    for concept in everyday.values():
        for word in concept.words:
            assert word.replace(" ", "").isalpha()
            assert word == word.lower()
            assert not unfit & set(word.split())


def test_the_tree_survives_the_file(tmp_path: Path, everyday: dict[str, Concept]) -> None:
    tree.write(list(everyday.values()), tmp_path / "tree.toml")
    assert tree.read(tmp_path / "tree.toml") == everyday

import random
import re

import pytest

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model import probes
from tools.reference_model.chats import ASSISTANT, EOS, SYSTEM, USER
from tools.reference_model.corpus import SHARES, Document, documents, of_kind, read, write
from tools.reference_model.facts import frequent_nouns, gather
from tools.reference_model.stories import Storyteller
from tools.reference_model.taxonomy import Taxonomist, kinds
from tools.reference_model.tree import Concept, all_words

SEED, MEGABYTES = 7, 0.1


@pytest.fixture(scope="module")
def docs(wn: WordNet, everyday: dict[str, Concept]) -> list[Document]:
    return documents(wn, everyday, SEED, MEGABYTES)


def test_the_same_seed_gives_the_same_documents(
    wn: WordNet, everyday: dict[str, Concept], docs: list[Document]
) -> None:
    assert documents(wn, everyday, SEED, MEGABYTES) == docs


def test_another_seed_gives_other_documents(wn: WordNet, everyday: dict[str, Concept]) -> None:
    sources, concepts = gather(wn), kinds(everyday)
    for kind in SHARES:
        one, two = (list(of_kind(kind, sources, concepts, seed, 300)) for seed in (1, 2))
        assert one != two


def test_no_document_holds_an_unresolved_mark(docs: list[Document]) -> None:
    bare = [(d.kind, re.sub("|".join(map(re.escape, (SYSTEM, USER, ASSISTANT, EOS))), "", d.text)) for d in docs]
    assert [(kind, text) for kind, text in bare if re.search(r"[\[\]{}|~\t\n]|\^(?!\d)|  ", text)] == []


def test_every_kind_fills_its_share(docs: list[Document]) -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    for kind, share in SHARES.items():
        size = sum(len(d.text) + 1 for d in docs if d.kind == kind)
        assert share * MEGABYTES * 1e6 <= size < share * MEGABYTES * 1e6 + 2500


def test_no_probe_template_is_taught(docs: list[Document]) -> None:
    templates = probes.FIT_TEMPLATES + probes.TEST_TEMPLATES + probes.WORD_FIT_TEMPLATES + probes.WORD_TEST_TEMPLATES
    parts = [max(re.split(r"\{\w+\}", t), key=len).strip(" ,.?") for t in templates]
    assert [(p, d.text) for d in docs for p in parts if p in d.text] == []


def test_documents_survive_the_file(tmp_path_factory: pytest.TempPathFactory, docs: list[Document]) -> None:
    path = tmp_path_factory.mktemp("corpus") / "corpus.tsv"
    write(docs, path)
    assert read(path) == docs


def test_frequent_nouns_come_first_and_name_their_hypernym(wn: WordNet) -> None:
    nouns = frequent_nouns(wn)
    assert nouns[0].word == "person"
    assert next(n.parent for n in nouns if n.word == "dog") in ("canine", "domestic animal")


def test_a_story_keeps_its_hero() -> None:
    teller = Storyteller(random.Random(3))
    for _ in range(50):
        story = teller.story()
        assert story.slots["H"] in story.text
        assert story.slots["H"] != story.slots["F"]


def test_a_stranger_is_no_member(everyday: dict[str, Concept]) -> None:
    taxonomist = Taxonomist(random.Random(3), kinds(everyday))
    fish = taxonomist.kinds["Fish"]
    for _ in range(50):
        word, _ = taxonomist.stranger(fish)
        assert word not in all_words(everyday, "Animal")

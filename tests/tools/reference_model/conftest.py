from pathlib import Path

import pytest

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model import tree
from tools.reference_model.tree import Concept

DICT = Path("/usr/share/wordnet")


@pytest.fixture(scope="session")
def wn() -> WordNet:
    if not (DICT / "data.noun").exists():
        pytest.skip("the dict files of wordnet-base are not installed")
    return WordNet(DICT)


@pytest.fixture(scope="session")
def everyday() -> dict[str, Concept]:
    return tree.read()

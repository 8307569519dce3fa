import json
import re
from pathlib import Path

import pytest

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model.__main__ import BUNDLE, BUNDLED_FILES, parser
from tools.reference_model.card import by_block, card, table
from tools.reference_model.evaluate import evaluate, weights_digest


def test_tables_have_one_cell_per_column() -> None:
    assert table(["a", "b"], [[1, 2.5]]) == "| a | b |\n| --- | --- |\n| 1 | 2.5 |"
    assert by_block({"x": [0.1, 0.2]}).startswith("| block | 1 | 2 |")


def test_the_figures_belong_to_the_bundled_weights() -> None:
    assert json.loads((BUNDLE / "eval.json").read_text())["weights_sha256"] == weights_digest(BUNDLE)


def test_the_card_is_what_the_figures_give() -> None:
    figures = json.loads((BUNDLE / "eval.json").read_text())
    report = json.loads((BUNDLE / "training.json").read_text())
    shown = (BUNDLE / "MODEL_CARD.md").read_text()
    command = re.search(r"python -m tools\.reference_model .*", shown)
    assert command
    assert card(figures, report, command.group(0)) == shown
    for figure in (
        figures["hypernyms"]["direct"],
        max(figures["tree_probes"]["model"]["templates and words held out"]),
    ):
        assert f"| {figure} |" in shown


def test_the_command_of_the_card_is_understood() -> None:
    shown = (BUNDLE / "MODEL_CARD.md").read_text()
    words = re.search(r"python -m tools\.reference_model (.*)", shown)
    assert words
    recipe = json.loads((BUNDLE / "training.json").read_text())["recipe"]
    args = parser().parse_args(words.group(1).split())
    assert (args.seed, args.steps) == (recipe["seed"], recipe["steps"])


def test_the_bundle_is_complete_and_small() -> None:
    assert {p.name for p in BUNDLE.iterdir()} == set(BUNDLED_FILES)
    assert sum(p.stat().st_size for p in BUNDLE.iterdir()) <= 16 * 2**20


def test_an_unknown_section_is_named(wn: WordNet) -> None:
    with pytest.raises(ValueError, match="no such sections: \\['singing'\\]"):
        evaluate(Path("nowhere"), wn, [], ["singing"])

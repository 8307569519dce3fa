"""`ftw pack meld`: what a person reads, what a program reads, and the exit codes."""

import json
from pathlib import Path

import pytest

from ftw.map.registry.concept_pack import ConceptPack
from tests.ui.conftest import Ftw

DRINKS = Path(__file__).parents[1] / "data" / "melds" / "drinks.json"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    meld = json.loads(DRINKS.read_text())
    for n in range(14):
        meld["candidates"].append({"term": f"Drink{n}", "parent_concepts": ["Nowhere"], "definition": "short"})
    meld["candidates"][0]["safety_tags"] = {"risk_level": "critical"}
    (tmp_path / "drinks.json").write_text(json.dumps(meld))
    return tmp_path / "drinks.json"


def test_a_good_meld_is_said_to_be_applicable_with_its_lenses(ftw: Ftw) -> None:
    ran = ftw("pack", "meld", "validate", str(DRINKS))
    assert ran.code == 0, ran.err
    assert ran.out.startswith("ftw/drinks@1.0.0 can be applied to everyday")
    assert "train         3: HotDrink, Coffee, Tea" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_a_bad_meld_names_its_errors_and_counts_the_rest(ftw: Ftw, bad: Path) -> None:
    ran = ftw("pack", "meld", "validate", str(bad))
    assert ran.code == 1
    assert "cannot be applied" in ran.out
    assert "Drink0 has a definition of 5 characters" in ran.out
    assert "more: --json lists them" in ran.out
    assert "critical because  Tea is of critical risk" in ran.out


def test_the_document_has_every_finding_and_reason(ftw: Ftw, bad: Path) -> None:
    ran = ftw("pack", "meld", "validate", str(bad), "--json")
    assert ran.code == 1
    found = ran.document
    assert found["valid"] is False
    assert len(found["errors"]) >= 28
    assert found["errors"][0].keys() == {"kind", "rule", "concept", "what"}
    assert found["protection"]["level"] == "critical"
    assert found["protection"]["reasons"][0]["trigger"] == "risk_level_critical"
    assert found["impact"] is None


def test_a_meld_is_applied_and_the_difference_shown(ftw: Ftw, tmp_path: Path) -> None:
    ran = ftw("pack", "meld", "apply", str(DRINKS), "--out", str(tmp_path / "new"), "--json")
    assert ran.code == 0, ran.err
    assert ran.document["valid"] is True
    assert ran.document["pending_training"]["new"] == ["HotDrink", "Coffee", "Tea"]
    pack = ConceptPack.load(tmp_path / "new")
    assert pack.version == ran.document["pack"]["version"] == ran.document["next_version"]
    assert pack.ancestors("Tea")[:2] == ("HotDrink", "Beverage")
    assert (tmp_path / "new" / "WORDNET-LICENSE").is_file()
    shown = ftw("pack", "meld", "diff", "everyday", str(tmp_path / "new"))
    assert shown.code == 0, shown.err
    assert "3 concepts added, 1 moved" in shown.out.replace("\n", " ")
    assert "Wine from Alcohol to Beverage" in shown.out
    again = ftw("pack", "meld", "apply", str(DRINKS), "--pack", str(tmp_path / "new"), "--out", str(tmp_path / "two"))
    assert again.code == 1
    assert "is among melds_applied" in again.out.replace("\n", " ")
    assert not (tmp_path / "two").exists()


def test_a_person_reads_what_was_written(ftw: Ftw, tmp_path: Path) -> None:
    ran = ftw("pack", "meld", "apply", str(DRINKS), "-o", str(tmp_path / "new"))
    assert ran.code == 0, ran.err
    version = ConceptPack.load(tmp_path / "new").version
    assert ran.out.splitlines()[0] == f"everyday {version} is written: 3 concepts added, 1 moved"
    assert "waits for 6 lenses" in " ".join(ran.out.split())


def test_a_pack_and_itself_say_the_same(ftw: Ftw) -> None:
    ran = ftw("pack", "meld", "diff", "everyday", "everyday", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["added"] == ran.document["removed"] == ran.document["changed"] == []
    assert "say the same" in ftw("pack", "meld", "diff", "everyday", "everyday").out.replace("\n", " ")


def test_a_full_folder_and_an_unknown_pack_are_errors(ftw: Ftw, tmp_path: Path) -> None:
    told = ftw("pack", "meld", "apply", str(DRINKS), "--out", str(DRINKS.parent)).failed(1)
    assert "is not an empty folder" in told
    told = ftw("pack", "meld", "validate", str(DRINKS), "--pack", "nowhere").failed(1)
    assert "nowhere" in told
    assert "is no JSON" in ftw("pack", "meld", "validate", __file__).failed(1)


def test_synsets_are_looked_up_where_wordnet_is_named(ftw: Ftw, tmp_path: Path) -> None:
    told = ftw("pack", "meld", "validate", str(DRINKS), "--wordnet", str(tmp_path)).failed(1)
    assert str(tmp_path) in told

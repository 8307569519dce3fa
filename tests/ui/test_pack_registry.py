"""`ftw pack pull` and its kin: what a person reads, what a program reads, and what is wrong with a request."""

import json
from pathlib import Path

import pytest

from tests.map.registry.packs import concept_pack, lens_pack
from tests.ui.conftest import Ftw


@pytest.fixture(autouse=True)
def _at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in its own folder, with its own packs."""
    monkeypatch.setenv("FTW_PACKS_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_a_pack_is_pulled_changed_told_and_put_back(ftw: Ftw, tmp_path: Path) -> None:
    lens_pack(tmp_path / "shared", storage="float32")
    ran = ftw("pack", "pull", "toy_small", "--from", "./shared")
    assert ran.out.splitlines()[0] == "Pulled toy_small 1.0.0"
    assert "levels    0, 1" in ran.out
    assert ftw("pack", "pull", "toy_small").out.startswith("toy_small 1.0.0 is here already")
    lens_pack(tmp_path / "shared", changed=("Weather11",), storage="float32")
    told = ftw("pack", "diff", "toy_small")
    assert "1 changed, 0 new, 0 gone, 25 the same" in told.out
    assert "Weather11 at block 1" in told.out
    assert "1 pack of 1 to look at" in ftw("pack", "status").out
    ran = ftw("pack", "pull", "toy_small")
    assert "1 changed, 0 new, 25 the same" in ran.out
    assert "% was here" in ran.out
    assert "1 pack, all as they were pulled, and the newest" in ftw("pack", "status").out
    assert "file:" in ftw("pack", "list").out
    (tmp_path / "home" / "lens_packs" / "toy_small" / "index.json").write_text("[]")
    assert "toy_small is not as it was recorded: index.json differ" in ftw("pack", "verify", "toy_small").failed(1)
    assert "was changed here since it was pulled" in ftw("pack", "pull", "toy_small").failed(1)
    assert ftw("pack", "pull", "toy_small", "--force").code == 0
    assert ftw("pack", "verify", "toy_small").out.startswith("toy_small is byte for byte what it was")


def test_a_lock_is_written_held_and_pulled(ftw: Ftw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    concept_pack(tmp_path / "shared")
    assert "there is none here" in ftw("pack", "pull").failed(2)
    assert "there is no packs.lock" in ftw("pack", "lock", "--check").failed(2)
    ftw("pack", "pull", "./shared", "--kind", "concept")
    assert ftw("pack", "lock").out.startswith("packs.lock pins 1 pack")
    assert ftw("pack", "lock", "--check").out.startswith("1 pack as packs.lock pins them")
    monkeypatch.setenv("FTW_PACKS_DIR", str(tmp_path / "elsewhere"))
    assert "shared 1.0.0 is pinned and not installed" in ftw("pack", "lock", "--check").failed(1)
    assert ftw("pack", "pull").out.startswith("Pulled shared 1.0.0")
    assert ftw("pack", "lock", "--check").code == 0
    assert "leave the options out" in ftw("pack", "pull", "--version", "1").failed(2)


def test_a_fork_is_pushed_and_comes_back(ftw: Ftw, tmp_path: Path) -> None:
    concept_pack(tmp_path / "shared")
    ftw("pack", "pull", "small", "--from", "./shared")
    assert "mine is a concept pack of its own, based on small@1.0.0" in ftw("pack", "fork", "small", "mine").out
    assert ftw("pack", "push", "mine", "--to", "./there").out.startswith("Pushed mine 1.0.0\n")
    assert "is there already, byte for byte" in ftw("pack", "push", "mine", "--to", "./there").out
    assert ftw("pack", "show", "mine").out.startswith("mine 1.0.0: 26 concepts in 2 levels")


def test_every_answer_is_one_document(ftw: Ftw, tmp_path: Path) -> None:
    lens_pack(tmp_path / "shared")
    pulled = ftw("pack", "pull", "toy_small", "--from", "./shared", "--levels", "0", "--json").document
    assert pulled["packs"][0]["levels"] == [0]
    assert ftw("pack", "status", "--offline", "--json").document["packs"][0]["conditions"] == ["partial"]
    assert ftw("pack", "diff", "toy_small", "--json").document["fetch"] == ["level1.safetensors"]
    assert ftw("pack", "verify", "toy_small", "--json").document["changed_files"] == []
    assert ftw("pack", "lock", "--json").document["packs"][0]["levels"] == [0]
    assert ftw("pack", "list", "--json").document["installed"][0]["name"] == "toy_small"
    assert ftw("pack", "fork", "toy_small", "mine", "--json").document["based_on"] == "toy_small@1.0.0"
    pushed = ftw("pack", "push", "toy_small", "--to", "./there", "--levels", "0", "--json").document
    assert json.dumps(pushed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pull", "x", "--from", "./nowhere"), "there is no folder"),
        (("pull", "x", "--levels", "a"), "--levels is 'a': give numbers"),
        (("pull", "x", "--kind", "paper"), "--kind is 'paper': use concept or lens"),
        (("pull", "everyday", "--levels", "0", "--from", "./shared"), "a concept pack comes whole"),
        (("push", "everyday", "--levels", "0", "--to", "./x"), "a concept pack goes whole"),
        (("verify", "nowhere", "--kind", "lens"), "no lens pack nowhere is installed"),
        (("fork", "everyday", "../x"), "is no name for a pack"),
    ],
)
def test_a_wrong_request_is_told_in_a_line(ftw: Ftw, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    concept_pack(tmp_path / "shared", name="everyday")
    assert said in ftw("pack", *words).failed(2)


def test_an_offline_hub_is_told_in_a_line(ftw: Ftw) -> None:
    assert "offline mode is on (HF_HUB_OFFLINE)" in ftw("pack", "pull", "first-light").failed(1)

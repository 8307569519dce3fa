"""`ftw lens trunk`: what it says, and where the trunk goes."""

from pathlib import Path

import pytest

from ftw.hat.classifiers import load_bank
from ftw.substrate.model import load
from tests.map.training.small_packs import concepts, lens_pack
from tests.ui.conftest import Ftw


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setattr("ftw.map.training.compliance.efficiency.RUNS", 3)
    concepts().save(tmp_path / "four")
    pack = lens_pack(tmp_path / "p", load("tiny"))
    return (str(pack), "--model", "tiny", "--concepts", str(tmp_path / "four"))


def test_a_trunk_is_kept_beside_the_pack_and_served(ftw: Ftw, given: tuple[str, ...]) -> None:
    ran = ftw("lens", "trunk", *given, "--rank", "8")
    assert ran.code == 0, ran.err
    told = " ".join(ran.out.split())
    for part in (
        "On a trunk of 8 of",
        "of macro AUROC and read a token",
        "loses most",
        "a token reads",
        "a token takes",
    ):
        assert part in told
    assert max(map(len, ran.out.splitlines())) <= 80
    bank = load_bank(Path(given[0]), fingerprint=load("tiny").fingerprint, trunk=True)
    assert bank.terms


def test_with_out_the_pack_stays_and_a_copy_has_the_trunk(ftw: Ftw, given: tuple[str, ...], tmp_path: Path) -> None:
    ran = ftw("lens", "trunk", *given, "--rank", "8", "--out", str(tmp_path / "copy"), "--prompts", "40", "--json")
    record = ran.document
    assert record["blocks"][0]["lost"] == pytest.approx(
        record["blocks"][0]["auroc"] - record["blocks"][0]["auroc_on_trunk"]
    )
    assert record["bytes"]["trunk"] < record["bytes"]["full"]
    assert set(record["ms_per_token"]) == {"full", "trunk"}
    assert not (Path(given[0]) / "trunk.safetensors").exists()
    assert load_bank(tmp_path / "copy", fingerprint=load("tiny").fingerprint, trunk=True).terms


def test_what_cannot_be_done_is_said_before_any_work(ftw: Ftw, given: tuple[str, ...], tmp_path: Path) -> None:
    assert "--rank is 0" in ftw("lens", "trunk", *given, "--rank", "0").failed(2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    told = ftw("lens", "trunk", *given, "--rank", "8", "--out", str(tmp_path / "full")).failed(1)
    assert "is not an empty folder" in told
    told = ftw("lens", "trunk", "reference_everyday", "--rank", "8").failed(2)
    assert "share their first layer" in " ".join(told.split())

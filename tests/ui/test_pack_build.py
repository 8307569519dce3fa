"""`ftw pack build` and `ftw pack check` with a small SUMO file: what is built, what is refused, what is weak."""

from pathlib import Path

import pytest

from tests.ui.conftest import Ftw

KIF = """
(subclass Physical Entity) (subclass Abstract Entity) (subclass Animal Physical) (subclass Plant Physical)
(documentation Animal EnglishLanguage "An &%Organism that moves by itself. It eats.")
"""


@pytest.fixture
def kif(tmp_path: Path) -> Path:
    file = tmp_path / "Small.kif"
    file.write_text(KIF)
    return file


def test_a_sumo_file_becomes_a_pack_with_the_same_bytes_each_time(ftw: Ftw, kif: Path, tmp_path: Path) -> None:
    asked = ("pack", "build", "--sumo", str(kif), "--words", "1", "--name", "small", "--json")
    built = [ftw(*asked, "--out", str(tmp_path / name)).document for name in ("a", "b")]
    assert built[0]["sha256"] == built[1]["sha256"]
    assert (built[0]["roots"], built[0]["concepts"]) == (["Entity"], 5)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    found = ftw("pack", "check", str(tmp_path / "a"), "--json").document
    assert found["counts"]["short_definition"] == 4
    assert not [one for one in found["findings"] if one["kind"] == "short_definition" and one["term"] == "Animal"]
    assert "5 concepts in 3 levels" in ftw("pack", "check", str(tmp_path / "a")).out


def test_a_build_that_would_hold_its_roots_alone_names_the_way_out(ftw: Ftw, kif: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ftw("pack", "build", "--sumo", str(kif), "--out", str(out)).failed(2)
    assert "nothing below Entity has the 5 words that a concept needs" in line
    assert "--words, or give SUMO's mappings to WordNet with --mappings" in line
    assert not out.exists()


def test_a_root_that_is_not_there_names_the_nearest(ftw: Ftw, kif: Path, tmp_path: Path) -> None:
    line = ftw("pack", "build", "--sumo", str(kif), "--roots", "Entitty", "--out", str(tmp_path / "out")).failed(2)
    assert "no such root: Entitty; nearest: Entity" in line


def test_what_cannot_be_read_or_written_is_named(ftw: Ftw, kif: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert "gone.kif cannot be read" in ftw("pack", "build", "--sumo", "gone.kif", "--out", out).failed(1)
    kif.write_text("(subclass A B")
    assert "line 1: an expression" in ftw("pack", "build", "--sumo", str(kif), "--out", out).failed(1)

"""The vendored chart library: what ships is what was recorded, and nothing without a permissive licence gets in."""

import hashlib
import json
from pathlib import Path

import pytest

from tools.reports.vendor import NOT_BUNDLED, VENDOR, licences, main, take


def package(modules: Path, name: str, licence: str = "ISC", build: str = "let a;") -> None:
    folder = modules / name
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.2.3", "license": licence}))
    (folder / "LICENSE").write_text(f"notice of {licence}")
    (folder / "a.js").write_text(build)


def entry(name: str, content: str) -> dict[str, str]:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"name": name, "version": "1.2.3", "from": "a.js", "file": "a.js", "sha256": digest}


def test_every_recorded_file_has_its_hash() -> None:
    entries = json.loads((VENDOR / "versions.json").read_text(encoding="utf-8"))
    assert {one["name"] for one in entries} == {"d3", "@observablehq/plot"}
    for one in entries:
        assert hashlib.sha256((VENDOR / one["file"]).read_bytes()).hexdigest() == one["sha256"]


def test_what_is_not_vendored_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(SystemExit, match="not vendored: jquery"):
        main(["jquery=1.0.0"])


def test_equal_notices_stand_once_with_every_name(tmp_path: Path) -> None:
    for name in ("a", "b", "@scope/c", min(NOT_BUNDLED)):
        package(tmp_path, name)
    text = licences(tmp_path)
    assert text.count("notice of ISC") == 1
    assert "@scope/c 1.2.3 (ISC), a 1.2.3 (ISC), b 1.2.3 (ISC)" in text
    assert min(NOT_BUNDLED) not in text


def test_a_licence_that_is_not_permissive_is_refused(tmp_path: Path) -> None:
    package(tmp_path, "a", "GPL-3.0")
    with pytest.raises(SystemExit, match=r"a is under GPL-3\.0"):
        licences(tmp_path)


def test_another_content_under_the_same_version_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package(tmp_path, "a", build="let b;")
    assert take(entry("a", "let a;"), tmp_path, {}) is False
    assert "recorded is" in capsys.readouterr().err


def test_a_build_that_would_end_its_script_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = 'let a = "</SCRIPT>";'
    package(tmp_path, "a", build=content)
    assert take(entry("a", content), tmp_path, {}) is False
    assert "cannot stand inside a page" in capsys.readouterr().err

"""A finished run is read whole: what is missing, of another type, or of another run is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftw.substrate.errors import ConfigError
from ftw.substrate.reference import tiny
from ftw.sweep.files.diff import diff
from ftw.sweep.files.finished import read_finished
from ftw.sweep.files.parquet import rows_sha256, write_rows
from ftw.sweep.files.rundir import DOCUMENT, read_document, write_document
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable

PROMPT = {"id": "0", "kind": "probe", "text": None, "milestones": {"logit": {"semantic": {"value": 1, "why": None}}}}
WHOLE: dict[str, Any] = {
    "schema": 1,
    "status": "ok",
    "error": None,
    "model": {"name": "tiny"},
    "provenance": {},
    "sweep": {},
    "thresholds": {},
    "prompts": [PROMPT],
}


@pytest.fixture(scope="module")
def table() -> SweepTable:
    return Sweep(tiny(), k=2).run(["ab"])


def written(folder: Path, table: SweepTable, document: dict[str, Any], **provenance: Any) -> Path:
    folder.mkdir()
    write_rows(folder, table, provenance)
    write_document(folder, {"rows": {"sha256": rows_sha256(folder)}, **document})
    return folder


def test_a_whole_run_is_read(tmp_path: Path, table: SweepTable) -> None:
    document, rows = read_finished(written(tmp_path / "a", table, WHOLE))
    assert (document["prompts"], len(rows)) == ([PROMPT], len(table))


def test_a_run_of_an_earlier_version_does_not_say_its_rows_digest(tmp_path: Path, table: SweepTable) -> None:
    assert len(read_finished(written(tmp_path / "a", table, {**WHOLE, "rows": None}))[1]) == len(table)


def test_document_and_rows_of_two_runs_are_told_apart(tmp_path: Path, table: SweepTable) -> None:
    a, b = (written(tmp_path / name, table, WHOLE, run=name) for name in "ab")
    digests = [rows_sha256(each)[:8] for each in (a, b)]
    assert len(set(digests)) == 2
    (a / DOCUMENT).replace(b / DOCUMENT)
    told = rf"b/run\.json tells of rows with SHA-256 {digests[0]}, rows\.parquet .* {digests[1]}: .* not of one run"
    with pytest.raises(ConfigError, match=told):
        read_finished(b)


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: [document.pop(key) for key in keys] and None


def of_prompt(key: str, *value: Any) -> Callable[[dict[str, Any]], None]:
    """A prompt without a key, or with another value under it. In the file its milestones stand elsewhere."""

    def change(document: dict[str, Any]) -> None:
        document["prompts"][0].pop(key, None)
        document["prompts"][0] |= dict.fromkeys([key][: len(value)], *value)

    return change


def with_(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.__setitem__(key, value)


SPOILT = [
    (without("milestones", "prompts"), "it has no 'prompts'"),
    (without("prompts"), "its block 'milestones' is not what was written"),
    (without("model"), "it has no 'model'"),
    (without("thresholds"), "it has no 'thresholds'"),
    (with_("model", {}), r"it has no 'model\.name'"),
    (with_("model", None), "it has no 'model'"),
    (with_("model", "tiny"), "model is a str, not a dict"),
    (with_("prompts", {}), "prompts is a dict, not a list"),
    (with_("prompts", [1]), r"prompts\[0\] has no id"),
    (with_("notes", "one"), "notes is a str, not a list"),
    (with_("status", "done"), "has status 'done': it is one of running, ok, failed, partial"),
    (with_("status", []), "has status"),
    (with_("error", {"type": "X"}), "error has no type or no message"),
    (with_("milestones", {"logit": {"semantic": {"value": []}}}), "its block 'milestones' is not what was written"),
    (with_("milestones", {"logit": 3}), "its block 'milestones' is not what was written"),
    (of_prompt("id"), r"prompts\[0\] has no id"),
    (of_prompt("kind"), r"prompts\[0\] has no 'kind'"),
    (of_prompt("text", 3), r"prompts\[0\]\.text is a int, not a str"),
]


@pytest.mark.parametrize(("spoil", "told"), SPOILT)
def test_a_document_that_is_not_whole_is_named_with_file_and_key(
    tmp_path: Path, table: SweepTable, spoil: Callable[[dict[str, Any]], None], told: str
) -> None:
    folder = written(tmp_path / "a", table, WHOLE)
    document = json.loads((folder / DOCUMENT).read_text())
    spoil(document)
    (folder / DOCUMENT).write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=rf"a/run\.json.*{told}"):
        read_finished(folder)
    with pytest.raises(ConfigError, match=told):  # a comparison does not pass silently either
        diff(folder, folder)


@pytest.mark.parametrize("status", ["running", "failed", "partial"])
def test_a_run_that_did_not_end_well_says_its_own_error(tmp_path: Path, table: SweepTable, status: str) -> None:
    short = {"schema": 1, "status": status, "error": {"type": "Boom", "message": "it broke"}}
    folder = written(tmp_path / "a", table, short)
    assert read_document(folder)["status"] == status  # it needs no more than that
    with pytest.raises(ConfigError, match=f"is {status}: Boom: it broke. Its rows may be there, its conclusions are"):
        read_finished(folder)

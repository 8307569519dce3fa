"""Run folders: no run is ever lost, and run-latest is always one that ended."""

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.substrate.errors import Cancelled, ConfigError, NumericError, StorageError
from ftw.sweep.files import rundir
from ftw.sweep.files.rundir import LATEST, open_run, read_document, write_document

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NOON = datetime(2026, 3, 4, 12, 0, 30, tzinfo=UTC)


def at_noon() -> datetime:
    return NOON


def run_once(base: Path, mark: str) -> Path:
    with open_run(base, command=["ftw", "sweep"], clock=at_noon) as run:
        (run.folder / "mark").write_text(mark)
    return run.folder


def marks(base: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in base.glob("*/mark")}


def test_runs_of_one_minute_all_stay_and_the_latest_is_the_last_that_ended(tmp_path: Path) -> None:
    for mark in "abcd":
        assert run_once(tmp_path, mark) == tmp_path / LATEST
    stamp = "run-20260304-1200"
    assert marks(tmp_path) == {LATEST: "d", stamp: "a", f"{stamp}-2": "b", f"{stamp}-3": "c"}
    assert sorted(file.name for file in (tmp_path / LATEST).iterdir()) == [
        "mark",
        "run.json",
        "timestamp-20260304-1200",
    ]


def test_the_stamp_is_the_one_line_that_the_legacy_format_has(tmp_path: Path) -> None:
    run_once(tmp_path, "a")
    assert (tmp_path / LATEST / "timestamp-20260304-1200").read_text() == f"Experiment started: {NOON}\n"


def test_while_it_runs_the_document_says_so_and_the_latest_is_the_one_before(tmp_path: Path) -> None:
    run_once(tmp_path, "a")
    with open_run(tmp_path, command="ftw sweep reference", clock=at_noon) as run:
        assert run.folder.name == "run-20260304-1200.running"
        assert read_document(run.folder) == {
            "schema": 1,
            "status": "running",
            "error": None,
            "command": "ftw sweep reference",
            "started": "2026-03-04T12:00:30+00:00",
            "seconds": None,
        }
        assert marks(tmp_path)[LATEST] == "a"


def test_the_end_is_told_with_its_document_and_how_long_it_took(tmp_path: Path) -> None:
    times = iter([NOON, NOON + timedelta(seconds=2.5)])
    with open_run(tmp_path, clock=lambda: next(times)) as run:
        run.finish("ok", {"status": "?", "model": {"name": "tiny"}})
    document = read_document(run.folder)
    assert (document["status"], document["seconds"], document["model"]) == ("ok", 2.5, {"name": "tiny"})


def test_a_document_that_a_worker_wrote_is_kept(tmp_path: Path) -> None:
    with open_run(tmp_path, clock=at_noon) as run:
        write_document(run.folder, {**read_document(run.folder), "facts": {"n": 3}})
    assert read_document(run.folder)["facts"] == {"n": 3}
    assert read_document(run.folder)["status"] == "ok"


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no"), "failed"), (KeyboardInterrupt(), "partial"), (Cancelled("stop"), "partial")],
)
def test_a_run_that_ends_by_an_error_says_which_in_valid_json(
    tmp_path: Path, error: BaseException, status: str
) -> None:
    def fall() -> None:
        with open_run(tmp_path, clock=at_noon) as run:
            (run.folder / "mark").write_text("rows")
            raise error

    with pytest.raises(type(error)):
        fall()
    document = json.loads((tmp_path / LATEST / "run.json").read_text())
    assert document["status"] == status
    assert document["error"] == {"type": type(error).__name__, "message": str(error) or type(error).__name__}
    assert marks(tmp_path) == {LATEST: "rows"}


def test_only_the_first_end_counts(tmp_path: Path) -> None:
    with open_run(tmp_path, clock=at_noon) as run:
        run.finish("failed", error={"type": "X", "message": "two of three models failed"})
    assert read_document(run.folder)["status"] == "failed"
    assert read_document(run.folder)["error"]["message"] == "two of three models failed"


def test_a_run_without_a_stamp_is_kept_under_the_time_of_its_rotation(tmp_path: Path) -> None:
    for mark in "ab":
        (tmp_path / LATEST).mkdir()
        (tmp_path / LATEST / "mark").write_text(mark)
        run_once(tmp_path, "new")
        (tmp_path / LATEST / "mark").unlink()
        for file in (tmp_path / LATEST).iterdir():
            file.unlink()
        (tmp_path / LATEST).rmdir()
    assert marks(tmp_path) == {"run-20260304-1200-rotated": "a", "run-20260304-1200-rotated-2": "b"}


def test_two_runs_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = open_run(tmp_path, clock=at_noon), open_run(tmp_path, clock=at_noon)
    for run, mark in ((first, "1"), (second, "2")):
        (run.folder / "mark").write_text(mark)
    assert second.folder.name == "run-20260304-1200-2.running"
    second.finish("ok")
    first.finish("ok")
    assert marks(tmp_path) == {LATEST: "1", "run-20260304-1200": "2"}


PAIR = """
import sys
from pathlib import Path
from ftw.sweep.files.rundir import open_run
base = Path(sys.argv[1])
for n in range(15):
    with open_run(base) as run:
        (run.folder / "mark").write_text(f"{sys.argv[2]}{n}")
"""


def test_two_processes_at_once_lose_no_run(tmp_path: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", PAIR, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(marks(tmp_path).values()) == sorted(f"{name}{n}" for name in "ab" for n in range(15))
    assert all(read_document(file.parent)["status"] == "ok" for file in tmp_path.glob("*/mark"))


KILLS = """
import os, signal, sys
from pathlib import Path
from ftw.sweep.files.rundir import LATEST, open_run, read_document
from datetime import UTC, datetime

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.chmod"}

def run(base, mark):
    with open_run(base, clock=lambda: datetime(2026, 3, 4, tzinfo=UTC)) as run:
        (run.folder / "mark").write_text(mark)
        wrote(mark)

def wrote(mark):
    pass

def killed_at(step, base):
    global wrote
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = step
    def count(event, _):
        nonlocal left
        if event in STEPS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    wrote = lambda mark: (base / "done").mkdir(exist_ok=True)
    sys.addaudithook(count)
    run(base, "killed")
    os._exit(0)

for step in range(1000):
    base = Path(sys.argv[1]) / str(step)
    run(base, "one")
    run(base, "two")
    code = killed_at(step, base)
    latest = base / LATEST
    if latest.exists():
        assert (latest / "mark").exists() and read_document(latest)["status"] == "ok", step
    wrote_mark = (base / "done").exists()
    run(base, "after")
    marks = sorted(file.read_text() for file in base.glob("*/mark") if file.read_text())
    assert [mark for mark in marks if mark != "killed"] == ["after", "one", "two"], (step, marks)
    assert "killed" in marks or not wrote_mark, (step, marks)
    assert (latest / "mark").read_text() == "after"
    assert not list(base.glob("*.running")), step
    for folder in base.glob("run-*"):
        assert read_document(folder)["status"] in ("ok", "failed")
    if code == 0:
        break
print(step)
"""


def test_a_process_that_is_killed_at_any_step_loses_no_run(tmp_path: Path) -> None:
    """SIGKILL before each operation on the file system, one after the other, until a run gets through."""
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 15 < int(done.stdout) < 100


def test_the_run_of_a_killed_process_is_put_away_as_failed(tmp_path: Path) -> None:
    killed = open_run(tmp_path, clock=at_noon)
    (killed.folder / "mark").write_text("half")
    for name, status in (("one", "ok"), ("two", "running")):
        (killed.folder / name).mkdir()
        write_document(killed.folder / name, {"schema": 1, "status": status, "model": {"name": name}})
    os.close(killed._lock)  # as the end of its process does
    run_once(tmp_path, "next")
    assert marks(tmp_path) == {LATEST: "next", "run-20260304-1200": "half"}
    folder = tmp_path / "run-20260304-1200"
    document = read_document(folder)
    assert (document["status"], document["error"]["type"]) == ("failed", "Killed")
    assert [read_document(folder / name)["status"] for name in ("one", "two")] == ["ok", "failed"]
    assert read_document(folder / "two")["model"] == {"name": "two"}


def test_what_a_killed_run_left_behind_never_writes_into_another_run(tmp_path: Path) -> None:
    killed = open_run(tmp_path, clock=at_noon)
    os.close(killed._lock)
    began_at = killed.folder
    with open_run(tmp_path, clock=at_noon) as run:  # in the same minute
        assert run.folder != began_at
        assert not began_at.exists()


def test_on_a_full_disk_the_run_stays_and_the_next_try_can_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [rundir.RESERVED]
    own = rundir.write_atomically

    def full(file: Path, data: bytes) -> None:
        free = room[0] if not (file.parent / rundir.RESERVE).exists() else 0
        if len(data) > free:
            raise StorageError(f"{file}: No space left on device; free some space")
        own(file, data)

    def fill() -> None:
        with open_run(tmp_path, clock=at_noon) as run:
            (run.folder / "mark").write_text("rows")
            monkeypatch.setattr(rundir, "write_atomically", full)
            run.finish("ok", {"notes": ["long"] * 20000})

    with pytest.raises(StorageError, match="No space left"):
        fill()
    assert marks(tmp_path) == {LATEST: "rows"}
    assert read_document(tmp_path / LATEST)["error"]["message"].endswith("free some space")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageError, match=r"file.*Not a directory; it is a file: give another folder for the runs with"
    ):
        open_run(tmp_path / "file" / "runs")
    with pytest.raises(
        StorageError, match=r"file: File exists; it is a file: give another folder for the runs with --out"
    ):
        open_run(tmp_path / "file")

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        open_run(tmp_path)
    assert not list(tmp_path.glob(".run-*"))


@pytest.mark.parametrize("where", [rundir.ROWS, f"model/{rundir.ROWS}"])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_run_that_ends_before_its_first_row_is_put_away_beside_one_that_has_rows(
    tmp_path: Path, where: str, error: BaseException
) -> None:
    def ended(mark: str, error: BaseException | None, rows: str | None) -> Path:
        with open_run(tmp_path, clock=at_noon) as run:
            (run.folder / "mark").write_text(mark)
            if rows is not None:
                (run.folder / rows).parent.mkdir(exist_ok=True)
                (run.folder / rows).write_text("")
            if error is not None:
                run.finish("partial" if isinstance(error, KeyboardInterrupt) else "failed", error=error)
        return run.folder

    stamp = "run-20260304-1200"
    assert ended("none yet", error, None).name == LATEST  # nothing is displaced
    assert ended("good", None, where).name == LATEST
    assert ended("no rows", error, None).name == f"{stamp}-2"
    assert ended("some rows", error, where).name == LATEST
    assert marks(tmp_path) == {stamp: "none yet", f"{stamp}-2": "no rows", f"{stamp}-3": "good", LATEST: "some rows"}
    assert read_document(tmp_path / f"{stamp}-2")["status"] in ("failed", "partial")


def test_a_number_that_json_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(NumericError, match=r"\$\.facts\.mean is nan"):
        write_document(tmp_path, {"facts": {"mean": float("nan")}})
    assert not list(tmp_path.iterdir())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner),
    max_leaves=12,
)


@settings(max_examples=30)
@given(st.dictionaries(WORDS, JSON, max_size=4))
def test_a_document_is_written_as_what_it_is(document: dict[str, Any]) -> None:
    assert json.loads(rundir._text(document, 0)) == document


def test_a_document_comes_back_as_it_was_but_for_what_is_no_text(tmp_path: Path) -> None:
    document = {"schema": 1, "status": "ok", "facts": {"median": 3.5, "why": None, "name": "Köln"}}
    write_document(tmp_path, {**document, "command": "ftw sweep \udcff"})
    assert read_document(tmp_path) == {**document, "command": "ftw sweep ?"}


def test_what_fits_on_a_line_stands_on_one(tmp_path: Path) -> None:
    write_document(tmp_path, {"a": {"value": 1, "why": None}, "ids": list(range(99)), "b": [{"c": "x" * 50}] * 3})
    lines = (tmp_path / "run.json").read_text().splitlines()
    assert lines[1] == ' "a": {"value": 1, "why": null},'
    assert lines[2].startswith(' "ids": [0, 1, 2,')
    assert len(lines) == 9


def test_a_folder_without_a_document_or_with_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*run\.json"):
        read_document(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ConfigError, match="is no run's document"):
        read_document(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 2, "status": "ok"}')
    with pytest.raises(ConfigError, match="has schema 2, this version reads 1: sweep again"):
        read_document(tmp_path)

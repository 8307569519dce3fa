"""The worker: a job becomes a run's files, and whatever ends it stands in `run.json`."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import ConfigError, ModelError, NumericError, StorageError
from ftw.sweep import worker
from ftw.sweep.files.finished import read_finished
from ftw.sweep.files.parquet import read_provenance, read_rows, rows_sha256
from ftw.sweep.files.rundir import read_document
from ftw.sweep.job import Job
from ftw.sweep.run import Sweep
from ftw.sweep.study import Study
from ftw.sweep.worker import run_job, settled

ROWS = "text,answer,relation,fact\nthe cat sat on,mat,r,a\none two three,four,r,b\nred and blue,green,r,c\n"


class Told:
    """A story that remembers, and may be called off."""

    def __init__(self, stop: str = "") -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []
        self._stop = stop

    def step(self, what: str, done: int, total: int) -> None:
        self.steps.append(what)
        if what == self._stop:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def battery(tmp_path: Path) -> str:
    file = tmp_path / "facts.csv"
    file.write_text(ROWS)
    return str(file)


class Light(Study):
    """A study that concludes nothing."""

    def __init__(self) -> None:
        pass

    def document(self) -> dict[str, Any]:
        return {"audit": None}


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies take no time."""
    monkeypatch.setattr(worker, "study", lambda *args, **kwargs: Light())


def same_rows(one: Path, other: Path) -> bool:
    """Whether two runs have the same rows, bit for bit."""
    a, b = read_rows(one), read_rows(other)
    return a.columns.keys() == b.columns.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a.columns)


def job(folder: Path, battery: str, **more: Any) -> Job:
    folder.mkdir()
    return Job.read({"model": ModelSpec(name="tiny"), "battery": battery, "folder": folder, **more}, source="the test")


def test_a_job_leaves_rows_document_and_legacy_files(tmp_path: Path, battery: str) -> None:
    one = job(tmp_path / "run", battery, lenses=("logit", "raw"), command="ftw sweep tiny", k=7)
    told = Told()
    ticks = iter([10.0, 10.5, 14.0])
    run_job(one, told, clock=lambda: datetime(2026, 1, 2, 3, 4, tzinfo=UTC), ticks=lambda: next(ticks))
    document = read_document(one.folder)
    assert (document["status"], document["error"], document["command"]) == ("ok", None, "ftw sweep tiny")
    assert (document["started"], document["seconds"]) == ("2026-01-02T03:04:00+00:00", 4.0)
    assert Job.read(document["job"], source="run.json") == one  # the whole configuration, as it was used
    table = read_rows(one.folder)
    assert table.lenses == ("logit", "raw")
    assert table["top_ids"].shape[1] == 7
    assert read_provenance(one.folder)["battery"]["name"] == "facts"
    assert json.loads((one.folder / "legacy" / "output-tiny.json").read_text())
    assert (one.folder / "legacy" / "timestamp-20260102-0304").exists()
    assert told.steps == list(dict.fromkeys(told.steps))
    assert "Reading layers" in told.steps


@pytest.mark.usefixtures("light")
def test_a_resumed_job_takes_up_finished_passes_and_gives_the_same_rows(tmp_path: Path, battery: str) -> None:
    common = {"lenses": ("logit",), "legacy": "none", "cache_dir": tmp_path / "cache"}
    for name in ("one", "again"):
        told = Told()
        run_job(job(tmp_path / name, battery, **common), told)
        assert told.notes == []  # without --resume everything is computed
    told = Told()
    run_job(job(tmp_path / "resumed", battery, resume=True, **common), told)
    assert any("finished passes were taken up" in note for note in told.notes)
    for other in ("again", "resumed"):
        assert same_rows(tmp_path / "one", tmp_path / other)
    assert not (tmp_path / "one" / "legacy").exists()


def test_a_job_that_fails_says_so_in_its_documents(tmp_path: Path) -> None:
    one = job(tmp_path / "run", "no-such.toml")
    with pytest.raises(ConfigError, match=r"no-such\.toml"):
        run_job(one, Told())
    document = read_document(one.folder)
    assert document["status"] == "failed"
    assert document["error"]["type"] == "ConfigError"
    legacy = json.loads((one.folder / "legacy" / "output-tiny.json").read_text())
    assert legacy["status"] == "failed"
    assert "no-such" in legacy["error"]["message"]


def test_a_job_that_is_called_off_is_partial(tmp_path: Path, battery: str) -> None:
    one = job(tmp_path / "run", battery, lenses=("logit",))
    with pytest.raises(KeyboardInterrupt):
        run_job(one, Told(stop="Reading layers"))
    assert read_document(one.folder)["status"] == "partial"


def test_rows_are_kept_when_what_follows_fails(tmp_path: Path, battery: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(worker, "study", broken)
    one = job(tmp_path / "run", battery, lenses=("logit",), positions="last")
    with pytest.raises(ModelError, match=r"memory ran out while tiny was swept: use --dtype bfloat16, --device map"):
        run_job(one, Told())
    assert len(read_rows(one.folder)) == 3 * 5
    assert read_document(one.folder)["error"]["type"] == "ModelError"


LONG = "text,answer\nthe cat sat on the mat and then it slept for a very long time in the,sun\none two three,four\n"


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (NumericError("no finite distribution"), NumericError, "failed"),
        (torch.OutOfMemoryError("full"), ModelError, "failed"),
        (KeyboardInterrupt("called off"), KeyboardInterrupt, "partial"),
    ],
)
def test_rows_of_finished_prompts_are_kept_when_a_pass_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: type[BaseException], status: str
) -> None:
    file = tmp_path / "facts.csv"
    file.write_text(LONG)
    own, seen = Sweep._measure, []

    def measure(*args: Any) -> Any:
        seen.append(args)
        if len(seen) == 2:
            raise error
        return own(*args)

    monkeypatch.setattr(Sweep, "_measure", measure)
    one, told = job(tmp_path / "run", str(file), lenses=("logit",), legacy="none"), Told()
    with pytest.raises(kind):
        run_job(one, told)
    table, document = read_rows(one.folder), read_document(one.folder)
    (item,) = table.items
    assert len(table) == len(item.ids) * 5 > 200  # every position of the first pass's prompt
    assert (document["status"], document["error"]["type"]) == (status, kind.__name__)
    rows = {"sha256": rows_sha256(one.folder), "n": len(table), "prompts": 1, "of": 2}
    assert document["rows"] == rows
    assert told.notes == ["the rows of 1 finished prompts of 2 are kept"]
    with pytest.raises(ConfigError, match=rf"the run in .* is {status}: {kind.__name__}: .*sweep again, with --resume"):
        read_finished(one.folder)


def test_a_disk_that_takes_no_rows_does_not_hide_what_ended_the_sweep(
    tmp_path: Path, battery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *args: object) -> None:
        raise StorageError(f"{folder}/rows.parquet: No space left on device")

    monkeypatch.setattr(worker, "write_rows", full)
    one = job(tmp_path / "run", battery, lenses=("logit",), legacy="none")
    with pytest.raises(KeyboardInterrupt):
        run_job(one, Told(stop="Reading layers"))
    assert read_document(one.folder)["status"] == "partial"
    other = job(tmp_path / "other", battery, lenses=("logit",), legacy="none")
    with pytest.raises(StorageError):
        run_job(other, Told())
    # the folder changes its name when the run ends: files in it are told by their own
    assert read_document(other.folder)["error"]["message"] == "rows.parquet: No space left on device"


@pytest.mark.usefixtures("light")
def test_a_finished_run_names_the_digest_of_its_rows(tmp_path: Path, battery: str) -> None:
    one = job(tmp_path / "run", battery, lenses=("logit",), legacy="none")
    run_job(one, Told())
    rows = read_document(one.folder)["rows"]
    assert (rows["sha256"], rows["prompts"], rows["of"]) == (rows_sha256(one.folder), 3, 3)


@pytest.mark.usefixtures("light")
def test_without_a_place_for_finished_passes_the_run_goes_on_but_cannot_be_resumed(
    tmp_path: Path, battery: str
) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    common = {"lenses": ("logit",), "legacy": "none", "cache_dir": tmp_path / "cache"}
    told = Told()
    run_job(job(tmp_path / "run", battery, **common), told)
    assert any("finished passes are not kept" in note for note in told.notes)
    with pytest.raises(StorageError, match="cache"):
        run_job(job(tmp_path / "resumed", battery, resume=True, **common), Told())


@pytest.mark.usefixtures("light")
def test_a_full_cache_ends_no_run(tmp_path: Path, battery: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(worker.PassCache, "put", full)
    told = Told()
    run_job(job(tmp_path / "run", battery, lenses=("logit",), legacy="none", cache_dir=tmp_path / "c"), told)
    assert told.notes == ["finished passes are kept no longer: no space left"]


@pytest.mark.usefixtures("light")
def test_states_are_kept_where_they_are_asked_for(tmp_path: Path, battery: str) -> None:
    one = job(tmp_path / "run", battery, lenses=("logit",), legacy="none", keep_states=True)
    run_job(one, Told())
    assert len(list((one.folder / "states").glob("*.safetensors"))) == 3


def test_temperatures_are_fitted_where_there_is_text(tmp_path: Path, battery: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Number {n} is a number, and {n + 1} comes after it." for n in range(60)))
    one = job(tmp_path / "run", battery, lenses=("logit",), legacy="none", heldout=str(text))
    run_job(one, Told())
    found = {each["name"]: each for each in read_document(one.folder)["audit"]["findings"]}
    assert found["temperature"]["why"] is None


def test_too_little_text_is_an_error_before_anything_is_swept(tmp_path: Path, battery: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One document only.")
    told = Told()
    with pytest.raises(ConfigError, match=r"text\.txt holds"):
        run_job(job(tmp_path / "run", battery, lenses=("logit",), heldout=str(text)), told)
    assert "Reading layers" not in told.steps


def test_threads_and_determinism_are_those_of_the_job_and_come_back_afterwards(tmp_path: Path, battery: str) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with settled(job(tmp_path / "run", battery, threads=1, seed=5)):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        assert torch.initial_seed() == 5
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


@pytest.mark.slow
def test_as_a_process_it_tells_its_story_in_json_alone_and_ends_with_the_errors_code(tmp_path: Path) -> None:
    one = job(tmp_path / "run", "nothing-like-it")
    one.save(one.folder / "job.json")
    command = [sys.executable, "-m", "ftw.sweep.worker", str(one.folder / "job.json")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 2, ran.stderr
    for line in ran.stdout.splitlines():
        json.loads(line)
    assert "nothing-like-it is no battery" in ran.stderr
    assert read_document(one.folder)["error"]["type"] == "ConfigError"

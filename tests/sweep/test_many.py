"""Each job runs in a process of its own: what ends one is told, and the next one runs."""

import json
import sys
import textwrap
from pathlib import Path

import pytest

from ftw.substrate.config import ModelSpec
from ftw.sweep.files.rundir import read_document
from ftw.sweep.job import Job
from ftw.sweep.many import LOG, Ended, run_all, written

HEAD = """
import json, os, pathlib, signal, sys, time
job = json.loads(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(job["folder"])
def verdict(status, error=None):
    document = {"schema": 1, "status": status, "error": error}
    (folder / "run.json").write_text(json.dumps(document))
def tell(**event):
    print(json.dumps(event), flush=True)
"""
GOOD = "tell(step='Reading', done=1, total=2); print('noise'); print('[1]'); tell(note='so it is'); verdict('ok')"


class Told:
    """A listener that remembers."""

    def __init__(self, *, interrupts: int = 0) -> None:
        self.heard: list[object] = []
        self._interrupts = interrupts

    def began(self, job: Job, index: int, count: int) -> None:
        self.heard.append((job.model.name, index, count))

    def step(self, what: str, done: int, total: int) -> None:
        self.heard.append((what, done, total))
        if self._interrupts:
            self._interrupts -= 1
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.heard.append(text)


def worker(code: str) -> list[str]:
    """A process that does this with its job."""
    return [sys.executable, "-c", HEAD + textwrap.dedent(code)]


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(model=ModelSpec(name=name), battery="germany", folder=folder / name) for name in names]


def ran(folder: Path, code: str, *names: str) -> list[Ended]:
    return list(run_all(jobs(folder, *(names or ("a",))), Told(), worker=worker(code)))


def test_a_job_that_goes_well_is_ok_and_its_story_is_passed_on(tmp_path: Path) -> None:
    told = Told()
    (ended,) = run_all(jobs(tmp_path, "a"), told, worker=worker(GOOD))
    assert (ended.model, ended.status, ended.code, ended.message) == ("a", "ok", 0, "")
    assert told.heard == [("a", 0, 1), ("Reading", 1, 2), "so it is"]
    assert not (tmp_path / "a" / LOG).exists()  # nothing was written to stderr


def test_a_worker_is_handed_the_whole_job_in_a_file(tmp_path: Path) -> None:
    ran(tmp_path, "(folder / 'got').write_text(pathlib.Path(sys.argv[1]).read_text()); verdict('ok')")
    assert Job.load(tmp_path / "a" / "job.json") == jobs(tmp_path, "a")[0]
    assert Job.load(tmp_path / "a" / "got") == jobs(tmp_path, "a")[0]


def test_one_that_crashes_is_told_with_its_last_words_and_the_next_one_runs(tmp_path: Path) -> None:
    code = f"sys.exit('line one\\nit broke') if job['model']['name'] == 'a' else exec({GOOD!r})"
    first, second = ran(tmp_path, code, "a", "b")
    assert (first.status, first.kind, first.code) == ("failed", "Crashed", 1)
    assert "ended with code 1 before its run did: it broke" in first.message
    assert read_document(tmp_path / "a")["error"]["message"] == first.message
    assert (tmp_path / "a" / LOG).read_text().startswith("line one")
    assert second.status == "ok"


def test_one_that_the_system_kills_is_told_with_the_ways_to_take_less_memory(tmp_path: Path) -> None:
    code = "verdict('running'); os.kill(os.getpid(), signal.SIGKILL)"
    first, second = ran(tmp_path, code, "a", "b")
    assert (first.status, first.kind, first.code) == ("failed", "Killed", 1)
    assert "memory" in first.message
    assert "--dtype bfloat16" in first.message
    document = read_document(tmp_path / "a")
    assert document["status"] == "failed"
    assert document["error"]["type"] == "Killed"
    assert second.kind == "Killed"


def test_one_that_cannot_be_written_down_or_started_has_failed_and_the_next_one_runs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where the folder should be")
    (tmp_path / "b" / LOG).mkdir(parents=True)
    (tmp_path / "c" / "job.json").mkdir(parents=True)
    first, second, third, last = ran(tmp_path, GOOD, "a", "b", "c", "d")
    for ended, model in ((first, "a"), (second, "b"), (third, "c")):
        assert (ended.model, ended.status, ended.kind, ended.code) == (model, "failed", "StorageError", 1)
    assert "File exists; the sweep of a cannot begin" in first.message
    assert "another folder with --out" in second.message
    assert read_document(tmp_path / "b")["error"]["message"] == second.message
    assert last.status == "ok"


def test_one_that_another_signal_ends_is_told_by_its_name(tmp_path: Path) -> None:
    (ended,) = ran(tmp_path, "os.kill(os.getpid(), signal.SIGABRT)")
    assert ended.kind == "Killed"
    assert "SIGABRT" in ended.message


def test_the_verdict_that_a_worker_leaves_is_taken_as_it_stands(tmp_path: Path) -> None:
    code = "verdict('failed', {'type': 'ConfigError', 'message': 'no such key'}); sys.exit(2)"
    (ended,) = ran(tmp_path, code)
    assert (ended.status, ended.kind, ended.message, ended.code) == ("failed", "ConfigError", "no such key", 2)


def test_a_worker_that_goes_without_a_verdict_has_failed(tmp_path: Path) -> None:
    (ended,) = ran(tmp_path, "pass")
    assert (ended.status, ended.code) == ("failed", 1)
    assert read_document(tmp_path / "a")["status"] == "failed"


def test_an_interrupt_ends_the_running_job_as_partial_and_begins_no_other(tmp_path: Path) -> None:
    code = """
    def stop(*_):
        verdict('partial', {'type': 'KeyboardInterrupt', 'message': 'called off'})
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    tell(step='Reading', done=0, total=9)
    time.sleep(60)
    """
    told = Told(interrupts=1)
    series = run_all(jobs(tmp_path, "a", "b"), told, worker=worker(code))
    ended = next(series)
    assert (ended.status, ended.code, ended.message) == ("partial", 130, "called off")
    with pytest.raises(KeyboardInterrupt):
        next(series)
    assert not (tmp_path / "b").exists()


def test_one_that_is_interrupted_before_it_could_say_so_is_partial_too(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGINT, signal.SIG_DFL); tell(step='x', done=0, total=0); time.sleep(60)"
    series = run_all(jobs(tmp_path, "a"), Told(interrupts=1), worker=worker(code))
    ended = next(series)
    assert (ended.status, ended.kind) == ("partial", "Interrupted")
    assert read_document(tmp_path / "a")["status"] == "partial"


def test_one_that_is_deaf_to_interrupts_is_ended_after_a_while(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN); tell(step='x', done=0, total=0); time.sleep(60)"
    series = run_all(jobs(tmp_path, "a"), Told(interrupts=1), worker=worker(code), grace_s=0.2)
    assert next(series).status == "failed"
    with pytest.raises(KeyboardInterrupt):
        next(series)


def test_a_listener_that_fails_leaves_no_worker_behind(tmp_path: Path) -> None:
    class Broken(Told):
        def note(self, text: str) -> None:
            raise RuntimeError("the screen is gone")

    code = "(folder / 'pid').write_text(str(os.getpid())); tell(note='x'); time.sleep(60)"
    with pytest.raises(RuntimeError, match="the screen is gone"):
        list(run_all(jobs(tmp_path, "a"), Broken(), worker=worker(code)))
    assert not Path(f"/proc/{(tmp_path / 'a' / 'pid').read_text()}").exists()


def test_workers_have_the_setting_that_makes_cuda_sums_repeatable(tmp_path: Path) -> None:
    ran(tmp_path, "(folder / 'got').write_text(os.environ['CUBLAS_WORKSPACE_CONFIG']); verdict('ok')")
    assert (tmp_path / "a" / "got").read_text() == ":4096:8"


def test_seconds_come_from_the_clock_that_is_given(tmp_path: Path) -> None:
    times = iter([1.0, 3.5])
    (ended,) = run_all(jobs(tmp_path, "a"), Told(), worker=worker(GOOD), clock=lambda: next(times))
    assert ended.seconds == 2.5


def test_a_folder_without_a_document_tells_nothing(tmp_path: Path) -> None:
    assert written(tmp_path) == {}
    (tmp_path / "run.json").write_text(json.dumps({"half": 1}))
    assert written(tmp_path) == {}

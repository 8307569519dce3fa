"""Many models, one after the other, each swept by a process of its own: what breaks one leaves the others alone.

A worker is handed its job in a file, tells how far it is in lines of JSON on its stdout, and leaves its verdict in the
run's `run.json`. What it writes to stderr goes to `worker.log` beside it.

The rule of the file: a worker that is gone has said why, or it is said for it. No run stays `running`.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, runtime_checkable

from ftw.substrate.config import environment
from ftw.substrate.errors import ConfigError, StorageError
from ftw.sweep.files.rundir import SCHEMA, read_document, write_document
from ftw.sweep.job import FILE, Job

WORKER = (sys.executable, "-m", "ftw.sweep.worker")
"""The command that takes a job's file."""
LOG = "worker.log"
"""What a worker wrote to stderr; removed where that is nothing."""
GRACE_S = 60.0
"""Seconds that an interrupted worker has to put its run in order. A second interrupt ends it at once."""
CUBLAS = ":4096:8"
"""Without this setting cuBLAS may give another sum each time (CUBLAS_WORKSPACE_CONFIG, read when CUDA starts)."""


@runtime_checkable
class Story(Protocol):
    """Whoever is told how a job goes."""

    def step(self, what: str, done: int, total: int) -> None:
        """So many of so many steps of this are done; a total of 0 where nobody knows."""
        ...

    def note(self, text: str) -> None:
        """Something that a person should know, in one line."""
        ...


@runtime_checkable
class Listener(Story, Protocol):
    """Whoever is told how a series of jobs goes."""

    def began(self, job: Job, index: int, count: int) -> None:
        """The job at this place of the series begins."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """How one job ended."""

    model: str
    folder: Path
    status: Literal["ok", "failed", "partial"]
    seconds: float
    kind: str = ""
    """The error's type; empty where all went well."""
    message: str = ""
    code: int = 0
    """The exit code that a job alone would end with."""


def run_all(
    jobs: Sequence[Job],
    listener: Listener,
    *,
    worker: Sequence[str] = WORKER,
    clock: Callable[[], float] = time.monotonic,
    grace_s: float = GRACE_S,
) -> Iterator[Ended]:
    """Each job in a process of its own, in order. Whatever ends one, the next one runs.

    An interrupt ends the running job, whose end is still given, and is then raised again. A job that cannot even be
    written down or started has failed by that.
    """
    for index, job in enumerate(jobs):
        listener.began(job, index, len(jobs))
        began = clock()
        interrupt = None
        try:
            process = _started(job, worker)
        except StorageError as error:
            yield _never_ran(job, error, clock() - began)
        else:
            code, interrupt = _watched(process, job.folder / LOG, listener, grace_s)
            yield _verdict(job, code, clock() - began)
        if interrupt is not None:
            raise interrupt


def _started(job: Job, worker: Sequence[str]) -> subprocess.Popen[bytes]:
    """The worker of a job, which is written down for it. Raises StorageError."""
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        file = job.folder / FILE
        job.save(file)
        with (job.folder / LOG).open("wb") as errors:
            # a session of its own: Ctrl-C in the terminal reaches us alone, and we pass it on
            return subprocess.Popen(
                [*worker, str(file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=environment(CUBLAS_WORKSPACE_CONFIG=CUBLAS),
            )
    except OSError as error:
        what = error.filename or job.folder
        raise StorageError(
            f"{what}: {error.strerror or error}; the sweep of {job.model.name} cannot begin: free some space, or give "
            "another folder with --out"
        ) from error


def _never_ran(job: Job, error: StorageError, seconds: float) -> Ended:
    """The end of a job whose worker could not be started, told in its folder where there is one."""
    told = {"type": type(error).__name__, "message": str(error)}
    head = {"schema": SCHEMA, "command": job.command, "model": {"name": job.model.name}}
    with suppress(StorageError):
        write_document(job.folder, {**head, "status": "failed", "error": told, "seconds": round(seconds, 3)})
    return Ended(job.model.name, job.folder, "failed", seconds, told["type"], told["message"], error.exit_code)


def _watched(
    process: subprocess.Popen[bytes], log: Path, story: Story, grace_s: float
) -> tuple[int, KeyboardInterrupt | None]:
    """The exit code of a worker, and the interrupt that ended it if one did."""
    try:
        with process:
            try:
                assert process.stdout is not None
                _listen(process.stdout, story)
                return process.wait(), None
            except KeyboardInterrupt as interrupt:
                return _interrupted(process, grace_s), interrupt
            except BaseException:
                process.kill()
                raise
    finally:
        if not log.stat().st_size:
            log.unlink()


def _listen(lines: IO[bytes], story: Story) -> None:
    """Pass on what a worker tells. A line that is no event is none of ours."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        match event:
            case {"step": str(what), "done": int(done), "total": int(total)}:
                story.step(what, done, total)
            case {"note": str(text)}:
                story.note(text)


def _interrupted(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask a worker to end, wait, and end it."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        # what it still tells is read, so that it never waits for us
        process.communicate(timeout=grace_s)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
    return process.wait()


def _verdict(job: Job, code: int, seconds: float) -> Ended:
    """What the run's file says, or what the exit code says where the worker could not."""
    document = written(job.folder)
    status = document.get("status")
    error: dict[str, Any] = document.get("error") or {}
    name = job.model.name
    if status == "ok" and code == 0:
        return Ended(name, job.folder, "ok", seconds)
    if status not in ("failed", "partial"):
        status = "partial" if code in (130, -signal.SIGINT) else "failed"
        error = {"type": _kind(code), "message": _cause(code, job.folder / LOG)}
        head = {"schema": SCHEMA, "command": job.command, "model": {"name": name}, **document}
        with suppress(StorageError):  # what ended the worker is told all the same
            write_document(job.folder, {**head, "status": status, "error": error, "seconds": round(seconds, 3)})
    known: Literal["failed", "partial"] = "partial" if status == "partial" else "failed"
    told = str(error.get("type", "")), str(error.get("message", ""))
    return Ended(name, job.folder, known, seconds, *told, code if code > 0 else 1)


def written(folder: Path) -> dict[str, Any]:
    """A run's document as far as it was written; empty where there is none."""
    try:
        return read_document(folder)
    except ConfigError:
        return {}


def _kind(code: int) -> str:
    if code in (130, -signal.SIGINT):
        return "Interrupted"
    return "Killed" if code < 0 else "Crashed"


def _cause(code: int, log: Path) -> str:
    """Why a worker ended that could not say so itself."""
    if code in (130, -signal.SIGINT):
        return "called off before its run began"
    if code == -signal.SIGKILL:
        return (
            "the system ended the process (SIGKILL), as it does where memory runs out: use --dtype bfloat16, "
            "--device map, or a smaller model; --resume takes up the passes that were finished"
        )
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    last = f": {lines[-1][:300]}" if lines else ""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code} before its run did"
    return f"the process {how}{last}; {LOG} in the run's folder holds the rest"

"""Run folders: where a run is written, and how the runs before it are kept.

A run is written in a folder of its own, `run-YYYYMMDD-HHMM.running`. When it ends, the `run-latest` of before steps
aside as `run-<its stamp>` and the new one takes its place. Two runs in one minute get numbers (`…-2`), two processes at
once never share a folder, and a process that is killed at any moment leaves every run where it can be found.

The rule of the file: a folder only ever changes its name. `run-latest` is a run that ended, whole, or not there.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from ftw.substrate.canonical import canonical_json, read_json
from ftw.substrate.errors import Cancelled, ConfigError, StorageError
from ftw.substrate.manifest import write_atomically
from ftw.sweep.files.folded import fold, unfold

if sys.platform != "win32":  # there, runs of killed processes are not told from running ones, and stay as they are
    import fcntl

SCHEMA = 1
"""Which keys a run's document has."""
DOCUMENT = "run.json"
LATEST = "run-latest"
RUNNING = ".running"
"""What the name of a folder ends with while its run is written."""
MOST_BYTES = 1 << 30
LOCK = ".lock"
RESERVE = ".reserve"
LINE = 120
RESERVED = 64 << 10
"""Bytes that are given back before a run's end is written: a full disk still learns why the run failed."""

Status: TypeAlias = Literal["running", "ok", "failed", "partial"]
"""`running`: being written, or its process was killed. `ok`: complete. `failed`: ended by an error. `partial`: called
off in the middle; what is there is right."""
Clock: TypeAlias = Callable[[], datetime]


def now() -> datetime:
    """The time, with the zone of this machine."""
    return datetime.now().astimezone()


def open_run(base: Path, *, command: Sequence[str] | str = (), clock: Clock = now) -> "Run":
    """A new run under `base`, with status `running` in its document from the first moment.

    Runs of processes that were killed are put away on the way: with status `failed`, and with all they wrote.
    Raises StorageError.
    """
    with _storage(base), _locked(base):
        for folder in sorted(base.glob(f"run-*{RUNNING}")):
            _bury(base, folder)
        return Run(base, command, clock)


class Run:
    """One run that is being written. Leaving it by an exception ends it as failed, called off as partial."""

    folder: Path
    """Where to write now. It changes its name to `run-latest` when the run ends."""

    def __init__(self, base: Path, command: Sequence[str] | str, clock: Clock) -> None:
        self.base = base
        self.started = clock()
        self.is_over = False
        self._clock = clock
        stamp = f"{self.started:%Y%m%d-%H%M}"
        fresh = Path(tempfile.mkdtemp(prefix=".run-", dir=base))
        try:
            fresh.chmod(0o755)
            self._lock = _hold(fresh / LOCK)
            (fresh / RESERVE).write_bytes(bytes(RESERVED))
            (fresh / f"timestamp-{stamp}").write_text(f"Experiment started: {self.started}\n", encoding="utf-8")
            self._head = {
                "schema": SCHEMA,
                "command": command if isinstance(command, str) else list(command),
                "started": self.started.astimezone(UTC).isoformat(timespec="seconds"),
            }
            write_document(fresh, {**self._head, "status": "running", "error": None, "seconds": None})
            self.folder = _rename(fresh, base, f"run-{stamp}", RUNNING)
        except (OSError, StorageError):
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def finish(
        self,
        status: Status,
        document: Mapping[str, Any] | None = None,
        *,
        error: BaseException | Mapping[str, str] | None = None,
    ) -> Path:
        """Writes the document with status, error and seconds, makes this run `run-latest`, and gives its folder.

        Where no document is given, the one in the folder stays (a worker may have written it). Only the first call
        counts. Raises NumericError for NaN in the document, StorageError: then the run stays where it was written.
        """
        if self.is_over:
            return self.folder
        told = dict(document) if document is not None else _read_or_nothing(self.folder)
        told = {**told, **self._head, "status": status, "error": _told(error)}
        told["seconds"] = round((self._clock() - self.started).total_seconds(), 3)
        (self.folder / RESERVE).unlink(missing_ok=True)
        write_document(self.folder, told)
        with _storage(self.base), _locked(self.base):
            (self.folder / LOCK).unlink(missing_ok=True)
            self.folder = _publish(self.base, self.folder, self._clock)
        self.is_over = True
        os.close(self._lock)
        return self.folder

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish("ok")
            return
        with suppress(StorageError):  # the first error is the one to tell; the run stays where it was written
            self.finish("partial" if isinstance(error, KeyboardInterrupt | Cancelled) else "failed", error=error)


def write_document(folder: Path, document: Mapping[str, Any]) -> Path:
    """Writes a document in one step, milestones folded. Raises NumericError naming the key of a NaN, StorageError."""
    document = fold(document)
    try:
        text = _text(document, 0)
    except ValueError:
        canonical_json(document)  # names the key
        raise
    file = folder / DOCUMENT
    write_atomically(file, text.encode("utf-8", "replace") + b"\n")  # a path in the command may be no text
    return file


def _text(value: Any, depth: int) -> str:
    """JSON with one line for what fits on it, and for lists of plain values: a third of the size, and easy to read."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if len(line) + depth <= LINE or not any(isinstance(child, Mapping | list | tuple) for child in children):
        return line
    inner = " " * (depth + 1)
    if isinstance(value, Mapping):
        parts = [f"{inner}{json.dumps(key)}: {_text(child, depth + 1)}" for key, child in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{' ' * depth}}}"
    return "[\n" + ",\n".join(inner + _text(child, depth + 1) for child in value) + f"\n{' ' * depth}]"


def read_document(folder: Path) -> dict[str, Any]:
    """A run's document. Raises ConfigError where there is none, or one of another schema, StorageError."""
    file = folder / DOCUMENT
    document = read_json(file, MOST_BYTES)
    if not isinstance(document, dict) or "schema" not in document or "status" not in document:
        raise ConfigError(f"{file} is no run's document: it has no schema and status")
    if document["schema"] != SCHEMA:
        raise ConfigError(
            f"{file} has schema {document['schema']!r}, this version reads {SCHEMA}: sweep again, or use the version "
            "that wrote it"
        )
    return unfold(document)


def _read_or_nothing(folder: Path) -> dict[str, Any]:
    try:
        return read_document(folder)
    except ConfigError:
        return {}


def _told(error: BaseException | Mapping[str, str] | None) -> dict[str, str] | None:
    if isinstance(error, BaseException):
        return {"type": type(error).__name__, "message": str(error) or type(error).__name__}
    return None if error is None else dict(error)


def _bury(base: Path, folder: Path) -> None:
    """Puts the run of a killed process away. One that still runs holds its lock, and stays."""
    if sys.platform == "win32":
        return
    try:
        lock = _hold(folder / LOCK)
    except BlockingIOError:
        return
    try:
        (folder / RESERVE).unlink(missing_ok=True)
        for part in (folder, *sorted(file.parent for file in folder.glob(f"*/{DOCUMENT}"))):
            _end(part)
        (folder / LOCK).unlink(missing_ok=True)
        _rename(folder, base, folder.name.removesuffix(RUNNING))
    finally:
        os.close(lock)


def _end(folder: Path) -> None:
    """Says of a run, or of one model of it, that its process is gone. One that was over stays as it is."""
    document = _read_or_nothing(folder)
    if document.get("status") in (None, "running"):
        why = {"type": "Killed", "message": "the process ended without a word; what it wrote before is here"}
        write_document(folder, {"schema": SCHEMA, **document, "status": "failed", "error": why})


def _publish(base: Path, folder: Path, clock: Clock) -> Path:
    """Makes a folder `run-latest`. Killed between the two steps, there is none, and every run has its name."""
    latest = base / LATEST
    if latest.exists() or latest.is_symlink():
        _rename(latest, base, f"run-{_stamp(latest, clock)}")
    return folder.rename(latest)


def _stamp(folder: Path, clock: Clock) -> str:
    """What a folder's time stamp says, or `<now>-rotated` where it has none."""
    stamps = sorted(folder.glob("timestamp-*"))
    return stamps[-1].name.removeprefix("timestamp-") if stamps else f"{clock():%Y%m%d-%H%M}-rotated"


def _rename(folder: Path, base: Path, name: str, suffix: str = "") -> Path:
    """Gives a folder the first of the names `name`, `name-2`, … (each with `suffix`) that is free.

    A run begins under a name that is free without the suffix too: what a killed run left behind still writes to its old
    name, and must not find another run there.
    """
    number = 1
    while True:
        free = base / (name if number == 1 else f"{name}-{number}")
        target = free.with_name(free.name + suffix)
        if not target.exists() and not (suffix and free.exists()):
            return folder.rename(target)
        number += 1


def _hold(file: Path) -> int:
    """An open lock on a file, for as long as this process lives. Raises BlockingIOError where another one has it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """Alone among the processes that open or end a run under `base`. Waits; a killed process frees it."""
    base.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(base / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _storage(base: Path) -> Iterator[None]:
    """Turns what the disk says into a StorageError."""
    try:
        yield
    except OSError as error:
        where = error.filename or base
        raise StorageError(
            f"{where}: {error.strerror or error}; free some space, or give another folder for the runs"
        ) from error

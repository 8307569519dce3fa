"""Run folders: where a run is written, and how the runs before it are kept.

A run is written in a folder of its own, `run-YYYYMMDD-HHMM.running`. When it ends, the `run-latest` of before steps
aside as `run-<its stamp>` and the new one takes its place. Two runs in one minute get numbers (`…-2`), two processes at
once never share a folder, and a process that is killed at any moment leaves every run where it can be found.

The rule of the file: a folder only ever changes its name. `run-latest` is a run that ended, whole, or not there; where
one has rows, it is one with rows.
"""

import errno
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
from typing import Any, Literal, TypeAlias, get_args

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
ROWS = "rows.parquet"
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
BLOCKS: Mapping[str, type] = {
    **dict.fromkeys(("error", "model", "provenance", "gate", "battery", "sweep", "thresholds", "rows"), dict),
    **dict.fromkeys(("statistics", "audit", "guidance", "milestones"), dict),
    **dict.fromkeys(("prompts", "temperatures", "notes", "models"), list),
}
"""Blocks of a document with their types. Any may be missing, or null."""
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
    """Where to write now. It changes its name when the run ends: to `run-latest`, or without rows to `run-<stamp>`."""

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
    """A run's document, however it ended. What a finished one must have besides: `ftw.sweep.files.finished`.

    Raises ConfigError where there is none, one of another schema, or one with a block of another type (file and key are
    named), StorageError.
    """
    file = folder / DOCUMENT
    document = read_json(file, MOST_BYTES)
    if not isinstance(document, dict) or "schema" not in document or "status" not in document:
        raise ConfigError(f"{file} is no run's document: it has no schema and status")
    if document["schema"] != SCHEMA:
        raise ConfigError(
            f"{file} has schema {document['schema']!r}, this version reads {SCHEMA}: sweep again, or use the version "
            "that wrote it"
        )
    _require_types(file, document)
    try:
        return unfold(document)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: its block 'milestones' is not what was written. Sweep again") from error


def _require_types(file: Path, document: Mapping[str, Any]) -> None:
    """Raise ConfigError, naming file and key, for a block that is there and not of its type."""
    if document["status"] not in get_args(Status):
        raise ConfigError(f"{file} has status {document['status']!r}: it is one of {', '.join(get_args(Status))}")
    for key, kind in BLOCKS.items():
        if document.get(key) is not None and not isinstance(document[key], kind):
            raise ConfigError(
                f"{file}: {key} is a {type(document[key]).__name__}, not a {kind.__name__}: it is not what was "
                "written. Sweep again"
            )
    if (error := document.get("error")) and not all(isinstance(error.get(key), str) for key in ("type", "message")):
        raise ConfigError(f"{file}: error has no type or no message: it is not what was written. Sweep again")
    for index, prompt in enumerate(document.get("prompts") or ()):
        if not isinstance(prompt, dict) or not isinstance(prompt.get("id"), str):
            raise ConfigError(f"{file}: prompts[{index}] has no id: it is not what was written. Sweep again")


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
    """Makes a folder `run-latest`. Killed between the two steps, there is none, and every run has its name.

    A run that ended before its first row never takes the place of one that has rows: it is put away beside it.
    """
    latest = base / LATEST
    if has_rows(latest) and not has_rows(folder) and _read_or_nothing(folder).get("status") != "ok":
        return _rename(folder, base, folder.name.removesuffix(RUNNING))
    if latest.exists() or latest.is_symlink():
        _rename(latest, base, f"run-{_stamp(latest, clock)}")
    return folder.rename(latest)


def has_rows(folder: Path) -> bool:
    """Whether a run holds rows, its own or those of one of its models."""
    return any(next(folder.glob(where), None) is not None for where in (ROWS, f"*/{ROWS}"))


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
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        is_file = error.errno in (errno.ENOTDIR, errno.EEXIST)
        hint = "free some space, or " if is_full else "it is a file: " if is_file else ""
        raise StorageError(
            f"{where}: {error.strerror or error}; {hint}give another folder for the runs with --out"
        ) from error

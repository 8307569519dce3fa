"""Files from a source into a staging folder: eight at a time, resumed where a break left them, each one checked.

The rule of the file: a file has its own name only once it is whole and its hash is the one that the source lists;
before that it is `NAME.part`, which the next try goes on with.
"""

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ftw.map.registry.backends import Backend, Dropped, RemoteFile
from ftw.map.registry.content import git_blob, record_of
from ftw.map.registry.names import safe_path
from ftw.substrate.errors import PackError, RemoteError, StorageError

Tell = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many bytes are."""
WORKERS = 8
TRIES = 3
"""Times that a connection may break in a row without a byte arriving."""


def nobody(what: str, done: int, total: int) -> None:
    """Tells nobody."""


class Counter:
    """Bytes that have arrived, from several threads; raises in all of them once one has failed."""

    def __init__(self, total: int, tell: Tell, what: str) -> None:
        self.total = total
        self.received = 0
        self._done = 0
        self._tell = tell
        self._what = what
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def add(self, n: int, *, received: bool = True) -> None:
        """Counts `n` bytes; those that were here already are not received."""
        with self._lock:
            self._done += n
            self.received += n if received else 0
            self._tell(self._what, min(self._done, self.total), self.total)


class Stopped(Exception):
    """Another file failed."""


def fetch(
    backend: Backend,
    commit: str,
    files: Sequence[RemoteFile],
    staging: Path,
    *,
    counter: Counter,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Brings `files` into `staging`; what is there already, whole or in part, is not fetched again.

    Raises RemoteError where the source stalls or refuses, PackError where a file is not what it lists, StorageError.
    """
    side_by_side([partial(_one, backend, commit, file, staging, counter, pause) for file in files], counter)


def side_by_side(jobs: Sequence[Callable[[], None]], counter: Counter) -> None:
    """Runs jobs eight at a time; once one fails, or the person interrupts, the others stop at their next chunk."""
    with ThreadPoolExecutor(WORKERS) as pool:
        running = [pool.submit(job) for job in jobs]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            if not all(each.done() for each in running):
                counter.stopped.set()
                pool.shutdown(cancel_futures=True)
    failed = [error for each in running if not each.cancelled() and (error := each.exception()) is not None]
    for error in sorted(failed, key=lambda each: isinstance(each, Stopped)):
        raise error


def _one(
    backend: Backend, commit: str, file: RemoteFile, staging: Path, counter: Counter, pause: Callable[[float], None]
) -> None:
    target = place(staging, file)
    if is_here(target, file):
        counter.add(file.size, received=False)
        return
    part = target.with_name(target.name + ".part")
    with on_disk(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        if part.stat().st_size > file.size:
            part.write_bytes(b"")
        was_here = part.stat().st_size
    counter.add(was_here, received=False)
    _fill(backend, commit, file, part, counter, pause)
    if not matches(part, file):
        part.unlink()
        if was_here:  # what lay here was another file's beginning: once more, from the start
            counter.add(-file.size, received=False)
            _one(backend, commit, file, staging, counter, pause)
            return
        raise PackError(f"{file.path} from {backend.source} is not what it lists there: it was damaged or replaced")
    with on_disk(target):
        part.replace(target)


def _fill(
    backend: Backend, commit: str, file: RemoteFile, part: Path, counter: Counter, pause: Callable[[float], None]
) -> None:
    """Appends what `part` lacks, going on after breaks."""
    tries = 0
    while (start := part.stat().st_size) < file.size:
        try:
            with on_disk(part), part.open("ab") as stream:
                for chunk in pieces(backend, commit, file, start, file.size, counter):
                    stream.write(chunk)
        except Dropped as error:
            tries = 1 if part.stat().st_size > start else tries + 1
            if tries >= TRIES:
                raise RemoteError(
                    f"{error}, {TRIES} times in a row. What came so far is kept: repeat the command to go on"
                ) from error
            pause(min(8.0, 2.0 ** (tries - 1)))


def pieces(backend: Backend, commit: str, file: RemoteFile, start: int, stop: int, counter: Counter) -> Iterator[bytes]:
    """The bytes [start, stop) of a file, counted as they come. Raises Dropped where they end early, Stopped."""
    for chunk in backend.stream(commit, file, start, stop):
        if counter.stopped.is_set():
            raise Stopped
        yield chunk
        start += len(chunk)
        counter.add(len(chunk))
    if start < stop:
        raise Dropped(f"{backend.source} ended {file.path} at {start} of {stop} bytes")


def is_here(file: Path, listed: RemoteFile) -> bool:
    """Whether a file lies there and is what a source lists: what was staged may have been changed since."""
    with on_disk(file):
        return file.is_file() and matches(file, listed)


def matches(file: Path, listed: RemoteFile) -> bool:
    """Whether a file is what a source lists, by the strongest hash that it knows. Raises StorageError."""
    if file.stat().st_size != listed.size:
        return False
    if listed.sha256 is not None:
        return record_of(file).sha256 == listed.sha256
    return listed.blob is None or git_blob(file) == listed.blob


def place(staging: Path, file: RemoteFile) -> Path:
    """Where a file goes, which is inside `staging`. Raises PackError."""
    target = staging / safe_path(file.path, "the source")
    if not target.parent.resolve().is_relative_to(staging.resolve()):
        raise PackError(f"{target} leads out of {staging}: remove the link that is there")
    return target


@contextmanager
def on_disk(file: Path) -> Iterator[None]:
    """The disk's errors as StorageError; errors of a connection pass."""
    try:
        yield
    except (Dropped, RemoteError):
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "free some space and repeat the command: what came so far is kept" if full else "check its permissions"
        raise StorageError(f"{file} cannot be written: {error.strerror or error}; {hint}") from error

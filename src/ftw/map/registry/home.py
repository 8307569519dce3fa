"""The folder that the packs of one kind are installed in, and how one gets there in one step.

    lens_packs/.registry.json      what is installed (`state`)
    lens_packs/NAME/               a pack
    lens_packs/.staging/KEY/       a pull under way, or broken off: the next one goes on from there

The rule of the file: the packs and .registry.json change only under the lock, and a process that is killed at any
moment leaves something that the next one puts right.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ftw.map.registry.names import check_name, key_of
from ftw.map.registry.state import Entry, State, read_state, write_state
from ftw.map.registry.swap import mend, swap_in, unmended
from ftw.substrate.canonical import canonical_json
from ftw.substrate.errors import Busy, PackError, StorageError

ENTRY = ".entry.json"
"""The record of a pack that has just been put in place, inside it until .registry.json holds it."""
STAGING = ".staging"
TARGET = "target.json"
"""Which revision a staging folder is being filled with."""
SHORT_S = 30.0
"""Seconds to wait for the lock on .registry.json: it is held for moments."""


class Home:
    """One kind's folder."""

    def __init__(self, folder: Path, *, patience_s: float = SHORT_S) -> None:
        self.folder = folder
        self._patience_s = patience_s

    def state(self) -> State:
        """What is recorded, after anything that was cut off has been put right."""
        self._put_right()
        return read_state(self.folder)

    def find(self, name: str) -> str | None:
        """The name on disk of an installed pack, however it is spelled; None where it is not there."""
        there = self.names()
        return name if name in there else next((each for each in there if key_of(each) == key_of(name)), None)

    def names(self) -> list[str]:
        """Every pack that is there, recorded or not, after anything that was cut off has been put right."""
        self._put_right()
        return self._folders()

    def _folders(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(
            p.name for p in self.folder.iterdir() if p.is_dir() and not p.name.startswith(".") and not p.is_symlink()
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with .registry.json and the packs. Raises Busy, StorageError."""
        with _lock(self.folder / ".registry.lock", self._patience_s, f"the registry in {self.folder}"):
            self._settle()
            yield

    @contextmanager
    def working_on(self, key: str) -> Iterator[Path]:
        """Alone with the staging folder of one pack, which is given. Raises Busy, StorageError."""
        staging = self.folder / STAGING
        with _lock(staging / f"{key}.lock", self._patience_s, f"a pull of {key}"):
            yield staging / key

    def record(self, name: str, entry: Entry) -> None:
        """Writes one pack's record. The lock must be held."""
        state = read_state(self.folder)
        write_state(self.folder, state.model_copy(update={"packs": {**state.packs, name: entry}}))

    def install(self, staging: Path, name: str, entry: Entry) -> Path:
        """Puts a whole staging folder in the place of the pack `name`, and records it. Raises StorageError, Busy."""
        target = self.folder / check_name(name)
        try:
            (staging / ENTRY).write_bytes(canonical_json(entry.model_dump(mode="json", exclude_none=True)))
            with self.locked():
                swap_in(staging, target)
                self.record(name, entry)
                (target / ENTRY).unlink()
        except OSError as error:
            raise StorageError(f"{target} cannot be put in place: {told(error)}") from error
        return target

    def _put_right(self) -> None:
        entries = any((self.folder / name / ENTRY).is_file() for name in self._folders())
        if entries or unmended(self.folder):
            with self.locked():
                pass

    def _settle(self) -> None:
        """Ends what a killed process began. The lock must be held."""
        try:
            for target in unmended(self.folder):
                mend(target)
            for name in self._folders():
                file = self.folder / name / ENTRY
                if file.is_file():
                    self.record(name, Entry.model_validate_json(file.read_bytes()))
                    file.unlink()
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be put right after a break: {told(error)}") from error
        except ValidationError as error:
            raise PackError(
                f"{self.folder}: a {ENTRY} in it is not one of ours. Remove it and pull the pack"
            ) from error


def told(error: OSError) -> str:
    """What the disk says, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free some space and repeat the command" if full else "check the path and its permissions"
    return f"{error.strerror or error}; {hint}"


def remove(folder: Path) -> None:
    """Removes a folder and what is in it, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(file: Path, patience_s: float, what: str) -> Iterator[None]:
    lock = FileLock(file, timeout=patience_s)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise Busy(
            f"{what} is held by another process for more than {patience_s:.0f} s: wait for it, then repeat"
        ) from error
    except OSError as error:
        raise StorageError(f"{file} cannot be made: {told(error)}") from error
    try:
        yield
    finally:
        lock.release()

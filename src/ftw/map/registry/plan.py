"""What a pull will do, file by file: keep it, fetch it, or fetch the lenses in it that changed.

A lens counts as changed where its hash in index.json differs, whatever the versions say; without a hash it counts as
changed. The rule of the file: a plan writes nothing.
"""

import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftw.hat.classifiers.index import INDEX, LensRow, read_index
from ftw.hat.classifiers.layout import Header, level_file, levels_of, places
from ftw.map.registry.backends import Backend, Dropped, RemoteFile
from ftw.map.registry.content import FileRecord, git_blob
from ftw.substrate.errors import PackError, RemoteError, StorageError

HEADER_GUESS = 1 << 16
"""Bytes that are asked for first: most headers fit."""
GAP = 1 << 16
"""Unchanged bytes between two changed stretches that are fetched along rather than asked around."""
LARGEST_INDEX = 256 << 20
"""Bytes of an index.json that is read into memory before it is fetched; a larger one means a whole pull."""
WORTH_IT = 0.8
"""Share of a file above which it is fetched whole."""


@dataclass(frozen=True)
class Copy:
    """Bytes [start, stop) of the new file that stand at `source` in the old one."""

    start: int
    stop: int
    source: int


@dataclass(frozen=True)
class Patch:
    """How a new level file is put together: its head as fetched, copies from the old file, and the rest."""

    file: RemoteFile
    head: bytes
    copies: tuple[Copy, ...]
    wanted: tuple[tuple[int, int], ...]
    """The stretches to fetch, ascending, without overlap."""

    @property
    def n_bytes(self) -> int:
        """Bytes to fetch, the head included."""
        return len(self.head) + sum(stop - start for start, stop in self.wanted)


@dataclass(frozen=True)
class Lenses:
    """The lenses that two revisions have in common, or not, as `Food at block 4`."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    n_same: int = 0


@dataclass(frozen=True)
class Plan:
    """What a pull will do."""

    keep: tuple[RemoteFile, ...]
    """Files that are here already, byte for byte."""
    fetch: tuple[RemoteFile, ...]
    patches: tuple[Patch, ...] = ()
    removed: tuple[str, ...] = ()
    """Files that the new revision does not have."""
    lenses: Lenses = field(default_factory=Lenses)

    @property
    def n_bytes(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.fetch) + sum(patch.n_bytes for patch in self.patches)

    @property
    def n_bytes_whole(self) -> int:
        """Bytes of all files of the revision: what a first pull fetches."""
        return sum(file.size for file in (*self.keep, *self.fetch)) + sum(patch.file.size for patch in self.patches)

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.fetch or self.patches or self.removed)


def make_plan(
    backend: Backend, commit: str, files: Sequence[RemoteFile], folder: Path, here: Mapping[str, FileRecord]
) -> Plan:
    """The way from the files `here` in `folder` to `files`. Asks for index.json and headers, if lenses changed.

    Raises RemoteError, PackError for an index that cannot be read.
    """
    keep = tuple(file for file in files if file.path in here and _is_same(file, here[file.path], folder / file.path))
    kept = {file.path for file in keep}
    missing = [file for file in files if file.path not in kept]
    removed = tuple(sorted(here.keys() - {file.path for file in files}))
    index = next((file for file in missing if file.path == INDEX), None)
    if index is None or INDEX not in here or index.size > LARGEST_INDEX:
        return Plan(keep, tuple(missing), removed=removed)
    try:
        old = read_index(folder)
    except (PackError, StorageError):  # a pack in an older format: nothing of it can be taken over
        return Plan(keep, tuple(missing), removed=removed)
    new = read_rows(backend, commit, index)
    patches = [
        patch
        for file in missing
        if file.path in here and file.path in {level_file(level) for level in levels_of(new)}
        if (patch := _patch(backend, commit, file, folder / file.path, old, new)) is not None
    ]
    patched = {patch.file.path for patch in patches}
    return Plan(
        keep,
        tuple(file for file in missing if file.path not in patched),
        tuple(patches),
        removed,
        compare_rows(old, new),
    )


def compare_rows(old: Sequence[LensRow], new: Sequence[LensRow]) -> Lenses:
    """Which lenses differ between two indices."""
    before = {(row.term, row.block): row for row in old}
    after = {(row.term, row.block): row for row in new}
    both = [key for key in after if key in before]
    changed = [key for key in both if not _same_bytes(before[key], after[key])]
    return Lenses(
        _names(changed),
        _names(key for key in after if key not in before),
        _names(key for key in before if key not in after),
        len(both) - len(changed),
    )


def read_rows(backend: Backend, commit: str, index: RemoteFile) -> tuple[LensRow, ...]:
    """The rows of a revision's index.json. Raises RemoteError, PackError."""
    with tempfile.TemporaryDirectory(prefix="ftw-index-") as folder:
        (Path(folder) / INDEX).write_bytes(read_bytes(backend, commit, index, 0, index.size))
        return read_index(Path(folder))


def read_bytes(backend: Backend, commit: str, file: RemoteFile, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a file. Raises RemoteError where they do not come at the second try either."""
    for last in (False, True):
        try:
            data = b"".join(backend.stream(commit, file, start, stop))
            if len(data) == stop - start:
                return data
        except Dropped as error:
            if last:
                raise RemoteError(f"{error}. Try again") from error
    raise RemoteError(f"{backend.source} gives {file.path} shorter than it lists it: try again")


def _patch(
    backend: Backend,
    commit: str,
    file: RemoteFile,
    old_file: Path,
    old: Sequence[LensRow],
    new: Sequence[LensRow],
) -> Patch | None:
    """How to make a level file of the old one; None where fetching it whole is as good."""
    head = read_bytes(backend, commit, file, 0, min(HEADER_GUESS, file.size))
    length = 8 + struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if length > LARGEST_INDEX:
        raise PackError(f"{file.path} of {backend.source} has a header of {length} bytes: it is damaged there")
    if length > len(head):
        head += read_bytes(backend, commit, file, len(head), min(length, file.size))
    after = Header.parse(head, f"{file.path} of {backend.source}")
    try:
        before = Header.of(old_file)
    except PackError:
        return None
    if after.size != file.size:
        raise PackError(f"{file.path} of {backend.source} is not as long as its header says: it is damaged there")
    head = head[: after.start]
    copies = _copies(before, after, old, new, file.path)
    wanted = _rest(copies, after.start, after.size)
    patch = Patch(file, head, tuple(copies), wanted)
    return patch if patch.n_bytes <= WORTH_IT * file.size else None


def _copies(before: Header, after: Header, old: Sequence[LensRow], new: Sequence[LensRow], path: str) -> list[Copy]:
    was, now = places(old), places(new)
    same = {(row.term, row.block): row for row in old}
    copies: list[Copy] = []
    for row in new:
        key = (row.term, row.block)
        if key not in same or not _same_bytes(same[key], row):
            continue
        if level_file(now[key].level) != path or level_file(was[key].level) != path:
            continue
        pairs = list(zip(before.runs(was[key]), after.runs(now[key]), strict=False))
        if all(a.name == b.name and a.stop - a.start == b.stop - b.start for a, b in pairs):
            copies += [Copy(b.start, b.stop, a.start) for a, b in pairs]
    return sorted(copies, key=lambda each: each.start)


def _rest(copies: Sequence[Copy], start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """What of [start, stop) no copy covers; stretches with a small gap between them are one."""
    holes: list[tuple[int, int]] = []
    at = start
    for each in copies:
        if each.start > at:
            holes.append((at, each.start))
        at = max(at, each.stop)
    if at < stop:
        holes.append((at, stop))
    merged: list[tuple[int, int]] = []
    for hole in holes:
        if merged and hole[0] - merged[-1][1] < GAP:
            merged[-1] = (merged[-1][0], hole[1])
        else:
            merged.append(hole)
    return tuple(merged)


def _is_same(file: RemoteFile, here: FileRecord, local: Path) -> bool:
    if file.size != here.size_bytes:
        return False
    if file.sha256 is not None:
        return file.sha256 == here.sha256
    return file.blob is not None and git_blob(local) == file.blob


def _same_bytes(one: LensRow, other: LensRow) -> bool:
    return one.sha256 is not None and one.sha256 == other.sha256


def _names(keys: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(f"{term} at block {block}" for term, block in keys)

"""Where a lens's bytes lie in the files of a pack: the order of rows, the header of a level file, byte ranges.

A level file is a safetensors file with the lenses of one level of the hierarchy. Each of its tensors,
`block{b}.{name}`, holds the same number of rows for every lens of that block, in the order of the index: so a lens is
one run of bytes per tensor, and siblings, which stand together in the index, are one longer run.

The rule of the file: a header alone is enough, so that a part of a file can be asked of a server that has it.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ftw.hat.classifiers.index import LensRow, read_index
from ftw.substrate.errors import PackError, StorageError, UsageError

SHARED = "shared.safetensors"
"""Where the first layers stand that all lenses of a block share."""
AGAIN = "fetch it again, or make it anew"
"""What helps where a file is not what was saved."""
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_LARGEST_HEADER = 100_000_000


def level_of(row: LensRow) -> int:
    """The level whose file holds a lens. What has no place in a hierarchy stands with the roots."""
    return row.level or 0


def level_file(level: int) -> str:
    """The name of a level's file."""
    return f"level{level}.safetensors"


def levels_of(rows: Iterable[LensRow]) -> tuple[int, ...]:
    """The levels of an index, ascending."""
    return tuple(sorted({level_of(row) for row in rows}))


class Place(NamedTuple):
    """Lens number `at` of the `of` lenses that one level's file holds for one block."""

    level: int
    block: int
    at: int
    of: int


def places(rows: Sequence[LensRow]) -> dict[tuple[str, int], Place]:
    """Where each lens stands, by (term, block). `rows` is a whole index, in order."""
    counts: dict[tuple[int, int], int] = {}
    for row in rows:
        counts[level_of(row), row.block] = counts.get((level_of(row), row.block), 0) + 1
    seen: dict[tuple[int, int], int] = {}
    found: dict[tuple[str, int], Place] = {}
    for row in rows:
        part = (level_of(row), row.block)
        at = seen.get(part, 0)
        seen[part] = at + 1
        found[row.term, row.block] = Place(*part, at, counts[part])
    return found


def sort_rows(rows: Sequence[LensRow]) -> list[int]:
    """The order in which a pack keeps `rows`, as places in them: block, level, siblings together.

    Families stand in the order of their parents in the level above; what has no parent there comes first. Within a
    family the given order stays.
    """
    order: list[int] = []
    for block in sorted({row.block for row in rows}):
        above: dict[str, int] = {}
        for level in levels_of(row for row in rows if row.block == block):
            own = [at for at, row in enumerate(rows) if row.block == block and level_of(row) == level]
            own.sort(key=lambda at: _family(rows[at], above))
            above = {rows[at].term.casefold(): place for place, at in enumerate(own)}
            order += own
    return order


def _family(row: LensRow, above: Mapping[str, int]) -> tuple[int, str]:
    parent = (row.parent or "").casefold()
    return above.get(parent, -1), "" if parent in above else parent


class Span(NamedTuple):
    """One tensor of a file; `start` and `stop` are places in the file."""

    dtype: str
    """As safetensors names it: F32, BF16, I8."""
    shape: tuple[int, ...]
    start: int
    stop: int


class Run(NamedTuple):
    """The bytes [start, stop) of a file that one lens has in one tensor."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself in its first bytes."""

    source: str
    start: int
    """Where the first tensor begins: the length of the header."""
    size: int
    """Bytes of the whole file."""
    spans: Mapping[str, Span]

    @classmethod
    def parse(cls, data: bytes, source: str) -> "Header":
        """The header in the first bytes of a file (8 bytes of length and as many as they say). Raises PackError."""
        length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else -1
        if not 2 <= length <= _LARGEST_HEADER or len(data) < 8 + length:
            raise PackError(f"{source} is truncated or not a safetensors file: it has no whole header; {AGAIN}")
        try:
            entries = json.loads(data[8 : 8 + length])
            spans = {
                name: Span(item["dtype"], tuple(item["shape"]), *(8 + length + at for at in item["data_offsets"]))
                for name, item in entries.items()
                if name != "__metadata__"
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PackError(f"{source} is not a safetensors file: its header cannot be read; {AGAIN}") from error
        end = 8 + length
        for name, span in sorted(spans.items(), key=lambda each: each[1].start):
            items = math.prod(span.shape)
            if span.dtype not in _BYTES or span.start != end or span.stop - span.start != items * _BYTES[span.dtype]:
                raise PackError(f"{source}: the header's entry for {name} does not fit the file; {AGAIN}")
            end = span.stop
        return cls(source, 8 + length, end, spans)

    @classmethod
    def of(cls, file: Path, rows: Sequence[LensRow] = ()) -> "Header":
        """The header of a file, whose length is checked against it; tensors are not read.

        Raises StorageError where it cannot be read, PackError where it is shorter or longer than it says; with the rows
        of its lenses the message names the first lens that is cut off.
        """
        try:
            with file.open("rb") as stream:
                data = stream.read(8)
                length = struct.unpack("<Q", data)[0] if len(data) == 8 else 0
                header = cls.parse(data + stream.read(min(length, _LARGEST_HEADER)), str(file))
                found = stream.seek(0, 2)
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {error.strerror or error}; {AGAIN}") from error
        if found > header.size:
            raise PackError(f"{file} has {found} bytes, its header says {header.size}; {AGAIN}")
        if found < header.size:
            raise PackError(
                f"{file} is truncated: it has {found} of {header.size} bytes, {header._cut(found, rows)}; {AGAIN}"
            )
        return header

    def _cut(self, found: int, rows: Sequence[LensRow]) -> str:
        """What of a file of `found` bytes is missing: a tensor, and the first lens of it."""
        name = min((span.start, name) for name, span in self.spans.items() if span.stop > found)[1]
        own = [row for row in rows if name.startswith(f"block{row.block}.")]
        if not own:
            return f"{name} is cut off"
        span = self.spans[name]
        at = max(0, found - span.start) * len(own) // (span.stop - span.start)
        return f"{name} is cut off at the lens {own[at].name}"

    def runs(self, place: Place) -> tuple[Run, ...]:
        """The bytes of one lens, in ascending order of the tensors' names. Raises PackError as `runs_of`."""
        return self.runs_of(place.block, place.at, place.at + 1, place.of)

    def runs_of(self, block: int, first: int, stop: int, of: int) -> tuple[Run, ...]:
        """The bytes of the lenses [first, stop) of the `of` lenses of a block, one run per tensor. Raises PackError."""
        prefix = f"block{block}."
        found = []
        for name in sorted(name for name in self.spans if name.startswith(prefix)):
            span = self.spans[name]
            if not span.shape or span.shape[0] % of:
                raise PackError(f"{self.source}: {name} is {list(span.shape)}, which {of} lenses do not share evenly")
            each = (span.stop - span.start) // of
            found.append(Run(name, span.start + first * each, span.start + stop * each))
        if not found:
            raise PackError(f"{self.source} holds no tensor of block {block}, the index has {of} lenses there; {AGAIN}")
        return tuple(found)


def present(
    folder: Path, rows: Sequence[LensRow], levels: Iterable[int] | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The levels to load, and those of the index whose files are not there, both ascending. Raises as `load_pack`."""
    known = levels_of(rows)
    missing = tuple(level for level in known if not (folder / level_file(level)).is_file())
    chosen = sorted(set(known) - set(missing)) if levels is None else sorted(set(levels))
    none = [level for level in chosen if level not in known]
    if none:
        raise UsageError(f"{folder} has no level {none[0]}: its lenses are of levels {list(known)}")
    gone = [level for level in chosen if level in missing] or ([] if chosen else list(missing))
    if gone:
        there = ", ".join(str(level) for level in known if level not in missing) or "none"
        raise StorageError(
            f"{folder / level_file(gone[0])} cannot be read: it is not there (levels that are: {there}); pull it"
        )
    return tuple(chosen), missing


def bank_bytes(folder: Path) -> int:
    """About how many bytes a bank of all lenses of a pack takes: large weights in bf16, the rest in fp32.

    A first layer that is shared is there once. Raises PackError, StorageError.
    """
    files = [folder / level_file(level) for level in present(folder, read_index(folder))[0]]
    is_shared = (folder / SHARED).is_file()
    total = 0
    for file in [*files, *([folder / SHARED] if is_shared else [])]:
        for name, span in Header.of(file).spans.items():
            wide = name.endswith((".w1", ".w2")) and not is_shared
            total += math.prod(span.shape) * (2 if wide else 4)
    return total


def verify_pack(folder: Path, levels: Iterable[int] | None = None) -> tuple[str, ...]:
    """The lenses whose stored bytes are not those that index.json was written for, as `'Food' at block 4`.

    A row without a hash counts as wrong. Raises as `load_pack`.
    """
    rows = read_index(folder)
    found = places(rows)
    chosen, _ = present(folder, rows, levels)
    wrong = []
    for level in chosen:
        own = [row for row in rows if level_of(row) == level]
        file = folder / level_file(level)
        header = Header.of(file, own)
        with file.open("rb") as stream:
            for row in own:
                digest = hashlib.sha256()
                for run in header.runs(found[row.term, row.block]):
                    stream.seek(run.start)
                    digest.update(stream.read(run.stop - run.start))
                if digest.hexdigest() != row.sha256:
                    wrong.append(row.name)
    return tuple(wrong)

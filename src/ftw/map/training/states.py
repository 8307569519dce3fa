"""States that a model has run: in memory, or in a folder that several processes fill and a killed one takes up again.

The folder holds key.json (whose states, of which texts), states.f16 [block, state, d_model], moments.f32 [2, block,
state] and one journal per writer: a line per finished batch, with the checksum of its states, written after them.
The rule of the file: what a journal names is on the disk, whole; what none names is run again and gives the same bytes.
"""

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float16, Int
from pydantic import ValidationError
from torch import Tensor

from ftw.map.training.plan import Batch
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, PackError, SiteError, StorageError
from ftw.substrate.manifest import canonical_json, write_atomically

KEY, STATES, MOMENTS = "key.json", "states.f16", "moments.f32"
JOURNALS = "journal-*.jsonl"


class StoreKey(Strict):
    """What a store holds. Two stores with one key hold the same states."""

    format: Literal["ftw-states/1"] = "ftw-states/1"
    fingerprint: str
    """Of the model."""
    plan: str
    """Digest of the plan."""
    blocks: tuple[int, ...]
    rows: int
    batches: int
    d_model: int


@dataclass(frozen=True)
class States:
    """Residual states at a few blocks, on the CPU, in memory or mapped from a store's files."""

    blocks: tuple[int, ...]
    x: Float[Tensor, "block row d_model"]
    """Normalised as a lens reads it (affine-free layer norm), in fp16."""
    mean: Float[Tensor, "block row"]
    scale: Float[Tensor, "block row"]
    """What undoes the normalisation: resid = x * scale + mean. fp32."""
    rows: Int[Tensor, " state"] | None = None
    """Which row each state is; None: each its own."""

    def __len__(self) -> int:
        return self.x.shape[1] if self.rows is None else len(self.rows)

    def of(self, rows: Int[Tensor, " state"]) -> "States":
        """The states of these rows, in this order. Nothing is copied."""
        return States(self.blocks, self.x, self.mean, self.scale, rows)

    def at(self, block: int, which: Tensor | None = None) -> Float[Tensor, "state d_model"]:
        """The normalised states after `block`, in fp32: all, or those of a mask or of indices."""
        return self._take(self.x[self._row(block)], which).float()

    def resid(self, block: int, which: Tensor | None = None) -> Float[Tensor, "state d_model"]:
        """The residual stream itself after `block`, in fp32 (to fp16's precision)."""
        row = self._row(block)
        scale, mean = self._take(self.scale[row], which), self._take(self.mean[row], which)
        return self.at(block, which) * scale[:, None] + mean[:, None]

    def _take(self, values: Tensor, which: Tensor | None) -> Tensor:
        if self.rows is not None:
            return values[self.rows if which is None else self.rows[which]]
        return values if which is None else values[which]

    def _row(self, block: int) -> int:
        if block not in self.blocks:
            raise SiteError(f"block {block} was not collected: there are {', '.join(map(str, self.blocks))}")
        return self.blocks.index(block)


@runtime_checkable
class Sink(Protocol):
    """Where finished batches go."""

    def put(
        self,
        number: int,
        batch: Batch,
        x: Float16[Tensor, "block n d_model"],
        moments: Float[Tensor, "2 block n"],
    ) -> None:
        """Keep the states of one batch."""


class MemorySink:
    """States in memory."""

    def __init__(self, blocks: Sequence[int], rows: int, d_model: int) -> None:
        self._states = States(
            tuple(blocks),
            torch.empty(len(blocks), rows, d_model, dtype=torch.float16),
            torch.empty(len(blocks), rows),
            torch.empty(len(blocks), rows),
        )

    def put(
        self,
        number: int,
        batch: Batch,
        x: Float16[Tensor, "block n d_model"],
        moments: Float[Tensor, "2 block n"],
    ) -> None:
        """Keep the states of one batch."""
        rows = slice(batch.start, batch.start + batch.rows)
        self._states.x[:, rows] = x
        self._states.mean[:, rows], self._states.scale[:, rows] = moments[0], moments[1]

    def states(self) -> States:
        """Everything that was put."""
        return self._states


@dataclass
class StateStore:
    """States in a folder. Several processes may fill it at once, each under a writer's name of its own."""

    folder: Path
    key: StoreKey
    writer: str
    finished: dict[int, int] = field(default_factory=dict)
    """Checksum of each batch that a journal names."""

    @classmethod
    def open(cls, folder: Path, key: StoreKey, writer: str = "0-of-1") -> "StateStore":
        """The store in `folder`, made where there is none.

        Raises ConfigError where it holds other states, StorageError where it cannot be read, written or does not fit.
        """
        store = cls(folder, key, writer)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / KEY).exists():
                _same(folder / KEY, key)
            else:
                store._make()
            store._check_sizes()
            store.refresh()
        except OSError as error:
            raise StorageError(f"{folder} cannot be used for states: {error.strerror or error}") from error
        return store

    @property
    def bytes_needed(self) -> int:
        """What the whole store takes on the disk."""
        return sum(self._sizes().values())

    def refresh(self) -> None:
        """Read the journals again: what others have finished. A last line that was cut off counts for nothing."""
        for file in sorted(self.folder.glob(JOURNALS)):
            for line in file.read_bytes().split(b"\n")[:-1]:
                try:
                    record = json.loads(line)
                    self.finished[int(record["batch"])] = int(record["crc32"])
                except (ValueError, KeyError, TypeError):
                    continue  # torn by a kill and written over by the next start: that batch is run again

    def missing(self, part: int = 0, of: int = 1) -> list[int]:
        """Batches that nobody has finished, of the part `part` of `of`."""
        return [number for number in range(part, self.key.batches, of) if number not in self.finished]

    def put(
        self,
        number: int,
        batch: Batch,
        x: Float16[Tensor, "block n d_model"],
        moments: Float[Tensor, "2 block n"],
    ) -> None:
        """Write the states of one batch, then say so in the journal. Raises StorageError."""
        parts = [part.numpy().tobytes() for part in x] + [part.numpy().tobytes() for part in moments.flatten(0, 1)]
        try:
            self._write(batch.start, batch.rows, parts)
            self._note(number, _checksum(parts))
        except OSError as error:
            raise StorageError(
                f"{self.folder} took no more states: {error.strerror}. The store needs {_size(self.bytes_needed)}; "
                "make room and run the same command again: it goes on from here"
            ) from error

    def merge(self, other: "StateStore", batches: Sequence[Batch]) -> int:
        """Take over the batches that `other` has and this one has not; gives how many.

        Raises ConfigError where the two do not hold the same, PackError for states that are not what was journalled.
        """
        _same(other.folder / KEY, self.key)
        taken = sorted(other.finished.keys() - self.finished.keys())
        for number in taken:
            batch = batches[number]
            parts = other._read(batch.start, batch.rows)
            if _checksum(parts) != other.finished[number]:
                raise PackError(f"{other.folder}: batch {number} is not what was written: copy the folder again")
            self._write(batch.start, batch.rows, parts)
            self._note(number, other.finished[number])
        return len(taken)

    def states(self) -> States:
        """All states, mapped. Raises StorageError while some are missing."""
        missing = self.missing()
        if missing:
            raise StorageError(
                f"{self.folder} lacks {len(missing)} of {self.key.batches} batches: run the other shards, or this "
                "command without --shard"
            )
        n, rows, d = len(self.key.blocks), self.key.rows, self.key.d_model
        x = torch.from_file(str(self.folder / STATES), shared=False, size=n * rows * d, dtype=torch.float16)
        moments = torch.from_file(str(self.folder / MOMENTS), shared=False, size=2 * n * rows, dtype=torch.float32)
        mean, scale = moments.view(2, n, rows)
        return States(self.key.blocks, x.view(n, rows, d), mean, scale)

    def _make(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < self.bytes_needed:
            raise StorageError(
                f"{self.folder}: the states take {_size(self.bytes_needed)}, {_size(free)} are free. Read "
                "fewer blocks (--blocks), or name a folder on another disk with --work"
            )
        for name, size in self._sizes().items():
            with (self.folder / name).open("ab") as file:
                file.truncate(size)
        write_atomically(self.folder / KEY, canonical_json(self.key.model_dump(mode="json")))

    def _check_sizes(self) -> None:
        for name, size in self._sizes().items():
            found = (self.folder / name).stat().st_size
            if found != size:
                raise StorageError(f"{self.folder / name} has {found} bytes, its key says {size}: remove the folder")

    def _sizes(self) -> dict[str, int]:
        n = len(self.key.blocks) * self.key.rows
        return {STATES: 2 * n * self.key.d_model, MOMENTS: 2 * 4 * n}

    def _write(self, start: int, rows: int, parts: Sequence[bytes]) -> None:
        for name, places in self._places(start, rows, parts).items():
            handle = os.open(self.folder / name, os.O_WRONLY)
            try:
                for part, place in places:
                    _write_all(handle, part, place)
                os.fdatasync(handle)
            finally:
                os.close(handle)

    def _read(self, start: int, rows: int) -> list[bytes]:
        n, d = len(self.key.blocks), self.key.d_model
        sizes = [bytes(2 * rows * d)] * n + [bytes(4 * rows)] * (2 * n)
        out: list[bytes] = []
        for name, places in self._places(start, rows, sizes).items():
            with (self.folder / name).open("rb") as file:
                for part, place in places:
                    file.seek(place)
                    out.append(file.read(len(part)))
        return out

    def _places(self, start: int, rows: int, parts: Sequence[bytes]) -> dict[str, list[tuple[bytes, int]]]:
        """Where in which file each part belongs: states block by block, then means and scales block by block."""
        n, d, total = len(self.key.blocks), self.key.d_model, self.key.rows
        return {
            STATES: [(part, 2 * d * (block * total + start)) for block, part in enumerate(parts[:n])],
            MOMENTS: [(part, 4 * (at * total + start)) for at, part in enumerate(parts[n:])],
        }

    def _note(self, number: int, checksum: int) -> None:
        line = json.dumps({"batch": number, "crc32": checksum}).encode() + b"\n"
        with (self.folder / f"journal-{self.writer}.jsonl").open("ab") as file:
            file.write(line if not file.tell() or _ends_line(Path(file.name)) else b"\n" + line)
            file.flush()
            os.fsync(file.fileno())
        self.finished[number] = checksum


def _same(file: Path, key: StoreKey) -> None:
    """Raise ConfigError unless the key in `file` is `key`."""
    try:
        found = StoreKey.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(f"{file} is not the key of a state store: remove the folder, or name another one") from error
    for name, why in (("fingerprint", "another model"), ("blocks", "other blocks"), ("plan", "other prompts")):
        if getattr(found, name) != getattr(key, name):
            raise ConfigError(
                f"{file.parent} holds states of {why}: {getattr(found, name)}, wanted {getattr(key, name)}. Remove it, "
                "or name another folder"
            )
    if found != key:
        raise ConfigError(f"{file.parent} holds other states than wanted: remove it, or name another folder")


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.2f} MB"


def _checksum(parts: Sequence[bytes]) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def _write_all(handle: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(handle, view, place)
        view, place = view[done:], place + done


def _ends_line(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"

"""Rows of a sweep as one Parquet file: every column with its unit and meaning, and what made them.

The columns are those of `ftw.sweep.table.COLUMNS`, bit for bit. Three more say in words what others say in numbers, for
readers that are not ftw: `prompt_id`, `piece` (the text of `token_id`) and `top_piece` (the text of the best token).
The file's metadata hold `ftw.schema`, `ftw.table` (model, lenses, gate, items, pieces, the columns' SHA-256),
`ftw.provenance`, both in JSON, and `ftw.sha256` over the two.

The rule of the file: what is read is the table that was written, or an error that says what differs.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ftw.substrate.canonical import canonical_json
from ftw.substrate.errors import ConfigError, StorageError
from ftw.substrate.gate import Gate
from ftw.sweep.battery import Prompt
from ftw.sweep.table import COLUMNS, SCHEMA, Item, SweepTable

ROWS = "rows.parquet"
"""What the file is called in a run's folder."""
GROUP = 1 << 16
"""Rows that are converted and written at once: memory does not grow beyond them."""
PART = ".part"
"""What follows the file's name until it is whole."""
WORDS: Mapping[str, str] = {
    "prompt_id": "the prompt's id in its battery",
    "piece": "the text of `token_id`",
    "top_piece": "the text of the most likely token",
}
"""Columns in words. They are written, and made again from the others when a table is read."""
WORD = pa.dictionary(pa.int32(), pa.string())
UNITS: Mapping[str, str] = {
    "_bits": "bits",
    "logprob": "nats",
    "logprobs": "nats",
    "logprob_scaled": "nats",
    "logsumexp": "nats",
    "logsumexp_bound": "nats",
    "_mass": "probability",
    "_mass_top50": "probability",
    "_rank": "rank, 1 is first",
    "_ranks": "rank, 1 is first",
    "_id": "token id",
    "_ids": "token id",
    "layer": "blocks that have run",
    "pos": "position, from 0",
}
"""Units by the end of a column's name."""
KEYS = ("prompt", "pos", "lens", "layer")
"""Without these a row is of nothing."""


def write_rows(folder: Path, table: SweepTable, provenance: Mapping[str, Any]) -> Path:
    """Writes a table as a folder's rows, in one step, and gives the file.

    `provenance` is what made it (fingerprint, revision, tokenizer, code, battery, …) as JSON values. Raises
    StorageError, NumericError for NaN in the provenance.
    """
    with RowsFile(folder / ROWS, provenance) as rows:
        rows.append(table)
    return rows.file


def read_rows(folder: Path) -> SweepTable:
    """The table in a folder (or in a Parquet file itself).

    Raises ConfigError for what is no such file, is cut short or damaged, of another schema, or has columns that are
    not known, missing, or of another type; StorageError where it cannot be read.
    """
    return _read(folder / ROWS if folder.is_dir() else folder)


def read_provenance(folder: Path) -> dict[str, Any]:
    """What made the rows in a folder (or in a Parquet file itself). Raises as `read_rows`."""
    file = folder / ROWS if folder.is_dir() else folder
    with _readable(file), pq.ParquetFile(file) as parquet:
        return _opened(file, parquet.metadata.metadata)[1]


def rows_sha256(folder: Path) -> str:
    """The SHA-256 (hex) over all that a folder's rows hold, as their end says it. Raises as `read_rows`."""
    file = folder / ROWS if folder.is_dir() else folder
    with _readable(file), pq.ParquetFile(file) as parquet:
        _opened(file, parquet.metadata.metadata)
        return str(parquet.metadata.metadata[b"ftw.sha256"].decode())


class RowsFile:
    """A file of rows that is written part by part, so that memory stays bounded.

    Parts are tables of one model through the same lenses; prompts of a later part come after those of the ones before.
    Left by an error that is not the disk's, the parts before it are kept in a whole file. Raises StorageError: then
    there is no file, or the one from before.
    """

    def __init__(self, file: Path, provenance: Mapping[str, Any]) -> None:
        self.file = file
        self._part = file.with_name(file.name + PART)
        self._provenance = canonical_json(provenance)
        self._seen: SweepTable | None = None
        self._hashes: dict[str, Any] = {}
        self._kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._n_rows = 0
        self._stream: BinaryIO | None = None
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: SweepTable) -> None:
        """Writes the rows of a table. Raises ConfigError where it does not go with the parts before."""
        for item in table.items:
            _plain(item)
        kinds = {name: (column.dtype.str, column.shape[1:]) for name, column in table.columns.items()}
        with self._disk():
            if self._seen is None:
                self._begin(table, kinds)
            self._require_alike(table, kinds)
            for start in range(0, len(table), GROUP):
                self._write({name: column[start : start + GROUP] for name, column in table.columns.items()}, table)
        assert self._seen is not None
        pieces = {**self._seen.pieces, **table.pieces}
        self._seen = replace(self._seen, items=(*self._seen.items, *table.items), pieces=pieces)

    def close(self) -> None:
        """Makes the file whole, under its name. Without a part there is none."""
        if self._seen is None or self._writer is None or self._stream is None:
            return
        columns = {
            name: {"dtype": dtype, "shape": list(shape), "sha256": self._hashes[name].hexdigest()}
            for name, (dtype, shape) in self._kinds.items()
        }
        about = _dump({**_about(self._seen), "n_rows": self._n_rows, "columns": columns})
        with self._disk():
            self._writer.add_key_value_metadata(_sealed(about, self._provenance))
            self._writer.close()
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._part.replace(self.file)
        self._writer = None

    def __enter__(self) -> "RowsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, StorageError):
            self.close()

    def _begin(self, table: SweepTable, kinds: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        schema = _schema(kinds)
        self._stream = self._part.open("wb")
        self._writer = pq.ParquetWriter(self._stream, schema, compression="zstd", **_encodings(kinds))
        self._seen = replace(table, columns={}, items=(), pieces={})
        self._kinds = kinds
        self._hashes = {name: hashlib.sha256() for name in kinds}

    def _write(self, columns: dict[str, np.ndarray], table: SweepTable) -> None:
        assert self._seen is not None
        assert self._writer is not None
        columns["prompt"] = columns["prompt"] + np.int32(len(self._seen.items))
        for name, column in columns.items():
            self._hashes[name].update(np.ascontiguousarray(column).data)
        items = (*self._seen.items, *table.items)
        arrays = [_array(columns[name]) for name in self._kinds]
        arrays += [
            _words(columns["prompt"], [item.id for item in items]),
            _words(columns["token_id"], table.pieces),
            _words(columns["top_ids"][:, :1].reshape(-1), table.pieces),
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._writer.schema), row_group_size=GROUP)
        self._n_rows += len(columns["prompt"])

    def _require_alike(self, table: SweepTable, kinds: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        assert self._seen is not None
        if self._writer is None:
            raise StorageError(f"{self.file} is closed: append before")
        for name in ("model", "n_layers", "vocab_size", "lenses", "precision"):
            a, b = getattr(self._seen, name), getattr(table, name)
            if a != b:
                raise ConfigError(f"{self.file}: {name} of its first part is {a!r}, of another {b!r}: write two files")
        if kinds != self._kinds:
            name = next(name for name in {**kinds, **self._kinds} if kinds.get(name) != self._kinds.get(name))
            raise ConfigError(
                f"{self.file}: column {name} of its first part is {self._kinds.get(name)}, of another "
                f"{kinds.get(name)}: write two files"
            )

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turns what the disk says into a StorageError, and takes away what was begun."""
        try:
            yield
        except OSError as error:
            if self._writer is not None:
                self._writer.is_open = False  # else it writes its end into what is gone
                self._writer = None
            with suppress(OSError):
                if self._stream is not None:
                    self._stream.close()
                self._part.unlink(missing_ok=True)
            raise StorageError(
                f"{self.file}: {error.strerror or error}; free some space or give another folder, then run again "
                "with --resume"
            ) from error


def _read(file: Path) -> SweepTable:
    with _readable(file), pq.ParquetFile(file) as parquet:
        about, _ = _opened(file, parquet.metadata.metadata)
        arrow = parquet.read()
        arrow.validate(full=True)
        _require_columns(file, arrow.schema, about["columns"])
        columns = {name: _column(file, arrow.column(name), name, kind) for name, kind in about["columns"].items()}
    gate = {name: math.nan if value is None else value for name, value in about["gate"].items()}
    return SweepTable(
        columns=columns,
        items=tuple(_item(item) for item in about["items"]),
        pieces={int(token): piece for token, piece in about["pieces"].items()},
        model=about["model"],
        n_layers=about["n_layers"],
        vocab_size=about["vocab_size"],
        lenses=tuple(about["lenses"]),
        precision=about["precision"],
        gate=Gate(**{**gate, "refused": about["gate"]["refused"]}),
        special_ids=frozenset(about["special_ids"]),
    )


def _about(table: SweepTable) -> dict[str, Any]:
    """Everything of a table but its columns, as JSON values."""
    gate = asdict(table.gate)
    return {
        "model": table.model,
        "n_layers": table.n_layers,
        "vocab_size": table.vocab_size,
        "lenses": list(table.lenses),
        "precision": table.precision,
        "gate": {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in gate.items()},
        "special_ids": sorted(table.special_ids),
        "items": [_plain(item) for item in table.items],
        "pieces": {str(token): piece for token, piece in table.pieces.items()},
    }


def _plain(item: Item) -> dict[str, Any]:
    if item.source is not None and not isinstance(item.source, Prompt):
        raise ConfigError(
            f"prompt {item.id} comes from a {type(item.source).__name__}: only a battery's prompt can be written"
        )
    plain = asdict(item)
    if plain["source"] is not None:
        del plain["source"]["where"]  # a path of this machine
    return plain


def _item(plain: Mapping[str, Any]) -> Item:
    values: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in plain.items()}
    if (source := values["source"]) is not None:
        values["source"] = Prompt(**{**source, "aliases": tuple(source["aliases"])})
    return Item(**values)


def _schema(kinds: Mapping[str, tuple[str, tuple[int, ...]]]) -> pa.Schema:
    """The file's columns, each with its meaning and unit."""
    listed = []
    for name, (dtype, shape) in kinds.items():
        if name not in COLUMNS:
            raise ConfigError(f"column {name} is not known: the columns of a table stand in ftw.sweep.table")
        listed.append(_field(name, _type(np.dtype(dtype), shape), COLUMNS[name][1]))
    listed += [_field(name, WORD, meaning) for name, meaning in WORDS.items()]
    return pa.schema(listed, metadata={b"ftw.schema": str(SCHEMA).encode()})


def _type(dtype: np.dtype, shape: Sequence[int]) -> pa.DataType:
    kind = WORD if dtype.kind == "U" else pa.from_numpy_dtype(dtype)
    return pa.list_(kind) if shape else kind


def _field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning, "unit": unit(name)})


def unit(name: str) -> str:
    """The unit of a column; empty where it has none."""
    for ending, found in UNITS.items():
        if name.endswith(ending):
            return found
    return ""


def _encodings(kinds: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """Bytes of floats are sorted by significance, the rest by a dictionary: half the size of what Arrow does alone."""
    paths = {name: f"{name}.list.element" if shape else name for name, (_, shape) in kinds.items()}
    floats = [paths[name] for name, (dtype, _) in kinds.items() if np.dtype(dtype).kind == "f"]
    return {
        "use_byte_stream_split": floats,
        "use_dictionary": [path for path in (*paths.values(), *WORDS) if path not in floats],
    }


def _array(column: np.ndarray) -> pa.Array:
    if column.dtype.kind == "U":
        values, codes = np.unique(column, return_inverse=True)
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values.tolist(), pa.string()))
    if column.ndim == 1:
        return pa.array(column, from_pandas=False)
    offsets = pa.array(np.arange(len(column) + 1, dtype=np.int32) * column.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(column.reshape(-1), from_pandas=False))


def _words(ids: np.ndarray, words: Mapping[int, str] | Sequence[str]) -> pa.Array:
    values, codes = np.unique(ids, return_inverse=True)
    texts = [words[int(value)].encode("utf-8", "replace").decode() for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts, pa.string()))


def _column(file: Path, found: pa.ChunkedArray, name: str, kind: Mapping[str, Any]) -> np.ndarray:
    """A column as it was written. Raises ConfigError where it is not."""
    flat = found.combine_chunks()
    if kind["shape"]:
        flat = flat.flatten()
    elif flat.type == WORD:
        values = np.array(flat.dictionary.to_pylist() or [""], dtype=kind["dtype"])
        flat = values[flat.indices.to_numpy(zero_copy_only=False)]
    column = np.array(flat, dtype=kind["dtype"])
    wanted = (len(found), *kind["shape"])
    if column.size == math.prod(wanted):
        column = np.ascontiguousarray(column.reshape(wanted))
        if hashlib.sha256(column.data).hexdigest() == kind["sha256"]:
            return column
    raise ConfigError(f"{file} is damaged: column {name} is not what was written. Copy it again, or sweep again")


def _require_columns(file: Path, found: pa.Schema, written: Mapping[str, Mapping[str, Any]]) -> None:
    for name in found.names:
        if name not in COLUMNS and name not in WORDS:
            raise ConfigError(f"{file} has a column {name} that this version does not know: it was written by another")
    for name in (*KEYS, *written):
        if name not in found.names or name not in written:
            raise ConfigError(f"{file} has no column {name}: it is not what was written. Sweep again")
    for name, kind in written.items():
        here, there = COLUMNS[name][0], np.dtype(kind["dtype"])
        if not (there.kind == "U" if here == "str" else there == np.dtype(here)):
            raise ConfigError(f"{file}: column {name} is {there}, this version has {here}: sweep again")
        wanted = _type(there, kind["shape"])
        if found.field(name).type != wanted:
            raise ConfigError(f"{file}: column {name} is {found.field(name).type}, not {wanted}. Sweep again")


def _opened(file: Path, metadata: Mapping[bytes, bytes] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file says of itself: table and provenance. Raises ConfigError."""
    found = {key.decode(): value for key, value in (metadata or {}).items() if key.startswith(b"ftw.")}
    if "ftw.schema" not in found:
        raise ConfigError(f"{file} is no file of a sweep: its metadata have no ftw.schema")
    if found["ftw.schema"] != str(SCHEMA).encode():
        raise ConfigError(
            f"{file} has schema {found['ftw.schema'].decode(errors='replace')}, this version reads {SCHEMA}: sweep "
            "again, or use the version that wrote it"
        )
    about, provenance = found.get("ftw.table", b""), found.get("ftw.provenance", b"")
    if _sealed(about, provenance)["ftw.sha256"] != found.get("ftw.sha256"):
        raise ConfigError(f"{file} is damaged: its metadata are not what was written. Copy it again, or sweep again")
    return json.loads(about), json.loads(provenance)


def _sealed(about: bytes, provenance: bytes) -> dict[str, bytes]:
    digest = hashlib.sha256(len(about).to_bytes(8, "big") + about + provenance).hexdigest()
    return {"ftw.table": about, "ftw.provenance": provenance, "ftw.sha256": digest.encode()}


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns what Arrow and the disk say into errors that name the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {file}: give a run's folder") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{file} cannot be read: {error.strerror or error}") from error
        why = str(error).splitlines()[0]
        raise ConfigError(f"{file} is no Parquet file, cut short, or damaged ({why}). Sweep again") from error

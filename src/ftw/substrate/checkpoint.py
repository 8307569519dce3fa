"""A model's folder on disk, judged before anything is loaded: config, safetensors headers, tokenizer files.

Only headers are read, so a truncated download, a missing shard or a Git LFS pointer is named in milliseconds, and the
size of the model is known before memory is spent.

The rule of the file: what is wrong is said with the file's name, and with what to do.
"""

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ftw.substrate.errors import ModelBroken, StorageError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json",
    "sentencepiece.bpe.model", "tokenizer.tiktoken", "qwen.tiktoken",
)  # fmt: skip
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
"""Dtypes that weights are computed in, as safetensors spells them."""
MAX_HEADER = 100 << 20
"""The safetensors format allows no larger header."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor in a safetensors file."""

    name: str
    dtype: str
    """As the header spells it: `F32`, `BF16`, …"""
    shape: tuple[int, ...]
    file: Path
    start: int
    """First byte in the file."""
    n_bytes: int

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a whole model."""

    folder: Path
    config: Mapping[str, Any]
    """`config.json` as it stands."""
    files: tuple[Path, ...]
    """Files that hold weights, sorted by name."""

    @property
    def is_safe(self) -> bool:
        """Whether the weights are safetensors (else they are PyTorch pickles, loaded with `weights_only`)."""
        return all(file.suffix == ".safetensors" for file in self.files)

    @property
    def n_bytes(self) -> int:
        """Size of the weight files."""
        try:
            return sum(file.stat().st_size for file in self.files)
        except OSError as error:
            raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every tensor of the safetensors files, from their headers. Empty for pickles."""
        return tuple(entry for file in self.files for entry in read_header(file)) if self.is_safe else ()

    @property
    def dtype(self) -> torch.dtype:
        """The float dtype that most numbers are stored in; for pickles what the config says. fp32 if neither tells."""
        counts: Counter[str] = Counter()
        for entry in self.entries:
            counts[entry.dtype] += entry.numel
        for stored, _ in counts.most_common():
            if stored in DTYPES:
                return DTYPES[stored]
        named = self.config.get("dtype") or self.config.get("torch_dtype")
        return {str(d).removeprefix("torch."): d for d in DTYPES.values()}.get(str(named), torch.float32)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the folder holds a tokenizer's vocabulary."""
        return any((self.folder / name).is_file() for name in TOKENIZER_FILES)


def open_checkpoint(folder: Path) -> Checkpoint:
    """The model in `folder`, complete and of the right sizes. Raises ModelBroken naming the first file that is not."""
    config = _read_json(folder / "config.json", "it is the model's description; copy or download it again")
    files = _weight_files(folder)
    checkpoint = Checkpoint(folder, config, files)
    if checkpoint.is_safe and not checkpoint.entries:
        raise ModelBroken(f"{folder}: the weight files hold no tensors. Download the model again")
    return checkpoint


def read_header(file: Path) -> list[Entry]:
    """The tensors of one safetensors file, checked against its size. Raises ModelBroken naming the file."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(8)
            if head == b"version ":
                raise ModelBroken(f"{file} is a Git LFS pointer, not the weights. Run `git lfs pull` in its folder")
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else MAX_HEADER + 1
            if length > MAX_HEADER or 8 + length > size:
                raise ModelBroken(_cut(file, size, None))
            table = json.loads(stream.read(length))
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelBroken(f"{file} is not a safetensors file: its header is unreadable. Download it again") from error
    entries = list(_entries(file, table, 8 + length))
    end = max((entry.start + entry.n_bytes for entry in entries), default=8 + length)
    if end != size:
        raise ModelBroken(_cut(file, size, end))
    return entries


def _entries(file: Path, table: object, base: int) -> Iterator[Entry]:
    try:
        for name, row in table.items():  # type: ignore[attr-defined]
            if name == "__metadata__":
                continue
            first, last = row["data_offsets"]
            yield Entry(name, row["dtype"], tuple(row["shape"]), file, base + first, last - first)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelBroken(f"{file} is not a safetensors file: its header is malformed. Download it again") from error


def _cut(file: Path, size: int, wanted: int | None) -> str:
    if wanted is not None and wanted < size:
        return f"{file} is damaged: {size} bytes on disk, {wanted} in its header. Download it again"
    rest = f" of {wanted}" if wanted else ""
    return f"{file} is truncated: {size}{rest} bytes are there. The download did not finish; repeat it"


def _weight_files(folder: Path) -> tuple[Path, ...]:
    for name in (INDEX, PICKLED[1]):
        if (folder / name).is_file() and not (folder / WEIGHTS).is_file():
            return _shards(folder, name)
    for name in (WEIGHTS, PICKLED[0]):
        if (folder / name).is_file():
            return (folder / name,)
    loose = sorted(folder.glob("model-*-of-*.safetensors"))
    if loose:
        raise ModelBroken(
            f"{folder / INDEX} is missing: shards are there, but not the table that joins them. Copy it too"
        )
    raise ModelBroken(f"{folder / WEIGHTS} is missing, and so is every other weight file. Finish the download")


def _shards(folder: Path, index: str) -> tuple[Path, ...]:
    table = _read_json(folder / index, "it lists the shards; download it again").get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelBroken(f"{folder / index} lists no shards (no `weight_map`). Download it again")
    names = sorted({str(name) for name in table.values()})
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelBroken(
            f"{folder / missing[0]}{more} missing: {index} lists {len(names)} shards. Finish the download"
        )
    return tuple(folder / name for name in names)


def _read_json(file: Path, hint: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelBroken(f"{file} is missing: {hint}") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelBroken(f"{file} is not valid JSON: {hint}") from error
    if not isinstance(value, dict):
        raise ModelBroken(f"{file} is not a JSON object: {hint}")
    return value

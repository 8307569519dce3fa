"""Level files opened: mapped, so that lenses and families are slices, or read in one go, so that a disk is kept busy.

The rule of the file: tensors come as they are stored (bf16 stays bf16, int8 stays int8), and weights that are read
whole are checked for NaN and infinity while the next bytes arrive.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from ftw.hat.classifiers.index import LensRow, read_index, read_info
from ftw.hat.classifiers.layout import AGAIN, SHARED, Header, Span, level_file, level_of, places
from ftw.hat.classifiers.lens import ConceptLens
from ftw.hat.classifiers.modules import MLP
from ftw.hat.classifiers.quantise import Int8Tensor, QuantisedRows, dequantise_rows
from ftw.hat.classifiers.stitch import PAGE, Piece, can_stitch, stitch
from ftw.hat.classifiers.tensors import LensTensors, shapes
from ftw.substrate.errors import NumericError, PackError, StorageError, UnknownConcept, UsageError
from ftw.substrate.manifest import write_atomically

LARGE = ("w1", "w2")
"""The tensors that a pack may hold in int8."""
FIRST = ("w1", "b1")
"""The first layer."""
NAMES = tuple(each.name for each in fields(LensTensors))
OPEN_END = "screen_threshold"
"""The one tensor that may hold -inf."""
ALL = "lens '(all)'"
"""Whose a shared layer is, in messages."""
_CHUNK = 4 << 20
_READERS = 4
"""Chunks that are read at a time: fresh memory is as slow to get as bytes from a disk, and the two can overlap."""
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class PackFile:
    """The lenses of one level, mapped into memory: opening reads the header, using a lens reads that lens."""

    def __init__(self, folder: Path, level: int, rows: Sequence[LensRow]) -> None:
        """`rows` is the pack's index or the part of it at this level. Raises PackError, StorageError."""
        self.file = folder / level_file(level)
        self.level = level
        self._rows: dict[int, tuple[LensRow, ...]] = {}
        own = [row for row in rows if level_of(row) == level]
        for block in sorted({row.block for row in own}):
            self._rows[block] = tuple(row for row in own if row.block == block)
        self.header = Header.of(self.file, own)
        self._shared = read_shared(folder)
        for block, part in self._rows.items():
            check_part(self.header, self._shared, block, part)
        self._place = {(term.casefold(), block): at for (term, block), at in places(own).items()}
        self._primary = {row.term.casefold(): row.block for row in own if row.primary}
        with self.file.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that its lenses read, ascending."""
        return tuple(self._rows)

    @property
    def is_shared(self) -> bool:
        """Whether the lenses of each block share their first layer."""
        return bool(self._shared)

    @property
    def units(self) -> int:
        """How many units the second layer of its lenses has at most."""
        return max(self.header.spans[f"block{block}.w3"].shape[-1] for block in self._rows)

    def rows_of(self, block: int) -> tuple[LensRow, ...]:
        """The lenses of one block, in file order. Raises UsageError for a block that has none here."""
        if block not in self._rows:
            raise UsageError(f"{self.file} has lenses at blocks {list(self._rows)}, none at {block}")
        return self._rows[block]

    def rows(self, block: int, which: slice = slice(None)) -> LensTensors:
        """The weights of a run of a block's lenses: views of the file where it stores floats, fp32 where it is int8."""
        rows = self.rows_of(block)[which]
        if not rows or which.step not in (None, 1):
            raise UsageError(f"{which} takes no run of the {len(self.rows_of(block))} lenses of block {block}")
        start, stop, _ = which.indices(len(self._rows[block]))
        raw = {}
        for name in (name for name in self.header.spans if name.startswith(f"block{block}.")):
            tensor = self.raw(name)
            each = len(tensor) // len(self._rows[block])
            raw[name] = tensor[start * each : stop * each]
        return part_of(raw | self._shared, block, len(rows))

    def lens(self, term: str, block: int | None = None) -> LensTensors:
        """The weights of one lens; without a block, of the one that speaks for its concept. Finite.

        Raises UnknownConcept for one that is not here, NumericError for a NaN.
        """
        block, at = self.find(term, block)
        found = self.rows(block, slice(at, at + 1))
        check_finite(found, [self._rows[block][at]], str(self.file))
        return found

    def find(self, term: str, block: int | None = None) -> tuple[int, int]:
        """(block, place among its lenses) of a lens, by name in any case. Raises UnknownConcept."""
        where = self._primary.get(term.casefold()) if block is None else block
        at = None if where is None else self._place.get((term.casefold(), where))
        if where is None or at is None:
            raise UnknownConcept(f"{self.file} holds no lens of {term!r}" + ("" if block is None else f" at {block}"))
        return where, at.at

    def lens_bytes(self, term: str, block: int | None = None) -> int:
        """How many bytes of the file one lens has. Raises UnknownConcept."""
        block, at = self.find(term, block)
        return sum(run.stop - run.start for run in self.header.runs_of(block, at, at + 1, len(self._rows[block])))

    def raw(self, name: str) -> Tensor:
        """One tensor as it is stored, a view of the file. Raises UsageError for a name that is not in it."""
        if name not in self.header.spans:
            raise UsageError(f"{self.file} holds no {name}: it has {', '.join(self.header.spans)}")
        span = self.header.spans[name]
        return _as_stored(self._bytes[span.start : span.stop], span)

    def willneed(self, block: int, which: slice = slice(None)) -> None:
        """Ask the system to fetch the bytes of a run of lenses, without waiting for them."""
        of = len(self.rows_of(block))
        start, stop, _ = which.indices(of)
        for run in self.header.runs_of(block, start, stop, of):
            first = run.start - run.start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, first, run.stop - first)


def open_level(folder: Path, level: int) -> PackFile:
    """One level of the pack in `folder`. Raises PackError, StorageError."""
    return PackFile(folder, level, read_index(folder))


def open_lens(folder: Path, term: str) -> ConceptLens:
    """A concept's lens from the pack in `folder`, by name in any case: all its classifiers; weights come when loaded.

    Raises UnknownConcept that names the nearest ones, PackError, StorageError.
    """
    info, rows = read_info(folder), read_index(folder)
    own = [row for row in rows if row.term.casefold() == term.casefold()]
    if not own:
        names = {row.term.casefold(): row.term for row in rows}
        near = get_close_matches(term.casefold(), names, n=3, cutoff=0.5)
        hint = f"; nearest: {', '.join(names[name] for name in near)}" if near else ""
        raise UnknownConcept(f"no lens for {term!r} in {folder} ({len(names)} concepts){hint}")
    levels = {row.block: level_of(row) for row in own}

    def read(block: int) -> MLP:
        return PackFile(folder, levels[block], rows).lens(own[0].term, block).module()

    return ConceptLens.of_rows(own, info.model.n_layers, read)


def read_level(folder: Path, level: int, rows: Sequence[LensRow] = ()) -> dict[str, Tensor]:
    """All tensors of a level file as stored, by one read from its start to its end, checked to be finite.

    Raises PackError, NumericError, StorageError.
    """
    header = Header.of(folder / level_file(level), rows)
    tensors = {name: empty(span) for name, span in header.spans.items()}
    if not fill(folder / level_file(level), header, tensors):
        for name, tensor in tensors.items():
            finite(tensor, (), f"{header.source}: {name}")
    return tensors


def fill(file: Path, header: Header, into: Mapping[str, Tensor]) -> bool:
    """Read tensors of a file into contiguous ones of their dtypes and sizes, in one pass from its start to its end.

    A few chunks are under way at a time, each looked at while it is in the processor's cache. Gives whether every float
    is finite (-inf in a screen's threshold aside). Raises StorageError, PackError for a file that ends too soon.
    """
    order = sorted((header.spans[name].start, name) for name in into)
    parts = [each for start, name in order for each in _chunks(name, into[name], start)]
    try:
        with ThreadPoolExecutor(_READERS) as readers:
            return all(list(readers.map(lambda part: _read(file, *part), parts)))
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}; {AGAIN}") from error


def prefetch(folder: Path, levels: Iterable[int] | None = None) -> None:
    """Ask the system to fetch level files (all that are there, or some), without waiting for them."""
    files = folder.glob("level*.safetensors") if levels is None else [folder / level_file(level) for level in levels]
    for file in sorted(files):
        if file.is_file() and hasattr(os, "posix_fadvise"):
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def mapped(span: Span, pieces: Sequence[Piece]) -> Tensor | None:
    """A tensor over the pages of files that hold its parts; None where it is small or they are no whole pages."""
    if span.stop - span.start < _CHUNK or not can_stitch(pieces):
        return None
    return stitch(pieces).view(_TYPES[span.dtype]).view(span.shape)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every float of some tensors is finite, in chunks side by side: of mapped ones, more arrive meanwhile."""
    parts = [part for t in tensors if t.is_floating_point() for _, part, _ in _chunks("", t, 0)]
    with ThreadPoolExecutor(_READERS) as readers:
        return all(list(readers.map(lambda part: _is_finite(part, may_be_open=False), parts)))


def _chunks(name: str, tensor: Tensor, start: int) -> Iterator[tuple[str, Tensor, int]]:
    """The parts of a tensor that are read at once, each with its place in the file."""
    flat, size = tensor.view(-1), tensor.element_size()
    step = _CHUNK // size
    for at in range(0, flat.numel(), step):
        yield name, flat[at : at + step], start + at * size


def _read(file: Path, name: str, part: Tensor, start: int) -> bool:
    """Fill a part of a tensor; whether it is finite."""
    view, done = part.view(torch.uint8).numpy().data, 0
    with file.open("rb", buffering=0) as stream:
        stream.seek(start)
        while done < len(view):
            got = stream.readinto(view[done:])
            if not got:
                raise PackError(f"{file} ends within {name}: it was cut while it was read; {AGAIN}")
            done += got
    return not part.is_floating_point() or _is_finite(part, name.endswith(OPEN_END))


def empty(span: Span) -> Tensor:
    """A tensor that the bytes of `span` can be read into."""
    return torch.empty(span.shape, dtype=_TYPES[span.dtype])


def _is_finite(part: Tensor, may_be_open: bool) -> bool:
    if may_be_open:
        return not bool((part.isnan() | (part == float("inf"))).any())
    # one pass without a mask as large as the weights; a sum of finite numbers that overflows is looked at again
    return bool(part.sum().isfinite()) or bool(part.isfinite().all())


def finite(tensor: Tensor, whose: Sequence[str], where: str) -> None:
    """Raise NumericError that names the first of `whose`, one per row of the tensor, with what is not finite."""
    if not tensor.is_floating_point() or bool(tensor.sum().isfinite()):
        return  # a sum has no mask as large as the weights; one that overflows is looked at again
    good = tensor.isfinite()
    if where.endswith(OPEN_END):
        good |= tensor == float("-inf")
    if bool(good.all()):
        return
    at = int(good.reshape(max(1, len(whose)), -1).all(-1).logical_not().nonzero()[0])
    told = f" of {whose[at]}" if whose else ""
    raise NumericError(f"{where}{told} holds a NaN or an infinity")


def check_finite(part: LensTensors, rows: Sequence[LensRow], source: str) -> None:
    """Raise NumericError that names the file, the tensor and the lens of the first value that is not finite."""
    whose = [f"lens {row.term!r}" for row in rows]
    for name in NAMES:
        tensor: Tensor = getattr(part, name)
        where = f"{source}: block{rows[0].block}.{name}"
        if tensor.stride(0) == 0 and len(rows) > 1:
            finite(tensor[:1], [ALL], where)
        else:
            finite(tensor, whose, where)


def read_shared(folder: Path) -> dict[str, Tensor]:
    """The first layers that all lenses of a block share, as stored; nothing where each lens has its own."""
    file = folder / SHARED
    return read_tensors(file) if file.exists() else {}


def check_part(header: Header, shared: Mapping[str, Tensor], block: int, rows: Sequence[LensRow]) -> None:
    """Raise PackError unless a file has exactly the tensors that the lenses of a block need, in their shapes."""
    n, prefix = len(rows), f"block{block}."
    spans = {name.removeprefix(prefix): span for name, span in header.spans.items() if name.startswith(prefix)}
    once = {name.removeprefix(prefix) for name in shared if name.startswith(prefix)}
    lacks = [name for name in NAMES if name not in spans and name not in once]
    if lacks:
        raise PackError(f"{header.source} lacks {', '.join(prefix + name for name in lacks)}; {AGAIN}")
    odd = sorted(set(spans) - set(NAMES) - {f"{name}_scale" for name in LARGE})
    if odd:
        raise PackError(f"{header.source} holds tensors that no lens uses: {', '.join(prefix + name for name in odd)}")
    d_model, units = spans["screen_w"].shape[-1], spans["w3"].shape[-1]
    for name, shape in shapes(n, units, d_model).items():
        if name not in spans:
            continue
        need, found = _flat(shape), spans[name].shape
        if found != need:
            raise PackError(f"{header.source}: {prefix}{name} is {list(found)}, {n} lenses need {list(need)}")
        _check_scale(f"{header.source}: {prefix}{name}", spans[name], spans.get(f"{name}_scale"))


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0] * shape[1], shape[2]) if len(shape) == 3 else shape


def _check_scale(what: str, span: Span, scale: Span | None) -> None:
    if span.dtype == "I8":
        if scale is None or scale.shape != span.shape[:1]:
            found = "none" if scale is None else str(list(scale.shape))
            raise PackError(f"{what} is int8 and needs {list(span.shape[:1])} scales, its scale is {found}")
    elif scale is not None or not _TYPES[span.dtype].is_floating_point:
        raise PackError(f"{what} is {span.dtype}: int8 with scales, or a float")


def part_of(raw: Mapping[str, Tensor], block: int, n: int, *, as_stored: bool = False) -> LensTensors:
    """The weights of `n` lenses of a block from their stored tensors: int8 becomes fp32, bf16 stays.

    With `as_stored`, int8 weights that lenses do not share stay as they are and become fp32 where they are used.
    """
    prefix = f"block{block}."
    d_model, units = raw[prefix + "screen_w"].shape[-1], raw[prefix + "w3"].shape[-1]
    made: dict[str, Tensor] = {}
    for name, shape in shapes(n, units, d_model).items():
        tensor, scale = raw[prefix + name], raw.get(f"{prefix}{name}_scale")
        if scale is not None:
            stored, is_own = QuantisedRows(tensor, scale), tensor.shape == _flat(shape)
            tensor = Int8Tensor(stored) if as_stored and is_own else dequantise_rows(stored)
        if name not in LARGE:
            tensor = tensor.float()
        own = _flat(shape) if tensor.shape == _flat(shape) else shape[1:]
        if tensor.shape != own:
            raise PackError(f"{prefix}{name} is {list(tensor.shape)}, {n} lenses need {list(own)}; {AGAIN}")
        made[name] = tensor.view(shape) if own == _flat(shape) else tensor.expand(shape)
    return LensTensors(**made)


def require_fresh(folder: Path) -> None:
    """Raise StorageError unless `folder` is new or empty and can be written, so that no work is lost."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is not an empty folder: name a new one with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}; name another folder with --out") from error


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file in one step. Raises NumericError for what is not finite, StorageError."""
    for name, tensor in tensors.items():
        finite(tensor, (), f"{file}: {name}")
    write_atomically(file, _blob({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))


def _blob(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. What is large stands first, from a page boundary on: see `stitch`."""
    paged = sorted((n for n in tensors if n.endswith((".w1", ".w2"))), key=lambda name: (name[-2:], name))
    rest = sorted(set(tensors) - set(paged), key=lambda name: (-tensors[name].element_size(), name))
    head: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in [*paged, *rest]:
        size = tensors[name].numel() * tensors[name].element_size()
        dtype = next(key for key, value in _TYPES.items() if value == tensors[name].dtype)
        head[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % (PAGE if paged else 8))
    data = [tensors[name].view(-1).view(torch.uint8).numpy().data for name in [*paged, *rest]]
    return b"".join([struct.pack("<Q", len(text)), text, *data])


def read_tensors(file: Path, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a small safetensors file; with `names`, exactly those. Not yet known to be finite.

    Raises PackError where names are missing or there are others, or the file is not whole, StorageError.
    """
    header = Header.of(file)
    if names is not None and set(header.spans) != set(names):
        raise PackError(f"{file} holds {', '.join(sorted(header.spans))}, expected {', '.join(sorted(names))}; {AGAIN}")
    tensors = {name: empty(span) for name, span in header.spans.items()}
    fill(file, header, tensors)
    return tensors


def _as_stored(data: Tensor, span: Span) -> Tensor:
    dtype = _TYPES[span.dtype]
    if data.storage_offset() % dtype.itemsize:  # written by others: safetensors itself aligns what it saves
        data = data.clone()
    return data.view(dtype).view(span.shape)

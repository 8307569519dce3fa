"""Lens packs on disk: pack.json (identity), index.json (one row per lens), one level{L}.safetensors per level.

Tensors are named `block{b}.{name}` with the names of `LensTensors`; w1 and w2 stand as one matrix of rows, [n*128, D]
and [n*unit, 128], in int8 with `block{b}.w1_scale` [n*128], or in bf16 or fp32 without scales. A first layer that all
lenses of a block share stands once, in shared.safetensors: w1 [128, D], b1 [128]. Units of the second layer that no
lens listens to are left out. What is small (biases, w3, screen) is fp32, the screen's weights fp16.

A pack may be partial: some of its level files are not there. The rule of the file: what is loaded is whole, finite and
of the model asked for, or an error says which file and lens.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.choice import LensPackFiles, Which, in_order, renumbered, select, taken
from ftw.hat.classifiers.gate import load_gate
from ftw.hat.classifiers.index import INDEX, PACK, LensRow, PackInfo, check_index, read_index, read_info
from ftw.hat.classifiers.layout import SHARED, Header, Span, level_file, level_of, levels_of, present, verify_pack
from ftw.hat.classifiers.modules import HIDDEN
from ftw.hat.classifiers.packfile import (
    ALL,
    FIRST,
    LARGE,
    NAMES,
    all_finite,
    check_finite,
    check_part,
    empty,
    fill,
    finite,
    mapped,
    part_of,
    prefetch,
    read_shared,
    write_tensors,
)
from ftw.hat.classifiers.quantise import quantise_rows
from ftw.hat.classifiers.stitch import Piece
from ftw.hat.classifiers.tensors import LensTensors
from ftw.hat.classifiers.trunk import load_trunks
from ftw.substrate.errors import FingerprintMismatch, PackError, StorageError
from ftw.substrate.manifest import canonical_json, write_atomically

__all__ = [
    "LensPackFiles",
    "Storage",
    "Which",
    "load_bank",
    "load_pack",
    "require_fingerprint",
    "save_pack",
    "select",
    "verify_pack",
]

Storage = Literal["int8", "bfloat16", "float32"]
"""How w1 and w2 are stored."""
_HALF = "screen_w"


def save_pack(
    folder: Path,
    info: PackInfo,
    rows: Sequence[LensRow],
    blocks: Mapping[int, LensTensors],
    *,
    storage: Storage = "int8",
) -> None:
    """Write the files of a pack, each in one step, pack.json last.

    Rows and tensors are given block by block in the same order; the pack keeps them in its own (`layout.sort_rows`) and
    each row gains its hash. Level files of an earlier pack in the folder go, its other files stay. Raises PackError
    where rows, sites and tensors do not fit each other, NumericError for weights that are not finite, StorageError.
    """
    _fit(info, rows, blocks, str(folder))
    rows, blocks = in_order(rows, blocks)
    for block, part in blocks.items():
        check_finite(part, [row for row in rows if row.block == block], str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}; check the path and its permissions") from error
    shared, levels, hashed = _files(rows, blocks, storage)
    for level, tensors in levels.items():
        write_tensors(folder / level_file(level), tensors, {"format": info.format})
    if shared:
        write_tensors(folder / SHARED, shared, {"format": info.format})
    body = b",\n".join(canonical_json(row.model_dump(mode="json", exclude_none=True)) for row in hashed)
    write_atomically(folder / INDEX, b"[\n" + body + b"\n]\n")
    write_atomically(folder / PACK, canonical_json(info.model_dump(mode="json", exclude_none=True)) + b"\n")
    _sweep(folder, {level_file(level) for level in levels} | ({SHARED} if shared else set()))


def load_pack(folder: Path, levels: Iterable[int] | None = None) -> LensPackFiles:
    """The lenses of a pack, checked: of the levels asked for, or of those that are there.

    Large weights are mapped (a private view of their files: a change stays in memory), the rest is read once from its
    start to its end. Rows count anew where levels are left out. Raises PackError, NumericError, StorageError (a level
    asked for is not there), UsageError (the pack has no such level).
    """
    return _load(folder, levels, as_stored=False)


def _load(folder: Path, levels: Iterable[int] | None, *, as_stored: bool) -> LensPackFiles:
    """`load_pack`; with `as_stored`, int8 weights keep their bytes and become fp32 only where they are used."""
    levels = None if levels is None else tuple(levels)
    prefetch(folder, levels)
    info, index = read_info(folder), read_index(folder)
    _fits_model(info, index, str(folder))
    chosen, missing = present(folder, index, levels)
    rows = [row for row in index if level_of(row) in chosen]
    shared = read_shared(folder)
    for name, tensor in shared.items():
        finite(tensor[None], [ALL], f"{folder / SHARED}: {name}")
    raw = _read(folder, rows, shared, chosen)
    blocks: dict[int, LensTensors] = {}
    for block in dict.fromkeys(row.block for row in rows):
        own = [row for row in rows if row.block == block]
        blocks[block] = part_of(raw.tensors | shared, block, len(own), as_stored=as_stored)
        if not raw.finite:
            _complain(folder, own, blocks[block])
        if blocks[block].w1.shape[-1] != info.model.d_model:
            raise PackError(
                f"{folder}: the lenses of block {block} take states of width {blocks[block].w1.shape[-1]}, pack.json "
                f"says {info.model.d_model}"
            )
    return LensPackFiles(info, renumbered(rows), blocks, missing)


def load_bank(
    folder: Path,
    *,
    fingerprint: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    levels: Iterable[int] | None = None,
    which: Which = "primary",
    trunk: bool = False,
    gate: bool = False,
) -> LensBank:
    """The lenses of a pack, ready to score states of the model with this fingerprint (`Model.fingerprint`).

    One lens per concept, see `select`. With `trunk`, they read the trunk that lies beside the pack; with `gate`, they
    stand behind the gate that does. Raises FingerprintMismatch where the pack was made for another model, StorageError
    where there is no trunk or gate, and what `load_pack`, `select` and `LensBank.gated` raise.
    """
    require_fingerprint(read_info(folder), fingerprint)
    trunks = load_trunks(folder) if trunk else None
    opened = load_gate(folder) if gate else None
    files = select(_load(folder, levels, as_stored=True), which)
    bank = LensBank.from_tensors(files.blocks, files.rows, device=device, dtype=dtype, trunks=trunks)
    return bank if opened is None else bank.gated(opened)


def require_fingerprint(info: PackInfo, fingerprint: str) -> None:
    """Raise FingerprintMismatch unless the pack was made for the model with this fingerprint."""
    if info.model.fingerprint != fingerprint:
        raise FingerprintMismatch(
            f"lens pack {info.name} {info.version} was made for {info.model.name} ({info.model.fingerprint[:8]}), this "
            f"model is {fingerprint[:8]}: use that model, or train lenses for this one with `ftw lens train`"
        )


@dataclass(frozen=True, slots=True)
class _Raw:
    tensors: dict[str, Tensor]
    finite: bool


def _read(folder: Path, rows: Sequence[LensRow], shared: Mapping[str, Tensor], levels: Sequence[int]) -> _Raw:
    """The stored tensors of several levels, those of a block joined: mapped, or read to where they stay."""
    headers: dict[int, Header] = {}
    for level in levels:
        own = [row for row in rows if level_of(row) == level]
        headers[level] = Header.of(folder / level_file(level), own)
        for block in dict.fromkeys(row.block for row in own):
            check_part(headers[level], shared, block, [row for row in own if row.block == block])
        blocks = {f"block{row.block}" for row in own}
        odd = sorted(name for name in headers[level].spans if name.partition(".")[0] not in blocks)
        if odd:
            raise PackError(f"{headers[level].source} holds tensors that no lens of the index uses: {', '.join(odd)}")
    joined = _joined(headers)
    pieces: dict[str, list[Piece]] = {name: [] for name in joined}
    for level, header in headers.items():
        for name, span in header.spans.items():
            pieces[name].append(Piece(folder / level_file(level), span.start, span.stop))
    over = {name: mapped(span, pieces[name]) for name, span in joined.items()}
    tensors = {name: tensor for name, tensor in over.items() if tensor is not None}
    good = all_finite(tensors.values())
    used: dict[str, int] = {}
    for level, header in headers.items():
        into: dict[str, Tensor] = {}
        for name, span in header.spans.items():
            if over[name] is None:
                first = used.get(name, 0)
                tensors[name] = tensors[name] if first else empty(joined[name])
                into[name] = tensors[name][first : first + span.shape[0]]
                used[name] = first + span.shape[0]
        good = fill(folder / level_file(level), header, into) and good
    return _Raw(tensors, good)


def _joined(headers: Mapping[int, Header]) -> dict[str, Span]:
    """Each tensor as it is when the levels stand one after another. Raises PackError where they do not match."""
    joined: dict[str, Span] = {}
    for header in headers.values():
        for name, span in header.spans.items():
            before = joined.get(name)
            if before is None:
                joined[name] = span
                continue
            if (before.dtype, before.shape[1:]) != (span.dtype, span.shape[1:]):
                raise PackError(
                    f"{header.source}: {name} is {span.dtype} {list(span.shape)}, in another level {before.dtype} "
                    f"{list(before.shape)}: the levels are not of one pack; fetch it again"
                )
            shape = (before.shape[0] + span.shape[0], *span.shape[1:])
            joined[name] = Span(span.dtype, shape, 0, before.stop - before.start + span.stop - span.start)
    return joined


def _complain(folder: Path, rows: Sequence[LensRow], part: LensTensors) -> None:
    """Raise NumericError for the first lens of the levels' files with a value that is not finite."""
    for at, row in enumerate(rows):
        check_finite(taken(part, [at]), [row], str(folder / level_file(level_of(row))))


def _files(
    rows: Sequence[LensRow], blocks: Mapping[int, LensTensors], storage: Storage
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]], list[LensRow]]:
    """What goes into shared.safetensors and into each level's file, and the rows with the hashes of their bytes."""
    shared: dict[str, Tensor] = {}
    levels: dict[int, dict[str, Tensor]] = {level: {} for level in levels_of(rows)}
    hashed: list[LensRow] = []
    for block, part in blocks.items():
        own = [row for row in rows if row.block == block]
        once, stored = _stored(part, storage)
        shared |= {f"block{block}.{name}": tensor for name, tensor in once.items()}
        first = 0
        for level in levels_of(own):
            n = sum(level_of(row) == level for row in own)
            for name, tensor in stored.items():
                each = len(tensor) // len(own)
                levels[level][f"block{block}.{name}"] = tensor[first * each : (first + n) * each]
            first += n
        hashed += [row.model_copy(update={"sha256": _hash(stored, at, len(own))}) for at, row in enumerate(own)]
    return shared, levels, hashed


def _hash(stored: Mapping[str, Tensor], at: int, of: int) -> str:
    digest = hashlib.sha256()
    for name in sorted(stored):
        each = len(stored[name]) // of
        digest.update(stored[name][at * each : (at + 1) * each].view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _stored(part: LensTensors, storage: Storage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a block as they go to disk: those that all lenses share, and those with rows for each lens."""
    part = part.trimmed()
    shared = part.is_shared and len(part.b3) > 1
    once: dict[str, Tensor] = {}
    each: dict[str, Tensor] = {}
    for name in NAMES:
        tensor: Tensor = getattr(part, name).detach().cpu()
        out = once if shared and name in FIRST else each
        tensor = tensor[0] if out is once else tensor
        if name not in LARGE:
            out[name] = tensor.half() if name == _HALF else tensor.float()
            continue
        matrix = tensor.reshape(-1, tensor.shape[-1])
        if storage == "int8":
            out[name], out[f"{name}_scale"] = quantise_rows(matrix)
        else:
            out[name] = matrix.to(torch.bfloat16 if storage == "bfloat16" else torch.float32)
    return once, {name: tensor.contiguous() for name, tensor in each.items()}


def _sweep(folder: Path, kept: set[str]) -> None:
    """Remove the level files of an earlier pack that this one does not have."""
    for file in [*folder.glob("level*.safetensors"), folder / SHARED]:
        if file.name not in kept:
            file.unlink(missing_ok=True)


def _fit(info: PackInfo, rows: Sequence[LensRow], blocks: Mapping[int, LensTensors], source: str) -> None:
    check_index(rows, f"{source}/{INDEX}")
    _fits_model(info, rows, source)
    if set(blocks) != set(info.sites):
        raise PackError(f"{source}: pack.json names blocks {list(info.sites)}, the tensors are of {sorted(blocks)}")
    for block in info.sites:
        n, found = sum(row.block == block for row in rows), tuple(blocks[block].w1.shape)
        if found != (n, HIDDEN, info.model.d_model):
            raise PackError(
                f"{source}: w1 of block {block} is {list(found)}, its {n} lenses need {[n, HIDDEN, info.model.d_model]}"
            )
        blocks[block].require(block, n, info.model.d_model)


def _fits_model(info: PackInfo, rows: Sequence[LensRow], source: str) -> None:
    used = tuple(dict.fromkeys(row.block for row in rows))
    if used != info.sites:
        raise PackError(f"{source}: pack.json names blocks {list(info.sites)}, index.json {list(used)}")
    for at, row in enumerate(rows):
        if row.block >= info.model.n_layers:
            raise PackError(f"{source}/{INDEX} row {at}: {row.term!r} reads block {row.block} of {info.model.n_layers}")

"""Lens packs on disk: pack.json (identity), index.json (one row per lens), lenses.safetensors, directions.safetensors.

Tensors are named `block{b}.{name}` with the names of `LensTensors`; w1 and w2 stand as one matrix of rows, [n*128, D]
and [n*unit, 128], in int8 with `block{b}.w1_scale` [n*128], or in bf16 or fp32 without scales. A first layer that all
lenses of a block share stands once: w1 [128, D], b1 [128]. Units of the second layer that no lens listens to are left
out. What is small (biases, w3, screen) is fp32, the screen's weights fp16.

The rule of the file: what is loaded is whole, finite and of the model asked for, or an error says which file and lens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.index import INDEX, PACK, LensRow, PackInfo, check_rows, read_index, read_info
from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.hat.classifiers.quantise import QuantisedRows, dequantise_rows, quantise_rows
from ftw.hat.classifiers.tensors import LensTensors, shapes
from ftw.substrate.errors import FingerprintMismatch, NumericError, PackError, StorageError
from ftw.substrate.manifest import canonical_json, write_atomically

LENSES = "lenses.safetensors"
Storage = Literal["int8", "bfloat16", "float32"]
"""How w1 and w2 are stored."""
_LARGE = ("w1", "w2")
_FIRST = ("w1", "b1")
_NAMES = tuple(each.name for each in fields(LensTensors))
_HALF = "screen_w"


@dataclass(frozen=True, slots=True)
class LensPackFiles:
    """A lens pack in memory: identity, rows and the weights of each block (fp32)."""

    info: PackInfo
    rows: tuple[LensRow, ...]
    blocks: Mapping[int, LensTensors]


def save_pack(
    folder: Path,
    info: PackInfo,
    rows: Sequence[LensRow],
    blocks: Mapping[int, LensTensors],
    *,
    storage: Storage = "int8",
) -> None:
    """Write pack.json, index.json and lenses.safetensors, each in one step, pack.json last.

    Other files of the folder stay. Raises PackError where rows, sites and tensors do not fit each other, NumericError
    for weights that are not finite, StorageError.
    """
    _fit(info, rows, blocks, str(folder))
    tensors: dict[str, Tensor] = {}
    for block, part in blocks.items():
        for name, tensor in _stored(part, storage).items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NumericError(f"{name} of block {block} holds a NaN or an infinity: it is not saved")
            tensors[f"block{block}.{name}"] = tensor.detach().cpu().contiguous()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}; check the path and its permissions") from error
    write_atomically(folder / LENSES, save(tensors, metadata={"format": info.format}))
    body = b",\n".join(canonical_json(row.model_dump(mode="json", exclude_none=True)) for row in rows)
    write_atomically(folder / INDEX, b"[\n" + body + b"\n]\n")
    write_atomically(folder / PACK, canonical_json(info.model_dump(mode="json", exclude_none=True)) + b"\n")


def load_pack(folder: Path) -> LensPackFiles:
    """Everything of a lens pack but its directions, checked. Raises PackError, NumericError, StorageError."""
    info, rows = read_info(folder), read_index(folder)
    file = folder / LENSES
    blocks: dict[int, LensTensors] = {}
    expected: set[str] = set()
    try:
        with safe_open(file, framework="pt") as stored:
            names = set(stored.keys())
            for block in info.sites:
                expected |= {f"block{block}.{name}" for name in _NAMES}
                scales = {f"block{block}.{name}_scale" for name in _LARGE}
                expected |= scales & names
                missing = sorted(name for name in expected - names if name.startswith(f"block{block}."))
                if missing:
                    raise PackError(f"{file} lacks {', '.join(missing)}")
                blocks[block] = _loaded(file, block, {n: stored.get_tensor(n) for n in names}, info.model.d_model, rows)
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise PackError(f"{file} is truncated or not a safetensors file: {error}; fetch or train it again") from error
    if names - expected:
        raise PackError(f"{file} holds tensors that no lens of the index uses: {', '.join(sorted(names - expected))}")
    _fit(info, rows, blocks, str(folder))
    return LensPackFiles(info, rows, blocks)


def load_bank(
    folder: Path,
    *,
    fingerprint: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> LensBank:
    """The lenses of a pack, ready to score states of the model with this fingerprint (`Model.fingerprint`).

    Raises FingerprintMismatch where the pack was made for another model, PackError, NumericError, StorageError.
    """
    info = read_info(folder)
    require_fingerprint(info, fingerprint)
    files = load_pack(folder)
    return LensBank.from_tensors(files.blocks, files.rows, device=device, dtype=dtype)


def require_fingerprint(info: PackInfo, fingerprint: str) -> None:
    """Raise FingerprintMismatch unless the pack was made for the model with this fingerprint."""
    if info.model.fingerprint != fingerprint:
        raise FingerprintMismatch(
            f"lens pack {info.name} {info.version} was made for {info.model.name} ({info.model.fingerprint[:8]}), this "
            f"model is {fingerprint[:8]}: use that model, or train lenses for this one with `ftw lens train`"
        )


def _stored(part: LensTensors, storage: Storage) -> dict[str, Tensor]:
    """The tensors of a block as they go to disk."""
    part = part.trimmed()
    shared = part.is_shared
    out: dict[str, Tensor] = {}
    for name in _NAMES:
        tensor: Tensor = getattr(part, name).detach().float()
        if shared and name in _FIRST:
            tensor = tensor[0]
        if name not in _LARGE:
            out[name] = tensor.half() if name == _HALF else tensor
            continue
        matrix = tensor.reshape(-1, tensor.shape[-1])
        if storage == "int8":
            out[name], out[f"{name}_scale"] = quantise_rows(matrix)
        else:
            out[name] = matrix.to(torch.bfloat16 if storage == "bfloat16" else torch.float32)
    return out


def _loaded(
    file: Path, block: int, tensors: Mapping[str, Tensor], d_model: int, rows: Sequence[LensRow]
) -> LensTensors:
    """The tensors of a block in fp32, shapes and numbers checked lens by lens."""
    terms = [row.term for row in rows if row.block == block]
    n = len(terms)
    shared = tensors[f"block{block}.b1"].ndim == 1
    units = tensors[f"block{block}.w3"].shape[-1] if tensors[f"block{block}.w3"].ndim == 2 else NARROW
    made: dict[str, Tensor] = {}
    for name, shape in shapes(n, units, d_model).items():
        tensor = _matrix(file, f"block{block}.{name}", tensors)
        own = shape[1:] if shared and name in _FIRST else shape
        flat = (own[0] * own[1], own[2]) if len(own) == 3 else own
        if tuple(tensor.shape) != flat:
            raise PackError(f"{file}: block{block}.{name} is {list(tensor.shape)}, {n} lenses need {list(flat)}")
        whose = ["(all)"] if own != shape else terms
        made[name] = _finite(file, f"block{block}.{name}", tensor.view(own), whose).expand(shape)
    return LensTensors(**made)


def _matrix(file: Path, name: str, tensors: Mapping[str, Tensor]) -> Float[Tensor, "*shape"]:
    tensor, scale = tensors[name], tensors.get(f"{name}_scale")
    if tensor.dtype == torch.int8:
        if scale is None or scale.shape != tensor.shape[:-1]:
            found = "none" if scale is None else str(list(scale.shape))
            raise PackError(
                f"{file}: {name} is int8 and needs {list(tensor.shape[:-1])} scales, {name}_scale is {found}"
            )
        return dequantise_rows(QuantisedRows(tensor, scale))
    if scale is not None or not tensor.is_floating_point():
        raise PackError(f"{file}: {name} is {str(tensor.dtype).removeprefix('torch.')}: int8 with scales, or a float")
    return tensor.float()


def _finite(file: Path, name: str, tensor: Tensor, terms: Sequence[str]) -> Tensor:
    """`tensor` itself; raises NumericError that names the first lens with a value that is not finite."""
    good = tensor.reshape(len(terms), -1).isfinite().all(-1)
    if name.endswith("screen_threshold"):
        good |= tensor == float("-inf")
    if not bool(good.all()):
        bad = int(good.logical_not().nonzero()[0])
        raise NumericError(f"{file}: {name} of lens {terms[bad]!r} (row {bad}) holds a NaN or an infinity")
    return tensor


def _fit(info: PackInfo, rows: Sequence[LensRow], blocks: Mapping[int, LensTensors], source: str) -> None:
    check_rows(rows, f"{source}/{INDEX}")
    used = tuple(dict.fromkeys(row.block for row in rows))
    if used != info.sites or set(blocks) != set(used):
        raise PackError(
            f"{source}: pack.json names blocks {list(info.sites)}, index.json {list(used)}, the tensors "
            f"{sorted(blocks)}"
        )
    for at, row in enumerate(rows):
        if row.block >= info.model.n_layers:
            raise PackError(f"{source}/{INDEX} row {at}: {row.term!r} reads block {row.block} of {info.model.n_layers}")
    for block in used:
        n, found = sum(row.block == block for row in rows), tuple(blocks[block].w1.shape)
        if found != (n, HIDDEN, info.model.d_model):
            raise PackError(
                f"{source}: w1 of block {block} is {list(found)}, its {n} lenses need {[n, HIDDEN, info.model.d_model]}"
            )

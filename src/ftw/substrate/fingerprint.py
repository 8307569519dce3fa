"""The identity of a model's weights: sha256 over its tensors, the same for every device, dtype and way of sharding.

Over the checkpoint's tensors where there is one (so a model loaded in fp32 on a CPU and in bf16 on a GPU is one model),
else over the tensors in memory. Each tensor enters as canonical JSON [name, dtype, shape], a newline, then its bytes,
sorted by name.

The rule of the file: a fingerprint says which weights an artefact was made for. It is not a proof against someone who
can rewrite the files: the cache below trusts size and time of change.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ftw.substrate.checkpoint import Checkpoint, Entry
from ftw.substrate.errors import ModelBroken, StorageError
from ftw.substrate.manifest import canonical_json, write_atomically

REMEMBER_ABOVE = 256 << 20
"""Bytes: the fingerprint of a larger checkpoint is remembered on disk (hashing takes about a second per GB)."""
PIECE = 8 << 20
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
"""How safetensors spells dtypes."""


@runtime_checkable
class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def of_checkpoint(checkpoint: Checkpoint, *, cache_dir: Path | None = None) -> str:
    """The fingerprint (64 hex digits) of a folder's weights.

    With `cache_dir`, that of a large checkpoint is looked up there by path, sizes and times of change of its files.
    """
    if cache_dir is None or checkpoint.n_bytes < REMEMBER_ABOVE:
        return _of_files(checkpoint)
    stamp = [[str(f.resolve()), (stat := f.stat()).st_size, str(stat.st_mtime_ns)] for f in checkpoint.files]
    memo = cache_dir / "fingerprints" / f"{hashlib.sha256(canonical_json(stamp)).hexdigest()}.txt"
    if memo.is_file() and len(known := memo.read_text(encoding="ascii").strip()) == 64:
        return known
    digest = _of_files(checkpoint)
    memo.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(memo, digest.encode())
    return digest


def of_net(net: nn.Module) -> str:
    """The fingerprint of a model in memory: parameters and persistent buffers, one with two names once (the first)."""
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        if tensor.is_meta:
            raise ModelBroken(f"{name} is not in memory (meta tensor): a model without weights has no fingerprint")
        where = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() == 0 or where not in seen:
            seen.add(where)
            tensors[name] = tensor
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(_line(name, NAMES.get(tensor.dtype, str(tensor.dtype)), tensor.shape))
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _of_files(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    if not checkpoint.is_safe:
        for file in checkpoint.files:
            digest.update(_line(file.name, "FILE", (file.stat().st_size,)))
            _feed(digest, file, 0, file.stat().st_size)
        return digest.hexdigest()
    for entry in sorted(checkpoint.entries, key=lambda entry: entry.name):
        digest.update(_line(entry.name, entry.dtype, entry.shape))
        _feed(digest, *_span(entry))
    return digest.hexdigest()


def _span(entry: Entry) -> tuple[Path, int, int]:
    return entry.file, entry.start, entry.n_bytes


def _line(name: str, dtype: str, shape: Iterable[int]) -> bytes:
    return json.dumps([name, dtype, list(shape)], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _feed(digest: _Hash, file: Path, start: int, length: int) -> None:
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            while length > 0:
                piece = stream.read(min(PIECE, length))
                if not piece:
                    raise ModelBroken(f"{file} became shorter while it was read. Download it again")
                digest.update(piece)
                length -= len(piece)
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error

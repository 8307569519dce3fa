"""Canonical JSON, digests, and artefact folders: a `manifest.json` beside a `tensors.safetensors`.

The rule of the file: what is saved is complete or not there at all, and what is loaded is what was saved.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ftw.substrate.errors import NumericError, PackError, StorageError

MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
SAFE_INT = 2**53 - 1
"""Larger integers do not survive a JSON parser that reads numbers as doubles."""


def canonical_json(obj: object) -> bytes:
    """The one JSON text of `obj` after RFC 8785: keys sorted by UTF-16, no spaces, numbers as ECMAScript prints them.

    Raises NumericError for NaN, infinities and integers beyond 2**53 - 1, TypeError for what JSON does not have.
    """
    return _canonical(obj, "$").encode("utf-8")


def sha256_hex(data: bytes | Path) -> str:
    """SHA-256 of bytes, or of a file's content, as 64 hex digits."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    try:
        with data.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{data} cannot be read: {error.strerror}") from error


def save_artifact(folder: Path, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes an artefact folder in one step: readers see the old one, or the new one whole (files are mode 0644).

    The manifest gains `tensors_sha256`, which `load_artifact` checks. Raises StorageError.
    """
    blob = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    body = canonical_json({**manifest, "tensors_sha256": sha256_hex(blob)})
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise StorageError(_storage(folder, error)) from error
    try:
        fresh.chmod(0o755)
        for name, data in ((TENSORS, blob), (MANIFEST, body + b"\n")):
            (fresh / name).write_bytes(data)
            (fresh / name).chmod(0o644)
        _swap(fresh, folder)
    except OSError as error:
        raise StorageError(_storage(folder, error)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load_artifact(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The manifest and the tensors (on the CPU) of an artefact folder.

    Raises StorageError where a file cannot be read, PackError where it is not what was saved.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(_storage(folder / MANIFEST, error)) from error
    except ValueError as error:
        raise PackError(f"{folder / MANIFEST} is not valid JSON: {error}") from error
    if not isinstance(manifest, dict) or "tensors_sha256" not in manifest:
        raise PackError(f"{folder / MANIFEST} is not an artefact's manifest: it has no tensors_sha256")
    found = sha256_hex(folder / TENSORS)
    if found != manifest["tensors_sha256"]:
        raise PackError(
            f"{folder / TENSORS} is not what was saved: sha256 {found[:8]}, manifest {manifest['tensors_sha256'][:8]}"
        )
    try:
        return manifest, load_file(folder / TENSORS)
    except SafetensorError as error:
        raise PackError(f"{folder / TENSORS} is not a safetensors file: {error}") from error


def write_atomically(file: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes a file so that a reader sees the old content or the new one, whole. Raises StorageError."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    except OSError as error:
        raise StorageError(_storage(file, error)) from error
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.chmod(mode)
        fresh.replace(file)
    except OSError as error:
        raise StorageError(_storage(file, error)) from error
    finally:
        fresh.unlink(missing_ok=True)


def _swap(fresh: Path, folder: Path) -> None:
    """Puts `fresh` in the place of `folder`. A folder that is there steps aside first and comes back if that fails."""
    if not folder.exists():
        fresh.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(aside / "was")
    try:
        fresh.rename(folder)
    except OSError:
        (aside / "was").rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _storage(path: Path, error: OSError) -> str:
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the path and its permissions"
    return f"{path}: {error.strerror or error}; {hint}"


def _canonical(obj: object, path: str) -> str:
    if obj is None or isinstance(obj, bool | str):
        return json.dumps(obj, ensure_ascii=False)
    if isinstance(obj, int):
        if abs(obj) > SAFE_INT:
            raise NumericError(f"{path} is {obj}: integers beyond 2**53 - 1 do not survive JSON; write it as a string")
        return str(int(obj))
    if isinstance(obj, float):
        return _number(obj, path)
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, str):
                raise TypeError(f"{path}: key {key!r} is not a string")
        keys = sorted(obj, key=lambda key: key.encode("utf-16-be"))
        return (
            "{"
            + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_canonical(obj[k], f'{path}.{k}')}" for k in keys)
            + "}"
        )
    if isinstance(obj, list | tuple):
        return "[" + ",".join(_canonical(item, f"{path}[{i}]") for i, item in enumerate(obj)) + "]"
    raise TypeError(f"{path} is a {type(obj).__name__}: JSON has none")


def _number(value: float, path: str) -> str:
    """A double as ECMAScript's Number::toString prints it (RFC 8785, 3.2.2.3)."""
    if not math.isfinite(value):
        raise NumericError(f"{path} is {value}: JSON has no such number")
    if value == 0:
        return "0"
    sign, value = ("-", -value) if value < 0 else ("", value)
    mantissa, exponent = f"{value!r}e0".split("e")[:2] if "e" not in repr(value) else repr(value).split("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    n = len(digits)
    if 0 < point <= 21:
        text = digits.ljust(point, "0") if n <= point else f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        shift = point - 1
        text = f"{digits[0]}{'.' + digits[1:] if n > 1 else ''}e{'+' if shift > 0 else '-'}{abs(shift)}"
    return sign + text

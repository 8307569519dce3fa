"""Artefact folders: a `manifest.json` beside a `tensors.safetensors`.

The rule of the file: what is saved is complete or not there at all, and what is loaded is what was saved.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ftw.substrate.canonical import canonical_json, sha256_hex
from ftw.substrate.errors import PackError, StorageError

__all__ = ["canonical_json", "load_artifact", "read_manifest", "save_artifact", "sha256_hex", "write_atomically"]

MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
AGAIN = "copy it again from where it came, or make it anew"
"""What helps where a file is not what was saved."""


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
    manifest = read_manifest(folder)
    try:
        return manifest, load_file(folder / TENSORS)
    except SafetensorError as error:
        raise PackError(f"{folder / TENSORS} is not a safetensors file ({error}): {AGAIN}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artefact folder whose tensors are those that were saved; no tensor is loaded.

    Raises as `load_artifact`.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(_storage(folder / MANIFEST, error)) from error
    except ValueError as error:
        raise PackError(f"{folder / MANIFEST} is not valid JSON ({error}): {AGAIN}") from error
    if not isinstance(manifest, dict) or "tensors_sha256" not in manifest:
        raise PackError(
            f"{folder / MANIFEST} is not an artefact's manifest: it has no tensors_sha256. Give another folder"
        )
    found = sha256_hex(folder / TENSORS)
    if found != manifest["tensors_sha256"]:
        raise PackError(
            f"{folder / TENSORS} is not what was saved (sha256 {found[:8]}, the manifest says "
            f"{str(manifest['tensors_sha256'])[:8]}): {AGAIN}"
        )
    return manifest


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

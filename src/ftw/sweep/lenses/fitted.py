"""Fitted lenses: what all of them share on disk. For which model one was made, what its tensors are, and their digest.

On disk a fitted lens is a folder with `manifest.json` and `tensors.safetensors`. It is made for one model: its weights
(fingerprint) and its config, for another norm epsilon or rotary base makes other states out of the same weights.

The rule of the file: a lens that is read is whole, finite, and made for this very model; anything else is an error.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, FingerprintMismatch, PackError
from ftw.substrate.manifest import load_artifact
from ftw.substrate.model import Model
from ftw.sweep.identity import config_sha256

MANIFEST = "manifest.json"
HEX = "^[0-9a-f]{64}$"
Manifest = TypeVar("Manifest", bound=Strict)


class ModelOf(Strict):
    """The model that a lens was made for."""

    name: str
    fingerprint: str = Field(pattern=HEX)
    config_sha256: str | None = Field(default=None, pattern=HEX)
    """See `ftw.sweep.identity`. None in a lens of an earlier version: then the weights alone are compared."""

    @classmethod
    def of(cls, model: Model) -> "ModelOf":
        """This model."""
        return cls(name=model.name, fingerprint=model.fingerprint, config_sha256=config_sha256(model))


def is_made_for(manifest: Mapping[str, Any], model: Model) -> bool:
    """Whether a manifest, as it stands in its file, speaks of this model."""
    made = manifest.get("model")
    if not isinstance(made, Mapping) or made.get("fingerprint") != model.fingerprint:
        return False
    return made.get("config_sha256") in (None, config_sha256(model))


def digest_of(tensors: Mapping[str, Tensor], first: bytes = b"") -> str:
    """SHA-256 (hex) over `first` and the tensors in their order: name, shape and fp32 bytes of each."""
    digest = hashlib.sha256(first)
    for name, tensor in tensors.items():
        flat = tensor.detach().float().cpu().contiguous()
        digest.update(json.dumps([name, list(flat.shape)]).encode() + b"\n")
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


def read_fitted(folder: Path, manifest: type[Manifest], kind: str) -> tuple[Manifest, dict[str, Tensor]]:
    """Manifest and tensors (on the CPU) of a lens's folder.

    Raises PackError for another kind, an unknown or missing key, or a damaged file, StorageError.
    """
    body, tensors = load_artifact(folder)
    file = folder / MANIFEST
    if body.get("kind") != kind:
        raise PackError(f"{file} is of kind {body.get('kind')!r}, not {kind!r}: name the folder of a {kind}")
    try:
        return manifest.read(body, source=str(file)), tensors
    except ConfigError as error:
        raise PackError(f"{error}. The file was written by another version, or changed by hand") from error


def require_model(folder: Path, made: ModelOf, model: Model, *, what: str, verb: str) -> None:
    """Raise FingerprintMismatch, with both sides and the verb that fits one, unless a lens was made for this model."""
    file = folder / MANIFEST
    if made.fingerprint != model.fingerprint:
        raise FingerprintMismatch(
            f"{file}: this {what} was made for {made.name} ({made.fingerprint[:8]}), the model is "
            f"{model.name} ({model.fingerprint[:8]}): fit one with `ftw sweep {verb}`"
        )
    config = config_sha256(model)
    if made.config_sha256 not in (None, config):
        raise FingerprintMismatch(
            f"{file}: this {what} was made for {made.name} with config {made.config_sha256[:8]}, {model.name} has the "
            f"same weights with config {config[:8]} (config.json differs: norm epsilon, rotary base, …): fit one with "
            f"`ftw sweep {verb}`"
        )


def require_shape(folder: Path, shape: tuple[int, int], model: Model, width: int) -> None:
    """Raise PackError unless a lens has as many layers as the model, each as wide."""
    if shape != (model.n_layers, width):
        raise PackError(
            f"{folder / MANIFEST}: {shape[0]} layers of {shape[1]}, {model.name} has {model.n_layers} of {width}"
        )


def require_tensors(
    folder: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, owner: str, what: str
) -> None:
    """Raise PackError unless the tensors are those wanted, of these shapes, of floats, and finite.

    `owner` has the tensors ("a lens of kind 'bias'"), `what` is made of them ("a translator").
    """
    file = folder / "tensors.safetensors"
    if set(tensors) != set(wanted):
        raise PackError(f"{file} holds {sorted(tensors)}: {owner} has {sorted(wanted)}")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != wanted[name]:
            raise PackError(f"{file}: {name} is {list(tensor.shape)}, the manifest says {list(wanted[name])}")
        if not tensor.is_floating_point():
            raise PackError(f"{file}: {name} is {tensor.dtype}: {what} is made of floats")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise PackError(f"{file}: {name} has {bad} NaN or infinite of {tensor.numel()} numbers: fit it anew")

"""The tuned lens: an affine translator per layer, then the model's own tail and head (Belrose et al. 2023).

What is translated is the residual stream itself, before the final norm: y = x + x A + b with x a row. So the norm stays
the model's, A = 0 and b = 0 is the logit lens, and lenses of the `tuned-lens` package, which do the same, are read
exactly. Each of the layers 0 (embedding output) to n - 1 has its own A and b; layer n has none: there the lens is the
model. `bias` has no A, `rank` has A = U V of rank r, `full` any A.

On disk: a folder with `manifest.json` and `tensors.safetensors`.

The rule of the file: a lens that is read is whole, finite, and made for this very model; anything else is an error.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ftw.substrate.anatomy import Arch
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, FingerprintMismatch, PackError
from ftw.substrate.manifest import load_artifact, save_artifact
from ftw.substrate.model import Model
from ftw.substrate.unembed import head_input

TunedKind = Literal["bias", "rank", "full"]
"""`bias`: y = x + b. `rank`: y = x + x U V + b. `full`: y = x + x A + b."""
KINDS: tuple[TunedKind, ...] = get_args(TunedKind)
PARTS: Mapping[str, tuple[str, ...]] = {"bias": ("bias",), "rank": ("down", "up", "bias"), "full": ("weight", "bias")}
"""The tensors of each kind: U is `down`, V is `up`, A is `weight`."""
Stored = Literal["float32", "bfloat16"]
"""How tensors lie on disk. They are read as fp32 either way."""


class ModelName(Strict):
    """The model that a lens was made for."""

    name: str
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")


class TunedManifest(Strict):
    """What stands in a tuned lens's `manifest.json`. An unknown key is an error."""

    kind: Literal["tuned-lens"] = "tuned-lens"
    schema_: Literal[1] = Field(default=1, alias="schema")
    model: ModelName
    d_model: int = Field(ge=1)
    n_layers: int = Field(ge=1)
    lens: TunedKind
    rank: int | None = None
    accepted: bool
    """Whether it is offered by default: `acceptance` says why."""
    source: dict[str, Any]
    """How it came about: a fit (corpus, schedule, seed, losses, held-out figures) or an import."""
    acceptance: dict[str, Any] | None = None
    """The gates, each with its number; None for an import that was not measured here."""
    tensors_sha256: str | None = None


@dataclass(frozen=True)
class TunedLens:
    """Translators of one model, fp32, on the device of its head."""

    arch: Arch
    bias: Float[Tensor, "layer d_model"]
    down: Float[Tensor, "layer d_model rank"] | None = None
    up: Float[Tensor, "layer rank d_model"] | None = None
    weight: Float[Tensor, "layer d_model d_model"] | None = None
    name: str = "tuned"
    manifest: TunedManifest | None = field(default=None, repr=False)
    """What is known of it, where it was read or fitted."""

    @property
    def kind(self) -> TunedKind:
        """By the tensors that it has."""
        return "full" if self.weight is not None else "rank" if self.down is not None else "bias"

    @property
    def layers(self) -> range:
        """All of them: 0 to n."""
        return range(self.arch.n_layers + 1)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {name: getattr(self, name) for name in PARTS[self.kind]}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over its tensors: name, shape and fp32 bytes of each, in the order of `PARTS`."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors.items():
            flat = tensor.detach().float().cpu().contiguous()
            digest.update(json.dumps([name, list(flat.shape)]).encode() + b"\n")
            digest.update(flat.numpy().tobytes())
        return digest.hexdigest()

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer row width"]:
        """Each state translated by its layer's map, all of them through the tail in one go."""
        moved = [self.translate(state, layer) for state, layer in zip(resid, layers, strict=True)]
        return head_input(self.arch, torch.stack(moved))

    def translate(self, resid: Float[Tensor, "row d_model"], layer: int) -> Float[Tensor, "row d_model"]:
        """The stream as it would be after the last block, fp32. At layer n it is left as it is."""
        x = resid.float()
        if layer == self.arch.n_layers:
            return x
        y = x + self.bias[layer].to(x.device)
        if self.weight is not None:
            return y + x @ self.weight[layer].to(x.device)
        if self.down is not None and self.up is not None:
            return y + x @ self.down[layer].to(x.device) @ self.up[layer].to(x.device)
        return y


def save_tuned(folder: Path, lens: TunedLens, *, stored: Stored = "float32") -> None:
    """Writes a lens with its manifest as an artefact folder, whole or not at all. Raises StorageError.

    Raises ConfigError for a lens that has no manifest (it was put together by hand).
    """
    if lens.manifest is None:
        raise ConfigError("this tuned lens has no manifest to be saved with: give it one, or save the fit it came from")
    body = lens.manifest.model_dump(mode="json", by_alias=True, exclude={"tensors_sha256"})
    save_artifact(folder, body, {name: part.to(getattr(torch, stored)) for name, part in lens.tensors.items()})


def load_tuned(folder: Path, model: Model, *, name: str = "tuned") -> TunedLens:
    """The lens of an artefact folder, for the model that it was fitted on.

    Raises FingerprintMismatch for another model's, PackError (file and numbers are named) for unknown or missing keys,
    tensors of another shape, a NaN or infinity, or a damaged file, StorageError for a file that cannot be read.
    """
    manifest, tensors = _read(folder)
    file = folder / "manifest.json"
    if manifest.model.fingerprint != model.fingerprint:
        raise FingerprintMismatch(
            f"{file}: this tuned lens was made for {manifest.model.name} ({manifest.model.fingerprint[:8]}), the model "
            f"is {model.name} ({model.fingerprint[:8]}): fit one with `ftw sweep fit-tuned`"
        )
    shape = (manifest.n_layers, manifest.d_model)
    if shape != (model.n_layers, model.d_model):
        raise PackError(
            f"{file}: {shape[0]} layers of {shape[1]}, {model.name} has {model.n_layers} of {model.d_model}"
        )
    _check(folder / "tensors.safetensors", manifest, tensors)
    device = head_device(model.arch)
    parts = {key: tensor.float().to(device) for key, tensor in tensors.items()}
    return TunedLens(model.arch, **parts, name=name, manifest=manifest)


def head_device(arch: Arch) -> torch.device:
    """Where the head multiplies."""
    weight = getattr(arch.head, "weight", None)
    return weight.device if isinstance(weight, Tensor) else torch.device("cpu")


def _read(folder: Path) -> tuple[TunedManifest, dict[str, Tensor]]:
    body, tensors = load_artifact(folder)
    file = folder / "manifest.json"
    if body.get("kind") != "tuned-lens":
        raise PackError(f"{file} is of kind {body.get('kind')!r}, not 'tuned-lens'")
    try:
        return TunedManifest.read(body, source=str(file)), tensors
    except ConfigError as error:
        raise PackError(f"{error}. The file was written by another version, or changed by hand") from error


def _check(file: Path, manifest: TunedManifest, tensors: Mapping[str, Tensor]) -> None:
    """Raise PackError unless the tensors are those that the manifest speaks of, and finite."""
    n, d, rank = manifest.n_layers, manifest.d_model, manifest.rank
    if (manifest.lens == "rank") != (rank is not None):
        raise PackError(f"{file.with_name('manifest.json')}: a lens of kind {manifest.lens!r} cannot have rank {rank}")
    shapes = {"bias": (n, d), "weight": (n, d, d), "down": (n, d, rank), "up": (n, rank, d)}
    wanted = {name: shapes[name] for name in PARTS[manifest.lens]}
    if set(tensors) != set(wanted):
        raise PackError(f"{file} holds {sorted(tensors)}: a lens of kind {manifest.lens!r} has {sorted(wanted)}")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != wanted[name]:
            raise PackError(f"{file}: {name} is {list(tensor.shape)}, the manifest says {list(wanted[name])}")
        if not tensor.is_floating_point():
            raise PackError(f"{file}: {name} is {tensor.dtype}: a translator is made of floats")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise PackError(
                f"{file}: {name} has {bad} NaN or infinite of {math.prod(tensor.shape)} numbers: fit it anew"
            )

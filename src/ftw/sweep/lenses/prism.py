"""The Prism lens: one map for all layers, whitening and an orthogonal rotation, then the model's own head.

With x the lens input (what the head is given: the state after the model's tail norm, a row),

    y = scale * ((x - mean) / deviation @ decorrelate) @ rotation + offset,    logits = head(y)

`decorrelate` is the identity, or for full covariance a symmetric matrix. All layers share every number of it, the last
one included, so what it shows of two layers can be compared, and it has little freedom to invent. At the last layer it
is not the model. How it is fitted: `ftw.sweep.fitting.prism`.

The rule of the file: whitening and rotation act on one definition of the lens input, and the rotation on rows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ftw.substrate.anatomy import Arch
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, ModelError, PackError
from ftw.substrate.manifest import save_artifact
from ftw.substrate.model import Model
from ftw.substrate.unembed import head_input
from ftw.sweep.lenses import kinds
from ftw.sweep.lenses.fitted import ModelOf, digest_of, read_fitted, require_model, require_shape, require_tensors

Target = Literal["head", "states"]
"""What lens inputs are rotated onto. `head`: their principal directions onto the head's strongest ones, in order.
`states`: the inputs of every layer onto those of the last one at the same position."""
Covariance = Literal["diagonal", "full"]
"""`diagonal`: each feature is whitened by itself. `full`: features are decorrelated as well."""
VECTORS, MATRICES = ("mean", "deviation", "offset"), ("rotation", "decorrelate")
ORTHOGONAL = 1e-3
"""How far a rotation times its transpose may be from the identity, in its largest entry."""


class PrismManifest(Strict):
    """What stands in a Prism lens's `manifest.json`. An unknown key is an error."""

    kind: Literal["prism-lens"] = "prism-lens"
    schema_: Literal[1] = Field(default=1, alias="schema")
    model: ModelOf
    width: int = Field(ge=1)
    """How wide the lens input is."""
    n_layers: int = Field(ge=1)
    target: Target
    covariance: Covariance
    k: int = Field(ge=1)
    """Directions that the fit decided; the others are left as near to themselves as orthogonality allows."""
    scale: float = Field(gt=0, allow_inf_nan=False)
    accepted: bool
    """Whether it is offered by default: `acceptance` says why."""
    source: dict[str, Any]
    """How it came about: corpus, positions, spectrum, the other targets' figures."""
    acceptance: dict[str, Any]
    """The gates, each with its number."""
    tensors_sha256: str | None = None


@dataclass(frozen=True)
class PrismLens:
    """A Prism of one model, fp32."""

    arch: Arch
    mean: Float[Tensor, " width"]
    deviation: Float[Tensor, " width"]
    rotation: Float[Tensor, "width width"]
    offset: Float[Tensor, " width"]
    scale: float = 1.0
    decorrelate: Float[Tensor, "width width"] | None = None
    name: str = "prism"
    manifest: PrismManifest | None = field(default=None, repr=False)
    """What is known of it, where it was read or fitted."""

    @property
    def layers(self) -> range:
        """All of them: 0 to n."""
        return range(self.arch.n_layers + 1)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        found = {name: getattr(self, name) for name in (*VECTORS, *MATRICES)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over its scale and its tensors: see `digest_of`."""
        return digest_of(self.tensors, json.dumps(["scale", self.scale]).encode())

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer row width"]:
        """The tail of every state, whitened and rotated. Raises ModelError where the map cannot go to its device."""
        x = head_input(self.arch, resid)
        x = (x - self.on("mean", x.device)) / self.on("deviation", x.device)
        if self.decorrelate is not None:
            x = x @ self.on("decorrelate", x.device)
        return self.scale * (x @ self.on("rotation", x.device)) + self.on("offset", x.device)

    def on(self, name: str, device: torch.device) -> Tensor:
        """One of its tensors on a device. Raises ModelError, naming both devices, where it cannot go there."""
        tensor: Tensor = getattr(self, name)
        if tensor.device == device:
            return tensor
        try:
            return tensor.to(device)
        except RuntimeError as error:  # out of memory, a device that is gone or holds no data
            raise ModelError(
                f"the {name} of lens {self.name!r} cannot be moved from {tensor.device} to {device}: "
                f"{str(error).splitlines()[0]}. Free some memory there, or leave the lens out"
            ) from error


def save_prism(folder: Path, lens: PrismLens) -> None:
    """Writes a lens with its manifest as an artefact folder, whole or not at all. Raises StorageError.

    Raises ConfigError for a lens that has no manifest (it was put together by hand).
    """
    if lens.manifest is None:
        raise ConfigError("this Prism has no manifest to be saved with: give it one, or save the fit it came from")
    save_artifact(
        folder, lens.manifest.model_dump(mode="json", by_alias=True, exclude={"tensors_sha256"}), lens.tensors
    )


def load_prism(folder: Path, model: Model, *, name: str = "prism") -> PrismLens:
    """The lens of an artefact folder, for the model that it was fitted on.

    Raises FingerprintMismatch for a model of other weights or another config, PackError (file and numbers are named)
    for unknown or missing keys, tensors of another shape, a NaN or infinity, a rotation that is none, or a damaged
    file, StorageError for a file that cannot be read, ModelError where it cannot be put on the model's device.
    """
    manifest, tensors = read_fitted(folder, PrismManifest, "prism-lens")
    require_model(folder, manifest.model, model, what="Prism", verb="fit-prism")
    head = model.arch.head.weight
    require_shape(folder, (manifest.n_layers, manifest.width), model, head.shape[1] if isinstance(head, Tensor) else 0)
    assert isinstance(head, Tensor)  # else no width was right
    _check(folder, manifest, tensors)
    read = of_tensors(model.arch, tensors, manifest.scale)
    there = {key: read.on(key, head.device) for key in tensors}
    return replace(of_tensors(model.arch, there, manifest.scale), name=name, manifest=manifest)


def of_tensors(arch: Arch, tensors: Mapping[str, Tensor], scale: float) -> PrismLens:
    """The lens of some tensors by name, read as fp32. Without a manifest."""
    part = {name: tensor.float() for name, tensor in tensors.items()}
    return PrismLens(
        arch,
        mean=part["mean"],
        deviation=part["deviation"],
        rotation=part["rotation"],
        offset=part["offset"],
        scale=scale,
        decorrelate=part.get("decorrelate"),
    )


def _check(folder: Path, manifest: PrismManifest, tensors: Mapping[str, Tensor]) -> None:
    """Raise PackError unless the tensors are those that the manifest speaks of, finite, and the rotation one."""
    width = manifest.width
    wanted: dict[str, tuple[int, ...]] = {**dict.fromkeys(VECTORS, (width,)), "rotation": (width, width)}
    if manifest.covariance == "full":
        wanted["decorrelate"] = (width, width)
    require_tensors(folder, tensors, wanted, owner=f"a Prism of {manifest.covariance} covariance", what="a Prism")
    file = folder / "tensors.safetensors"
    if float(tensors["deviation"].min()) <= 0:
        raise PackError(f"{file}: deviation goes down to {float(tensors['deviation'].min()):.3g}: it must be above 0")
    off = orthogonality_error(tensors["rotation"].double())
    if off > ORTHOGONAL:
        raise PackError(f"{file}: rotation is off by {off:.3g} from orthogonal, {ORTHOGONAL} is allowed: fit it anew")


def orthogonality_error(rotation: Float[Tensor, "width width"]) -> float:
    """The largest entry of R Rᵀ - 1."""
    one = torch.eye(len(rotation), dtype=rotation.dtype, device=rotation.device)
    return float((rotation @ rotation.T - one).abs().max())


KIND = kinds.learned("prism", load_prism, fit="ftw sweep fit-prism")

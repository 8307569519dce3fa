"""The tuned lens: an affine translator per layer, then the model's own tail and head (Belrose et al. 2023).

What is translated is the residual stream itself, before the final norm: y = x + x A + b with x a row. So the norm stays
the model's, A = 0 and b = 0 is the logit lens, and lenses of the `tuned-lens` package, which do the same, are read
exactly. Each of the layers 0 (embedding output) to n - 1 has its own A and b; layer n has none: there the lens is the
model. `bias` has no A, `rank` has A = U V of rank r, `full` any A.

On disk: a folder, see `ftw.sweep.lenses.fitted`.

The rule of the file: at layer n the lens is the model, and an A and b of zeros are the logit lens.
"""

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
from ftw.substrate.errors import ConfigError, PackError
from ftw.substrate.manifest import save_artifact
from ftw.substrate.model import Model
from ftw.substrate.unembed import head_input
from ftw.sweep.lenses.fitted import (
    MANIFEST,
    ModelOf,
    digest_of,
    read_fitted,
    require_model,
    require_shape,
    require_tensors,
)

TunedKind = Literal["bias", "rank", "full"]
"""`bias`: y = x + b. `rank`: y = x + x U V + b. `full`: y = x + x A + b."""
KINDS: tuple[TunedKind, ...] = get_args(TunedKind)
PARTS: Mapping[str, tuple[str, ...]] = {"bias": ("bias",), "rank": ("down", "up", "bias"), "full": ("weight", "bias")}
"""The tensors of each kind: U is `down`, V is `up`, A is `weight`."""
Stored = Literal["float32", "bfloat16"]
"""How tensors lie on disk. They are read as fp32 either way."""


class TunedManifest(Strict):
    """What stands in a tuned lens's `manifest.json`. An unknown key is an error."""

    kind: Literal["tuned-lens"] = "tuned-lens"
    schema_: Literal[1] = Field(default=1, alias="schema")
    model: ModelOf
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
        """SHA-256 (hex) over its tensors, in the order of `PARTS`: see `digest_of`."""
        return digest_of(self.tensors)

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

    Raises FingerprintMismatch for a model of other weights or another config, PackError (file and numbers are named)
    for unknown or missing keys, tensors of another shape, a NaN or infinity, or a damaged file, StorageError for a
    file that cannot be read.
    """
    manifest, tensors = read_fitted(folder, TunedManifest, "tuned-lens")
    require_model(folder, manifest.model, model, what="tuned lens", verb="fit-tuned")
    require_shape(folder, (manifest.n_layers, manifest.d_model), model, model.d_model)
    _check(folder, manifest, tensors)
    device = head_device(model.arch)
    parts = {key: tensor.float().to(device) for key, tensor in tensors.items()}
    return TunedLens(model.arch, **parts, name=name, manifest=manifest)


def head_device(arch: Arch) -> torch.device:
    """Where the head multiplies."""
    weight = getattr(arch.head, "weight", None)
    return weight.device if isinstance(weight, Tensor) else torch.device("cpu")


def _check(folder: Path, manifest: TunedManifest, tensors: Mapping[str, Tensor]) -> None:
    """Raise PackError unless the tensors are those that the manifest speaks of, and finite."""
    n, d, rank = manifest.n_layers, manifest.d_model, manifest.rank
    if (manifest.lens == "rank") != (rank is not None):
        raise PackError(f"{folder / MANIFEST}: a lens of kind {manifest.lens!r} cannot have rank {rank}")
    shapes = {"bias": (n, d), "weight": (n, d, d), "down": (n, d, rank or 0), "up": (n, rank or 0, d)}
    wanted: dict[str, tuple[int, ...]] = {name: shapes[name] for name in PARTS[manifest.lens]}
    require_tensors(folder, tensors, wanted, owner=f"a lens of kind {manifest.lens!r}", what="a translator")

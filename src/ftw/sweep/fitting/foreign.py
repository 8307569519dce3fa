"""Reads lenses of the `tuned-lens` package (Belrose et al. 2023): a folder with `config.json` and `params.pt`.

That package, up to its version 0.2.0, stores one `torch.nn.Linear` per layer, which it adds to the hidden state before
the model's final norm: y = h + W h + c. Its layer i is the hidden state after i blocks (0: the embedding output), which
is our layer i; rows being our convention, A is W transposed. It knows the model by a hash of the printed head.

The rule of the file: `params.pt` is read with `weights_only`; nothing in it is run.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, FingerprintMismatch, PackError, StorageError
from ftw.substrate.manifest import sha256_hex
from ftw.substrate.model import Model
from ftw.sweep.fitting.accept import Acceptance
from ftw.sweep.lenses import kinds
from ftw.sweep.lenses.fitted import ModelOf
from ftw.sweep.lenses.tuned import TunedLens, TunedManifest, head_device, load_tuned

CONFIG, PARAMS = "config.json", "params.pt"
KEY = re.compile(r"(\d+)\.(weight|bias)")


class ForeignConfig(Strict):
    """That package's `config.json`."""

    base_model_name_or_path: str
    d_model: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    bias: bool = True
    base_model_revision: str | None = None
    unembed_hash: str | None = None
    lens_type: Literal["linear_tuned_lens"] = "linear_tuned_lens"


def is_foreign(folder: Path) -> bool:
    """Whether a folder looks like one of that package's lenses, and not like ours."""
    return (folder / CONFIG).is_file() and (folder / PARAMS).is_file() and not (folder / "manifest.json").exists()


def open_tuned(folder: Path, model: Model, *, name: str = "tuned") -> TunedLens:
    """The tuned lens of a folder of either format. Raises what `load_tuned` and `read_foreign` raise."""
    return read_foreign(folder, model, name=name) if is_foreign(folder) else load_tuned(folder, model, name=name)


def read_foreign(folder: Path, model: Model, *, name: str = "tuned") -> TunedLens:
    """The lens of such a folder, for this model. It counts as not accepted until it was judged: see `judged`.

    Raises PackError (file and numbers are named) for unknown keys, another shape, a NaN or a damaged file,
    FingerprintMismatch where its hash of the head is another, StorageError for a file that cannot be read.
    """
    config = _config(folder / CONFIG)
    shape = (config.num_hidden_layers, config.d_model)
    if shape != (model.n_layers, model.d_model):
        raise PackError(
            f"{folder / CONFIG}: {shape[0]} layers of {shape[1]} (made for {config.base_model_name_or_path}), "
            f"{model.name} has {model.n_layers} of {model.d_model}"
        )
    if config.unembed_hash is not None and config.unembed_hash not in (hashes := head_hashes(model)):
        raise FingerprintMismatch(
            f"{folder / CONFIG}: this lens was made for a head with hash {config.unembed_hash[:8]} "
            f"({config.base_model_name_or_path}), that of {model.name} is {hashes[0][:8]}: load its own model"
        )
    state = _state(folder / PARAMS)
    _check(folder / PARAMS, config, state)
    n, device = config.num_hidden_layers, head_device(model.arch)
    weight = torch.stack([state[f"{layer}.weight"].float().T for layer in range(n)]).contiguous()
    zero = torch.zeros(config.d_model)
    bias = torch.stack([state.get(f"{layer}.bias", zero).float() for layer in range(n)])
    manifest = TunedManifest(
        model=ModelOf.of(model),
        d_model=config.d_model,
        n_layers=n,
        lens="full",
        accepted=False,
        source={
            "how": "imported from the tuned-lens package",
            "config": config.model_dump(mode="json"),
            "params_sha256": sha256_hex(folder / PARAMS),
            "head_hash": "equal" if config.unembed_hash is not None else "none given",
        },
    )
    return TunedLens(model.arch, bias.to(device), weight=weight.to(device), name=name, manifest=manifest)


def judged(lens: TunedLens, acceptance: Acceptance) -> TunedLens:
    """The same lens with the verdict on it. Raises ConfigError for a lens without a manifest."""
    if lens.manifest is None:
        raise ConfigError("this tuned lens has no manifest that a verdict could stand in")
    update = {"accepted": acceptance.accepted, "acceptance": acceptance.document()}
    return replace(lens, manifest=lens.manifest.model_copy(update=update))


def head_hashes(model: Model) -> tuple[str, ...]:
    """That package's hash of the head, as loaded and as it would be in half precision: SHA-256 of the matrix as numpy
    prints it, with one digit behind the point (its corners, if it is large)."""
    weight = getattr(model.arch.head, "weight", None)
    if not isinstance(weight, Tensor):
        return ("",)
    kinds = dict.fromkeys((weight.dtype, torch.float16, torch.bfloat16))
    return tuple(_hash(weight.detach().to(kind).float().cpu().numpy()) for kind in kinds)


def _hash(matrix: np.ndarray) -> str:
    with np.printoptions(edgeitems=3, threshold=1000, linewidth=75, suppress=False):  # numpy's own, whatever is set
        text = np.array_str(matrix, precision=1)
    return hashlib.sha256(text.encode()).hexdigest()


def _config(file: Path) -> ForeignConfig:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror or error}; check the path and its permissions") from error
    except ValueError as error:
        raise PackError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise PackError(f"{file} holds a {type(body).__name__}, not the keys of a lens")
    try:
        return ForeignConfig.read(body, source=str(file))
    except ConfigError as error:
        raise PackError(f"{error}. Lenses of the tuned-lens package 0.0.4 to 0.2.0 can be read") from error


def _state(file: Path) -> Mapping[str, Any]:
    try:
        blob = file.read_bytes()
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror or error}; check the path and its permissions") from error
    try:
        state = torch.load(BytesIO(blob), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise PackError(f"{file} is not a file of tensors alone: {line}. Download it again") from error
    if not isinstance(state, Mapping):
        raise PackError(f"{file} holds a {type(state).__name__}, not tensors by name")
    return state


def _check(file: Path, config: ForeignConfig, state: Mapping[str, Any]) -> None:
    n, d = config.num_hidden_layers, config.d_model
    parts = {"weight": (d, d), "bias": (d,)} if config.bias else {"weight": (d, d)}
    wanted = {f"{layer}.{part}": shape for layer in range(n) for part, shape in parts.items()}
    if unknown := sorted(set(state) - set(wanted)):
        raise PackError(f"{file}: unknown key {unknown[0]!r}; a lens of {n} layers has 0.weight to {n - 1}.weight")
    if missing := [key for key in wanted if key not in state]:
        raise PackError(f"{file}: {missing[0]!r} is missing, {len(state)} of {len(wanted)} tensors are there")
    for key, shape in wanted.items():
        tensor = state[key]
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            found = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise PackError(f"{file}: {key} is {found}, {CONFIG} says {list(shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise PackError(f"{file}: {key} holds a NaN or an infinity")


TUNED = kinds.learned("tuned", open_tuned, fit="ftw sweep fit-tuned", foreign=(CONFIG, PARAMS))
"""The tuned lens as `--lens tuned` knows it: in either form."""

"""Single lenses in `.pt` files: every layout of keys that published packs have, read into our modules and written back.

The keys are those of an `nn.Sequential`, with or without the prefix `net.`, with or without a LayerNorm in front; or
`linear.*` for a probe (one row) and a simplex (three). A LayerNorm's affine terms fold into the first layer exactly:
W1 (g x + b) + b1 = (W1 diag(g)) x + (W1 b + b1); its statistics are those of the shared normalisation.

The rule of the file: tensors only (nothing pickled is run), in the dtype of the file, and what cannot be expressed
exactly is an error that says why.
"""

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ftw.hat.classifiers.modules import HIDDEN, MLP, NARROW, LinearProbe
from ftw.hat.classifiers.packfile import finite
from ftw.hat.classifiers.tripole import POLES, TripoleLens
from ftw.substrate.errors import PackError, StorageError, UsageError
from ftw.substrate.manifest import write_atomically

Kind = Literal["mlp", "linear", "tripole"]
_LAYER = re.compile(r"(?:net\.)?(\d+)\.(weight|bias)")
_MARGINS = "log_margins"
"""Learnable margins of a simplex's training; reading it does not need them."""


def load_classifier(
    path: Path | str, device: torch.device | str = "cpu", classifier_type: Kind | None = None
) -> MLP | LinearProbe | TripoleLens:
    """The lens in a `.pt` file, in eval mode, on `device`, in the dtype that the file has.

    Its kind follows from its keys; `classifier_type` demands one. Raises StorageError where the file cannot be read,
    PackError where it is truncated, of no known layout or of a size that our lens cannot express, NumericError for a
    NaN, UsageError for another kind than demanded.
    """
    path = Path(path)
    state = _state(path)
    kind = _kind(path, state)
    if classifier_type is not None and classifier_type != kind:
        raise UsageError(f"{path} holds a lens of kind {kind}, {classifier_type} was asked for")
    made: MLP | LinearProbe | TripoleLens = _mlp(path, state) if kind == "mlp" else _linear(path, state, kind)
    return made.to(device).eval()


def save_classifier(lens: MLP | LinearProbe | TripoleLens, path: Path | str) -> None:
    """Write a lens as a `.pt` state dict that `load_classifier` and legacy programs read: `net.0`, `net.3`, `net.6`, or
    `linear`; no LayerNorm. In one step. Raises StorageError.
    """
    if isinstance(lens, MLP):
        layers = {"net.0": lens.first, "net.3": lens.second, "net.6": lens.last}
        state = {f"{key}.{name}": tensor for key, layer in layers.items() for name, tensor in _both(layer).items()}
    else:
        state = {f"linear.{name}": tensor for name, tensor in _both(lens.linear).items()}
    out = io.BytesIO()
    torch.save(state, out)
    write_atomically(Path(path), out.getvalue())


def _both(layer: nn.Linear) -> dict[str, Tensor]:
    return {"weight": layer.weight.detach().cpu().clone(), "bias": layer.bias.detach().cpu().clone()}


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, each finite."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    try:
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        if "weights only" in str(error).lower():
            raise PackError(f"{path} holds more than tensors, which is not run: save its state_dict alone") from error
        told = str(error).strip().splitlines()[0].partition(". ")[0][:120] if str(error).strip() else "nothing in it"
        raise PackError(f"{path} is truncated or not a torch file ({told}): fetch it again") from error
    if not isinstance(value, Mapping) or not all(isinstance(each, Tensor) for each in value.values()) or not value:
        raise PackError(f"{path} holds no state dict (tensors by name): save the lens's state_dict alone")
    state = {str(name): tensor for name, tensor in value.items()}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise PackError(f"{path}: {name} is {tensor.dtype}, a lens is made of floats")
        finite(tensor, (), f"{path}: {name} of lens {path.stem!r}")
    return state


def _kind(path: Path, state: Mapping[str, Tensor]) -> Kind:
    if all(name.startswith("linear.") or name == _MARGINS for name in state) and "linear.weight" in state:
        rows = state["linear.weight"].shape[0] if state["linear.weight"].ndim == 2 else 0
        if rows not in (1, POLES):
            raise PackError(f"{path}: linear.weight is {list(state['linear.weight'].shape)}: 1 row, or {POLES} poles")
        return "linear" if rows == 1 else "tripole"
    strange = [name for name in state if not _LAYER.fullmatch(name)]
    if strange:
        raise PackError(
            f"{path} has keys of no known layout ({', '.join(strange[:3])}): known are net.0.weight …, 0.weight … and "
            "linear.weight"
        )
    return "mlp"


def _linear(path: Path, state: Mapping[str, Tensor], kind: Kind) -> LinearProbe | TripoleLens:
    weight, bias = state["linear.weight"], state.get("linear.bias")
    if bias is None or bias.shape != weight.shape[:1]:
        raise PackError(f"{path}: linear.bias is missing or does not have {weight.shape[0]} entries")
    made = LinearProbe(weight.shape[1]) if kind == "linear" else TripoleLens(weight.shape[1])
    made = made.to(weight.dtype)
    made.linear.weight.data.copy_(weight)
    made.linear.bias.data.copy_(bias)
    return made


def _mlp(path: Path, state: Mapping[str, Tensor]) -> MLP:
    """The three linear layers of a sequence, a LayerNorm before them folded in; two are written as three."""
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        number, which = _matched(name)
        layers.setdefault(number, {})[which] = tensor
    ordered = [layers[number] for number in sorted(layers)]
    if any(set(layer) != {"weight", "bias"} for layer in ordered):
        raise PackError(f"{path}: every layer needs a weight and a bias, these are {', '.join(sorted(state))}")
    norm = ordered.pop(0) if ordered[0]["weight"].ndim == 1 else None
    sizes = [tuple(layer["weight"].shape) for layer in ordered]
    d_model = sizes[0][-1] if sizes else 0
    if sizes == [(HIDDEN, d_model), (1, HIDDEN)]:
        ordered = [ordered[0], *_two_from_one(ordered[1])]
    elif sizes != [(HIDDEN, d_model), (NARROW, HIDDEN), (1, NARROW)]:
        told = "-".join(str(size[-1]) for size in sizes) + (f"-{sizes[-1][0]}" if sizes else "")
        raise PackError(
            f"{path} is a lens of layers {told or 'none'}: packs hold D-{HIDDEN}-{NARROW}-1, which wider layers do not "
            "fit into without loss; train it again with `ftw lens train`"
        )
    dtype = ordered[0]["weight"].dtype
    made = MLP(d_model)
    for layer, found in zip((made.first, made.second, made.last), ordered, strict=True):
        if found["bias"].shape != layer.bias.shape:
            raise PackError(f"{path}: a bias is {list(found['bias'].shape)}, its layer has {len(layer.bias)} units")
        layer.weight.data.copy_(found["weight"])
        layer.bias.data.copy_(found["bias"])
    if norm is not None:
        _fold(path, made, norm["weight"], norm["bias"])
    return made.to(dtype)


def _matched(name: str) -> tuple[int, str]:
    found = _LAYER.fullmatch(name)
    assert found is not None  # `_kind` looked at every name
    return int(found[1]), found[2]


def _two_from_one(last: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """z -> v z + c as relu(v z + c) - relu(-(v z + c)), in a second layer of NARROW units of which two are used."""
    weight, bias = last["weight"], last["bias"]
    second = weight.new_zeros(NARROW, HIDDEN)
    shift = weight.new_zeros(NARROW)
    final = weight.new_zeros(1, NARROW)
    second[:2] = torch.cat([weight, -weight])
    shift[:2] = torch.cat([bias, -bias])
    final[0, :2] = torch.tensor([1.0, -1.0])
    return {"weight": second, "bias": shift}, {"weight": final, "bias": weight.new_zeros(1)}


def _fold(path: Path, lens: MLP, gain: Tensor, shift: Tensor) -> None:
    """The affine terms of a LayerNorm over the input go into the first layer, in fp64."""
    weight = lens.first.weight.data.double()
    if gain.shape != weight.shape[1:] or shift.shape != gain.shape:
        raise PackError(f"{path}: its LayerNorm has width {list(gain.shape)}, its first layer {weight.shape[1]}")
    lens.first.bias.data = (lens.first.bias.data.double() + weight @ shift.double()).float()
    lens.first.weight.data = (weight * gain.double()).float()

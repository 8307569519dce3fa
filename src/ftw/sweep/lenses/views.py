"""Norm views: a layer read through another norm than the final one. Where they disagree, the norm speaks.

`next` reads the state after l blocks as block l would (its first norm; after the last block: the model's own tail).
`own` reads it through the norm in the middle of the block that made it. `raw` reads it through no norm at all.
The norms are found by watching one pass: what is given the block's input is its first norm; the next one that is given
a sum (no module's output, or one that holds the block's input) is the stream's second. Norms on the output of attention
or MLP alone do not count.

The rule of the file: a view that a model does not have is an error that says which block lacks what.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ftw.substrate.anatomy import Arch
from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model
from ftw.substrate.probe import at_rest, look, probe_ids
from ftw.substrate.unembed import in_fp32
from ftw.substrate.watch import Call, watch
from ftw.sweep.lenses import kinds

ViewName = Literal["next", "own", "raw"]
"""`next`: the next block's first norm. `own`: the second norm of the block itself. `raw`: none."""
VIEWS: tuple[ViewName, ...] = get_args(ViewName)
POSITIONS = 6
"""Length of the pass that is watched."""


@dataclass(frozen=True)
class NormView:
    """One norm per layer, then what the model's tail does beside its norm (a projection, in a few models)."""

    arch: Arch
    name: str
    first: int
    """The first layer that it decodes."""
    norms: tuple[tuple[nn.Module, ...], ...]
    """For each layer from `first` to n the modules that stand in for the tail."""

    @property
    def digest(self) -> str:
        """The model makes it."""
        return self.name

    @property
    def layers(self) -> range:
        """`own` begins at layer 1: no block made the embedding."""
        return range(self.first, self.first + len(self.norms))

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer row width"]:
        """Layer by layer: each has its own norm."""
        return torch.stack([self._one(state, layer) for state, layer in zip(resid, layers, strict=True)])

    def _one(self, state: Tensor, layer: int) -> Tensor:
        h = state.float()[None]
        if layer == self.arch.n_layers:
            h = h * self.arch.gain
        for module in self.norms[layer - self.first]:
            h = in_fp32(module, h)
        return h[0]


def view(model: Model, name: str) -> NormView:
    """A norm view of a model. Raises ConfigError where the model has no such norm, or the head cannot take the state.

    Runs the model once over a few tokens, except for `raw`.
    """
    arch = model.arch
    if name not in VIEWS:
        raise ConfigError(f"there is no norm view {name!r}: use {', '.join(VIEWS)}")
    rest = tuple(module for module in arch.tail if not is_norm(module))
    if name == "raw":
        if not rest and _head_width(arch) != arch.d_model:
            raise ConfigError(
                f"{model.name} has no raw view: its stream is {arch.d_model} wide, its head takes {_head_width(arch)}"
            )
        return NormView(arch, name, 0, (rest,) * (arch.n_layers + 1))
    found = block_norms(model)
    if name == "next":
        _require(model, name, [first for first, _ in found], "norm of its input")
        return NormView(arch, name, 0, (*((first, *rest) for first, _ in found if first), arch.tail))
    _require(model, name, [second for _, second in found], "second norm of the stream")
    return NormView(arch, name, 1, tuple((second, *rest) for _, second in found if second))


def block_norms(model: Model) -> list[tuple[nn.Module | None, nn.Module | None]]:
    """For each block the norm of its input and the next norm of the stream inside it, None where it has none."""
    inside = [module for block in model.arch.blocks for module in block.modules()]
    with at_rest(model.net), watch((), keep=inside) as witness:
        look(model.net, probe_ids(model.net, POSITIONS, seed=4))
    return [_norms_of(block, [witness.of(module) for module in block.modules()]) for block in model.arch.blocks]


def is_norm(module: nn.Module) -> bool:
    """By its class's name: LayerNorm, RMSNorm and all that models derive from them."""
    return "norm" in type(module).__name__.lower()


def _norms_of(block: nn.Module, calls: Sequence[Sequence[Call]]) -> tuple[nn.Module | None, nn.Module | None]:
    flat = sorted((call for some in calls for call in some), key=lambda call: call.began)
    entry = next((call.given for call in flat if call.module is block), None)
    if entry is None:
        return None, None
    outputs = [call.gave for call in flat if call.gave is not None and call.module is not block]
    norms = list(_stream_norms(flat, entry, outputs))
    first = next((module for module, is_entry in norms if is_entry), None)
    second = next((module for module, _ in norms if module is not first), None) if first is not None else None
    return first, second


def _stream_norms(calls: Sequence[Call], entry: Tensor, outputs: Sequence[Tensor]) -> Iterator[tuple[nn.Module, bool]]:
    """The norms that read the stream, in order, and whether it is the block's input that they read."""
    for call in calls:
        if not is_norm(call.module) or call.given is None or not _alike(call.given, entry):
            continue
        given = call.given.view_as(entry)  # OPT flattens batch and position
        is_entry = torch.equal(given, entry)
        if is_entry or not any(_same(out, given) for out in outputs) or _is_sum(given, entry, outputs):
            yield call.module, is_entry


def _is_sum(given: Tensor, entry: Tensor, outputs: Sequence[Tensor]) -> bool:
    """Whether a state without the block's input is some module's output: BLOOM's attention adds the stream itself."""
    branch = given - entry
    bound = 8 * torch.finfo(given.dtype).eps * float(given.abs().max())
    return any(_alike(out, branch) and float((out.view_as(branch) - branch).abs().max()) <= bound for out in outputs)


def _same(out: Tensor, given: Tensor) -> bool:
    return _alike(out, given) and torch.equal(out.view_as(given), given)


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold as many states of the same width."""
    return a.numel() == b.numel() and a.shape[-1] == b.shape[-1]


def _require(model: Model, name: str, norms: Sequence[nn.Module | None], what: str) -> None:
    bare = [index for index, norm in enumerate(norms) if norm is None]
    if bare:
        raise ConfigError(f"{model.name} has no view {name!r}: block {bare[0]} has no {what}")


def _head_width(arch: Arch) -> int:
    weight = getattr(arch.head, "weight", None)
    return int(weight.shape[1]) if isinstance(weight, Tensor) else 0


KINDS = tuple(kinds.norm(name, partial(view, name=name)) for name in VIEWS)

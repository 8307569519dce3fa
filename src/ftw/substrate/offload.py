"""Models larger than one device: `device="map"` spreads blocks over CUDA devices, then main memory, then the disk.

Everything that is no block (embedding, tail, head) and the norms of blocks that do not stay lie on the first device, so
that the identity gate, the lens head and the norm views find their weights where they look for them. Blocks follow in
order: each device is filled before the next. A block in main memory (beside a CUDA device) or on the disk runs on the
first device, and its weights are there only while it does; from safetensors they are read where they lie, so nothing is
written to the disk. Done by transformers and accelerate (extra `offload`).

The rule of the file: the plan is made of sizes alone, before a weight is read. Where a weight lies changes no bit.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ftw.substrate.checkpoint import Checkpoint
from ftw.substrate.config import ModelSpec
from ftw.substrate.device import choose_dtype, estimate, free_bytes
from ftw.substrate.errors import MissingExtra, ModelError, Refused
from ftw.substrate.files import empty_net, load_net

MAP = "map"
"""The device of a spec that asks for all of this."""
DISK = "disk"
USABLE = 0.85
"""Share of a device's free memory that weights may take. The rest is for the passes."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for weights."""

    name: str
    """`cuda:0`, `cpu`, `disk`."""
    room: int | None
    """Bytes that weights may take there; None is no limit."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a net's weights in the dtype that it is loaded in."""

    blocks: tuple[int, ...]
    norms: int
    """Of this, what the norms of all blocks take."""
    rest: int
    """All that is no block."""


def here() -> tuple[Slot, ...]:
    """The places of this machine: its CUDA devices in order, main memory, the disk."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.device("cuda", index) for index in range(count)] + [torch.device("cpu")]
    return (*(Slot(str(device), int(USABLE * free_bytes(device))) for device in devices), Slot(DISK, None))


def load_mapped(
    spec: ModelSpec, checkpoint: Checkpoint, config: Any, folder: Path, *, slots: Sequence[Slot] | None = None
) -> PreTrainedModel:
    """The net with its blocks where `plan` puts them; `folder` takes weights that cannot stay in the model's files.

    Raises MissingExtra without accelerate, ModelError where not even the parts that must lie on the first device fit,
    Refused where the net has no list of blocks, and what `files.load_net` raises.
    """
    if find_spec("accelerate") is None:
        raise MissingExtra("device map needs accelerate: pip install 'ftw-transparency[offload]'")
    slots = here() if slots is None else slots
    dtype = choose_dtype(spec.dtype, torch.device(slots[0].name), checkpoint.dtype)
    net = empty_net(spec, config)
    path, blocks = block_list(net)
    need = estimate(checkpoint, config, dtype)
    places = plan(sizes(net, blocks, dtype), slots, name=spec.name, working=need.total - need.weights)
    folder.mkdir(parents=True, exist_ok=True)
    placement = {"device_map": device_map(net, path, places, slots[0].name), "offload_folder": str(folder)}
    log = logging.getLogger("accelerate.big_modeling")  # it warns of what was asked for
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return load_net(spec, checkpoint, config, dtype, placement=placement)
    finally:
        log.setLevel(level)


def plan(sizes: Sizes, slots: Sequence[Slot], *, name: str = "the model", working: int = 0) -> tuple[str, ...]:
    """Where each block goes: slots are filled in order, in the order of the blocks.

    The first slot also takes the rest, the norms, room for one block that comes from elsewhere, and `working` bytes for
    a pass. Raises ModelError, with both sides, where these alone do not fit, or no slot is left.
    """
    largest = max(sizes.blocks, default=0)
    must = sizes.rest + sizes.norms + largest + working
    first = slots[0]
    if first.room is not None and must > first.room:
        raise ModelError(
            f"{name} needs {must / GIB:.2f} GiB on {first.name} for embedding, head, norms, one block and a pass; "
            f"{first.room / GIB:.2f} GiB can be used: use a smaller dtype (bfloat16) or a larger device"
        )
    places = []
    left = [None if slot.room is None else slot.room - (must if slot is first else 0) for slot in slots]
    at = 0
    for index, size in enumerate(sizes.blocks):
        while at < len(slots) and (room := left[at]) is not None and room < size:
            at += 1
        if at == len(slots):
            raise ModelError(
                f"{name}: block {index} of {len(sizes.blocks)} ({size / GIB:.2f} GiB) fits on none of "
                f"{', '.join(slot.name for slot in slots)}: free some memory, or use a smaller dtype"
            )
        places.append(slots[at].name)
        room = left[at]
        left[at] = None if room is None else room - size
    return tuple(places)


def block_list(net: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of modules that holds most of the weights, and its name. Raises Refused where there is none."""
    lists = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.ModuleList)]
    found = max(lists, key=lambda each: sum(weight.numel() for weight in each[1].parameters()), default=None)
    if found is None or not len(found[1]):
        raise Refused(f"{type(net).__name__} has no list of blocks to spread over devices: name one device instead")
    return found


def sizes(net: nn.Module, blocks: nn.ModuleList, dtype: torch.dtype) -> Sizes:
    """What a net's weights take in `dtype`; integer tensors as they are. A net on the meta device will do."""
    each = tuple(_bytes(block, dtype) for block in blocks)
    norms = sum(_bytes(child, dtype) for block in blocks for child in block.children() if _is_norm(child))
    return Sizes(each, norms, _bytes(net, dtype) - sum(each))


def device_map(net: nn.Module, path: str, places: Sequence[str], first: str) -> dict[str, str]:
    """The map that transformers takes: each weight of the net has exactly one entry above it."""
    found = dict.fromkeys(_around(net, "", path), first)
    blocks = net.get_submodule(path)
    for (number, block), place in zip(blocks.named_children(), places, strict=True):
        name = f"{path}.{number}"
        stays = place.startswith("cuda") or place == first
        if stays or next(block.parameters(recurse=False), None) is not None:
            found[name] = place
        else:
            found |= {f"{name}.{key}": first if _is_norm(child) else place for key, child in block.named_children()}
    return found


def _around(module: nn.Module, name: str, path: str) -> Iterator[str]:
    """The names that together cover everything but the blocks."""
    prefix = f"{name}." if name else ""
    for key, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield prefix + key
    for key, child in module.named_children():
        here = prefix + key
        if path.startswith(f"{here}."):
            yield from _around(child, here, path)
        elif here != path:
            yield here


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _bytes(module: nn.Module, dtype: torch.dtype) -> int:
    tensors: Mapping[int, torch.Tensor] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * (dtype.itemsize if t.is_floating_point() else t.element_size()) for t in tensors.values())

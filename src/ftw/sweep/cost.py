"""Cost: what a sweep of a model takes, from the headers of its files, and the place where that fits.

The rule of the file: a model is placed by its bytes, never by its name, and before any weight is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ftw.substrate.checkpoint import Checkpoint
from ftw.substrate.config import DTypeName, ModelSpec
from ftw.substrate.device import MIB, choose_device, choose_dtype, estimate, free_bytes
from ftw.substrate.errors import ModelError
from ftw.substrate.files import load_config, locate
from ftw.sweep import decode, forward
from ftw.sweep.head import CONVERT

NAMES: dict[torch.dtype, DTypeName] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
"""Dtypes as a spec spells them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Peak memory of a sweep, in bytes."""

    weights: int
    """All tensors, in the dtype they are loaded in."""
    head: int
    """What the head takes beside its weights: fp32 pieces of a half-precision one, bf16 copies when fast."""
    passes: int
    """Activations and readings of a pass, and logits: the budgets of `forward` and `decode`."""

    @property
    def total(self) -> int:
        """All three together."""
        return self.weights + self.head + self.passes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model goes."""

    spec: ModelSpec
    """With the device and dtype that were chosen."""
    cost: Cost | None
    """None for a model without files."""
    note: str = ""
    """Why it is not where it would have been without a limit."""


def cost(checkpoint: Checkpoint, config: Any, dtype: torch.dtype, *, precision: str, on_cuda: bool) -> Cost:
    """What a sweep takes: the weights' exact bytes from the safetensors headers, the head's copies, the budgets."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    wide = int(getattr(text, "vocab_size", 0) or 0) * int(getattr(text, "hidden_size", 0) or 0)
    head = 4 * wide if precision == "fast" else 0 if dtype == torch.float32 else min(CONVERT, 4 * wide)
    memory = estimate(checkpoint, config, dtype)
    passes = max(forward.BUDGET, memory.activations) + decode.BUDGET[on_cuda] + 2 * decode.TILE
    return Cost(memory.weights, head, passes)


def place(spec: ModelSpec, *, precision: str = "exact", free: Callable[[torch.device], int] = free_bytes) -> Place:
    """The spec with a device and dtype where the sweep fits.

    A named device is taken or refused. `auto` takes the freest CUDA device, then the CPU in fp32, then the CPU in the
    checkpoint's own dtype. Raises ModelError with every place that was tried, and what `files.locate` raises.
    """
    if spec.name == "tiny" or spec.device == "map":
        return Place(spec, None)
    checkpoint = locate(spec)
    config = load_config(spec, checkpoint)
    tried: list[str] = []
    for device, name in _places(spec, checkpoint):
        dtype = choose_dtype(name, device, checkpoint.dtype)
        needs = cost(checkpoint, config, dtype, precision=precision, on_cuda=device.type == "cuda")
        there = free(device)
        if needs.total <= there:
            note = f"{'; '.join(tried)}: it runs on {device} in {NAMES[dtype]}" if tried else ""
            return Place(spec.model_copy(update={"device": str(device), "dtype": NAMES[dtype]}), needs, note)
        tried.append(
            f"{spec.name} in {NAMES[dtype]} needs {_mib(needs.total)} on {device} ({_mib(needs.weights)} of it "
            f"weights), {_mib(there)} are free"
        )
    raise ModelError(
        f"{'; '.join(tried)}: use --dtype bfloat16, --device map to spread it over devices and disk, or a smaller model"
    )


def _places(spec: ModelSpec, checkpoint: Checkpoint) -> Iterator[tuple[torch.device, DTypeName]]:
    first = choose_device(spec.device)
    yield first, spec.dtype
    if spec.device != "auto":
        return
    if first.type != "cpu":
        yield torch.device("cpu"), spec.dtype
    stored = NAMES.get(checkpoint.dtype, "float32")
    if spec.dtype == "auto" and stored != "float32":
        yield torch.device("cpu"), stored


def _mib(size: int) -> str:
    return f"{size / MIB / 1024:.1f} GiB" if size >= 1024 * MIB else f"{size / MIB:.0f} MiB"

"""Cost: what a sweep of a model takes, from the headers of its files, and the place where that fits.

The rule of the file: a model is placed by its bytes, never by its name, and before any weight is read.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ftw.substrate.checkpoint import Checkpoint
from ftw.substrate.config import DTypeName, ModelSpec
from ftw.substrate.device import MIB, choose_device, choose_dtype, estimate, free_bytes
from ftw.substrate.errors import ModelError
from ftw.substrate.files import load_config, locate
from ftw.sweep import decode, ends, forward
from ftw.sweep.battery import Battery
from ftw.sweep.head import CONVERT
from ftw.sweep.job import Job
from ftw.sweep.shelf import KINDS, fitted_bytes, homes

NAMES: dict[torch.dtype, DTypeName] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
"""Dtypes as a spec spells them."""
HELD_OUT = 512
"""Positions of held-out text whose states are kept."""
ROW, LISTED = 640, 8
"""Bytes of a row of the table while it is made: its own, and for each token that it lists."""
CHARS = 2
"""Bytes of text that a token stands for at least: how many tokens a battery has is known only with the model."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a run holds beside the model and its passes."""

    names: tuple[str, ...] | None = None
    """Lenses by name; None for those that are read by default."""
    named: Mapping[str, Path] = field(default_factory=dict)
    """Folders of fitted lenses, by name."""
    homes: tuple[Path, ...] = ()
    """Where the others are looked for."""
    positions: int = 0
    """Read through every lens, at most."""
    ends: int = 0
    """Prompts, at whose end norm views are read by default."""
    k: int = 0
    """Tokens that a row lists."""
    heldout: int = 0
    """Positions of held-out text."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Peak memory of a sweep, in bytes."""

    weights: int
    """All tensors, in the dtype they are loaded in."""
    head: int
    """What the head takes beside its weights: fp32 pieces of a half-precision one, bf16 copies when fast."""
    passes: int
    """Activations and readings of a pass, and logits: the budgets of `forward`, `decode` and `ends`."""
    lenses: int = 0
    """Fitted lenses, in fp32."""
    rows: int = 0
    """The table and the states of held-out text; 0 on CUDA, as they lie in main memory."""

    @property
    def total(self) -> int:
        """All of it together."""
        return self.weights + self.head + self.passes + self.lenses + self.rows


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model goes."""

    spec: ModelSpec
    """With the device and dtype that were chosen."""
    cost: Cost | None
    """None for a model without files."""
    note: str = ""
    """Why it is not where it would have been without a limit."""


def held(job: Job) -> Held:
    """What a job's run holds. Raises what reading its battery raises."""
    prompts = Battery.read(job.battery).prompts()
    tokens = sum(2 + len(prompt.text.encode()) // CHARS for prompt in prompts)
    return Held(
        names=job.lenses,
        named=job.folders,
        homes=homes(job.cache_dir),
        positions=tokens if job.positions == "all" else len(prompts),
        ends=len(prompts),
        k=job.k,
        heldout=HELD_OUT if job.heldout is not None else 0,
    )


def cost(
    checkpoint: Checkpoint,
    config: Any,
    dtype: torch.dtype,
    *,
    precision: str,
    on_cuda: bool,
    beside: Held | None = None,
) -> Cost:
    """What a sweep takes: the weights' exact bytes from the safetensors headers, the head's copies, the budgets.

    With `beside` also fitted lenses (from their headers, as fp32), the table and the states of held-out text.
    Raises ModelBroken, StorageError for a lens's file that cannot be read.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    wide = int(getattr(text, "vocab_size", 0) or 0) * int(getattr(text, "hidden_size", 0) or 0)
    head = 4 * wide if precision == "fast" else 0 if dtype == torch.float32 else min(CONVERT, 4 * wide)
    memory = estimate(checkpoint, config, dtype)
    passes = max(forward.BUDGET, memory.activations) + decode.BUDGET[on_cuda] + 2 * decode.TILE + ends.BUDGET
    lenses, rows = _beside(beside, text, dtype) if beside is not None else (0, 0)
    return Cost(memory.weights, head, passes, lenses, 0 if on_cuda else rows)


def _beside(beside: Held, text: Any, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the fitted lenses, and of the table with the states of held-out text."""
    depth = int(getattr(text, "num_hidden_layers", 0) or 0)
    widths = [int(getattr(text, key, 0) or 0) for key in ("hidden_size", "word_embed_proj_dim")]
    fitted = fitted_bytes(beside.names, beside.named, beside.homes, n_layers=depth, widths=widths)
    views = sum(kind.make is not None for kind in KINDS) - 1
    wide = len({KINDS[0].name, *(beside.names or ()), *fitted})
    read = wide * beside.positions + (views * beside.ends if beside.names is None else 0)
    states = 2 * beside.heldout * (depth + 1) * widths[0] * dtype.itemsize  # its two halves, and both in one
    return sum(fitted.values()), read * (depth + 1) * (ROW + LISTED * beside.k) + states


def place(
    spec: ModelSpec,
    *,
    precision: str = "exact",
    beside: Held | None = None,
    free: Callable[[torch.device], int] = free_bytes,
) -> Place:
    """The spec with a device and dtype where the sweep fits, with what it holds beside the model.

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
        on_cuda = device.type == "cuda"
        needs = cost(checkpoint, config, dtype, precision=precision, on_cuda=on_cuda, beside=beside)
        there = free(device)
        if needs.total <= there:
            note = f"{'; '.join(tried)}: it runs on {device} in {NAMES[dtype]}" if tried else ""
            return Place(spec.model_copy(update={"device": str(device), "dtype": NAMES[dtype]}), needs, note)
        tried.append(
            f"{spec.name} in {NAMES[dtype]} needs {_mib(needs.total)} on {device} ({_mib(needs.weights)} of it "
            f"weights{_more(needs)}), {_mib(there)} are free"
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


def _more(needs: Cost) -> str:
    """What else takes a part that is worth a word."""
    parts = {"fitted lenses": needs.lenses, "the table": needs.rows}
    return "".join(f", {_mib(size)} {name}" for name, size in parts.items() if 20 * size > needs.total)


def _mib(size: int) -> str:
    return f"{size / MIB / 1024:.1f} GiB" if size >= 1024 * MIB else f"{size / MIB:.0f} MiB"

"""Whether ftw can open a model: anatomy, identity gate and memory in one record. What `ftw models check` prints.

Works on token ids, so a folder without a tokenizer can be checked.

The rule of the file: a model that is refused by name is a result; a model that cannot be read at all is an error.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftw.substrate.arch import Gate, gate
from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.device import Memory, estimate, free_bytes
from ftw.substrate.errors import NotCausalLM, Refused
from ftw.substrate.files import locate
from ftw.substrate.model import Model, load


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a model by their names, for people."""

    blocks: str
    n_layers: int
    d_model: int
    vocab_size: int
    context: int
    tail: tuple[str, ...]
    head: str
    is_tied: bool
    transform: str
    transform_source: str
    has_tokenizer: bool


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The verdict on one model, what was found in it, and what it needs."""

    gate: Gate
    anatomy: Anatomy | None
    """None where the parts could not be told (`gate.refused` says why)."""
    memory: Memory | None
    """None for a model that has no files."""
    free_bytes: int
    """What was free on the device before the estimate would be taken."""
    dtype: str
    device: str

    @property
    def summary(self) -> dict[str, Any]:
        """`model, architecture, exact, max_abs_error, kl_bits, refused`; null for numbers that could not be had."""
        row = asdict(self.gate)
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def check_model(spec: ModelSpec | str, *, settings: Settings | None = None) -> ModelCheck:
    """Loads one model and judges it. Raises what `load` raises, but Refused and NotCausalLM are results."""
    spec = ModelSpec.of(spec)
    try:
        model = load(spec, settings=settings)
    except (Refused, NotCausalLM) as refusal:
        kind = next(iter(locate(spec).config.get("architectures") or ()), "")
        verdict = Gate(spec.name, kind, exact=False, max_abs_error=math.nan, kl_bits=math.nan, refused=str(refusal))
        return ModelCheck(verdict, None, None, 0, spec.dtype, spec.device)
    memory = None
    if model.checkpoint is not None:
        memory = estimate(model.checkpoint, model.net.config, model.dtype)
    return ModelCheck(
        gate=gate(model.net, model.arch, model=spec.name),
        anatomy=describe(model),
        memory=memory,
        free_bytes=free_bytes(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
    )


def check_models(specs: Sequence[ModelSpec | str], *, settings: Settings | None = None) -> list[ModelCheck]:
    """`check_model` for each of `specs`, in order, one in memory at a time."""
    return [check_model(spec, settings=settings) for spec in specs]


def describe(model: Model) -> Anatomy:
    """The anatomy of a loaded model, by names."""
    arch = model.arch
    return Anatomy(
        blocks=arch.blocks_path,
        n_layers=arch.n_layers,
        d_model=arch.d_model,
        vocab_size=arch.vocab_size,
        context=model.context,
        tail=arch.tail_paths,
        head=arch.head_path,
        is_tied=arch.is_tied,
        transform=str(arch.transform),
        transform_source=arch.transform_source,
        has_tokenizer=model.tokenizer is not None,
    )

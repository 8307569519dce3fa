"""What `arch.find` finds in a model: the blocks, what runs after them, the head, and the logit transform.

Plain records, and `replay`, which runs what they describe. The rule of the file: nothing here looks at a model's type.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """What stands between the head's output z and the model's logits: softcap * tanh(scale * z / softcap).

    A softcap of None means no cap. 1.0 is a cap like any other.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits of a head's output. Order of operations and rounding are those of transformers' models."""
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    @property
    def is_monotone(self) -> bool:
        """Whether the transform keeps the order of the logits (a negative scale would turn it round)."""
        return self.scale > 0

    def __str__(self) -> str:
        parts = [f"scale {self.scale:g}"] if self.scale != 1.0 else []
        if self.softcap is not None:
            parts.append(f"softcap {self.softcap:g}")
        return ", ".join(parts) or "none"


@dataclass(frozen=True)
class Arch:
    """The anatomy of a causal language model: embed, blocks, tail, head, transform, in the order data takes."""

    blocks: nn.ModuleList
    """The stack whose outputs are the residual stream."""
    blocks_path: str
    """Its name in the model, for example `model.layers`."""
    embed: nn.Module
    """The token embedding."""
    tail: tuple[nn.Module, ...]
    """What runs between the last block and the head, in call order: the final norm, projections if there are any."""
    tail_paths: tuple[str, ...]
    """Their names."""
    head: nn.Module
    """The map from the stream to the vocabulary: `weight` [vocab, width] and `bias` [vocab] or None."""
    head_path: str
    """Its name."""
    transform: LogitTransform
    """What is done to the head's output to make it the model's logits."""
    transform_source: str
    """Where it comes from: `none`, `config` (read there, confirmed on tensors) or `fitted` (on tensors alone)."""
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    """Number of blocks."""
    vocab_size: int
    """Number of logits. Some may be padding that no token uses; further rows of the head are cut off by the model."""
    gain: float = 1.0
    """A factor between the last block and the tail that no module stands for (RWKV halves every sixth block)."""
    doubt: str | None = None
    """Why the identity gate must refuse this anatomy, if the search itself already saw it."""

    @property
    def is_tied(self) -> bool:
        """Whether head and embedding are one tensor."""
        weight = getattr(self.embed, "weight", None)
        return weight is not None and weight is getattr(self.head, "weight", None)


def first_tensor(output: Any) -> Tensor | None:
    """The stream in what a block returns: the tensor itself, or the first entry of a tuple."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def replay_tail(tail: tuple[nn.Module, ...], resid: Tensor, gain: float = 1.0) -> Tensor:
    """What the head would be given for a stream `resid` [*batch, d_model], by the model's own modules and dtype."""
    resid = resid if gain == 1.0 else resid * gain
    for module in tail:
        out = first_tensor(module(resid))
        if out is None:
            raise TypeError(f"{type(module).__name__} returns no tensor")
        resid = out
    return resid


def replay(arch: Arch, resid: Tensor) -> Tensor:
    """The model's logits [*batch, vocab] for the last block's output, by its own modules, in its own dtype."""
    scores: Tensor = arch.head(replay_tail(arch.tail, resid, arch.gain))
    return arch.transform(scores[..., : arch.vocab_size])

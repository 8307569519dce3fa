"""Vocabulary lenses: what a state in the middle of the stack must be made into, so that the head can read it.

Layers are counted by blocks that have run: layer 0 is the embedding output, layer n the stream after the last block.
A lens gives the head's input; head and logit transform are the model's own for every lens. So a lens is one file.

The rule of the folder: a lens computes in fp32, and never looks at another row than the one it decodes.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class VocabLens(Protocol):
    """A way to read states as next-token distributions."""

    @property
    def name(self) -> str:
        """What the table calls it: short, unique among the lenses of a run."""
        ...

    @property
    def digest(self) -> str:
        """What it is: its name where the model alone makes it, the SHA-256 (hex) of its tensors where it was fitted."""
        ...

    @property
    def layers(self) -> range:
        """The layers it can decode, ascending."""
        ...

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer row width"]:
        """What the head is to be multiplied with, fp32. `resid[i]` are states of layer `layers[i]`, in any dtype."""
        ...

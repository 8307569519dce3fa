"""The logit lens: every layer read as if it were the last one, by the model's own tail (nostalgebraist 2020).

The rule of the file: at the last layer this lens is the model itself. The identity gate proves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ftw.substrate.anatomy import Arch
from ftw.substrate.unembed import head_input
from ftw.sweep.lenses import kinds


@dataclass(frozen=True)
class LogitLens:
    """Final norm (and what else runs after the last block), at every layer."""

    arch: Arch
    name: str = "logit"

    @property
    def digest(self) -> str:
        """The model makes it."""
        return "logit"

    @property
    def layers(self) -> range:
        """All of them: 0 to n."""
        return range(self.arch.n_layers + 1)

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "layer row width"]:
        """The tail of every state, in one go."""
        return head_input(self.arch, resid)


KIND = kinds.norm("logit", lambda model: LogitLens(model.arch))

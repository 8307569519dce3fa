"""The linear screens of one site's lenses, laid out to be read at every token.

The rule of the file: beside MLPs in fp32 they are fp32; beside bf16 and int8 they are no finer than those, for they are
most of what a token reads. One or two states on a CPU go through a table like those of the MLPs, 128 screens standing
for the outputs of one lens; that takes half the time of a matrix product. More states go through the product, in bf16.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.forms.tables import table_of
from ftw.hat.classifiers.modules import HIDDEN

_FEW = 2
"""Up to so many states go through the table."""


class ScreenTable:
    """The weights of many linear probes."""

    def __init__(self, weight: Float[Tensor, "lens d_model"], device: torch.device, dtype: torch.dtype) -> None:
        kind = torch.float32 if dtype == torch.float32 else torch.bfloat16
        self.rows = weight.to(device, kind).contiguous()
        """One row per lens."""
        self._blocks = None
        if device.type == "cpu" and dtype != torch.float32:
            blocks = -(-len(weight) // HIDDEN)
            full = F.pad(weight.float(), (0, 0, 0, blocks * HIDDEN - len(weight)))
            self._blocks = table_of([full.view(blocks, HIDDEN, -1)], device, dtype)
            self._every = torch.arange(blocks)

    def margins(self, x: Float[Tensor, "row d_model"], bias: Float[Tensor, " lens"]) -> Float[Tensor, "row lens"]:
        """Scores of all probes plus `bias`, fp32."""
        if self._blocks is None or len(x) > _FEW:
            return self.some(x, bias, 0)
        wide = [self._blocks.sums(one.expand(len(self._every), -1), self._every).float().view(-1) for one in x]
        return torch.stack(wide)[:, : len(bias)] + bias

    def some(self, x: Float[Tensor, "row d_model"], bias: Float[Tensor, " lens"], start: int) -> Tensor:
        """The same of as many neighbouring probes as there are biases, from number `start` on: [row, lens]."""
        own = self.rows[start : start + len(bias)]
        return F.linear(x.to(own.dtype), own).float() + bias

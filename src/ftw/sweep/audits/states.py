"""States: the residual streams at the ends of the prompts that audits look at.

The rule of the file: a prompt is read from the model once, however many audits look at it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.model import Model
from ftw.sweep import forward
from ftw.sweep.table import SweepTable


class Ends:
    """The states at the ends of a table's prompts, read when they are first asked for, and kept."""

    def __init__(self, model: Model, table: SweepTable) -> None:
        self.model, self.table = model, table
        self._known: dict[tuple[int, ...], Float[Tensor, "layer d_model"]] = {}

    def of(self, chosen: Sequence[int]) -> Float[Tensor, "layer prompt d_model"]:
        """Those of these prompts (indices), at layers 0 to n, in the model's dtype."""
        ids = [self.table.items[at].ids for at in chosen]
        unknown = list(dict.fromkeys(each for each in ids if each not in self._known))
        if unknown:
            self._known |= dict(zip(unknown, read_each(self.model, unknown).unbind(1), strict=True))
        return torch.stack([self._known[each] for each in ids], 1)


def read_each(model: Model, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "layer prompt d_model"]:
    """The states at the end of each of these token sequences, in their order; equal ones share a pass."""
    resid = forward.read(model, prompts)
    rows = {prompt: row for row, prompt in enumerate(resid.prompt.tolist())}
    return resid.states[:, [rows[each] for each in forward.first_of_its_kind(prompts)]]

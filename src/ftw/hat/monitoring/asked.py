"""What the states of one scoring asked for and did not find, row by row, on its way from the device or here.

The rule of the file: nothing waits for a copy until someone asks what a row lacked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ftw.substrate.errors import UsageError


@dataclass(slots=True)
class Asked:
    """What the states of one scoring asked for: on a device it is on its way to the host until the event happens."""

    most: Float[Tensor, " group"]
    """The highest probability that any state read of each group's parent."""
    strong: Bool[Tensor, "row group"]
    """Which states read it strongly enough to ask; once that is decided, only of the groups that were not there."""
    event: torch.cuda.Event | None
    lacking: tuple[str, ...] | None = None
    """The parents of those groups. None: not decided yet."""

    def lack(self, columns: Sequence[int], everywhere: Sequence[bool], parents: Sequence[str]) -> None:
        """Note which groups were not there, and which of them every state asked for."""
        self.strong = self.strong[:, list(columns)] | torch.tensor(list(everywhere), dtype=torch.bool)
        self.lacking = tuple(parents)

    def names(self, row: int) -> tuple[str, ...]:
        """The concepts whose children one state lacked."""
        return tuple(term for term, asks in zip(self.lacking or (), self.strong[row].tolist(), strict=True) if asks)


def lacks(scorings: Sequence[Asked], row: int, decide: Callable[[], None]) -> tuple[str, ...]:
    """The concepts whose children a row lacked, counted over several scorings. `decide` settles the last of them.

    Raises UsageError for a row that there is not.
    """
    for asked in scorings:
        if row < len(asked.strong):
            if asked.lacking is None:
                decide()
            return asked.names(row)
        row -= len(asked.strong)
    raise UsageError("there is no such row among these scorings")


def to_host(values: Tensor) -> Tensor:
    """A tensor that is being copied to the host."""
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)

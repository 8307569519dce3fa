"""A fixed number of places for lenses, whose weights come and go while it scores.

All memory is taken at once, so a budget in bytes is kept to the byte; a lens comes by one copy into its slot, and
leaves by not being named any more. The rule of the file: nothing is stacked again, whatever comes and goes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ftw.hat.classifiers.forms.common import tail_of
from ftw.hat.classifiers.modules import HIDDEN
from ftw.hat.classifiers.tensors import LensTensors
from ftw.substrate.errors import UsageError

_FEW = 8
"""Up to this many states go as weighted sums of rows, which read each weight once; more go as matrix products."""


class Slots:
    """`count` places for lenses of width `d_model` with at most `units` units in their second layer.

    With `d_model` 0 they hold no first layer: that of lenses which share one is its owner's, see `after`.
    """

    def __init__(self, count: int, d_model: int, units: int, device: torch.device, dtype: torch.dtype) -> None:
        self.count, self.d_model, self.units = count, d_model, units
        self.first = torch.zeros(count * d_model, HIDDEN, device=device, dtype=dtype)
        """W1 transposed: D rows of 128 per slot."""
        self.second = torch.zeros(count * HIDDEN, units, device=device, dtype=dtype)
        """W2 transposed: 128 rows of K per slot."""
        self.tail = torch.zeros(count, HIDDEN + 2 * units + 1, device=device)
        """b1, b2, w3, b3 of each slot in one row, fp32."""
        self._channels = torch.arange(d_model, device=device, dtype=torch.int32)
        self._hidden = torch.arange(HIDDEN, device=device, dtype=torch.int32)

    @staticmethod
    def bytes_of(d_model: int, units: int, dtype: torch.dtype) -> int:
        """What one slot takes."""
        return HIDDEN * (d_model + units) * dtype.itemsize + 4 * (HIDDEN + 2 * units + 1)

    @property
    def nbytes(self) -> int:
        """What all slots take."""
        return sum(each.nbytes for each in (self.first, self.second, self.tail))

    def staged(self, part: LensTensors) -> "Staged":
        """Lenses as they lie in slots, on the host, in pinned memory where a device is to fetch them."""
        k = self.units
        if (self.d_model and part.w1.shape[-1] != self.d_model) or part.w3.shape[-1] > k:
            raise UsageError(
                f"lenses of width {part.w1.shape[-1]} with {part.w3.shape[-1]} units do not fit slots of width "
                f"{self.d_model} with {k}"
            )
        w2 = F.pad(part.w2, (0, 0, 0, k - part.w2.shape[1]))
        made = Staged(
            part.w1[..., : self.d_model].to(self.first.dtype).transpose(1, 2).contiguous(),
            w2.to(self.second.dtype).transpose(1, 2).contiguous(),
            tail_of(part, k),
        )
        return made.pinned() if self.first.is_cuda else made

    def put(self, slots: Sequence[int], lenses: "Staged") -> None:
        """Copy lenses into slots, one each. On a device the copies are asked for, and nothing waits for them."""
        for at, slot in enumerate(slots):
            self.first[slot * self.d_model : (slot + 1) * self.d_model].copy_(lenses.first[at], non_blocking=True)
            self.second[slot * HIDDEN : (slot + 1) * HIDDEN].copy_(lenses.second[at], non_blocking=True)
            self.tail[slot].copy_(lenses.tail[at], non_blocking=True)

    def logits(self, x: Float[Tensor, "row d_model"], slots: Int[Tensor, " lens"]) -> Float[Tensor, "row lens"]:
        """Logits of normalised states by the lenses in `slots`."""
        if not len(slots) or not len(x):
            return x.new_zeros(len(x), len(slots))
        return self._rows_summed(x, slots) if len(x) <= _FEW else self._multiplied(x, slots)

    def after(self, z: Float[Tensor, "row 128"], slots: Int[Tensor, " lens"]) -> Float[Tensor, "row lens"]:
        """Logits by the lenses in `slots` from what a first layer that they share gave."""
        b2, w3, b3 = torch.split(self.tail[:, None, HIDDEN:], [self.units, self.units, 1], 2)
        z = torch.matmul(z.to(self.second.dtype), self.second.view(self.count, HIDDEN, self.units))
        z = (z.float() + b2).relu_()
        return ((z * w3).sum(-1) + b3[..., 0]).index_select(0, slots).T

    def _rows_summed(self, x: Float[Tensor, "row d_model"], slots: Int[Tensor, " lens"]) -> Tensor:
        """Each weight is read once, where it lies: for a few states."""
        k, n, at = self.units, len(slots), slots.to(torch.int32).unsqueeze(1)
        tail = self.tail.index_select(0, slots)
        out = []
        for row in x:
            states = row.to(self.first.dtype).expand(n, -1)
            z = _bag(at * self.d_model + self._channels, self.first, states)
            z = (z + tail[:, :HIDDEN]).relu_()
            z = _bag(at * HIDDEN + self._hidden, self.second, z)
            z = (z + tail[:, HIDDEN : HIDDEN + k]).relu_()
            out.append(torch.linalg.vecdot(z, tail[:, HIDDEN + k : -1]) + tail[:, -1])
        return torch.stack(out)

    def _multiplied(self, x: Float[Tensor, "row d_model"], slots: Int[Tensor, " lens"]) -> Tensor:
        """All slots together by matrix products, then the ones asked for: for many states."""
        b1, b2, w3, b3 = torch.split(self.tail[:, None], [HIDDEN, self.units, self.units, 1], 2)
        dtype = self.first.dtype
        z = torch.matmul(x.to(dtype), self.first.view(self.count, self.d_model, HIDDEN))
        z = (z.float() + b1).relu_()
        z = torch.bmm(z.to(dtype), self.second.view(self.count, HIDDEN, self.units))
        z = (z.float() + b2).relu_()
        return ((z * w3).sum(-1) + b3[..., 0]).index_select(0, slots).T


class Staged:
    """Lenses on their way into slots."""

    def __init__(
        self,
        first: Float[Tensor, "lens d_model 128"],
        second: Float[Tensor, "lens 128 unit"],
        tail: Float[Tensor, "lens n"],
    ) -> None:
        self.first, self.second, self.tail = first, second, tail

    def __len__(self) -> int:
        return len(self.tail)

    def pinned(self) -> "Staged":
        """The same in memory that a device can fetch from by itself."""
        return Staged(self.first.pin_memory(), self.second.pin_memory(), self.tail.pin_memory())


def _bag(at: Int[Tensor, "lens n"], table: Float[Tensor, "row k"], weights: Float[Tensor, "lens n"]) -> Tensor:
    """Per lens, the sum of the table's rows `at`, weighted: [lens, k], fp32."""
    return F.embedding_bag(at, table, per_sample_weights=weights.to(table.dtype), mode="sum").float()

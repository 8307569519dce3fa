"""One layer of many lenses as a table of rows to be summed: the weights transposed, `inner` rows of `width` per lens.

A lens's outputs are then the sum of its rows, weighted by its inputs (`embedding_bag`): any number of pairs of any
lenses is one call, no weight is copied, and contiguous rows are read at 0.8 of what plain streaming reads. int8 rows
go through the row-wise quantised form of the same call: twice the lenses in the same time, states in fp32.
The rule of the file: a table is made once from weights [lens, width, inner] and never changes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ftw.hat.classifiers.quantise import stored_rows

_CHUNK = 1 << 22
"""Rows that one call sums at most: its index and its weights are as many numbers each."""
_STEP = 1 << 20
"""Weights that a thread turns to int8 at a time: they stay in its cache."""
_LENSES = 64
"""Lenses that a thread lays out at a time."""
_ZERO = 128
"""What stands for 0 in a byte."""
_EXTRA = 8
"""Bytes after each int8 row that the call reads its scale and offset from, fp32 each."""


class FloatTable:
    """Rows in fp32 or bf16."""

    def __init__(self, weights: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self.lenses = sum(len(weight) for weight in weights)
        _, self.width, self.inner = weights[0].shape
        self.rows = torch.empty(self.lenses * self.inner, self.width, dtype=dtype, device=device)
        start = 0
        for weight in weights:
            lay_out(weight.to(device), self.weight(start, start + len(weight)))
            start += len(weight)
        self._along = torch.arange(self.inner, device=device, dtype=torch.int32)

    def sums(self, x: Float[Tensor, "pair inner"], lens: Int[Tensor, " pair"]) -> Float[Tensor, "pair width"]:
        """Per pair, the lens's weights times the pair's inputs, in the table's dtype."""
        at, x = lens.to(torch.int32).unsqueeze(1) * self.inner, x.to(self.rows.dtype)
        some = max(1, _CHUNK // self.inner)
        out = [
            F.embedding_bag(at[i : i + some] + self._along, self.rows, per_sample_weights=x[i : i + some], mode="sum")
            for i in range(0, max(1, len(at)), some)
        ]
        return out[0] if len(out) == 1 else torch.cat(out)

    def weight(self, start: int, end: int) -> Float[Tensor, "lens inner width"]:
        """A view of the rows of lenses `start` to `end`."""
        return self.rows[start * self.inner : end * self.inner].view(-1, self.inner, self.width)


class Int8Table:
    """Rows in int8, one scale per lens and output: the very numbers that packs store.

    On a CPU each row carries the scale 1 and the offset -128 that the quantised call asks for, and the true scales
    multiply its result: they belong to outputs, not to rows.
    """

    def __init__(self, weights: Sequence[Tensor], device: torch.device) -> None:
        self.lenses = sum(len(weight) for weight in weights)
        _, self.width, self.inner = weights[0].shape
        self._summed_in_place = device.type == "cpu"
        columns = self.width + _EXTRA if self._summed_in_place else self.width
        kind = torch.uint8 if self._summed_in_place else torch.int8
        self.rows = torch.empty(self.lenses * self.inner, columns, dtype=kind, device=device)
        self.scales = torch.empty(self.lenses, self.width, device=device)
        if self._summed_in_place:
            self.rows[:, self.width :] = torch.tensor([1.0, -float(_ZERO)]).view(torch.uint8)
        self._along = torch.arange(self.inner, device=device, dtype=torch.int32)
        parts = [part for weight in weights for part in torch.split(weight, max(1, _STEP // (self.width * self.inner)))]
        starts = accumulate(map(len, parts), initial=0)
        with ThreadPoolExecutor(torch.get_num_threads() if self._summed_in_place else 1) as pool:
            list(pool.map(self._fill, starts, parts))

    @torch.inference_mode()
    def _fill(self, start: int, weight: Tensor) -> None:
        values, scales = (each.to(self.rows.device) for each in stored_rows(weight))
        numbers = torch.empty(len(values), self.inner, self.width, dtype=torch.int8, device=values.device)
        for own, to in zip(values, numbers, strict=True):
            to.copy_(own.T)
        rows = self.rows[start * self.inner : (start + len(values)) * self.inner, : self.width]
        flat = numbers.view(-1, self.width)
        rows.copy_(flat.view(torch.uint8).bitwise_xor_(_ZERO) if self._summed_in_place else flat)
        self.scales[start : start + len(scales)] = scales.float()

    def sums(self, x: Float[Tensor, "pair inner"], lens: Int[Tensor, " pair"]) -> Float[Tensor, "pair width"]:
        """Per pair, the lens's weights times the pair's inputs, fp32. Elsewhere than on a CPU, pairs are gathered."""
        some = max(1, _CHUNK // self.inner)
        step = self._bags if self._summed_in_place else self._gathered
        out = [step(x[i : i + some].float(), lens[i : i + some]) for i in range(0, max(1, len(lens)), some)]
        return (out[0] if len(out) == 1 else torch.cat(out)).mul_(self.scales[lens])

    def _bags(self, x: Tensor, lens: Tensor) -> Tensor:
        at = (lens.to(torch.int32).unsqueeze(1) * self.inner + self._along).view(-1)
        ends = torch.arange(len(lens) + 1, dtype=torch.int32) * self.inner
        bags: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            self.rows, at, ends, False, 0, False, x.reshape(-1), None, True
        )
        return bags

    def _gathered(self, x: Tensor, lens: Tensor) -> Tensor:
        rows = self.rows.view(self.lenses, self.inner, -1).index_select(0, lens)
        return torch.bmm(x.unsqueeze(1), rows.to(x.dtype)).squeeze(1)

    def weight(self, start: int, end: int) -> Float[Tensor, "lens inner width"]:
        """The weights of lenses `start` to `end`, fp32, made anew."""
        rows = self.rows[start * self.inner : end * self.inner, : self.width].view(-1, self.inner, self.width)
        numbers = rows.float() - _ZERO if self._summed_in_place else rows.float()
        return numbers * self.scales[start:end, None]


def lay_out(weight: Shaped[Tensor, "lens width inner"], rows: Shaped[Tensor, "lens inner width"]) -> None:
    """Write the weights into `rows`, each lens transposed.

    Lens by lens: torch has a fast way for the transpose of a matrix, three times that of many at once, but it runs on
    one thread.
    """

    def some(start: int) -> None:
        with torch.inference_mode():  # a mode is a thread's own
            for own, to in zip(weight[start : start + _LENSES], rows[start : start + _LENSES], strict=True):
                to.copy_(own.to(to.dtype).T)

    if weight.device.type != "cpu":
        rows.copy_(weight.transpose(1, 2))
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(some, range(0, len(weight), _LENSES)))


Table = FloatTable | Int8Table
"""One layer of all lenses of a bank."""


def table_of(weights: Sequence[Float[Tensor, "_ width inner"]], device: torch.device, dtype: torch.dtype) -> Table:
    """The table of weights [lens, width, inner], part after part. `dtype`: int8, or that of the rows."""
    return Int8Table(weights, device) if dtype == torch.int8 else FloatTable(weights, device, dtype)

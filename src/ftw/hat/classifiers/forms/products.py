"""Layer one of many lenses as one product, [row, D] by [N * 128, D], in the layout that a device reads fastest.

The rule of the file: a product holds its weights once and gives every row what it would get alone. A step of one row is
bound by memory, so what counts is that each weight is read once, at the rate at which memory gives it:

* bf16 on a CPU: rows reordered for oneDNN's matrix product, at least four states at a time (zeros beside the real
  ones). Measured at 2,000 lenses of width 1,024: 1.1 times the time of reading the weights; a product over plain rows
  takes 2.2 times, `torch.mv` 6 times.
* int8: whole numbers by whole numbers, exactly. Each state is two rows of int8, its high and its low byte, so that a
  state keeps 16 bits: with one row, a single large channel would cost all others their precision. Both rows go
  through one product, which reads the weights once. FBGEMM's product where torch has it, `_int_mm` elsewhere.
"""

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int8
from torch import Tensor

from ftw.hat.classifiers.quantise import stored_rows

_LEAST_ROWS = 4
"""oneDNN's bf16 product of 1 or 2 rows takes longer than of 4."""
_LOW = 254
"""Steps of the low byte in one of the high byte: it lies within half a step, 127 to either side."""
_AT_ONCE = 1 << 21
"""So many weights are quantised at once."""
_CUDA_ROWS = 32
"""`_int_mm` on CUDA takes more than 16 rows."""


class Plain:
    """Rows as they are, in fp32 or bf16, on any device."""

    def __init__(self, weight: Float[Tensor, "unit d_model"]) -> None:
        self._weight = weight.contiguous()

    def raw(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row unit"]:
        """The states times the weights, nothing added."""
        return F.linear(x.to(self._weight.dtype), self._weight)

    def hidden(self, x: Float[Tensor, "row d_model"], bias: Float[Tensor, " unit"]) -> Float[Tensor, "row unit"]:
        """The first layer of normalised states."""
        return F.linear(x.to(self._weight.dtype), self._weight, bias.to(self._weight.dtype)).relu_()


class Packed:
    """bf16 rows in the order that oneDNN reads them, on a CPU."""

    def __init__(self, weight: Float[Tensor, "unit d_model"]) -> None:
        self._units = len(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(torch.bfloat16).contiguous(), 16)

    @staticmethod
    def is_possible() -> bool:
        """Whether this CPU multiplies bf16, and torch has oneDNN."""
        return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def raw(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row unit"]:
        """The states times the weights, nothing added."""
        return self._product(x, None, "none")

    def hidden(self, x: Float[Tensor, "row d_model"], bias: Float[Tensor, " unit"]) -> Float[Tensor, "row unit"]:
        """The first layer of normalised states, in one call."""
        return self._product(x, bias.to(torch.bfloat16), "relu")

    def _product(self, x: Tensor, bias: Tensor | None, then: str) -> Tensor:
        spare = max(0, _LEAST_ROWS - len(x))
        rows = F.pad(x.to(torch.bfloat16), (0, 0, 0, spare)) if spare else x.to(torch.bfloat16)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, bias, then, [], "")
        return out[: len(x)]


class Integers:
    """int8 rows with one scale each."""

    def __init__(self, weight: Float[Tensor, "unit d_model"], device: torch.device) -> None:
        step = max(1, _AT_ONCE // weight.shape[1])
        parts = [stored_rows(weight[at : at + step]) for at in range(0, len(weight), step)]
        values = torch.cat([part.values for part in parts])
        self._scales = torch.cat([part.scales for part in parts]).float().to(device)
        with_fbgemm = device.type == "cpu" and has_fbgemm()
        self._product = _Fbgemm(values) if with_fbgemm else _IntMm(values.to(device))

    def raw(self, x: Float[Tensor, "row d_model"]) -> Float32[Tensor, "row unit"]:
        """The states times the weights, nothing added. A NaN or an infinity in a state makes its row NaN."""
        step = (x.float().abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        exact = (x.float() / step).nan_to_num_(0, 0, 0)
        high = exact.round()
        low = ((exact - high) * _LOW).round_()
        both = self._product(torch.cat((high, low)).to(torch.int8))
        return both[len(x) :].div_(_LOW).add_(both[: len(x)]).mul_(self._scales).mul_(step)

    def hidden(self, x: Float[Tensor, "row d_model"], bias: Float[Tensor, " unit"]) -> Float[Tensor, "row unit"]:
        """The first layer of normalised states."""
        return self.raw(x).add_(bias).relu_()


class _Fbgemm:
    """FBGEMM's product of states quantised on the fly by int8 weights, fed such that it is exact.

    It takes floats and finds the scale and zero point of all rows from their extremes. One more row of -128 and 127
    makes the scale 1, whatever the other rows hold: whole numbers go through unchanged.
    """

    def __init__(self, values: Int8[Tensor, "unit d_model"]) -> None:
        units, width = values.shape
        self._columns = values.sum(1, dtype=torch.int32)
        self._nothing = torch.zeros(units)
        self._guard = torch.zeros(1, width)
        self._guard[0, 0], self._guard[0, 1] = -128, 127
        self._shape = torch.empty(1, 1, dtype=torch.int8).expand(units, width)
        with warnings.catch_warnings():  # torch means to drop it one day, and says so once: then `_IntMm` takes over
            warnings.simplefilter("ignore")
            self._packed = torch.fbgemm_pack_quantized_matrix(values.contiguous())
            self(self._guard.to(torch.int8))

    def __call__(self, rows: Int8[Tensor, "row d_model"]) -> Float32[Tensor, "row unit"]:
        x = torch.cat((rows.float(), self._guard))
        out: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(
            x, self._shape, self._packed, self._columns, 1.0, 0, self._nothing
        )
        return out[: len(rows)]


class _IntMm:
    """torch's own product of int8 matrices."""

    def __init__(self, values: Int8[Tensor, "unit d_model"]) -> None:
        self._weight = values.contiguous()

    def __call__(self, rows: Int8[Tensor, "row d_model"]) -> Float32[Tensor, "row unit"]:
        spare = max(0, _CUDA_ROWS - len(rows)) if rows.is_cuda else 0
        x = F.pad(rows, (0, 0, 0, spare)) if spare else rows
        return torch._int_mm(x, self._weight.T)[: len(rows)].float()


def has_fbgemm() -> bool:
    """Whether this torch has FBGEMM's product for int8 weights and float states."""
    return "fbgemm" in torch.backends.quantized.supported_engines and hasattr(torch, "fbgemm_pack_quantized_matrix")


Product = Plain | Packed | Integers
"""W1 of some lenses."""


def sums_of(product: Product, width: int, device: torch.device) -> Float32[Tensor, " unit"]:
    """The sum of each unit's weights as the product holds them: what it gives for a state of ones."""
    return product.raw(torch.ones(1, width, device=device))[0].float()


def product_of(weight: Float[Tensor, "unit d_model"], device: torch.device, dtype: torch.dtype) -> Product:
    """The fastest product of these rows on a device, with weights in fp32, bf16 or int8."""
    if dtype == torch.int8:
        return Integers(weight, device)
    if dtype == torch.bfloat16 and device.type == "cpu" and Packed.is_possible():
        return Packed(weight)
    return Plain(weight.to(device, dtype))

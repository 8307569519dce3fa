"""int8 rows: each row of a matrix as 8-bit integers and one scale.

The rule of the file: symmetric, so zero stays zero; a row's largest magnitude maps to 127 and the error of a weight is
at most half its row's scale.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from ftw.substrate.errors import NumericError


class QuantisedRows(NamedTuple):
    """`values * scales[..., None]` gives the matrix back."""

    values: Int8[Tensor, "*rows channel"]
    scales: Float[Tensor, "*rows"]


def quantise_rows(weight: Float[Tensor, "*rows channel"], scale_dtype: torch.dtype = torch.float16) -> QuantisedRows:
    """A matrix as int8 rows. Scales are rounded first, then used, so no error comes from their dtype.

    Raises NumericError for what is not finite.
    """
    weight = weight.float()
    largest = torch.maximum(weight.amax(-1), -weight.amin(-1))  # carries a NaN, and is quicker than to look at each
    if not bool(largest.isfinite().all()):
        raise NumericError("a weight to be quantised is a NaN or an infinity")
    tiny = torch.finfo(scale_dtype).smallest_normal
    scales = (largest / 127).clamp(min=tiny).to(scale_dtype)
    if not bool(scales.isfinite().all()):
        raise NumericError(f"a weight of {float(largest.max()):g} is too large for {scale_dtype} scales")
    values = (weight / scales.float().unsqueeze(-1)).round_().clamp_(-127, 127)
    return QuantisedRows(values.to(torch.int8), scales)


def dequantise_rows(rows: QuantisedRows) -> Float[Tensor, "*rows channel"]:
    """The matrix of int8 rows, fp32."""
    return rows.values.float() * rows.scales.float().unsqueeze(-1)

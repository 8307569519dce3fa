"""One Triton kernel for all that follows layer one: each hidden unit is read once, and only logits are written.

The rule of the file: the logits equal `tail_with_torch` up to the order of sums. The interpreter of Triton runs the
same kernel on a CPU, which is how it is tested without a GPU. Imported only where Triton is.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32
from torch import Tensor

from ftw.hat.classifiers.forms.tail import Statistics, Tail
from ftw.hat.classifiers.modules import HIDDEN

ROWS = 16
"""States per program: the least that a matrix instruction takes."""


@triton.jit
@no_type_check  # a kernel's language, not Python's
def tail_kernel(
    product, mean, scale, sums, b1, w2, b2, w3, b3, out, rows, stride, lenses, units,
    hidden: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The logits of one lens on one block of rows."""
    lens = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * block + tl.arange(0, block)
    here = row < rows
    h = tl.arange(0, hidden)
    k = tl.arange(0, wide)
    z = tl.load(
        product + row[:, None].to(tl.int64) * stride + lens * hidden + h[None, :], mask=here[:, None], other=0.0
    ).to(tl.float32)
    off = tl.load(mean + row, mask=here, other=0.0)
    by = tl.load(scale + row, mask=here, other=0.0)
    z = (z - off[:, None] * tl.load(sums + lens * hidden + h)[None, :]) * by[:, None]
    z = z + tl.load(b1 + lens * hidden + h)[None, :]
    z = tl.where(z < 0, 0.0, z)  # not a maximum: a NaN stays one
    w = tl.load(w2 + lens * hidden * units + h[:, None] * units + k[None, :], mask=k[None, :] < units, other=0.0)
    z = tl.dot(z, w.to(tl.float32), input_precision="ieee")  # so little work that exact products cost nothing
    z = z + tl.load(b2 + lens * units + k, mask=k < units, other=0.0)[None, :]
    z = tl.where(z < 0, 0.0, z)
    logit = tl.sum(z * tl.load(w3 + lens * units + k, mask=k < units, other=0.0)[None, :], 1) + tl.load(b3 + lens)
    tl.store(out + row.to(tl.int64) * lenses + lens, logit, mask=here)


def tail_with_triton(
    product: Float[Tensor, "row unit_of_all"], about: Statistics, tail: Tail
) -> Float32[Tensor, "row lens"]:
    """Logits from raw states times W1, in one launch."""
    rows, (lenses, _, units) = len(product), tail.w2.shape
    out = torch.empty(rows, lenses, device=product.device)
    tail_kernel[(lenses, triton.cdiv(rows, ROWS))](
        product, about.mean, about.scale, tail.sums, tail.b1, tail.w2, tail.b2, tail.w3, tail.b3, out,
        rows, product.stride(0), lenses, units,
        hidden=HIDDEN, wide=max(16, triton.next_power_of_2(units)), block=ROWS,
    )  # fmt: skip
    return out

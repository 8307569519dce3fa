"""One Triton kernel for proof inputs: hash, Box-Muller and the rounding to the model's dtype, each number written once.

The rule of the file: the integers equal `seeds.mix`; the floats are within 1e-6 of `normals.normals`. The interpreter
of Triton runs the same kernel on a CPU, which is how it is tested without a GPU. Imported only where Triton is.
"""

import math
from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

BLOCK = 1024
"""Pairs of uniforms per program."""
SMALLEST = tl.constexpr(1e-10)
TURN = tl.constexpr(math.tau)
SCALE = tl.constexpr(2.0**-32)


@triton.jit
@no_type_check  # a kernel's language, not Python's; and wrapped by a type checker, Triton loses its globals
def hash_word(index, seed):
    """`seeds.mix` in unsigned 32-bit words, which wrap by themselves."""
    a = index * 0xCC9E2D51
    a = (a << 15) | (a >> 17)
    b = seed ^ (a * 0x1B873593)
    b = (b << 13) | (b >> 19)
    b = b * 5 + 0xE6546B64
    b = (b ^ (b >> 16)) * 0x85EBCA6B
    b = (b ^ (b >> 13)) * 0xC2B2AE35
    return b ^ (b >> 16)


@triton.jit
@no_type_check
def fill_kernel(out, seeds, count, pairs, stride, block: tl.constexpr):
    """One block of pairs of one row: cosines to its first half, sines to its second."""
    row = tl.program_id(0)
    pair = tl.program_id(1) * block + tl.arange(0, block)
    seed = tl.load(seeds + row).to(tl.uint32)
    u = hash_word(pair.to(tl.uint32), seed).to(tl.float32) * SCALE
    radius = tl.sqrt_rn(-2.0 * tl.log(tl.maximum(u, SMALLEST)))
    angle = hash_word((pair + pairs).to(tl.uint32), seed).to(tl.float32) * SCALE * TURN
    start = out + row.to(tl.int64) * stride
    kind = out.dtype.element_ty
    tl.store(start + pair, (radius * tl.cos(angle)).to(kind), mask=pair < pairs)
    tl.store(start + pairs + pair, (radius * tl.sin(angle)).to(kind), mask=pair < count - pairs)


def fill_with_triton(out: Float[Tensor, "row n"], seeds: Sequence[int]) -> None:
    """Write the normals of each seed into its row of `out`, in one launch. Rows are contiguous. Mutates `out`."""
    rows, count = out.shape
    pairs = (count + 1) // 2
    words = torch.tensor(list(seeds), dtype=torch.int64, device=out.device)
    fill_kernel[(rows, triton.cdiv(pairs, BLOCK))](out, words, count, pairs, out.stride(0), block=BLOCK)

"""Normals for proof inputs on a CPU: what `inputs` makes elsewhere with torch, here in few passes over small buffers.

The rule of the file: every number equals `normals.normals` of the same seed to the last bit. NumPy does the hash, for
it has logical shifts of unsigned words; torch does logarithm, sine and cosine, whose last bits are part of the meaning
(NumPy's take half the time, and are another number in one case of five). A block stays in the cache. Blocks
are not shared among threads here: torch splits these functions among threads of its own, and two teams per core cost
more than they give. A row is the same work whatever stands beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ftw.poc.normals import SMALLEST

Words = NDArray[np.uint32]
Floats = NDArray[np.float32]

PAIRS = 16384
"""Pairs of uniforms per block: its buffers take 0.5 MB."""
ROWS = 8
"""Rows that share a block's part of the hash."""

WORD = np.uint32
SINGLE = np.float32


def fill_on_cpu(out: Float[Tensor, "row n"], seeds: Sequence[int]) -> None:
    """Write the normals of each seed into its row of `out` (any float dtype, on the CPU). Mutates `out`."""
    rows, count = out.shape
    pairs = (count + 1) // 2
    for start in range(0, pairs, PAIRS):
        for row in range(0, rows, ROWS):
            _fill_block(out[row : row + ROWS], seeds[row : row + ROWS], start, min(start + PAIRS, pairs))


@dataclass(frozen=True, slots=True)
class _Work:
    """The buffers of one block, [2, pairs]: row 0 belongs to the radii, row 1 to the angles."""

    bits: Words
    shifted: Words
    floats: Floats
    sine: Floats
    """[pairs]"""

    @staticmethod
    def of(pairs: int) -> "_Work":
        bits, shifted = (np.empty((2, pairs), WORD) for _ in range(2))
        return _Work(bits, shifted, np.empty((2, pairs), SINGLE), np.empty(pairs, SINGLE))


def _fill_block(out: Tensor, seeds: Sequence[int], start: int, stop: int) -> None:
    """The normals of pairs start..stop-1 of these rows."""
    count = out.shape[1]
    pairs = (count + 1) // 2
    work = _Work.of(stop - start)
    index = np.arange(start, stop, dtype=WORD)
    premix = premixed(np.stack([index, index + WORD(pairs)]))
    sines = min(stop, count - pairs)  # an odd count drops the last sine
    radius, cosine = (torch.from_numpy(half) for half in work.floats)
    sine = torch.from_numpy(work.sine)
    for row, seed in enumerate(seeds):
        hashed(premix, seed, work.bits, work.shifted)
        _box_muller(work)
        torch.mul(radius, cosine, out=out[row, start:stop])  # in fp32, rounded once to the dtype of `out`
        torch.mul(radius[: sines - start], sine[: sines - start], out=out[row, pairs + start : pairs + sines])


def premixed(index: Words) -> Words:
    """What the hash makes of an index before the seed comes in, rotated ahead: a rotation goes through an xor."""
    word = index * WORD(0xCC9E2D51)
    word = ((word << WORD(15)) | (word >> WORD(17))) * WORD(0x1B873593)
    rotated: Words = (word << WORD(13)) | (word >> WORD(19))
    return rotated


def hashed(premix: Words, seed: int, bits: Words, spare: Words) -> None:
    """Leave `seeds.mix` of the index and the seed in `bits`. Writes over `spare`."""
    turned = ((seed << 13) | (seed >> 19)) & 0xFFFFFFFF
    np.bitwise_xor(premix, WORD(turned), out=bits)
    np.multiply(bits, WORD(5), out=bits)
    np.add(bits, WORD(0xE6546B64), out=bits)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        np.right_shift(bits, WORD(shift), out=spare)
        np.bitwise_xor(bits, spare, out=bits)
        np.multiply(bits, WORD(factor), out=bits)
    np.right_shift(bits, WORD(16), out=spare)
    np.bitwise_xor(bits, spare, out=bits)


def _box_muller(work: _Work) -> None:
    """Turn hashes into radii and cosines (in `floats`) and sines."""
    np.copyto(work.floats, work.bits)  # rounds the unsigned integer to the nearest fp32
    u, angles = work.floats
    np.multiply(u, SINGLE(2.0**-32), out=u)
    np.maximum(u, SINGLE(SMALLEST), out=u)
    np.multiply(angles, SINGLE(math.tau / 2.0**32), out=angles)  # a power of two changes no rounding
    radius, angle, sine = torch.from_numpy(u), torch.from_numpy(angles), torch.from_numpy(work.sine)
    radius.log_().mul_(-2.0).sqrt_()
    torch.sin(angle, out=sine)
    angle.cos_()

"""The input embeddings of a whole batch of nonces, made on the model's device and written in its dtype.

The rule of the file: every number is that of `normals` of the same seed; here it is only fast. A CPU has a way
of its own (`inputs_cpu`), CUDA with Triton another (`inputs_triton`); what stands here is plain torch, for the rest and
to test those against. The part of the hash that depends on the index alone is computed once for all nonces, and 32-bit
integers wrap by themselves, so no mask follows a product. A row depends on its nonce alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.poc.bound import BoundSeeds, fill_bound
from ftw.poc.inputs_cpu import fill_on_cpu
from ftw.poc.normals import SMALLEST
from ftw.poc.seeds import WORDS, SeedStrings, mix_index, seed32, seed_words

PAIRS = 1 << 22
"""Pairs of uniforms per block: large launches, a bounded 170 MB of buffers."""


def input_embeddings(
    strings: SeedStrings | BoundSeeds,
    nonces: Sequence[int],
    seq_len: int,
    width: int,
    *,
    stronger: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    out: Tensor | None = None,
) -> Float[Tensor, "row pos d_model"]:
    """Standard normal embeddings [len(nonces), seq_len, width], unscaled. Computed in fp32, rounded once to `dtype`.

    With `stronger` (`poc_stronger_rng`) all eight words of the digest are seeds, each of one eighth of the stream.
    `out` is filled and returned where it is given: it must be contiguous and of the shape above.
    """
    count = seq_len * width
    if out is None:
        out = torch.empty(len(nonces), seq_len, width, dtype=dtype, device=device)
    rows_RN = out.view(len(nonces), count)
    if isinstance(strings, BoundSeeds):
        fill_bound(rows_RN, strings.words("inputs", nonces, out.device))
        return out
    if not stronger:
        fill_normals(rows_RN, [seed32(strings.inputs(nonce)) for nonce in nonces])
        return out
    words = [seed_words(strings.inputs(nonce)) for nonce in nonces]
    segment = -(-count // WORDS)
    for which in range(WORDS):
        part_RN = rows_RN[:, which * segment : (which + 1) * segment]
        if part_RN.shape[1]:
            fill_normals(part_RN, [row[which] for row in words])
    return out


def fill_normals(out: Float[Tensor, "row n"], seeds: Sequence[int]) -> None:
    """Write the normals of each seed into its row of `out`, the fastest way that its device has. Mutates `out`."""
    if not out.numel():
        return
    if out.device.type == "cpu":
        fill_on_cpu(out, seeds)
    elif out.device.type == "cuda" and find_spec("triton") is not None:
        from ftw.poc.inputs_triton import fill_with_triton  # only where Triton is

        fill_with_triton(out, seeds)
    else:
        fill_with_torch(out, seeds)


def fill_with_torch(out: Float[Tensor, "row n"], seeds: Sequence[int]) -> None:
    """Write `normals(seed, n)` of each seed, bit by bit, into its row of `out`: the meaning of the faster ways."""
    pairs = (out.shape[1] + 1) // 2
    for start in range(0, pairs, PAIRS):
        _fill_block(out, seeds, start, min(start + PAIRS, pairs))


def _fill_block(out: Tensor, seeds: Sequence[int], start: int, stop: int) -> None:
    """The normals of pairs start..stop-1 of these rows."""
    count = out.shape[1]
    pairs = (count + 1) // 2
    work = _Work.of(stop - start, out.device)
    index = torch.arange(start, stop, dtype=torch.int64, device=out.device)
    premix = torch.stack([mix_index(index), mix_index(index + pairs)]).to(torch.int32)  # keeps the low 32 bits
    sines = min(stop, count - pairs)  # an odd count drops the last sine
    for row, seed in enumerate(seeds):
        _hash(premix, seed, work)
        _box_muller(work)
        out[row, start:stop] = work.low[1]
        out[row, pairs + start : pairs + sines] = work.high[1, : sines - start]


@dataclass(frozen=True, slots=True)
class _Work:
    """The buffers of one block, [2, pairs] each: row 0 belongs to the radii, row 1 to the angles."""

    bits: Int[Tensor, "two pairs"]
    shifted: Int[Tensor, "two pairs"]
    low: Float[Tensor, "two pairs"]
    high: Float[Tensor, "two pairs"]

    @staticmethod
    def of(pairs: int, device: torch.device) -> "_Work":
        ints = [torch.empty(2 * pairs, dtype=torch.int32, device=device) for _ in range(2)]
        floats = [torch.empty(2 * pairs, dtype=torch.float32, device=device) for _ in range(2)]
        return _Work(*(flat.view(2, pairs) for flat in (*ints, *floats)))


def _hash(premix: Int[Tensor, "two pairs"], seed: int, work: _Work) -> None:
    """Leave `mix` in `work.bits`, as the int32 of the same bits. int32 shifts bring the sign in: it is masked away."""
    b, t = work.bits, work.shifted
    torch.bitwise_xor(premix, _signed(seed), out=t)
    torch.bitwise_right_shift(t, 19, out=b)
    b.bitwise_and_(0x1FFF).add_(t, alpha=1 << 13)  # rotated left by 13: the two parts share no bit, so + is |
    b.mul_(5).add_(_signed(0xE6546B64))
    _xor_shift(b, t, 16)
    b.mul_(_signed(0x85EBCA6B))
    _xor_shift(b, t, 13)
    b.mul_(_signed(0xC2B2AE35))
    _xor_shift(b, t, 16)


def _box_muller(work: _Work) -> None:
    """Turn hashes into cosine normals in `low[1]` and sine normals in `high[1]`."""
    u = work.low
    u.copy_(work.bits.view(torch.uint32))  # rounds the unsigned integer to the nearest fp32
    radius, angle, cosine, sine = u[0], u[1], u[1], work.high[1]
    radius.mul_(2.0**-32).clamp_(min=SMALLEST).log_().mul_(-2.0).sqrt_()
    angle.mul_(2.0**-32).mul_(2.0 * math.pi)
    torch.sin(angle, out=sine)
    torch.cos(angle, out=cosine)
    sine.mul_(radius)
    cosine.mul_(radius)


def _xor_shift(b: Tensor, t: Tensor, by: int) -> None:
    """b ^= b >> by with zeros shifted in. Writes over `t`."""
    torch.bitwise_right_shift(b, by, out=t)
    t.bitwise_and_(0xFFFFFFFF >> by)
    b.bitwise_xor_(t)


def _signed(word: int) -> int:
    """The int32 with the bits of this unsigned word."""
    return word - (1 << 32) if word >> 31 else word

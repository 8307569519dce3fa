"""The `ftw-1` profile's randomness: seeds that bind everything, integer-exact normals, picks and Haar rotations.

The rule of the file: no two draws share a seed. Every seed is a SHA-256 over fields that are each preceded by their
length, and names what it is for. The normals are integers from a table, over 2^20: every device has the same bits.

A normal is one of 65,536 quantiles (the normal's at (i + 1/2) / 65536) chosen by 16 bits: mean 0 exactly, variance
1 - 2.03e-5, excess kurtosis -7.5e-4, at most 4.325; its distribution function is within 2^-17 of the normal's. Each is
exact in fp32 and rounded once to a narrower dtype.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.poc.pool import each
from ftw.poc.threefry import LANES, signed, stream

Purpose = Literal["inputs", "layer", "pick", "rotation", "target"]

DOMAIN = b"ftw proof of compute"
PROFILE = b"ftw-1/1"
HALVES = 2 * LANES
"""16-bit numbers per counter."""
SCALE = 20
"""The table's integers are normals times 2^20: the largest, 4,535,006, is exact in fp32."""
CPU_COUNTERS = 16384
"""Counters per block on a CPU: five buffers of 64 KB, and too few for torch to split among threads."""
CUDA_COUNTERS = 1 << 22
"""Counters per block elsewhere, over all rows: a bounded 80 MB of buffers."""


@dataclass(frozen=True, slots=True)
class BoundSeeds:
    """The seeds of one round of one model: 256 bits per purpose and index."""

    fingerprint: str
    block_hash: str
    public_key: str
    seq_len: int
    k_dim: int

    def digest(self, purpose: Purpose, index: int = 0) -> bytes:
        """32 bytes. `index` is a nonce, or the number of a block; it may be negative (dummies)."""
        fields = (
            DOMAIN,
            PROFILE,
            purpose.encode(),
            _text(self.fingerprint),
            _text(self.block_hash),
            _text(self.public_key),
            self.seq_len.to_bytes(8, "big"),
            self.k_dim.to_bytes(8, "big"),
            index.to_bytes(16, "big", signed=True),
        )
        return hashlib.sha256(b"".join(len(field).to_bytes(8, "big") + field for field in fields)).digest()

    def words(
        self, purpose: Purpose, indices: Sequence[int] = (0,), device: torch.device | str = "cpu"
    ) -> Int[Tensor, "row 8"]:
        """The digest of each index as eight big-endian 32-bit words (int32 bits)."""
        digests = [self.digest(purpose, index) for index in indices]
        rows = [[signed(int.from_bytes(one[at : at + 4], "big")) for at in range(0, 32, 4)] for one in digests]
        return torch.tensor(rows, dtype=torch.int32, device=device).view(len(indices), 8)


@cache
def quantiles(dtype: torch.dtype, device: torch.device) -> Float[Tensor, " 65536"]:
    """The table of normals. Rounded to 2^-20 from doubles that lie 1e-5 of a step from where rounding would turn."""
    inverse = NormalDist().inv_cdf
    lower = [round(inverse((i + 0.5) / 65536) * 2**SCALE) for i in range(32768)]
    whole = torch.tensor([*lower, *(-x for x in reversed(lower))], dtype=torch.int32)
    return (whole.to(torch.float32) / 2.0**SCALE).to(dtype).to(device)


def bound_normals(seeds: Int[Tensor, "row 8"], n: int) -> Float[Tensor, "row n"]:
    """n standard normals per seed, fp32."""
    out = torch.empty(len(seeds), n, device=seeds.device)
    fill_bound(out, seeds)
    return out


def fill_bound(out: Float[Tensor, "row n"], seeds: Int[Tensor, "row 8"]) -> None:
    """Write each seed's normals into its row of `out`, in the dtype of `out`. Mutates `out`.

    Of ceil(n / 8) counters, the low 16 bits of all first words come first, then their high 16 bits, then those of the
    second words. So the stream for n is no prefix of a longer one.
    """
    rows, n = out.shape
    if not rows or not n:
        return
    counters = -(-n // HALVES)
    table = quantiles(out.dtype, out.device)
    if out.device.type != "cpu":
        step = max(1, CUDA_COUNTERS // rows)
        for start in range(0, counters, step):
            _block(out, seeds, table, counters, start, min(start + step, counters))
        return
    step = min(CPU_COUNTERS, counters)
    some = CPU_COUNTERS // step  # short streams share a block

    def part(one: tuple[int, int]) -> None:
        row, start = one
        stop = min(start + step, counters)
        _block(out[row : row + some], seeds[row : row + some], table, counters, start, stop)

    each(part, [(row, start) for row in range(0, rows, some) for start in range(0, counters, step)])


def _block(out: Tensor, seeds: Tensor, table: Tensor, counters: int, start: int, stop: int) -> None:
    """The normals of counters start..stop-1, each in its place of `out`."""
    n = out.shape[1]
    for lane, word in enumerate(stream(seeds, start, stop)):
        for half in range(2):
            at = (2 * lane + half) * counters + start
            wanted = min(stop - start, n - at)
            if wanted <= 0:
                return
            index = (word if half == 0 else word.bitwise_right_shift_(16)) & 0xFFFF
            flat = index[:, :wanted].reshape(-1)
            out[:, at : at + wanted] = table.index_select(0, flat).view(-1, wanted)


def bound_units(seeds: Int[Tensor, "row 8"], n: int) -> Float[Tensor, "row n"]:
    """A random direction per seed: normals over their norm, which is taken in fp64, rounded to fp32."""
    z = bound_normals(seeds, n).double()
    unit: Tensor = z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return unit.float()


def bound_pick(seeds: BoundSeeds, nonces: Sequence[int], width: int, k: int) -> Int[Tensor, "row k"]:
    """Which k dimensions each nonce reads: those with the smallest 63-bit scores, ascending by index."""
    first, second = stream(seeds.words("pick", nonces), 0, width)[:2]
    score = ((first.long() & 0xFFFFFFFF) << 31) | ((second.long() & 0xFFFFFFFF) >> 1)
    return score.argsort(dim=-1, stable=True)[:, :k].sort(dim=-1).values


def haar(seeds: BoundSeeds, nonces: Sequence[int], k: int) -> Float[Tensor, "row k k"]:
    """A Haar-distributed orthogonal matrix per nonce: k - 1 reflections of falling size, and a sign. fp32.

    The reflection of size m sends the first of the last m axes to a uniform direction; what is left is a matrix of
    size m - 1 (Stewart, "The efficient generation of random orthogonal matrices", 1980). Computed in fp64.
    """
    z = bound_normals(seeds.words("rotation", nonces), k * (k + 1) // 2).double()
    q = torch.zeros(len(nonces), k, k, dtype=torch.float64)
    q[:, k - 1, k - 1] = _sign(z[:, 0])
    used = 1
    for size in range(2, k + 1):
        g = z[:, used : used + size]
        used += size
        at = k - size
        sign = _sign(g[:, 0])
        u = g.clone()
        u[:, 0] += sign * torch.linalg.vector_norm(g, dim=-1)
        u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        q[:, at, at] = -sign  # so that the first column becomes g / |g|
        corner = q[:, at:, at:]
        corner -= 2.0 * u[:, :, None] * (u[:, None, :] @ corner)
    return q.float()


def _sign(x: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
    """1 or -1. The table has no zero."""
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")

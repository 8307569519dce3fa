"""Uniform and normal numbers from a 32-bit seed, in the public reference's pairing and order of float operations.

The plain form, for the small draws (layer vectors, rotations, targets) and as the meaning that the fast input
generation is tested against. All floats are fp32. The integers are equal on every machine; log, cos and sin may differ
between devices in the last bits.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.poc.seeds import mix

SMALLEST = 1e-10
"""Uniforms below this are raised to it, so that the logarithm stays finite."""


def uniforms(seeds: Int[Tensor, "*b"], n: int) -> Float[Tensor, "*b n"]:
    """n uniforms in [0, 1] per seed: the hash of 0..n-1, rounded to fp32, over 2^32."""
    index = torch.arange(n, dtype=torch.int64, device=seeds.device)
    return mix(index, seeds[..., None]).to(torch.float32) / 4294967296.0


def normals(seeds: Int[Tensor, "*b"], n: int) -> Float[Tensor, "*b n"]:
    """n standard normals per seed by Box-Muller.

    Of 2 * ceil(n / 2) uniforms the first half gives radii and the second half angles; all cosines come before all
    sines. So the stream for n is no prefix of a longer one.
    """
    pairs = (n + 1) // 2
    u = uniforms(seeds, 2 * pairs)
    radius = torch.sqrt(-2.0 * torch.log(u[..., :pairs].clamp(min=SMALLEST)))
    angle = 2.0 * math.pi * u[..., pairs:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)[..., :n]


def unit_normals(seeds: Int[Tensor, "*b"], n: int, *, guard: float = 0.0) -> Float[Tensor, "*b n"]:
    """A random direction in n dimensions per seed. `guard` is added to the norm that divides."""
    z = normals(seeds, n)
    length: Tensor = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / (length + guard)

"""From the last token's hidden state to the vector that is published: unit norm, pick of k dimensions, rotation.

One batched step over all nonces of a forward pass, in fp32 throughout. The rule of the file: the order of the picked
dimensions is defined, because the rotation and every later comparison go by coordinate.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.poc.bound import BoundSeeds, bound_pick, bound_units, haar
from ftw.poc.normals import normals, unit_normals
from ftw.poc.profiles import Profile
from ftw.poc.seeds import SeedStrings, mix, seed32, seed_tensor
from ftw.substrate.errors import ConfigError, NumericError

Seeds = SeedStrings | BoundSeeds
"""The two forms that a round's seeds have, by profile."""


def readout(
    hidden: Float[Tensor, "row d_model"], strings: Seeds, nonces: Sequence[int], profile: Profile, k: int
) -> Float[Tensor, "row k"]:
    """The unit vectors of these nonces from their last tokens' final hidden states. fp32, on the device of `hidden`.

    Raises ConfigError where the model is narrower than k, NumericError where a hidden state is not finite.
    """
    width = hidden.shape[-1]
    if not 2 <= k <= width:
        raise ConfigError(f"k_dim is {k}, and this model's hidden states have {width} dimensions: choose 2..{width}")
    x = hidden.float()
    picked = _unit(x).gather(-1, pick(strings, nonces, width, k, profile, x.device))
    y = _unit(rotate(picked, strings, nonces, profile))
    if not bool(x.isfinite().all()):  # waits for the device, so it comes last: nothing from a broken state is given out
        bad = [nonce for nonce, fine in zip(nonces, x.isfinite().all(-1).tolist(), strict=True) if not fine]
        raise NumericError(f"the hidden states of nonces {bad} are not finite: nothing of this batch is a proof")
    return y


def rotate(
    x: Float[Tensor, "row k"], strings: Seeds, nonces: Sequence[int], profile: Profile
) -> Float[Tensor, "row k"]:
    """x through each nonce's rotation, of the profile's kind."""
    if isinstance(strings, BoundSeeds):
        return rotate_haar(x, strings, nonces)
    return (rotate_qr if profile.rotation == "qr" else rotate_chain)(x, strings, nonces)


def pick(
    strings: Seeds,
    nonces: Sequence[int],
    width: int,
    k: int,
    profile: Profile,
    device: torch.device | str = "cpu",
) -> Int[Tensor, "row k"]:
    """Which k dimensions each nonce reads, in order: those with the k smallest hashes. Hashes never tie.

    `last-is-worst` is the order that the reference's top-k has on CUDA: the k - 1 best ascending by index, then the
    one with the k-th score. Chosen on the CPU, whatever the device.
    """
    if isinstance(strings, BoundSeeds):
        return bound_pick(strings, nonces, width, k).to(device)
    index = torch.arange(width, dtype=torch.int64, device=device)
    seeds = seed_tensor([strings.pick(nonce, k) for nonce in nonces], device)
    best = mix(index, seeds[:, None]).topk(k, dim=-1, largest=False, sorted=True).indices
    if profile.pick_order == "ascending":
        return best.sort(dim=-1).values
    return torch.cat([best[:, :-1].sort(dim=-1).values, best[:, -1:]], dim=-1)


def rotate_chain(x: Float[Tensor, "row k"], strings: SeedStrings, nonces: Sequence[int]) -> Float[Tensor, "row k"]:
    """x through k - 1 reflections of full size per nonce.

    Not a Haar rotation, though the reference calls it so: it leaves (1 - 2/k)^(k-1), about 0.135, of the original
    direction. It is kept for compatibility; nothing here relies on uniformity.
    """
    k = x.shape[-1]
    seeds = torch.tensor([[seed32(text) for text in strings.chain(nonce, k)] for nonce in nonces], device=x.device)
    mirrors = unit_normals(seeds, k, guard=1e-30)
    for step in range(k - 1):
        v = mirrors[:, step]
        x = x - 2.0 * (x * v).sum(dim=-1, keepdim=True) * v
    return x


def rotate_qr(x: Float[Tensor, "row k"], strings: SeedStrings, nonces: Sequence[int]) -> Float[Tensor, "row k"]:
    """x through a Haar rotation per nonce: Q of a normal matrix's QR, its columns signed by R's diagonal."""
    k = x.shape[-1]
    seeds = seed_tensor([strings.qr(nonce, k) for nonce in nonces], x.device)
    q, r = torch.linalg.qr(normals(seeds, k * k).view(-1, k, k))
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    y: Tensor = ((q * signs[:, None, :]) * x[:, None, :]).sum(dim=-1)
    return y


def rotate_haar(x: Float[Tensor, "row k"], seeds: BoundSeeds, nonces: Sequence[int]) -> Float[Tensor, "row k"]:
    """x through a Haar rotation (or reflection) per nonce, made from integer-exact normals."""
    y: Tensor = (haar(seeds, nonces, x.shape[-1]).to(x.device) * x[:, None, :]).sum(dim=-1)
    return y


def target(strings: Seeds, k: int, device: torch.device | str = "cpu") -> Float[Tensor, " k"]:
    """The point on the unit sphere that a round's vectors are measured against. Bound to block hash and key."""
    if isinstance(strings, BoundSeeds):
        return bound_units(strings.words("target"), k)[0].to(device)
    return _unit(unit_normals(seed_tensor([strings.target()], device), k)[0])


def chord(a: Float[Tensor, "*#b k"], b: Float[Tensor, "*#b k"]) -> Float[Tensor, "*c"]:
    """The straight distance between points: 0..2 on the unit sphere. Computed in fp32; the arguments broadcast."""
    gap: Tensor = torch.linalg.vector_norm(a.float() - b.float(), dim=-1)
    return gap


def _unit(x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / (length + 1e-8)

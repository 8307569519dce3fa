"""Where a proof's randomness begins: seed strings, their SHA-256 digests, and a 32-bit hash of (index, seed).

The rule of the file: integers only, equal on every machine. Seed strings take their values verbatim: no separator
beyond those written here, no tag, no normalisation of `0x`. This is the public reference's form, kept for its sake.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

MASK = 0xFFFFFFFF
WORDS = 8
"""How many 32-bit words a SHA-256 digest has."""


def seed32(text: str) -> int:
    """The first four bytes of SHA-256(text), big-endian."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def seed_words(text: str) -> tuple[int, ...]:
    """All eight big-endian 32-bit words of SHA-256(text). The first equals `seed32(text)`."""
    digest = hashlib.sha256(text.encode()).digest()
    return tuple(int.from_bytes(digest[4 * i : 4 * i + 4], "big") for i in range(WORDS))


@dataclass(frozen=True, slots=True)
class SeedStrings:
    """The seed strings of one round: a block hash and the key of the node that proves."""

    block_hash: str
    public_key: str

    def inputs(self, nonce: int) -> str:
        """For the embeddings that a nonce feeds to the model. There is no `_` before the number."""
        return f"{self.block_hash}_{self.public_key}_nonce{nonce}"

    def pick(self, nonce: int, k: int) -> str:
        """For the choice of k dimensions."""
        return f"{self.block_hash}_{self.public_key}_nonce_{nonce}_pick_{k}"

    def chain(self, nonce: int, k: int) -> tuple[str, ...]:
        """For the k - 1 reflections of the rotation by a chain."""
        stem = f"{self.block_hash}_{self.public_key}_nonce_{nonce}_haar_hh_{k}_"
        return tuple(f"{stem}{step}" for step in range(k - 1))

    def qr(self, nonce: int, k: int) -> str:
        """For the matrix whose QR factor is the rotation."""
        return f"{self.block_hash}_{self.public_key}_nonce_{nonce}_haar_qr_{k}"

    def target(self) -> str:
        """For the point that vectors are measured against."""
        return f"{self.block_hash}_{self.public_key}_target"

    def layer(self, layer: int) -> str:
        """For the reflection after block `layer`. The same for all nodes of a round."""
        return f"{self.block_hash}_layer_{layer}_householder"


def mix_index(index: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The part of `mix` that depends on the index alone, in 0..2^32-1 (int64)."""
    a = (index * 0xCC9E2D51) & MASK
    a = ((a << 15) | (a >> 17)) & MASK
    return (a * 0x1B873593) & MASK


def mix(index: Int[Tensor, "..."], seed: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The 32-bit hash of an index under a seed, in 0..2^32-1 (int64); the arguments broadcast.

    Murmur3-x86-32 of one 4-byte word without its last step, the xor with the length: another library's murmur3 gives
    other numbers. For a fixed seed it is a bijection on 32-bit words, so scores never tie. int64 holds each product
    modulo 2^64 and the mask takes the low 32 bits: overflow is harmless.
    """
    b = seed ^ mix_index(index)
    b = ((b << 13) | (b >> 19)) & MASK
    b = (b * 5 + 0xE6546B64) & MASK
    b = ((b ^ (b >> 16)) * 0x85EBCA6B) & MASK
    b = ((b ^ (b >> 13)) * 0xC2B2AE35) & MASK
    return b ^ (b >> 16)


def seed_tensor(texts: Sequence[str], device: torch.device | str = "cpu") -> Int[Tensor, " n"]:
    """`seed32` of each text (int64)."""
    return torch.tensor([seed32(text) for text in texts], dtype=torch.int64, device=device)

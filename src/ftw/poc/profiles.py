"""Protocol profiles: every numeric choice of a proof as data, named and versioned. The rule: a choice stands here once.

A profile is fixed for good under its name and version; whoever changes a number makes a new version. Nothing is
negotiated silently: what was made under one profile is never judged under another.
"""

from dataclasses import dataclass
from typing import Literal

from ftw.substrate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Profile:
    """How vectors of a round are made, from seed strings to the pick of dimensions."""

    name: str
    version: int
    k_dim: int
    """How many dimensions of the last hidden state are read, unless a round says otherwise."""
    seeds: Literal["sha256-32", "bound-256"]
    """`sha256-32`: the first 32 bits of SHA-256 of a seed string. `bound-256`: 256 bits that bind all parameters."""
    hook: Literal["reflect", "normalise-reflect"]
    """`reflect`: a Householder reflection after each block. `normalise-reflect`: unit norm per token first."""
    rotation: Literal["chain", "qr", "haar"]
    """`chain`: k - 1 full reflections. `qr`: sign-fixed QR of a normal matrix. `haar`: k - 1 falling reflections."""
    pick_order: Literal["last-is-worst", "ascending"]
    """Order of the picked dimensions. `last-is-worst`: ascending by index, but the one with the k-th score last."""
    wider_input_seeds: bool
    """Whether a round may ask for inputs from all 256 bits of the digest (`poc_stronger_rng` on the wire)."""
    radius: float | None
    """Chord distance to the target below which a nonce counts; None where vectors are not judged by a target."""

    @property
    def id(self) -> str:
        """Name and version as one word, as records and `/versions` give it."""
        return f"{self.name}/{self.version}"


ARTIFACT_K12 = Profile(
    name="artifact-k12",
    version=1,
    k_dim=12,
    seeds="sha256-32",
    hook="reflect",
    rotation="chain",
    pick_order="last-is-worst",
    wider_input_seeds=True,
    radius=None,
)
"""Compatible bit by bit with the public reference's artifact protocol."""

DISTANCE_K64 = Profile(
    name="distance-k64",
    version=1,
    k_dim=64,
    seeds="sha256-32",
    hook="normalise-reflect",
    rotation="qr",
    pick_order="last-is-worst",
    wider_input_seeds=False,
    radius=1.2953,
)
"""The distance pipeline: a Haar rotation and a target bound to the key. The radius lets 10 % of all nonces pass."""

FTW_1 = Profile(
    name="ftw-1",
    version=1,
    k_dim=12,
    seeds="bound-256",
    hook="reflect",
    rotation="haar",
    pick_order="ascending",
    wider_input_seeds=False,
    radius=None,
)
"""Ours: seeds that bind model, round, key and shape; normals exact on every device; a true Haar rotation."""

PROFILES: tuple[Profile, ...] = (ARTIFACT_K12, DISTANCE_K64, FTW_1)


def profile(name: str) -> Profile:
    """The profile called `name` (`artifact-k12`, or with its version: `artifact-k12/1`).

    Raises ConfigError for an unknown name.
    """
    for one in PROFILES:
        if name in (one.name, one.id):
            return one
    known = ", ".join(one.id for one in PROFILES)
    raise ConfigError(f"there is no proof profile {name!r}: use one of {known}")

"""What a deployment reads, by a fingerprint, and over what two deployments may be compared.

The rule of the file: a figure of one deployment is set beside that of another only where both read the same lenses.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ftw.substrate.config import Strict


class Loaded(Strict):
    """What a deployment reads, for comparing it with another one."""

    manifest_id: str
    version: str
    pack: str
    """Lens pack and version."""
    concepts: tuple[str, ...]
    """`Term:level`, sorted."""
    comparable_with: tuple[str, ...] = ()
    comparison_layers: tuple[int, ...] | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 over the ids of what is loaded, hex."""
        return fingerprint(self.concepts)

    def at(self, level: int) -> tuple[str, ...]:
        """The ids on one level."""
        return tuple(name for name in self.concepts if _level(name) == level)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Over what the readings of two deployments may be compared."""

    concepts: tuple[str, ...]
    """Ids loaded by both, on the levels where both load the same. Empty: nothing may be compared."""
    levels: tuple[int, ...]
    refused: tuple[str, ...]
    """Why more may not be compared."""


def fingerprint(concepts: Iterable[str]) -> str:
    """sha256 over `Term:level` ids, in any order, hex."""
    return hashlib.sha256("|".join(sorted(concepts)).encode()).hexdigest()


def comparable(a: Loaded, b: Loaded) -> Comparison:
    """Over what readings of two deployments may be compared: one lens pack, and level by level the same concepts.

    A level counts if both manifests compare it and its fingerprints are equal, since readings among siblings mean the
    same only where the same siblings are read.
    """
    refused: list[str] = []
    if a.pack != b.pack:
        refused.append(f"{a.manifest_id} reads with {a.pack}, {b.manifest_id} with {b.pack}")
    for one, other in ((a, b), (b, a)):
        if one.comparable_with and other.manifest_id not in (*one.comparable_with, one.manifest_id):
            refused.append(f"{one.manifest_id} compares only with {', '.join(one.comparable_with)}")
    if refused:
        return Comparison((), (), tuple(refused))
    levels: list[int] = []
    for level in sorted({_level(name) for name in (*a.concepts, *b.concepts)}):
        if any(each.comparison_layers is not None and level not in each.comparison_layers for each in (a, b)):
            refused.append(f"level {level} is not among the levels that both compare")
        elif fingerprint(a.at(level)) != fingerprint(b.at(level)):
            here, there = set(a.at(level)), set(b.at(level))
            refused.append(
                f"level {level}: {len(here - there)} concepts only in {a.manifest_id}, "
                f"{len(there - here)} only in {b.manifest_id}"
            )
        else:
            levels.append(level)
    both = tuple(name for name in a.concepts if _level(name) in levels)
    return Comparison(both, tuple(levels), tuple(refused))


def _level(identity: str) -> int:
    return int(identity.rpartition(":")[2])

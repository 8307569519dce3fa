"""What the registry's calls give: packs as they are listed, their state, what a pull or a push did.

The rule of the file: records only; each is what a person would read in a row of a table.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from ftw.map.registry.names import Kind
from ftw.map.registry.plan import Plan

Condition = Literal["ok", "modified", "outdated", "partial", "local", "broken", "unknown"]
"""`ok`: as pulled, and the newest. `modified`: files changed here. `outdated`: the source has a newer revision.
`partial`: some levels were not pulled. `local`: made here, never pushed. `broken`: files are missing or unreadable.
`unknown`: the source could not be asked."""


class Listed(TypedDict):
    """One pack in a list."""

    name: str
    kind: Kind
    source: str
    """`bundled`, `local`, or where it was pulled from."""
    version: str
    revision: str | None
    modified: bool
    size_bytes: int
    levels_installed: list[int] | None
    levels_available: list[int] | None
    based_on: str | None
    path: str


@dataclass(frozen=True)
class Status:
    """How an installed pack stands to what was pulled and to its source."""

    name: str
    kind: Kind
    source: str
    version: str
    conditions: tuple[Condition, ...]
    """Every one that holds; `ok` alone where none does."""
    revision: str | None = None
    newest: str | None = None
    """The newest revision at the source, where it was asked."""
    changed_files: tuple[str, ...] = ()
    """Files that differ from what was recorded, are missing, or are new."""
    note: str = ""


@dataclass(frozen=True)
class Pulled:
    """What a pull did."""

    name: str
    kind: Kind
    source: str
    version: str
    revision: str
    path: Path
    sha256: str
    levels: tuple[int, ...] | None
    was: str | None = None
    """The version that it took the place of."""
    is_new: bool = True
    """False where everything was here already."""
    n_bytes: int = 0
    """Bytes that were fetched."""
    n_bytes_whole: int = 0
    """Bytes of the pack: what a first pull fetches."""
    plan: Plan = field(default_factory=lambda: Plan((), ()))

    @property
    def saved(self) -> float:
        """The share of the pack's bytes that did not have to be fetched."""
        return 1 - self.n_bytes / self.n_bytes_whole if self.n_bytes_whole else 0.0


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    name: str
    kind: Kind
    source: str
    version: str
    revision: str
    is_new: bool
    n_files: int
    n_bytes: int

"""The lenses of one model as a verb needs them: concepts by name, a monitor for a request, marks to draw.

The rule of the file: what is drawn with a word is the reading of the state that wrote it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from ftw.hat.classifiers.index import Reliability
from ftw.hat.monitoring.comparability import Loaded
from ftw.hat.monitoring.records import SimplexScore
from ftw.hat.steering import Direction
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.types import Controller
from ftw.ui.visualization.marks import Mark
from ftw.ui.visualization.palette import Palette


@runtime_checkable
class Scored(Protocol):
    """One lens at one state."""

    @property
    def term(self) -> str: ...

    @property
    def p(self) -> float: ...

    @property
    def baseline(self) -> float: ...

    @property
    def z(self) -> float: ...

    @property
    def auroc(self) -> float | None: ...

    @property
    def above(self) -> bool: ...

    @property
    def level(self) -> int: ...

    @property
    def reliability(self) -> Reliability | None: ...

    @property
    def sibling_p(self) -> float | None: ...


@runtime_checkable
class Read(Protocol):
    """The lenses at one state. `index` counts the tokens that were written before."""

    @property
    def index(self) -> int: ...

    @property
    def scores(self) -> Sequence[Scored]: ...

    @property
    def simplexes(self) -> Sequence[SimplexScore]: ...

    @property
    def late(self) -> Sequence[str]: ...

    @property
    def t_ms(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Lenses:
    """The lenses of one model, and the concepts they are named by."""

    concepts: ConceptPack
    terms: tuple[str, ...]
    """The concepts that have a lens."""
    name: str
    version: str
    where: str
    """The states that are read, in words: `block 4`."""
    find_direction: Callable[[str], Direction]
    """Where a concept lies, for steering. Raises UnknownConcept, StorageError for a pack without directions."""
    make_watcher: Callable[[int, Sequence[str], Callable[[Read], None]], Controller]
    """A new controller that reads every state of a request and tells each reading when it is made: of the `top`
    concepts above their baseline, and always of those that are named."""
    deployment: Loaded | None = None
    """What a manifest lets be read from the start. None: all of it."""
    memory: Callable[[], Mapping[str, Any]] | None = None
    """Hits, misses and bytes of lenses that are fetched as they are needed. None: all are in memory."""

    def resolve(self, names: Sequence[str]) -> tuple[str, ...]:
        """The concepts that a person means. Raises UnknownConcept with the nearest ones."""
        return tuple(dict.fromkeys(self.concepts.term(name) for name in names))

    def parent(self, term: str) -> str | None:
        """The concept above, None for a root or a concept that the pack does not hold."""
        concept = self.concepts.concepts.get(term)
        return None if concept is None else concept.parent

    def palette(self) -> Palette:
        """Hues for a new page."""
        return Palette.of(self._roots)

    @cached_property
    def _roots(self) -> dict[str, str]:
        out: dict[str, str] = {}
        for term in self.concepts.concepts:  # a parent stands before its children
            above = self.parent(term)
            out[term] = term if above is None else out[above]
        return out

    @property
    def title(self) -> str:
        """Pack, version and size, for the foot of a figure."""
        read = f"{len(self.terms)} concepts read at {self.where}"
        if self.deployment is not None:
            start = "" if self.memory is None else " from the start"
            read = f"{len(self.deployment.concepts)} of {read}{start}, manifest {self.deployment.manifest_id}"
        return f"pack {self.name} {self.version}, {read}"

    @property
    def record(self) -> dict[str, object]:
        """The same for a JSON document."""
        told: dict[str, object] = {"name": self.name, "version": self.version, "concepts": len(self.terms)}
        told["where"] = self.where
        if self.memory is not None:
            told["memory"] = self.memory()
        if self.deployment is None:
            return {**told, "manifest": None}
        manifest = {"id": self.deployment.manifest_id, "version": self.deployment.version}
        loaded = {"loaded": len(self.deployment.concepts), "fingerprint": self.deployment.fingerprint}
        return {**told, "manifest": {**manifest, **loaded}}


def mark_of(score: Scored) -> Mark:
    """A score as it is drawn."""
    auroc = math.nan if score.auroc is None else score.auroc
    return Mark(score.term, score.p, score.baseline, score.z, auroc, score.above)


def record_of(score: Scored) -> dict[str, object]:
    """A score as a JSON document holds it: what is drawn, and how far it can be trusted."""
    trust = None if score.reliability is None else score.reliability.model_dump()
    more = {"level": score.level, "reliability": trust, "sibling_p": score.sibling_p}
    return {**asdict(mark_of(score)), **more}

"""Which lenses a change of a concept pack calls into question, and the list of what is still to be trained.

The rule of the file: impact is read off the two packs, whatever made one from the other. A lens is judged by what it
was trained against: its own words, its children, its siblings.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from ftw.map.meld.diff import READ_BY_TRAINING, PackDiff, diff_packs
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import read_record
from ftw.substrate.config import Strict

PENDING = "pending_training.json"


@dataclass(frozen=True)
class Impact:
    """Lenses by what has to happen to them. Every concept stands in one list at most; lists are in tree order."""

    new: tuple[str, ...]
    """Concepts without a lens: train."""
    must: tuple[str, ...]
    """Parents that won or lost a child, moved concepts, concepts with other words or another meaning: retrain."""
    should: tuple[str, ...]
    """Siblings, antonyms and opposites of what is new or moved: a retrained lens tells them apart better."""
    optional: tuple[str, ...]
    """Grandparents and related concepts."""
    removed: tuple[str, ...]
    """Concepts that are gone: their lenses go too."""

    @property
    def n_training(self) -> int:
        """Lenses that have to be trained."""
        return len(self.new) + len(self.must)


def impact_of(before: ConceptPack, after: ConceptPack, diff: PackDiff | None = None) -> Impact:
    """What the change from one pack to the other does to lenses of the first."""
    diff = diff or diff_packs(before, after)
    new = {each.concept for each in diff.added}
    moved = {each.concept for each in diff.moved}
    said = {each.concept for each in diff.changed if READ_BY_TRAINING & set(each.fields)}
    parents = _parents_with_other_children(before, after)
    must = parents | moved | said
    fresh = new | moved
    should = {term for one in fresh for term in _siblings(after, one)}
    should |= {term for one in new for term in _opposites(after, one)}
    optional = {above for one in parents | _parents(after, new) if (above := after.concepts[one].parent) is not None}
    optional |= {term for one in new for term in after.records[one].relationships.related}
    return Impact(
        new=_in_order(after, new),
        must=_in_order(after, must - new),
        should=_in_order(after, should - must - new),
        optional=_in_order(after, optional - should - must - new),
        removed=tuple(diff.removed),
    )


def _in_order(pack: ConceptPack, terms: set[str]) -> tuple[str, ...]:
    return tuple(term for term in pack.concepts if term in terms)


def _parents_with_other_children(before: ConceptPack, after: ConceptPack) -> set[str]:
    """Concepts of both packs whose set of children is another now."""
    both = (term for term in after.concepts if term in before.concepts)
    return {term for term in both if set(before.children(term)) != set(after.children(term))}


def _parents(pack: ConceptPack, terms: Iterable[str]) -> set[str]:
    return {parent for term in terms if (parent := pack.concepts[term].parent) is not None}


def _siblings(pack: ConceptPack, term: str) -> set[str]:
    parent = pack.concepts[term].parent
    return set(pack.roots if parent is None else pack.children(parent)) - {term}


def _opposites(pack: ConceptPack, term: str) -> list[str]:
    relations = pack.records[term].relationships
    return [*relations.antonyms, *([relations.opposite] if relations.opposite else [])]


class PendingTraining(Strict):
    """pending_training.json: what has to be trained before lenses fit the pack that it lies in."""

    format: Literal["ftw-pending-training/1"] = "ftw-pending-training/1"
    concept_pack: str
    from_version: str
    """The version that the present lenses were trained for."""
    to_version: str
    melds: list[str] = Field(default_factory=list)
    new: list[str] = Field(default_factory=list)
    must_retrain: list[str] = Field(default_factory=list)
    should_retrain: list[str] = Field(default_factory=list)
    optional_retrain: list[str] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
    simplexes: list[str] = Field(default_factory=list)
    """Simplexes to train, by name."""

    @property
    def needed(self) -> list[str]:
        """The concepts whose lenses have to be trained: the new ones and those that must be retrained."""
        return [*self.new, *self.must_retrain]

    @classmethod
    def of(cls, folder: Path) -> "PendingTraining | None":
        """What a pack still waits for; None where nothing is. Raises PackError for a malformed file."""
        return read_record(cls, folder / PENDING) if (folder / PENDING).is_file() else None

    def after(self, earlier: "PendingTraining | None") -> "PendingTraining":
        """Both lists in one, for a pack whose lenses were not trained between two melds."""
        if earlier is None:
            return self
        gone = set(self.removed)
        taken: set[str] = set()
        lists: dict[str, list[str]] = {}
        for name in ("new", "must_retrain", "should_retrain", "optional_retrain"):
            both = dict.fromkeys([*getattr(earlier, name), *getattr(self, name)])
            lists[name] = [term for term in both if term not in gone and term not in taken]
            taken |= set(lists[name])
        removed = dict.fromkeys([*earlier.removed, *self.removed])
        return PendingTraining(
            concept_pack=self.concept_pack,
            from_version=earlier.from_version,
            to_version=self.to_version,
            melds=[*earlier.melds, *self.melds],
            new=lists["new"],
            must_retrain=lists["must_retrain"],
            should_retrain=lists["should_retrain"],
            optional_retrain=lists["optional_retrain"],
            removed=[term for term in removed if term not in earlier.new and term not in lists["new"]],
            simplexes=list(dict.fromkeys([*earlier.simplexes, *self.simplexes])),
        )


def pending_of(
    before: ConceptPack, after: ConceptPack, impact: Impact, *, meld: str, simplexes: Iterable[str] = ()
) -> PendingTraining:
    """The list for one meld."""
    return PendingTraining(
        concept_pack=after.name,
        from_version=before.version,
        to_version=after.version,
        melds=[meld],
        new=list(impact.new),
        must_retrain=list(impact.must),
        should_retrain=list(impact.should),
        optional_retrain=list(impact.optional),
        removed=list(impact.removed),
        simplexes=list(simplexes),
    )

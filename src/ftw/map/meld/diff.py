"""What changed between two concept packs.

The rule of the file: a concept is known by its term; what is said of it is compared field by field, and what follows
from the tree (level, children) is not told twice.
"""

from pydantic import Field

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord
from ftw.substrate.config import Strict

FOLLOWS = frozenset({"layer", "parent_concepts", "children", "child_count", "is_category_lens"})
"""Fields of a record that the tree decides."""
READ_BY_TRAINING = frozenset({"definition", "aliases", "wordnet", "training_hints", "deprecated"})
"""Fields whose change makes other training text, or says that a lens means something else now."""


class Named(Strict):
    """A pack as a diff names it."""

    name: str
    version: str
    sha256: str


class Added(Strict):
    """A concept that only the newer pack has."""

    concept: str
    parent: str | None
    level: int
    definition: str


class Moved(Strict):
    """A concept that stands under another parent now."""

    concept: str
    from_parent: str | None
    to_parent: str | None
    from_level: int
    to_level: int


class Changed(Strict):
    """A concept of which something else is said now."""

    concept: str
    fields: list[str]


class PackDiff(Strict):
    """The way from one concept pack to another, in the order of the trees."""

    before: Named
    after: Named
    added: list[Added] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
    moved: list[Moved] = Field(default_factory=list)
    changed: list[Changed] = Field(default_factory=list)
    deprecated: list[str] = Field(default_factory=list)
    """Concepts that are marked in the newer pack only. They are among the changed ones as well."""
    simplexes_added: list[str] = Field(default_factory=list)
    simplexes_removed: list[str] = Field(default_factory=list)
    simplexes_changed: list[str] = Field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether both packs say the same of the same concepts and simplexes."""
        simplexes = (*self.simplexes_added, *self.simplexes_removed, *self.simplexes_changed)
        return not (self.added or self.removed or self.moved or self.changed or simplexes)


def diff_packs(before: ConceptPack, after: ConceptPack) -> PackDiff:
    """What `after` has, lacks, places or says otherwise than `before`."""
    both = [term for term in after.concepts if term in before.concepts]
    changed = [Changed(concept=term, fields=fields) for term in both if (fields := _fields(before, after, term))]
    old, new = ({simplex.name: simplex for simplex in pack.simplexes} for pack in (before, after))
    return PackDiff(
        before=_named(before),
        after=_named(after),
        added=[
            Added(concept=c.term, parent=c.parent, level=c.level, definition=c.definition)
            for c in after.concepts.values()
            if c.term not in before.concepts
        ],
        removed=[term for term in before.concepts if term not in after.concepts],
        moved=[moved for term in both if (moved := _moved(before, after, term)) is not None],
        changed=changed,
        deprecated=[
            term
            for term in both
            if after.records[term].deprecated is not None and before.records[term].deprecated is None
        ],
        simplexes_added=[name for name in new if name not in old],
        simplexes_removed=[name for name in old if name not in new],
        simplexes_changed=[name for name in new if name in old and new[name] != old[name]],
    )


def _named(pack: ConceptPack) -> Named:
    return Named(name=pack.name, version=pack.version, sha256=pack.sha256)


def _moved(before: ConceptPack, after: ConceptPack, term: str) -> Moved | None:
    old, new = before.concepts[term], after.concepts[term]
    if old.parent == new.parent:
        return None
    return Moved(concept=term, from_parent=old.parent, to_parent=new.parent, from_level=old.level, to_level=new.level)


def _fields(before: ConceptPack, after: ConceptPack, term: str) -> list[str]:
    old, new = before.records[term], after.records[term]
    if old == new:
        return []
    names = [name for name in ConceptRecord.model_fields if name not in FOLLOWS]
    return [name for name in names if getattr(old, name) != getattr(new, name)]

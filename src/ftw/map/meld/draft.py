"""A concept pack while a meld changes it: records and parents that need not fit together yet.

The rule of the file: a draft takes changes in any order; whether they make a tree is asked at the end, and only a tree
becomes a pack. Levels are never kept: a level is the parent's plus one, however deep the tree.
"""

from collections.abc import Iterable, Mapping

from ftw.map.meld.simplexes import renamed
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Relationships, TrainingHints
from ftw.map.registry.simplex_record import SimplexRecord
from ftw.substrate.errors import PackError


class Draft:
    """Records by term, each with the term above it."""

    def __init__(self, pack: ConceptPack) -> None:
        self.records: dict[str, ConceptRecord] = dict(pack.records)
        self.parents: dict[str, str | None] = {term: concept.parent for term, concept in pack.concepts.items()}
        self.replaced: dict[str, tuple[str, ...]] = {}
        """What stands in the place of a concept that is gone."""
        self.simplexes: list[SimplexRecord] = list(pack.simplexes)
        self._lists_children = any(record.children for record in pack.records.values())

    def __contains__(self, term: str) -> bool:
        return term in self.records

    def put(self, record: ConceptRecord, parent: str | None) -> None:
        """Add a concept, or set one in the place of another with its term."""
        self.records[record.term] = record
        self.parents[record.term] = parent
        self.replaced.pop(record.term, None)

    def change(self, term: str, **fields: object) -> None:
        """Give a concept's record other values."""
        self.records[term] = ConceptRecord.model_validate(self.records[term].model_dump() | fields)

    def move(self, term: str, parent: str | None) -> None:
        """Hang a concept, with all below it, under another."""
        self.parents[term] = parent

    def remove(self, term: str, *, instead: tuple[str, ...]) -> None:
        """Take a concept out. What named it will name what stands `instead`."""
        del self.records[term], self.parents[term]
        self.replaced[term] = instead

    def children(self, term: str) -> list[str]:
        """The concepts right below, by name."""
        return sorted(child for child, parent in self.parents.items() if parent == term)

    def ancestors(self, term: str) -> list[str]:
        """The concepts above, the nearest first. It ends where a parent is missing or a cycle closes."""
        out: list[str] = []
        parent = self.parents.get(term)
        while parent is not None and parent not in out and parent != term:
            out.append(parent)
            parent = self.parents.get(parent)
        return out

    def missing(self) -> dict[str, str]:
        """The concepts whose parent is not there, with that parent."""
        return {
            term: parent for term, parent in self.parents.items() if parent is not None and parent not in self.records
        }

    def cycles(self) -> list[tuple[str, ...]]:
        """The cycles among parents: each once, from its first term by name."""
        found: set[tuple[str, ...]] = set()
        sure: set[str] = set()
        for start in self.parents:
            path: list[str] = []
            term: str | None = start
            while term is not None and term not in sure and term not in path:
                path.append(term)
                term = self.parents.get(term)
            if term is not None and term in path:
                ring = path[path.index(term) :]
                first = ring.index(min(ring))
                found.add((*ring[first:], *ring[:first]))
            sure.update(path)
        return sorted(found)

    def pack(self, meta: PackRecord) -> ConceptPack:
        """The draft as a pack. Raises PackError where it is no tree."""
        for ring in self.cycles():
            raise PackError(f"the parents of {' > '.join((*ring, ring[0]))} make a cycle")
        for term, parent in self.missing().items():
            raise PackError(f"{term} stands under {parent}, which the pack does not hold")
        return ConceptPack(meta, self._finished(), (renamed(simplex, self.replaced) for simplex in self.simplexes))

    def _finished(self) -> Iterable[ConceptRecord]:
        below: dict[str, list[str]] = {}
        for child, parent in self.parents.items():
            if parent is not None:
                below.setdefault(parent, []).append(child)
        for term, record in self.records.items():
            parent = self.parents[term]
            fields: dict[str, object] = {
                "parent_concepts": [] if parent is None else [parent],
                "layer": len(self.ancestors(term)),
                "relationships": self._relationships(record.relationships, but=term),
                "training_hints": self._hints(record.training_hints, but=term),
            }
            if self._lists_children:
                children = sorted(below.get(term, []))
                fields |= {"children": children, "child_count": len(children), "is_category_lens": bool(children)}
            yield record.model_copy(update=fields)

    def _relationships(self, old: Relationships, *, but: str) -> Relationships:
        lists = {name: self._now(getattr(old, name), but) for name in ("related", "antonyms", "has_part", "part_of")}
        opposite = None if old.opposite is None else next(iter(self._now([old.opposite], but)), None)
        return old.model_copy(update=lists | {"opposite": opposite})

    def _hints(self, old: TrainingHints, *, but: str) -> TrainingHints:
        return old.model_copy(update={"confusable_with": self._now(old.confusable_with, but)})

    def _now(self, terms: list[str], but: str) -> list[str]:
        """Terms with those that are gone replaced by what stands instead."""
        if not any(term in self.replaced for term in terms):
            return terms
        now = [each for term in terms for each in followed(term, self.replaced)]
        return [term for term in dict.fromkeys(now) if term != but]


def followed(term: str, replaced: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What a term is now, through several replacements."""
    if term not in replaced:
        return (term,)
    return tuple(each for one in replaced[term] for each in followed(one, replaced))

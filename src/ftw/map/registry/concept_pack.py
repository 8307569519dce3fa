"""Concept packs: a tree of named concepts with definitions and member words, read from a folder and checked whole.

The rule of the file: a pack that loads is sound. Terms are unique, every concept has one parent at most, the level is
the parent's plus one (so there are no cycles), and hierarchy.json tells the same story as the records.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from ftw.map.registry.concept_record import ConceptRecord, Hierarchy, PackRecord, read_record
from ftw.map.registry.simplex_record import SIMPLEXES, SimplexRecord, read_simplexes
from ftw.substrate.errors import PackError, StorageError, UnknownConcept

NEAREST = 5


@dataclass(frozen=True, slots=True)
class Concept:
    """One concept of a pack."""

    term: str
    level: int
    """0 for a root."""
    parent: str | None
    definition: str
    label: str
    """The term as a person would write it: `SkilledWorker` is `skilled worker`."""
    pos: str
    """`n` noun, `v` verb, or what else the source says; empty where it says nothing."""
    groups: Mapping[str, tuple[str, ...]]
    """Member words by synset, those of the concepts below included."""
    own_groups: Mapping[str, tuple[str, ...]]
    """Member words by synset, without those of the concepts below."""

    @property
    def words(self) -> tuple[str, ...]:
        """Every member word once, those of the concepts below included."""
        return tuple(dict.fromkeys(word for group in self.groups.values() for word in group))

    @property
    def synsets(self) -> tuple[str, ...]:
        """Every synset that has a member word, those of the concepts below included."""
        return tuple(self.groups)


class ConceptPack:
    """A checked pack. Concepts stand in tree order: a parent before its children, siblings together."""

    def __init__(
        self, meta: PackRecord, records: Iterable[ConceptRecord], simplexes: Iterable[SimplexRecord] = ()
    ) -> None:
        """Raises PackError if the records do not form a tree with unique terms and true levels."""
        self.meta = meta
        self.simplexes: tuple[SimplexRecord, ...] = tuple(simplexes)
        """What has two opposite poles and a middle."""
        self.records: Mapping[str, ConceptRecord] = MappingProxyType(_sound({}, records))
        below: dict[str | None, list[str]] = defaultdict(list)
        for term in sorted(self.records):
            below[_parent(self.records[term])].append(term)
        self._below = {parent: tuple(terms) for parent, terms in below.items()}
        self.concepts: Mapping[str, Concept] = MappingProxyType(self._concepts())

    @classmethod
    def load(cls, folder: Path) -> "ConceptPack":
        """The pack in `folder`. Raises PackError that names the file and the field that is wrong."""
        meta = read_record(PackRecord, folder / "pack.json")
        hierarchy = read_record(Hierarchy, folder / "hierarchy.json")
        records: dict[str, ConceptRecord] = {}
        places: dict[str, Path] = {}
        for file in sorted((folder / "concepts").glob("layer*/*.json")):
            record = read_record(ConceptRecord, file)
            if record.term in records:
                raise PackError(f"{file}: term {record.term} stands in {places[record.term]} too: terms are unique")
            if file.parent.name != f"layer{record.layer}":
                raise PackError(f"{file}: layer is {record.layer}, but the file lies in {file.parent.name}")
            records[record.term], places[record.term] = record, file
        if not records:
            raise PackError(f"{folder / 'concepts'} holds no concept: expected concepts/layer0/*.json")
        _sound(places, records.values())
        _agree(folder / "hierarchy.json", hierarchy, records)
        return cls(meta, records.values(), read_simplexes(folder))

    @property
    def name(self) -> str:
        return self.meta.pack_id

    @property
    def version(self) -> str:
        return self.meta.version

    @property
    def roots(self) -> tuple[str, ...]:
        """The terms without a parent, in tree order."""
        return self._below.get(None, ())

    @cached_property
    def sha256(self) -> str:
        """Digest of name, version, records and simplexes, hex. Two packs with one digest name the same concepts."""
        kept = [self.meta.model_dump_json(include={"pack_id", "version"})]
        kept += [self.records[term].model_dump_json(exclude_defaults=True) for term in sorted(self.records)]
        kept += [simplex.model_dump_json(exclude_defaults=True) for simplex in self.simplexes]
        return hashlib.sha256("\n".join(kept).encode()).hexdigest()

    def term(self, name: str) -> str:
        """The term that a person means by `name`, in any case, with or without blanks.

        Raises UnknownConcept with the nearest terms, or with the concept that `name` is a member word of.
        """
        if name in self.records:  # a term is itself, whatever else reads like it
            return name
        key = _key(name)
        if key in self._by_key:
            return self._by_key[key]
        homes = [
            c.term for c in self.concepts.values() if any(name.lower() in group for group in c.own_groups.values())
        ]
        if homes:
            raise UnknownConcept(f"{name} is no concept of {self.name}, but a word of {' and '.join(homes)}")
        near = ", ".join(self.nearest(name))
        raise UnknownConcept(f"{self.name} has no concept {name}; the nearest are {near}")

    def get(self, name: str) -> Concept:
        """The concept that a person means by `name`. Raises UnknownConcept as `term` does."""
        return self.concepts[self.term(name)]

    def nearest(self, name: str, n: int = NEAREST) -> list[str]:
        """Terms that look like `name`, the nearest first; the first roots where nothing looks like it."""
        close = get_close_matches(_key(name), self._by_key, n=n, cutoff=0.5)
        return [self._by_key[key] for key in close] or list(self.roots[:n])

    def parent(self, name: str) -> str | None:
        """The concept above; None for a root."""
        return self.get(name).parent

    def children(self, name: str) -> tuple[str, ...]:
        """The concepts right below, in tree order."""
        return self._below.get(self.term(name), ())

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Every concept above, the nearest first."""
        out: list[str] = []
        parent = self.parent(name)
        while parent is not None:
            out.append(parent)
            parent = self.concepts[parent].parent
        return tuple(out)

    def descendants(self, name: str) -> tuple[str, ...]:
        """Every concept below, in tree order."""
        return tuple(below for child in self.children(name) for below in (child, *self.descendants(child)))

    def save(self, folder: Path) -> None:
        """Write the pack into `folder`, which must be empty or absent. The same pack gives the same bytes."""
        if folder.exists() and any(folder.iterdir()):
            raise StorageError(f"{folder} is not empty: a pack is written into a new folder, so remove it first")
        _write(folder / "pack.json", self.meta.model_dump(mode="json", exclude_defaults=True))
        _write(folder / "hierarchy.json", self.hierarchy().model_dump(mode="json", exclude_defaults=True))
        if self.simplexes:
            _write(
                folder / SIMPLEXES,
                [simplex.model_dump(mode="json", exclude_defaults=True) for simplex in self.simplexes],
            )
        for record in self.records.values():
            file = folder / "concepts" / f"layer{record.layer}" / f"{record.term.lower()}.json"
            _write(
                file, {"term": record.term, "role": record.role} | record.model_dump(mode="json", exclude_defaults=True)
            )

    def hierarchy(self) -> Hierarchy:
        """The tree as hierarchy.json writes it."""
        return Hierarchy(
            parent_to_children={term: list(self.children(term)) for term in self.concepts if self.children(term)},
            child_to_parent={c.term: c.parent for c in self.concepts.values() if c.parent is not None},
            leaf_concepts=[term for term in self.concepts if not self.children(term)],
            root_concepts=list(self.roots),
        )

    def _concepts(self) -> dict[str, Concept]:
        out: dict[str, Concept] = {}
        for root in self._below.get(None, ()):
            self._grow(root, out)
        return out

    def _grow(self, term: str, out: dict[str, Concept]) -> Mapping[str, tuple[str, ...]]:
        record = self.records[term]
        out[term] = _concept(record, {})  # holds the place: a parent stands before its children
        own = {synset: tuple(words) for synset, words in _groups(record).items()}
        groups = dict(own)
        for child in self._below.get(term, ()):
            for synset, words in self._grow(child, out).items():
                groups[synset] = tuple(dict.fromkeys(groups.get(synset, ()) + words))
        out[term] = _concept(record, groups)
        return groups

    @cached_property
    def _by_key(self) -> Mapping[str, str]:
        labels = {_key(c.label): c.term for c in self.concepts.values()}
        return labels | {_key(term): term for term in self.concepts}


def bundled_concept_pack(name: str = "everyday") -> ConceptPack:
    """The concept pack `name` that ships with ftw. Raises PackError that lists those that do."""
    home = Path(str(files("ftw"))) / "bundled" / "concept-packs"
    known = sorted(p.name for p in home.iterdir()) if home.is_dir() else []
    if name not in known:
        raise PackError(f"no bundled concept pack {name}; there are: {', '.join(known) or 'none'}")
    return ConceptPack.load(home / name)


def label_of(term: str) -> str:
    """A CamelCase term in words: `SkilledWorker` is `skilled worker`, `AIAgent` is `ai agent`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", term).replace("_", " ").lower()


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _parent(record: ConceptRecord) -> str | None:
    return record.parent_concepts[0] if record.parent_concepts else None


def _groups(record: ConceptRecord) -> Mapping[str, list[str]]:
    """Own words by synset; a source without groups has them all under its canonical synset."""
    if record.wordnet.words or not record.wordnet.lemmas:
        return record.wordnet.words
    words = [lemma.replace("_", " ") for lemma in record.wordnet.lemmas]
    return {record.wordnet.canonical_synset or record.term: words}


def _concept(record: ConceptRecord, groups: Mapping[str, tuple[str, ...]]) -> Concept:
    return Concept(
        term=record.term,
        level=record.layer,
        parent=_parent(record),
        definition=record.definition,
        label=label_of(record.term),
        pos=record.wordnet.pos[:1],
        groups=MappingProxyType(dict(groups)),
        own_groups=MappingProxyType({synset: tuple(words) for synset, words in _groups(record).items()}),
    )


def _sound(places: Mapping[str, Path], records: Iterable[ConceptRecord]) -> dict[str, ConceptRecord]:
    """The records by term. Raises PackError for a term used twice, a parent that is missing, a level that lies."""
    by_term: dict[str, ConceptRecord] = {}
    folded: dict[str, str] = {}
    for record in records:
        other = folded.setdefault(record.term.lower(), record.term)
        if record.term in by_term or other != record.term:
            raise PackError(f"{_place(places, record)}: term {record.term} stands twice (as {other}): terms are unique")
        by_term[record.term] = record
    for record in by_term.values():
        parent = _parent(record)
        if parent is None:
            wanted = 0
        elif parent in by_term:
            wanted = by_term[parent].layer + 1
        else:
            raise PackError(f"{_place(places, record)}: parent_concepts names {parent}, which the pack does not hold")
        if record.layer != wanted:
            above = f"its parent {parent} is on {wanted - 1}" if parent else "it has no parent"
            raise PackError(
                f"{_place(places, record)}: layer is {record.layer}, but {above}: it must be {wanted} "
                "(a level that cannot be right anywhere means a cycle)"
            )
    return by_term


def _agree(file: Path, hierarchy: Hierarchy, records: Mapping[str, ConceptRecord]) -> None:
    """Raises PackError where hierarchy.json and the records tell different parents."""
    edges = {term: parent for term, record in records.items() if (parent := _parent(record)) is not None}
    listed: dict[str, str] = {}
    for parent, children in hierarchy.parent_to_children.items():
        for child in children:
            if listed.setdefault(child, parent) != parent:
                raise PackError(f"{file}: parent_to_children gives {child} two parents, {listed[child]} and {parent}")
    for field, told in (("child_to_parent", hierarchy.child_to_parent), ("parent_to_children", listed)):
        for term in sorted(told.keys() ^ edges.keys()) or sorted(t for t in told if told[t] != edges[t]):
            said, recorded = told.get(term, "no parent"), edges.get(term, "no parent")
            raise PackError(f"{file}: {field} gives {term} {said}, its record gives it {recorded}")
    for term in sorted(set(hierarchy.root_concepts) - (records.keys() - edges.keys())):
        raise PackError(f"{file}: root_concepts names {term}, which is no root of the records")


def _place(places: Mapping[str, Path], record: ConceptRecord) -> str:
    return str(places.get(record.term, f"concept {record.term}"))


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

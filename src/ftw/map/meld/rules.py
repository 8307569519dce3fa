"""The rules that a meld is held against, one function for each idea.

The rule of the file: a rule looks at one part of the meld and says what is wrong with it; none changes anything.
"""

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import JsonValue

from ftw.map.meld.operations import Operation, Part, made
from ftw.map.meld.policy import Policy, Protection
from ftw.map.meld.protection import Assessment
from ftw.map.meld.request import Candidate, MeldRequest, SimplexBinding
from ftw.map.meld.simplexes import simplex_name, simplex_of
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import DEEPEST

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
"""Versions that a meld counts on from: major.minor.patch."""
LONGEST = 200
"""Characters of a term at most: a term names a file."""
MEANING = 20
"""Characters that a definition has at least."""
DEEPEST_HINT = 4
"""Published melds number levels up to this one; a hint of it means this level or a deeper one."""

REQUEST_ID = re.compile(r"^[^/\s@]+/(?P<name>[^/\s@]+)@[^/\s@]+$")
TERM = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.' -]*[A-Za-z0-9_])?")
"""Letters, digits and a few marks: a term names a file."""
CAMEL = re.compile(r"[A-Z0-9][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)*")
SYNSET = re.compile(r"(?:[^.\s]+(?:\.[^.\s]+)*\.[nvars]\.\d+|\d{8}\.[nvars])")
"""`dog.n.01`, or the offset of a synset with its part of speech."""


Kind = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that validation found."""

    kind: Kind
    rule: str
    concept: str
    """The concept or operation that it is about; empty for the meld as a whole."""
    what: str

    def __str__(self) -> str:
        return f"{self.concept} {self.what}".strip()


@dataclass(frozen=True)
class Setting:
    """What the rules look at."""

    request: MeldRequest
    pack: ConceptPack
    policy: Policy
    parents: Mapping[str, list[str]]
    held: Mapping[str, str]
    """The pack's terms by their lower case, which is what their files are called."""
    synsets: Container[str] | None

    @cached_property
    def candidates(self) -> Mapping[str, Candidate]:
        """The candidates by term; of two with one term the last."""
        return {candidate.term: candidate for candidate in self.request.candidates}

    @cached_property
    def simplexes(self) -> frozenset[str]:
        """The simplexes that a candidate may be mapped to: of the pack, of its policy, of the meld."""
        brought = {name for candidate in self.request.candidates if (name := simplex_name(candidate)) is not None}
        known = self.policy.critical_simplexes | self.policy.simplex_examples.keys()
        return frozenset(brought | known | {simplex.name for simplex in self.pack.simplexes})

    @cached_property
    def alike(self) -> Mapping[str, str]:
        """The pack's terms by their letters."""
        return {_letters(term): term for term in self.pack.records}

    @cached_property
    def domains(self) -> frozenset[str]:
        """The domains that the pack's concepts name."""
        return frozenset(record.domain for record in self.pack.records.values()) - {""}

    @cached_property
    def canonical(self) -> Mapping[str, str]:
        """The pack's concepts by the synset that they are; of two with one synset the first."""
        records = reversed(list(self.pack.records.items()))
        return {record.wordnet.canonical_synset: term for term, record in records if record.wordnet.canonical_synset}

    def above(self, term: str) -> Iterator[str]:
        """Every concept that will stand above a candidate or a concept of the pack, the nearest first."""
        seen = {term}
        while (parent := self._parent(term)) is not None and parent not in seen:
            yield parent
            seen.add(parent)
            term = parent

    def _parent(self, term: str) -> str | None:
        if term in self.parents:
            return next(iter(self.parents[term]), None)
        concept = self.pack.concepts.get(term)
        return None if concept is None else concept.parent


def request_findings(setting: Setting, file_name: str | None) -> Iterator[Finding]:
    """The rules on the meld as a whole: its id, the pack that it is for, what it attaches, what it holds."""
    request, pack = setting.request, setting.pack
    yield from _names(request, file_name)
    yield from _target(request, pack)
    if not request.candidates and not request.structural_operations:
        yield Finding("error", "empty", "", "the meld has neither candidates nor structural operations")
    if setting.policy.is_default:
        told = f"{pack.name} has no meld_policy: the rules of the published packs are used"
        yield Finding("warning", "policy", "", told)
    for point in request.attachment_points:
        if point.candidate_concept not in setting.parents:
            told = f"is attached to {point.target}, but is no candidate of the meld"
            yield Finding("error", "attachment", point.candidate_concept, told)
        if point.relationship == "related_to" and point.target not in pack.records:
            told = f"is related to {point.target}, which the pack does not hold"
            yield Finding("warning", "attachment", point.candidate_concept, told)
    yield from _twice(setting)


def candidate_findings(setting: Setting, candidate: Candidate, protection: Assessment) -> Iterator[Finding]:
    """The rules on one candidate."""
    yield from _term(candidate.term)
    yield from _meaning(candidate)
    yield from _parents(setting, candidate)
    yield from _level(setting, candidate)
    yield from _mapping(setting, candidate)
    yield from _binding(setting, candidate, protection.of(candidate.term))
    yield from _examples(candidate, protection)
    yield from _words(setting, candidate)


def made_findings(setting: Setting, operation: Operation, place: str) -> Iterator[Finding]:
    """The rules on the concepts that an operation makes. What comes from a source may be short; it may not be empty."""
    for new in made(operation):
        for finding in _term(new.term):
            yield Finding(finding.kind, finding.rule, place, f"{new.term} {finding.what}")
        clash = setting.held.get(new.term.lower())
        if clash is not None:
            yield Finding("error", "duplicate", place, f"makes {new.term}, but the pack holds {clash}")
        if new.term in setting.parents:
            yield Finding("error", "duplicate", place, f"makes {new.term}, which is a candidate as well")
        meaning = new.meaning if isinstance(new, Part) else new.definition
        if not meaning.strip():
            yield Finding("error", "definition", place, f"makes {new.term} without a definition")
        elif len(meaning.strip()) < MEANING:
            yield Finding(
                "warning", "definition", place, f"makes {new.term} with a definition of {len(meaning)} characters"
            )
        hints, needed = new.training_hints, setting.policy.examples[Protection.STANDARD]
        short = min(len(hints.positive_examples), len(hints.negative_examples))
        if short < needed:
            yield Finding("warning", "examples", place, f"makes {new.term} with {short} examples of {needed}")


def _names(request: MeldRequest, file_name: str | None) -> Iterator[Finding]:
    match = REQUEST_ID.match(request.meld_request_id)
    if match is None:
        told = f"the id {request.meld_request_id} is not authority/name@version"
        yield Finding("warning", "id", "", told)
    elif file_name is not None:
        stem = file_name.removesuffix(".json")
        if stem not in (match["name"], request.meld_request_id.rpartition("/")[2]):
            told = f"the file is called {file_name}, the meld {match['name']}"
            yield Finding("warning", "id", "", told)


def _target(request: MeldRequest, pack: ConceptPack) -> Iterator[Finding]:
    name, version = request.target_pack
    known = {pack.name, *_forebears(pack.meta.forked_from)}
    if name not in known:
        told = f"the meld is for {name}, this pack is {pack.name}: check it, then change target_pack_spec_id"
        yield Finding("error", "target", "", told)
    elif (name, version) != (pack.name, pack.version):
        told = f"the meld was written for {name} {version or 'of any version'}, this pack is {pack.name} {pack.version}"
        yield Finding("warning", "target", "", told)
    if VERSION.fullmatch(pack.version) is None:
        told = f"{pack.name} has the version {pack.version}: a meld counts on from major.minor.patch, such as 1.0.0"
        yield Finding("error", "version", "", told)
    applied = pack.meta.melds_applied if isinstance(pack.meta.melds_applied, list) else []
    ids = [entry.get("meld_request_id") for entry in applied if isinstance(entry, dict)]
    if request.meld_request_id in ids:
        told = f"{request.meld_request_id} is among melds_applied of this pack: a changed meld needs a new version"
        yield Finding("error", "applied", "", told)


def _forebears(forked_from: JsonValue) -> set[str]:
    """The packs that a pack was forked from: a name, a name with a version, or a record with both."""
    if isinstance(forked_from, dict):
        return {str(forked_from[key]) for key in ("pack_id", "name") if key in forked_from}
    return {forked_from.rpartition("/")[2].partition("@")[0]} if isinstance(forked_from, str) else set()


def _twice(setting: Setting) -> Iterator[Finding]:
    """Terms that the meld or the pack holds already, whatever their case: they would share a file."""
    terms = [candidate.term for candidate in setting.request.candidates]
    folded = Counter(term.lower() for term in terms)
    for term in dict.fromkeys(terms):
        if folded[term.lower()] > 1:
            yield Finding("error", "duplicate", term, "stands more than once among the candidates")
        clash = setting.held.get(term.lower())
        if clash is not None:
            told = "is in the pack already" if clash == term else f"differs from {clash} of the pack only in case"
            yield Finding(
                "error", "duplicate", term, f"{told}: choose another term, or change the concept with an operation"
            )
        elif (alike := setting.alike.get(_letters(term))) is not None:
            yield Finding("warning", "duplicate", term, f"reads like {alike} of the pack: who asks for one may get it")
    for candidate in setting.request.candidates:
        for alias in candidate.aliases:
            if alias.lower() in setting.held:
                told = f"has the alias {alias}, and {setting.held[alias.lower()]} is a concept of the pack"
                yield Finding("warning", "alias", candidate.term, told)


def _letters(term: str) -> str:
    """A term as people ask for it: in any case, with or without blanks."""
    return re.sub(r"[\s_-]+", "", term).lower()


def is_term(term: str) -> bool:
    """Whether a concept may be called so."""
    return TERM.fullmatch(term) is not None and len(term) <= LONGEST


def _term(term: str) -> Iterator[Finding]:
    if TERM.fullmatch(term) is None:
        told = "is no term: letters, digits, blanks and _ - . ' are, and it begins with a letter or digit"
        yield Finding("error", "term", term, told)
    elif len(term) > LONGEST:
        yield Finding("error", "term", f"{term[:20]}…", f"has {len(term)} characters: {LONGEST} at most")
    elif CAMEL.fullmatch(term) is None:
        yield Finding("warning", "term", term, "is not written in CamelCase")


def _meaning(candidate: Candidate) -> Iterator[Finding]:
    length = len(candidate.definition.strip())
    if length < MEANING:
        told = f"has a definition of {length} characters: {MEANING} are needed" if length else "has no definition"
        yield Finding("error", "definition", candidate.term, told)
    if not candidate.domain and candidate.role != "simplex":
        yield Finding("warning", "domain", candidate.term, "names no domain: it takes its parent's")


def _parents(setting: Setting, candidate: Candidate) -> Iterator[Finding]:
    parents = setting.parents[candidate.term]
    if candidate.role == "simplex":
        if parents:
            told = f"is a simplex and stands outside the tree, but names the parent {parents[0]}: use related_concept"
            yield Finding("error", "parent", candidate.term, told)
        return
    if len(parents) > 1:
        told = f"names the parents {', '.join(parents)}: {parents[0]} is taken, the others are kept as related"
        yield Finding("warning", "parent", candidate.term, told)
    if candidate.domain and setting.domains and candidate.domain not in setting.domains:
        yield Finding("warning", "domain", candidate.term, f"has the domain {candidate.domain}, new to this pack")


def _level(setting: Setting, candidate: Candidate) -> Iterator[Finding]:
    """A level is the parent's plus one. A hint that contradicts another hint of the meld is an error, others warn."""
    hint, above = candidate.layer_hint, list(setting.above(candidate.term))
    if len(above) > DEEPEST:
        told = f"would stand on level {len(above)}: a tree has {DEEPEST} at most"
        yield Finding("error", "level", candidate.term, told)
    if hint is None or not above or candidate.role == "simplex":
        return
    parent = setting.candidates.get(above[0])
    if parent is not None and parent.layer_hint is not None and hint <= parent.layer_hint:
        if not hint == parent.layer_hint == DEEPEST_HINT:
            told = f"has the layer_hint {hint}, its parent {parent.term} {parent.layer_hint}: a child stands deeper"
            yield Finding("error", "level", candidate.term, told)
        return
    if hint != len(above) and above[-1] in setting.pack.records:
        yield Finding(
            "warning", "level", candidate.term, f"has the layer_hint {hint} and will stand on level {len(above)}"
        )


def _mapping(setting: Setting, candidate: Candidate) -> Iterator[Finding]:
    roots = [
        term for term in (candidate.term, *setting.above(candidate.term)) if term in setting.policy.mandatory_roots
    ]
    harness = candidate.safety_tags.harness_relevant
    mapping = candidate.simplex_mapping
    if mapping is None:
        if roots or harness:
            why = f"stands under {roots[0]}" if roots else "is harness relevant"
            told = f"{why}: it needs a simplex_mapping (mapped, unmapped or not_applicable)"
            yield Finding("error", "simplex_mapping", candidate.term, told)
        return
    if mapping.status == "mapped" and not mapping.mapped_simplex:
        yield Finding("error", "simplex_mapping", candidate.term, "is mapped, but names no mapped_simplex")
    if candidate.simplex and candidate.simplex not in setting.simplexes:
        told = f"is mapped to {candidate.simplex}, which neither the pack nor the meld holds"
        yield Finding("warning", "simplex_mapping", candidate.term, told)
    if mapping.status == "unmapped" and not (mapping.unmapped_justification or "").strip():
        yield Finding("error", "simplex_mapping", candidate.term, "is unmapped without an unmapped_justification")


def _binding(setting: Setting, candidate: Candidate, level: Protection) -> Iterator[Finding]:
    binding = candidate.simplex_binding if candidate.simplex_binding and candidate.simplex_binding.enabled else None
    if binding is None:
        if candidate.role == "simplex":
            yield Finding("error", "simplex", candidate.term, "is a simplex without a simplex_binding")
        return
    watched = candidate.related_concept if candidate.role == "simplex" else ""
    if watched and watched not in setting.pack.records and watched not in setting.candidates:
        told = f"belongs to {watched}, which neither the pack nor the meld holds"
        yield Finding("warning", "simplex", candidate.term, told)
    name = binding.simplex_term or candidate.term
    others = [c.term for c in setting.request.candidates if c.term != candidate.term and simplex_name(c) == name]
    others += ["the pack" for simplex in setting.pack.simplexes if simplex.name.lower() == name.lower()]
    if others:
        yield Finding("error", "simplex", candidate.term, f"brings the simplex {name}, which {others[0]} has already")
    yield from _poles(candidate, name, binding, setting.policy.for_simplex(name), level)


def _poles(
    candidate: Candidate, name: str, binding: SimplexBinding, needed: int, level: Protection
) -> Iterator[Finding]:
    term = candidate.term
    if binding.poles is None:
        yield Finding("error", "simplex", term, f"brings the simplex {name} without its three poles")
        return
    try:
        simplex_of(candidate)
    except ValueError as error:
        yield Finding("error", "simplex", term, f"brings a simplex that is none: {error}")
        return
    kind: Kind = "error" if level > Protection.STANDARD else "warning"
    poles = {"negative": binding.poles.negative, "neutral": binding.poles.neutral, "positive": binding.poles.positive}
    for pole, content in poles.items():
        found = len(set(content.examples))
        if found < needed:
            yield Finding(
                kind, "poles", term, f"has {found} examples for the {pole} pole of {name}: {needed} are needed"
            )


def _examples(candidate: Candidate, protection: Assessment) -> Iterator[Finding]:
    """Positive and negative examples, each counted once: an error above STANDARD, a warning at it."""
    if candidate.role == "simplex":
        return
    level, needed = protection.of(candidate.term), protection.examples[candidate.term]
    kind: Kind = "error" if level > Protection.STANDARD else "warning"
    hints = candidate.training_hints
    for name, texts in (("positive", hints.positive_examples), ("negative", hints.negative_examples)):
        found = len(set(texts))
        if found < needed:
            told = f"has {found} {name} examples: {needed} are needed ({level.word})"
            yield Finding(kind, "examples", candidate.term, told)
    both = set(hints.positive_examples) & set(hints.negative_examples)
    if both:
        told = f"has the same text as a positive and as a negative example: {min(both)!r}"
        yield Finding("error", "examples", candidate.term, told)


def _words(setting: Setting, candidate: Candidate) -> Iterator[Finding]:
    words = candidate.wordnet
    named = [*words.synsets, *([words.canonical_synset] if words.canonical_synset else [])]
    for synset in dict.fromkeys(named):
        if SYNSET.fullmatch(synset) is None:
            told = f"names the synset {synset}, which is not written lemma.pos.number"
        elif setting.synsets is not None and synset not in setting.synsets:
            told = f"names the synset {synset}, which WordNet does not have"
        else:
            continue
        yield Finding("warning", "synset", candidate.term, told)
    other = setting.canonical.get(words.canonical_synset)
    if other is not None:
        told = f"has the synset {words.canonical_synset}, which is {other} of the pack"
        yield Finding("warning", "synset", candidate.term, told)

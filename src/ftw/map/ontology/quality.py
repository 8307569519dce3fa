"""What is weak in a concept pack: names and trees that lenses will be worse for.

The rule of the file: a finding names the concept, says what was found and what would mend it; it never changes a pack.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ftw.map.ontology.wordnet import Synset, WordNet
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.errors import PackError

Kind = Literal[
    "single_child",
    "many_children",
    "few_words",
    "short_definition",
    "same_definition",
    "shared_word",
    "polysemous_word",
    "unknown_synset",
]
REMEDIES: Mapping[Kind, str] = MappingProxyType(
    {
        "single_child": "nothing tells a lone child from its parent: merge them, or add a sibling",
        "many_children": "group them below concepts of their own",
        "few_words": "add words or examples, or merge the concept into its parent",
        "short_definition": "say more, in a sentence of its own",
        "same_definition": "they may be one concept: merge them, or say what sets them apart",
        "shared_word": "a prompt with the word says both: leave it to one of them",
        "polysemous_word": "the word more often means something else: leave it out",
        "unknown_synset": "WordNet has no such synset: mend its name",
    }
)
"""What would mend each kind."""
SHORTEST = 20
"""Characters that a definition should have."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One weakness."""

    kind: Kind
    term: str
    message: str


@dataclass(frozen=True, slots=True)
class Standards:
    """From where on something counts as weak."""

    most_children: int = 31
    fewest_words: int = 5
    apart: int = 3
    """Two senses of a word are unrelated when their nearest common hypernym is this many steps from both, or absent."""


def examine(pack: ConceptPack, wordnet: WordNet | None = None, standards: Standards | None = None) -> list[Finding]:
    """Every finding, in tree order by kind. Without WordNet, senses and synsets are not looked at."""
    standards = standards or Standards()
    found = [*_tree(pack, standards), *_definitions(pack), *_shared(pack)]
    if wordnet is not None:
        found += _senses(pack, wordnet, standards)
    return found


def tally(findings: list[Finding]) -> Mapping[Kind, int]:
    """How many of each kind, the most frequent first."""
    return dict(Counter(finding.kind for finding in findings).most_common())


def _tree(pack: ConceptPack, standards: Standards) -> Iterator[Finding]:
    for concept in pack.concepts.values():
        children = pack.children(concept.term)
        if len(children) == 1:
            yield Finding(
                "single_child",
                concept.term,
                f"{concept.term} has one child, {children[0]}",
            )
        if len(children) > standards.most_children:
            yield Finding(
                "many_children",
                concept.term,
                f"{concept.term} has {len(children)} children, more than {standards.most_children}",
            )
        if len(concept.words) < standards.fewest_words:
            yield Finding(
                "few_words",
                concept.term,
                f"{concept.term} has {len(concept.words)} words, fewer than {standards.fewest_words}",
            )


def _definitions(pack: ConceptPack) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for concept in pack.concepts.values():
        text = " ".join(concept.definition.lower().split())
        if len(text) < SHORTEST:
            yield Finding(
                "short_definition",
                concept.term,
                f"{concept.term} is defined in {len(text)} characters, fewer than {SHORTEST}: {concept.definition}",
            )
        other = first.setdefault(text, concept.term)
        if other != concept.term:
            yield Finding(
                "same_definition",
                concept.term,
                f"{concept.term} is defined word for word as {other}",
            )


def _shared(pack: ConceptPack) -> Iterator[Finding]:
    """Words that two concepts hold of which none is above the other."""
    homes: dict[str, list[str]] = defaultdict(list)
    for concept in pack.concepts.values():
        for word in dict.fromkeys(word.lower() for words in concept.own_groups.values() for word in words):
            homes[word].append(concept.term)
    for word, terms in homes.items():
        first = terms[0]
        for term in terms[1:]:
            if first not in pack.ancestors(term) and term not in pack.ancestors(first):
                yield Finding("shared_word", term, f"{word!r} is a word of {term} and of {first}")


def _senses(pack: ConceptPack, wordnet: WordNet, standards: Standards) -> Iterator[Finding]:
    for concept in pack.concepts.values():
        for name, words in concept.own_groups.items():
            try:
                synset = wordnet.get(name)
            except PackError as error:
                if name != concept.term:  # words without synsets stand under the term itself
                    yield Finding("unknown_synset", concept.term, f"{concept.term}: {error}")
                continue
            for word in words:
                other = _rival(wordnet, word, synset, standards.apart)
                if other is not None:
                    yield Finding(
                        "polysemous_word",
                        concept.term,
                        f"{word!r} of {concept.term} ({name}) more often means {wordnet.name(other)}: {other.gloss}",
                    )


def _rival(wordnet: WordNet, word: str, synset: Synset, apart: int) -> Synset | None:
    """An unrelated sense of the same part of speech that is used at least as often, if there is one."""
    offsets = wordnet.senses.get((word.lower(), synset.pos), [])
    for offset in offsets[: offsets.index(synset.offset) if synset.offset in offsets else None]:
        other = wordnet.synsets[synset.pos, offset]
        if _distance(wordnet, synset, other) >= apart:
            return other
    return None


def _distance(wordnet: WordNet, a: Synset, b: Synset) -> int:
    """Steps from the farther of two synsets up to their nearest common one; a large number where there is none."""
    up_a = {s: at for at, s in enumerate([a, *wordnet.ancestors(a)])}
    up_b = {s: at for at, s in enumerate([b, *wordnet.ancestors(b)])}
    return min((max(up_a[s], up_b[s]) for s in up_a.keys() & up_b.keys()), default=99)

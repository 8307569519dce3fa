"""A concept pack from a list that a person keeps: its concepts, what stands above them, which words mean them.

The list is a TOML file of `[[concept]]` tables with term, synset, label, parent and members (words by synset); WordNet
adds definitions, relations and usage examples. The bundled pack is made this way.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, JsonValue

from ftw.map.ontology.from_wordnet import relations
from ftw.map.ontology.records import LICENCE, examples_with, pack_record
from ftw.map.ontology.wordnet import Synset, WordNet
from ftw.map.registry.concept_pack import ConceptPack, label_of
from ftw.map.registry.concept_record import ConceptRecord, Relationships, TrainingHints, Wordnet
from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError, StorageError

SOURCE = "WordNet 3.0"
LICENCE_FILE = "WORDNET-LICENSE"


class ListedConcept(Strict):
    """One table of the list."""

    term: str = Field(min_length=1)
    synset: str
    label: str = ""
    parent: str | None = None
    members: dict[str, list[str]]
    """Direct words by synset; those of the concepts below are theirs alone."""


class ConceptList(Strict):
    """The whole list."""

    concept: list[ListedConcept] = Field(min_length=1)


def read_list(file: Path) -> list[ListedConcept]:
    """The concepts of a list. Raises StorageError, PackError for no TOML, a term used twice, an unknown parent."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    try:
        listed = ConceptList.read(tomllib.loads(text), source=str(file)).concept
    except tomllib.TOMLDecodeError as error:
        raise PackError(f"{file} is not TOML: {error}") from error
    terms = [item.term for item in listed]
    for item in listed:
        if terms.count(item.term) > 1:
            raise PackError(f"{file}: {item.term} stands twice: terms are unique")
        if item.parent is not None and item.parent not in terms:
            raise PackError(f"{file}: the parent of {item.term} is {item.parent}, which the list does not hold")
    return listed


def pack_of_list(
    listed: Sequence[ListedConcept], wordnet: WordNet, *, name: str, version: str, description: str
) -> ConceptPack:
    """The pack of a list. Raises PackError for a synset that WordNet lacks, or a list that is no tree."""
    by_term = {item.term: item for item in listed}
    term_of = {wordnet.get(item.synset): item.term for item in reversed(listed)}
    records = [_record(item, by_term, term_of, wordnet) for item in listed]
    ontology: dict[str, JsonValue] = {"name": "WordNet", "version": "3.0", "licence_file": LICENCE_FILE}
    licence = f"{LICENCE}{SOURCE}, see {LICENCE_FILE}"
    return ConceptPack(pack_record(name, version, description, records, ontology, licence), records)


def _record(
    item: ListedConcept, by_term: Mapping[str, ListedConcept], term_of: Mapping[Synset, str], wordnet: WordNet
) -> ConceptRecord:
    above = _lineage(item, by_term)
    children = sorted(term for term, other in by_term.items() if other.parent == item.term)
    lemmas = [word for words in item.members.values() for word in words]
    synset = wordnet.get(item.synset)
    related = {
        name: sorted({term_of[other] for other in found if other in term_of} - {item.term})
        for name, found in relations(wordnet, synset).items()
    }
    said = [text for name in item.members for text in wordnet.get(name).examples]
    return ConceptRecord(
        term=item.term,
        parent_concepts=above[:1],
        layer=len(above),
        domain=(above or [item.term])[-1],
        definition=synset.gloss,
        definition_source=SOURCE,
        aliases=[item.label or label_of(item.term)],
        wordnet=Wordnet(
            synsets=list(item.members), canonical_synset=item.synset, lemmas=lemmas, pos=synset.pos, words=item.members
        ),
        relationships=Relationships.model_validate(related),
        training_hints=TrainingHints(positive_examples=examples_with(lemmas, said)),
        children=children,
        is_category_lens=bool(children),
        child_count=len(children),
    )


def _lineage(item: ListedConcept, by_term: Mapping[str, ListedConcept]) -> list[str]:
    """The terms above, the nearest first. Raises PackError where they go round."""
    above: list[str] = []
    while item.parent is not None:
        if item.parent in above:
            raise PackError(f"the concepts above {item.parent} lead back to it: {' > '.join([*above, item.parent])}")
        above.append(item.parent)
        item = by_term[item.parent]
    return above

"""WordNet as a taxonomy: a node per noun or verb synset, with the words that a reader would understand as meaning it.

The rule of the file: a word belongs to the synset that is its most frequent sense and to no other, so that a word in a
prompt means the concept it was taken for.
"""

import re

from ftw.map.ontology.taxonomy import Node, Taxonomy
from ftw.map.ontology.wordnet import Pos, Synset, WordNet

RELATIONS = {
    "antonyms": frozenset({"!"}),
    "has_part": frozenset({"%p", "%m", "%s"}),
    "part_of": frozenset({"#p", "#m", "#s"}),
}
"""Pointers of WordNet by the relation of a concept record."""
WORD = re.compile(r"[a-z]{2,16}( [a-z]{2,14})?")
"""A word that prompts can say: lower case, one part or two."""
UNFIT = re.compile(
    r"slang|obscene|offensive|derogat|disparag|vulgar|slur|contemptuous|archaic|obsolete|euphemism|ethnic"
)
"""Notes of senses that are left out."""
KINDS: tuple[Pos, ...] = ("n", "v")


def wordnet_taxonomy(wordnet: WordNet) -> Taxonomy:
    """Every noun and verb synset of WordNet that is a kind and not an individual."""
    kinds = [synset for synset in wordnet.synsets.values() if synset.pos in KINDS and not synset.is_instance]
    names = {synset: wordnet.name(synset) for synset in kinds}
    return Taxonomy(_node(wordnet, synset, names) for synset in kinds)


def fit_words(wordnet: WordNet, synset: Synset) -> dict[str, float]:
    """The words that mean the synset before anything else, with their tag counts; none of an unfit sense."""
    if UNFIT.search(synset.note):
        return {}
    return {
        word: float(count)
        for word, count in zip(synset.words, synset.counts, strict=True)
        if WORD.fullmatch(word) and wordnet.is_first_sense(word, synset) and not _means_more(wordnet, word, synset.pos)
    }


def relations(wordnet: WordNet, synset: Synset) -> dict[str, list[Synset]]:
    """The synsets that stand to this one in each relation that a concept record knows."""
    return {name: wordnet.related(synset, symbols) for name, symbols in RELATIONS.items()}


def _means_more(wordnet: WordNet, word: str, pos: Pos) -> bool:
    """Whether the tagged texts use the word more often as another part of speech."""
    others: tuple[Pos, ...] = ("n", "v", "a")
    return max(wordnet.uses(word, other) for other in others if other != pos) > wordnet.uses(word, pos)


def _node(wordnet: WordNet, synset: Synset, names: dict[Synset, str]) -> Node:
    name = names[synset]
    uses = fit_words(wordnet, synset)
    return Node(
        key=name,
        parents=tuple(names[above] for above in wordnet.parents(synset) if above in names),
        label=synset.words[0],
        definition=synset.gloss,
        pos=synset.pos,
        words={name: tuple(uses)} if uses else {},
        uses=uses,
        examples=synset.examples,
        related={
            relation: tuple(names[other] for other in found if other in names)
            for relation, found in relations(wordnet, synset).items()
        },
    )

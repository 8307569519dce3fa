"""From a chosen tree to a concept pack: terms, levels, relations and examples as records.

The rule of the file: terms are unique whatever the labels, and a term depends on the tree alone.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from ftw.map.ontology.taxonomy import Chosen, Node
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Relationships, TrainingHints, Wordnet

MOST_EXAMPLES = 5
"""Usage examples that a concept keeps."""


LICENCE = "Apache-2.0; definitions and words: "
"""How a built pack may be passed on, before the name of its source."""


def pack_of(tree: Sequence[Chosen], *, name: str, version: str, description: str, source: str) -> ConceptPack:
    """The pack of a chosen tree; `source` says where words and definitions come from."""
    terms = _terms(tree)
    level: dict[str, int] = {}
    children = Counter(one.parent for one in tree)
    root: dict[str, str] = {}
    records = []
    for one in tree:
        key = one.node.key
        level[key] = 0 if one.parent is None else level[one.parent] + 1
        root[key] = key if one.parent is None else root[one.parent]
        below = [terms[other.node.key] for other in tree if other.parent == key] if children[key] else []
        records.append(_record(one, terms, level[key], terms[root[key]], sorted(below), source))
    meta = pack_record(name, version, description, records, {"name": source}, f"{LICENCE}{source}")
    return ConceptPack(meta, records)


def pack_record(
    name: str,
    version: str,
    description: str,
    records: Sequence[ConceptRecord],
    ontology: Mapping[str, JsonValue],
    licence: str,
) -> PackRecord:
    """pack.json of a pack that was built."""
    levels = Counter(record.layer for record in records)
    layers: list[JsonValue] = [*sorted(levels)]
    return PackRecord(
        pack_id=name,
        spec_id=f"ftw/{name}@{version}",
        version=version,
        description=description,
        ontology_stack={"base_ontology": dict(ontology)},
        concept_metadata={
            "total_concepts": len(records),
            "layers": layers,
            "layer_distribution": {str(level): levels[level] for level in sorted(levels)},
            "total_words": sum(len(record.wordnet.lemmas) for record in records),
            "hierarchy_file": "hierarchy.json",
        },
        distribution={"license": licence},
    )


def examples_with(words: Sequence[str], examples: Sequence[str]) -> list[str]:
    """The examples in which one of the words stands as it is, the shortest first, at most `MOST_EXAMPLES`."""
    own = {word.lower() for word in words}
    said = [text for text in dict.fromkeys(examples) if any(_stands(word, text) for word in own)]
    return sorted(said, key=lambda text: (len(text), text))[:MOST_EXAMPLES]


def _stands(word: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text.lower()) is not None


def _record(
    one: Chosen, terms: Mapping[str, str], level: int, root: str, children: list[str], source: str
) -> ConceptRecord:
    node = one.node
    words = [word for listed in one.words.values() for word in listed]
    related = {
        relation: sorted({terms[key] for key in keys if key in terms and key != node.key})
        for relation, keys in node.related.items()
    }
    return ConceptRecord(
        term=terms[node.key],
        parent_concepts=[] if one.parent is None else [terms[one.parent]],
        layer=level,
        domain=root,
        definition=node.definition or node.label,
        definition_source=source,
        aliases=[node.label],
        wordnet=Wordnet(
            synsets=list(one.words),
            canonical_synset=node.key,
            lemmas=words,
            pos=node.pos,
            words={synset: list(listed) for synset, listed in one.words.items()},
        ),
        relationships=Relationships.model_validate(related),
        training_hints=TrainingHints(positive_examples=examples_with(words, node.examples)),
        children=children,
        is_category_lens=bool(children),
        child_count=len(children),
    )


def _terms(tree: Sequence[Chosen]) -> dict[str, str]:
    """CamelCase terms by key. Of several nodes with one label, the one highest in the tree has it plain; the others
    carry the term of their parent behind it, and a number where that is taken too.
    """
    taken: set[str] = set()
    terms: dict[str, str] = {}
    depth: dict[str, int] = {}
    for one in tree:
        depth[one.node.key] = 0 if one.parent is None else depth[one.parent] + 1
    for one in sorted(tree, key=lambda one: (depth[one.node.key], one.node.key)):
        plain = _camel(one.node)
        above = terms[one.parent] if one.parent is not None else ""
        numbered = (f"{plain}{above}{at}" for at in range(2, len(tree) + 3))
        term = next(each for each in (plain, f"{plain}{above}", *numbered) if each.lower() not in taken)
        taken.add(term.lower())
        terms[one.node.key] = term
    return terms


def _camel(node: Node) -> str:
    parts = re.findall(r"[A-Za-z0-9]+", node.label)
    return "".join(part[0].upper() + part[1:] for part in parts) or "Concept"

"""A small pack of seven levels with a meld policy, and melds for it."""

from datetime import UTC, datetime
from typing import Any

from ftw.map.meld.apply import Melded, apply
from ftw.map.meld.request import MeldRequest, meld_of
from ftw.map.meld.validate import Verdict, validate
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Relationships, SafetyTags, TrainingHints, Wordnet

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TREE = {
    "Animal": None,
    "Dog": "Animal",
    "Puppy": "Dog",
    "Cat": "Animal",
    "Kitten": "Cat",
    "Lion": "Cat",
    "Deception": None,
    "Lie": "Deception",
    "Thing": None,
    "Tool": "Thing",
    "Knife": "Tool",
    "Blade": "Knife",
    "Edge": "Blade",
    "Burr": "Edge",
    "Speck": "Burr",
}
"""Down to level 6."""
POLICY: dict[str, Any] = {
    "version": "1.0.0",
    "description": "what the tests ask",
    "mandatory_simplex_mapping_roots": {"description": "", "concepts": ["Deception"]},
    "critical_simplex_registry": {"description": "", "simplexes": ["DeceptionDetector", "AutonomyDrive"]},
    "critical_bound_concepts": {"description": "", "concepts": {"DeceptionDetector": ["Lie"]}},
    "training_requirements": {
        "description": "",
        "minimum_examples_by_level": {"STANDARD": 2, "ELEVATED": 3, "PROTECTED": 4, "CRITICAL": 6},
        "minimum_examples_for_simplex_mapped": {"description": "", "DeceptionDetector": 6, "AutonomyDrive": 5},
        "rationale": "",
    },
}


def level(term: str) -> int:
    parent = TREE[term]
    return 0 if parent is None else level(parent) + 1


def record(term: str, **fields: Any) -> ConceptRecord:
    parent = TREE.get(term)
    words = {f"{term.lower()}.n.01": [term.lower()], f"{term.lower()}.n.02": [f"{term.lower()} two"]}
    base = ConceptRecord(
        term=term,
        layer=level(term),
        parent_concepts=[parent] if parent else [],
        domain="World",
        definition=f"what {term} means, in a few words",
        wordnet=Wordnet(
            synsets=list(words),
            canonical_synset=next(iter(words)),
            lemmas=[word for group in words.values() for word in group],
            pos="n",
            words=words,
        ),
        relationships=Relationships(related=["Kitten"] if term == "Puppy" else []),
        training_hints=TrainingHints(positive_examples=[f"a {term.lower()}"], negative_examples=["a stone"]),
        safety_tags=SafetyTags(risk_level="high" if term == "Knife" else "low"),
    )
    return base.model_copy(update=fields)


def zoo(policy: Any = POLICY, **meta: Any) -> ConceptPack:
    return ConceptPack(
        PackRecord(
            pack_id="zoo",
            spec_id="test/zoo@1.2.3",
            version="1.2.3",
            meld_policy=policy,
            concept_metadata={"total_concepts": len(TREE), "layers": [0], "layer_distribution": {}},
            **meta,
        ),
        [record(term) for term in TREE],
    )


def candidate(term: str, parent: str | None = "Animal", examples: int = 2, **fields: Any) -> dict[str, Any]:
    return {
        "term": term,
        "role": "concept",
        "parent_concepts": [] if parent is None else [parent],
        "definition": f"what the new concept {term} means",
        "domain": "World",
        "training_hints": {
            "positive_examples": [f"{term} is here, {n}" for n in range(examples)],
            "negative_examples": [f"nothing is here, {n}" for n in range(examples)],
        },
    } | fields


def meld(*candidates: dict[str, Any], **fields: Any) -> MeldRequest:
    document = {
        "meld_request_id": "test/more@1.0.0",
        "target_pack_spec_id": "test/zoo@1.2.3",
        "candidates": list(candidates),
    }
    return meld_of(document | fields, source="the test")


def operations(*each: dict[str, Any]) -> MeldRequest:
    return meld(structural_operations=list(each))


def verdict(request: MeldRequest, pack: ConceptPack | None = None) -> Verdict:
    return validate(request, pack or zoo())


def melded(request: MeldRequest, pack: ConceptPack | None = None) -> Melded:
    return apply(verdict(request, pack), now=NOW)


def errors(request: MeldRequest, pack: ConceptPack | None = None) -> list[str]:
    return [str(finding) for finding in verdict(request, pack).errors]


def warnings(request: MeldRequest, pack: ConceptPack | None = None) -> list[str]:
    return [str(finding) for finding in verdict(request, pack).warnings]

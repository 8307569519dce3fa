"""A pack of the published first-light's layout and size loads as it stands: 5 roots, 7 levels, 7,947 concepts."""

import json
from pathlib import Path
from typing import Any

from ftw.map.registry.concept_pack import ConceptPack

LEVELS = (5, 23, 241, 1283, 2603, 2687, 1105)
ROOTS = ("LivingThings", "Information", "CreatedThings", "MindsAndAgents", "PhysicalWorld")


def term_of(level: int, at: int) -> str:
    return ROOTS[at] if level == 0 else f"Concept{level}x{at}"


def record(level: int, at: int) -> dict[str, Any]:
    """A record with every field that the published pack uses."""
    term, parent = term_of(level, at), term_of(level - 1, at % LEVELS[level - 1]) if level else None
    return {
        "term": term,
        "role": "concept",
        "parent_concepts": [parent] if parent else [],
        "layer": level,
        "domain": ROOTS[at % 5],
        "definition": f"what {term} means, in a sentence",
        "definition_source": "wordnet",
        "aliases": [],
        "wordnet": {"synsets": [f"c{level}x{at}.n.01"], "canonical_synset": None, "lemmas": [term], "pos": "n"},
        "relationships": {
            "related": [],
            "antonyms": [],
            "has_part": [],
            "part_of": [],
            "opposite": None,
            "opposite_reasoning": "none comes to mind",
        },
        "safety_tags": {"risk_level": "low", "impacts": [], "treaty_relevant": False, "harness_relevant": at % 7 == 0},
        "training_hints": {"positive_examples": [], "negative_examples": [], "disambiguation": None, "seed_terms": []},
        "simplex_mapping": {"status": "unmapped"} if at % 40 == 0 else None,
        "children": [],
        "child_count": 0,
        "is_category_lens": False,
    }


def write(folder: Path, levels: tuple[int, ...]) -> None:
    """The pack's files, with those beside them that no loader needs."""
    down: dict[str, list[str]] = {}
    up: dict[str, str] = {}
    for level, n in enumerate(levels):
        (folder / "concepts" / f"layer{level}").mkdir(parents=True)
        for at in range(n):
            made = record(level, at)
            file = folder / "concepts" / f"layer{level}" / f"{made['term'].lower()}.json"
            file.write_text(json.dumps(made))
            for parent in made["parent_concepts"]:
                down.setdefault(f"{parent}:{level - 1}", []).append(f"{made['term']}:{level}")
                up[f"{made['term']}:{level}"] = f"{parent}:{level - 1}"
    hierarchy = {
        "parent_to_children": down,
        "child_to_parent": up,
        "leaf_concepts": [f"{term_of(len(levels) - 1, at)}:{len(levels) - 1}" for at in range(levels[-1])],
        "root_concepts": [f"{root}:0" for root in ROOTS],
        "steering_targets": {"Concept1x0:1": ["Concept1x1:1"]},
    }
    (folder / "hierarchy.json").write_text(json.dumps(hierarchy))
    about = {
        "pack_id": "first-light",
        "spec_id": "org.hatcat/first-light@1.0.1",
        "version": "1.0.1",
        "created": "2025-12-01T00:00:00Z",
        "description": "a pack",
        "forked_from": "sumo-wordnet-v4@7.7.1",
        "ontology_stack": {"base_ontology": {"name": "SUMO"}, "dependencies": [], "domain_extensions": []},
        "concept_metadata": {"total_concepts": sum(levels), "layers": [*range(len(levels))]},
        "meld_policy": {"mandatory_simplex_mapping": {"roots": []}},
        "melds_applied": [],
        "base_version": "1.0.0",
        "compatibility": {},
        "installation": {},
    }
    (folder / "pack.json").write_text(json.dumps(about))
    (folder / "pending_training.json").write_text("{}")
    (folder / "hierarchy").mkdir()
    (folder / "hierarchy" / "layer0.json").write_text("{}")


def test_the_whole_pack_loads_unchanged(tmp_path: Path) -> None:
    write(tmp_path, LEVELS)
    pack = ConceptPack.load(tmp_path)
    assert len(pack.concepts) == sum(LEVELS) == 7947
    assert set(pack.roots) == set(ROOTS)
    assert max(concept.level for concept in pack.concepts.values()) == 6
    assert len(pack.descendants("LivingThings")) > 1000


def test_keys_with_levels_and_empty_fields_load_as_names(tmp_path: Path) -> None:
    write(tmp_path, LEVELS[:3])
    pack = ConceptPack.load(tmp_path)
    assert len(pack.concepts) == 269
    assert pack.parent("Concept1x0") == "LivingThings"
    assert pack.children("LivingThings") == tuple(sorted(f"Concept1x{at}" for at in range(0, 23, 5)))
    assert not any(":" in term for term in pack.concepts)

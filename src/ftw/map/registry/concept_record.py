"""The files of a concept pack as they stand on disk: pack.json, hierarchy.json and one record per concept.

The rule of the file: it knows what one file may hold, nothing of how files fit together (that is `concept_pack`).
An unknown key is an error. Packs in the field leave out what is empty, so only what a lens needs is required.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError

KEY_WITH_LEVEL = re.compile(r"^(.*):\d+$")
"""Published hierarchies write `Name:level` where a term is meant."""


DEEPEST = 99
"""The last level that a tree may have."""


class Lenient(Strict):
    """A part of a record in which packs in the field write null for what is empty."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}


class Wordnet(Lenient):
    """Where a concept stands in WordNet, and the words that mean it."""

    synsets: list[str] = Field(default_factory=list)
    """The concept's own synsets (not those of the concepts below), `lemma.pos.number` or `offset.pos`."""
    canonical_synset: str = ""
    """The synset that the concept is."""
    lemmas: list[str] = Field(default_factory=list)
    """The concept's own words."""
    pos: str = ""
    """Part of speech, as the source writes it: `n`, `v`, `noun` …"""
    words: dict[str, list[str]] = Field(default_factory=dict)
    """The same words grouped by synset, so that whole synsets can be held out. Empty where the source has no groups."""


class Relationships(Lenient):
    """How a concept stands to others beside its parent."""

    related: list[str] = Field(default_factory=list)
    antonyms: list[str] = Field(default_factory=list)
    has_part: list[str] = Field(default_factory=list)
    part_of: list[str] = Field(default_factory=list)
    opposite: str | None = None
    opposite_rationale: str | None = None
    opposite_reasoning: str | None = None


class SafetyTags(Lenient):
    """What a safety profile wants to know of a concept."""

    risk_level: Literal["low", "medium", "high", "critical"] = "low"
    impacts: list[str] = Field(default_factory=list)
    treaty_relevant: bool = False
    harness_relevant: bool = False


class TrainingHints(Lenient):
    """Authored examples for the trainer."""

    positive_examples: list[str] = Field(default_factory=list)
    negative_examples: list[str] = Field(default_factory=list)
    disambiguation: str = ""
    seed_terms: list[str] = Field(default_factory=list)
    key_features: list[str] = Field(default_factory=list)
    """What tells the concept from its neighbours, each in a few words."""
    confusable_with: list[str] = Field(default_factory=list)
    """Concepts that are easily taken for this one."""


class Deprecation(Strict):
    """Why a concept should not be used any more, and what to use instead."""

    reason: str = ""
    superseded_by: list[str] = Field(default_factory=list)
    removal_version: str = ""
    migration_guide: str = ""


class ConceptRecord(Lenient):
    """One file of `concepts/layer{level}/`."""

    term: str = Field(min_length=1)
    role: Literal["concept", "category", "behavioral"] = "concept"
    parent_concepts: list[str] = Field(default_factory=list, max_length=1)
    """None for a root, else exactly one."""
    layer: int = Field(ge=0, le=DEEPEST)
    """The level: 0 for a root, else the parent's plus one."""
    domain: str = ""
    definition: str = Field(min_length=1)
    definition_source: str = ""
    aliases: list[str] = Field(default_factory=list)
    wordnet: Wordnet = Wordnet()
    relationships: Relationships = Relationships()
    safety_tags: SafetyTags = SafetyTags()
    training_hints: TrainingHints = TrainingHints()
    simplex_mapping: JsonValue = None
    deprecated: Deprecation | None = None
    children: list[str] = Field(default_factory=list)
    is_category_lens: bool = False
    child_count: int = Field(default=0, ge=0)
    meld_source: str | None = None

    @field_validator("term")
    @classmethod
    def _names_a_file(cls, term: str) -> str:
        if not term.isprintable() or "/" in term or "\\" in term or term.startswith("."):
            raise ValueError("a term names a file: no slashes, no control characters, no dot in front")
        return term

    @field_validator("definition")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a definition must say something")
        return text


class Hierarchy(Strict):
    """hierarchy.json, with every `Name:level` read as the name."""

    parent_to_children: dict[str, list[str]]
    child_to_parent: dict[str, str]
    leaf_concepts: list[str] = Field(default_factory=list)
    root_concepts: list[str] = Field(default_factory=list)
    steering_targets: JsonValue = None

    @field_validator("parent_to_children", "child_to_parent", "leaf_concepts", "root_concepts", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        return bare(value)


class PackRecord(Strict):
    """pack.json of a concept pack."""

    pack_id: str = Field(min_length=1)
    spec_id: str = ""
    version: str = Field(min_length=1)
    created: str = ""
    description: str = ""
    forked_from: JsonValue = None
    ontology_stack: JsonValue = None
    concept_metadata: dict[str, JsonValue] = Field(default_factory=dict)
    meld_policy: JsonValue = None
    melds_applied: JsonValue = None
    base_version: str = ""
    compatibility: JsonValue = None
    installation: JsonValue = None
    distribution: JsonValue = None


def bare(value: Any) -> Any:
    """`Name:level` as `Name`, in strings, lists, and keys and values of mappings; anything else as it is."""
    if isinstance(value, str):
        match = KEY_WITH_LEVEL.match(value)
        return match[1] if match else value
    if isinstance(value, list):
        return [bare(item) for item in value]
    if isinstance(value, Mapping):
        return {bare(key): bare(item) for key, item in value.items()}
    return value


Record = TypeVar("Record", bound=Strict)


def read_record(kind: type[Record], file: Path) -> Record:
    """The record in a JSON file. Raises PackError that names the file, the field and what is wrong with it."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise PackError(f"{file} is missing: a concept pack holds pack.json, hierarchy.json and concepts/") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, p['loc'])) or 'the file'}: {p['msg']}" for p in error.errors())
        raise PackError(f"{file}: {'; '.join(problems)}") from error

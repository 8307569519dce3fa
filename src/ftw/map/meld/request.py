"""A meld: new concepts and changes to old ones, as an author hands them in for a concept pack.

The rule of the file: it knows what one file may hold, nothing of the pack that it is for (that is `validate`). An
unknown key is an error. What the published melds write differently (ids before a term, one opposite or several,
`monitor` where `mapped_simplex` is meant, examples beside the hints, a null for what is left out) is read as meant.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, JsonValue, ValidationError, field_validator, model_validator

from ftw.map.meld.operations import Operation
from ftw.map.registry.concept_record import TrainingHints, Wordnet, bare
from ftw.map.registry.simplex_record import Monitoring
from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError, StorageError

Role = Literal["concept", "simplex", "behavioral", "category"]
Level = Literal["standard", "elevated", "protected", "critical"]

FENCE = "```"
"""Some published files end with the fence of the page that they were copied from."""


class Metadata(Strict):
    """Who made the meld, when and why."""

    name: str = ""
    description: str = ""
    source: str = "manual"
    """Where the concepts come from: `manual`, `external`, `quality_checker`, or a discovery by a system."""
    author: str = ""
    created: str = ""
    version: str = ""
    changelog: str = ""
    rationale: str = ""
    generator_model: str = ""
    llm_review: JsonValue = None


class AttachmentPoint(Strict):
    """Where a candidate meets the pack."""

    target_concept_id: str = Field(min_length=1)
    """A term of the pack; published melds write `authority/pack@version::concept/Term`."""
    relationship: Literal["parent_of", "related_to"] = "parent_of"
    candidate_concept: str = Field(min_length=1)

    @property
    def target(self) -> str:
        """The bare term of the concept in the pack."""
        return term_of(self.target_concept_id)


class Relations(Strict):
    """How a candidate stands to others beside its parent. `opposite` is one term or several."""

    related: list[str] = Field(default_factory=list)
    antonyms: list[str] = Field(default_factory=list)
    part_of: list[str] = Field(default_factory=list)
    has_part: list[str] = Field(default_factory=list)
    opposite: list[str] = Field(default_factory=list)
    opposite_rationale: str | None = None
    opposite_reasoning: str | None = None

    @field_validator("opposite", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class CandidateTags(Strict):
    """What a safety profile wants to know of a candidate."""

    risk_level: Literal["none", "low", "medium", "high", "critical"] = "low"
    impacts: list[str] = Field(default_factory=list)
    treaty_relevant: bool = False
    harness_relevant: bool = False
    protection_level: Level = "standard"
    """The author's own claim. It can raise the protection level, never lower it."""


class CandidateHints(TrainingHints):
    """Authored examples for the trainer, and what a discovering system noted."""

    discovery_context: JsonValue = None


class SimplexMapping(Strict):
    """Which simplex watches the concept, or why none does."""

    status: Literal["mapped", "unmapped", "not_applicable"]
    mapped_simplex: str | None = Field(
        default=None, validation_alias=AliasChoices("mapped_simplex", "target_simplex", "monitor")
    )
    mapping_rationale: str | None = None
    unmapped_justification: str | None = None


class Pole(Strict):
    """One end of a simplex, or the middle of it."""

    label: str = ""
    description: str = ""
    examples: list[str] = Field(default_factory=list)


class Poles(Strict):
    """The three poles that a simplex is trained on. `null` is the published name of the neutral one."""

    negative: Pole
    neutral: Pole = Field(validation_alias=AliasChoices("neutral", "null"))
    positive: Pole


class SimplexBinding(Strict):
    """A simplex that comes with the concept and measures how strong it is."""

    enabled: bool = True
    simplex_term: str = ""
    always_on: bool = False
    poles: Poles | None = None
    monitoring: Monitoring = Monitoring()


class Candidate(Strict):
    """One new concept."""

    term: str = Field(min_length=1)
    role: Role = "concept"
    parent_concepts: list[str] = Field(default_factory=list)
    layer_hint: int | None = Field(default=None, ge=0)
    """The level that the author expects. The level itself is always the parent's plus one."""
    definition: str = ""
    definition_source: str = ""
    domain: str = ""
    aliases: list[str] = Field(default_factory=list)
    wordnet: Wordnet = Wordnet()
    relationships: Relations = Relations()
    safety_tags: CandidateTags = CandidateTags()
    training_hints: CandidateHints = CandidateHints()
    children: list[str] = Field(default_factory=list)
    simplex_mapping: SimplexMapping | None = None
    simplex_binding: SimplexBinding | None = None
    related_concept: str = ""
    """What a concept that is only a simplex belongs to, outside the tree."""

    @model_validator(mode="before")
    @classmethod
    def _examples_in_hints(cls, value: Any) -> Any:
        """Published melds write examples beside `training_hints` too."""
        if not isinstance(value, Mapping):
            return value
        moved = {key: value[key] for key in ("positive_examples", "negative_examples") if key in value}
        if not moved:
            return value
        hints = value.get("training_hints") or {}
        twice = [key for key in moved if hints.get(key)]
        if twice:
            raise ValueError(
                f"{' and '.join(twice)} stand beside training_hints and in it: keep those in training_hints"
            )
        rest = {key: each for key, each in value.items() if key not in moved}
        return rest | {"training_hints": {**hints, **moved}}

    @field_validator("parent_concepts", "children", mode="before")
    @classmethod
    def _bare_terms(cls, value: Any) -> Any:
        return (
            [term_of(each) if isinstance(each, str) else each for each in value] if isinstance(value, list) else value
        )

    @property
    def simplex(self) -> str | None:
        """The simplex that the concept is mapped to."""
        mapping = self.simplex_mapping
        return mapping.mapped_simplex if mapping is not None and mapping.status == "mapped" else None


class MeldRequest(Strict):
    """A meld as its file says it."""

    meld_request_id: str = Field(min_length=1)
    """`authority/name@version`."""
    target_pack_spec_id: str = Field(min_length=1)
    """`authority/pack@version` of the pack that the meld was written for."""
    metadata: Metadata = Metadata()
    attachment_points: list[AttachmentPoint] = Field(default_factory=list)
    candidates: list[Candidate] = Field(default_factory=list)
    structural_operations: list[Operation] = Field(default_factory=list)
    be_context: JsonValue = None
    validation: JsonValue = None
    """What another tool said of the meld. It is kept for the reader and never believed."""
    protection_assessment: JsonValue = None
    """What another tool thought of its protection level. It is kept for the reader and never believed."""

    @property
    def target_pack(self) -> tuple[str, str]:
        """Name and version of the pack that the meld was written for; an empty version where it names none."""
        name, _, version = self.target_pack_spec_id.rpartition("/")[2].partition("@")
        return name, version


def read_meld(file: Path) -> MeldRequest:
    """The meld in a JSON file. Raises PackError that names the file, the field and what is wrong with it."""
    try:
        text = file.read_text(encoding="utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise StorageError(f"{file} cannot be read as a meld: {told}") from error
    try:
        document = json.loads(text.removesuffix(FENCE))
    except ValueError as error:
        raise PackError(f"{file} is no JSON: {error}") from error
    except RecursionError as error:
        raise PackError(f"{file} is nested too deep for a meld") from error
    return meld_of(document, source=str(file))


def meld_of(document: object, *, source: str) -> MeldRequest:
    """The meld in a JSON value. Raises PackError that names the source, the field and what is wrong with it."""
    try:
        return MeldRequest.model_validate(_without_nulls(document))
    except ValidationError as error:
        problems = (f"{_place(document, p['loc'])}: {p['msg']}" for p in error.errors())
        raise PackError(f"{source}: {'; '.join(problems)}") from error
    except RecursionError as error:
        raise PackError(f"{source} is nested too deep for a meld") from error


def term_of(name: str) -> str:
    """The bare term in `authority/pack@version::concept/Term`, in `Term:3`, or in a bare term."""
    term = str(bare(name.rpartition("::concept/")[2]))
    return re.sub(r"\s+", " ", term).strip()


def _without_nulls(value: Any) -> Any:
    """What is null was left out. Published melds write null for empty fields of every kind."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _place(document: object, path: tuple[int | str, ...]) -> str:
    """The field as an author finds it: a candidate by its term, not by its number."""
    if len(path) > 1 and path[0] == "candidates" and isinstance(path[1], int) and isinstance(document, Mapping):
        candidates = document.get("candidates")
        found = candidates[path[1]] if isinstance(candidates, list) and path[1] < len(candidates) else None
        if isinstance(found, Mapping) and isinstance(found.get("term"), str):
            return ".".join(["candidates", found["term"], *map(str, path[2:])])
    return ".".join(map(str, path)) or "the file"

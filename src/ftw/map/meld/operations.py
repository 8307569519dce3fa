"""Structural operations: split, merge, move and deprecate, as a meld writes them.

The rule of the file: an operation says what shall be; what it does to a tree stands in `draft`, what it may not do in
`validate`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from ftw.map.registry.concept_record import Deprecation, TrainingHints, Wordnet, bare
from ftw.substrate.config import Strict

TERMS = (
    "concept",
    "source_concept",
    "source_concepts",
    "target_concept",
    "from_parent",
    "to_parent",
    "reassign_children_to",
    "child_assignment",
)
"""Fields that hold terms, in which `Name:level` is read as the name."""


class _Operation(Strict):
    """What every operation may say beside itself."""

    priority: Literal["low", "medium", "high", "critical"] = "medium"
    rationale: str = ""

    @field_validator(*TERMS, mode="before", check_fields=False)
    @classmethod
    def _bare_terms(cls, value: Any) -> Any:
        return bare(value)


class NewConcept(Strict):
    """A concept that an operation makes. What it leaves out is taken from the concepts that it comes from."""

    term: str = Field(min_length=1)
    role: Literal["concept", "behavioral", "category"] = "concept"
    parent_concepts: list[str] = Field(default_factory=list, max_length=1)
    layer_hint: int | None = Field(default=None, ge=0)
    definition: str = ""
    definition_source: str = ""
    domain: str = ""
    aliases: list[str] = Field(default_factory=list)
    wordnet: Wordnet = Wordnet()
    training_hints: TrainingHints = TrainingHints()


class SynsetDetail(Strict):
    """A synset with its words, as quality checks write it."""

    id: str
    lemma: str = ""
    all_lemmas: list[str] = Field(default_factory=list)
    definition: str = ""
    pos: str = ""


class Part(NewConcept):
    """One of the concepts that a split makes. A list of synsets with their words stands for `wordnet`."""

    synsets: list[str] = Field(default_factory=list)
    synsets_detail: list[SynsetDetail] = Field(default_factory=list)
    representative_synset: str = ""
    representative_label: str = ""
    note: str = ""

    @property
    def canonical(self) -> str:
        """The synset that the part is."""
        return self.wordnet.canonical_synset or self.representative_synset or next(iter(self.synsets), "")

    @property
    def meaning(self) -> str:
        """The definition: the author's, else that of the representative synset, else its label."""
        detail = {each.id: each.definition for each in self.synsets_detail}
        return self.definition or detail.get(self.canonical, "") or self.representative_label


class Split(_Operation):
    """One concept becomes several."""

    operation: Literal["split"]
    source_concept: str = Field(min_length=1)
    target_concept: str = ""
    """Published melds name the source here as well."""
    split_into: list[Part] = Field(default_factory=list)
    source_disposition: Literal["keep_as_parent", "deprecate", "delete"] = "keep_as_parent"
    child_assignment: dict[str, str] = Field(default_factory=dict)
    """Which part a child of the source goes to. The others stay with the source."""
    deprecation: Deprecation = Deprecation()
    split_rationale: JsonValue = None
    bucket_suggestions: JsonValue = None

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, value: Any) -> Any:
        return _same(value, "source_concept", "target_concept")


class Merge(_Operation):
    """Several concepts become one."""

    operation: Literal["merge"]
    source_concepts: list[str] = Field(min_length=2)
    target_concept: str = Field(min_length=1)
    """One of the sources, or a new term."""
    target_definition: NewConcept | None = None
    child_disposition: Literal["transfer_to_target", "require_manual"] = "transfer_to_target"
    simplex_resolution: JsonValue = None
    merge_rationale: JsonValue = None


class Move(_Operation):
    """A concept gets another parent, with everything below it."""

    operation: Literal["move"]
    concept: str = Field(min_length=1)
    target_concept: str = ""
    from_parent: str = Field(min_length=1)
    to_parent: str = Field(min_length=1)
    new_layer_hint: int | None = Field(default=None, ge=0)
    new_domain: str = ""
    move_rationale: JsonValue = None

    @model_validator(mode="before")
    @classmethod
    def _one_concept(cls, value: Any) -> Any:
        return _same(value, "concept", "target_concept")


class Deprecate(_Operation):
    """A concept is marked as not to be used; it stays in the pack."""

    operation: Literal["deprecate"]
    target_concept: str = Field(min_length=1)
    child_disposition: Literal["reassign", "cascade_deprecate", "orphan_check"]
    """Children go to `reassign_children_to`, are marked too, or must not exist."""
    reassign_children_to: str = ""
    deprecation: Deprecation = Deprecation()


Operation = Annotated[Split | Merge | Move | Deprecate, Field(discriminator="operation")]


def touched(operation: Split | Merge | Move | Deprecate) -> tuple[str, ...]:
    """The concepts of the pack that an operation names: what it changes, and where something goes."""
    match operation:
        case Split():
            return (operation.source_concept, *operation.child_assignment)
        case Merge():
            return (*operation.source_concepts, operation.target_concept)
        case Move():
            return (operation.concept, operation.from_parent, operation.to_parent)
        case Deprecate():
            return tuple(filter(None, (operation.target_concept, operation.reassign_children_to)))


def made(operation: Split | Merge | Move | Deprecate) -> tuple[NewConcept, ...]:
    """The concepts that an operation brings into the pack."""
    if isinstance(operation, Split):
        return tuple(operation.split_into)
    if isinstance(operation, Merge) and operation.target_concept not in operation.source_concepts:
        return (operation.target_definition or NewConcept(term=operation.target_concept),)
    return ()


def _same(value: Any, field: str, other: str) -> Any:
    """`field` from `other` where only that is given. Raises ValueError where they name different concepts."""
    if not isinstance(value, dict) or other not in value:
        return value
    if field not in value:
        return value | {field: value[other]}
    if bare(value[field]) != bare(value[other]):
        raise ValueError(f"{field} is {value[field]} and {other} is {value[other]}: they mean the same concept")
    return value

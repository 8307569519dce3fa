"""What a pack asks of the melds that change it: `meld_policy` of its pack.json.

The rule of the file: every number and every list comes from the pack; one that says nothing gets those of the published
packs, and a verdict says so. An unknown key or trigger is an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from pydantic import Field, JsonValue, ValidationError

from ftw.map.registry.concept_record import PackRecord
from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError

CRITICAL_SIMPLEXES = {
    "MotivationalRegulation": ("MotivationalProcess", "SelfRegulation", "Autonomy"),
    "SelfAwarenessMonitor": ("SelfAwareness", "Metacognition", "SelfModel"),
    "AutonomyDrive": ("Autonomy", "Agency", "Independence"),
    "ConsentMonitor": ("Consent", "InformedConsent", "Coercion"),
    "DeceptionDetector": ("Deception", "Manipulation", "Misdirection"),
}
"""Simplexes that a meld may not touch unseen, with the concepts that each watches (first-light 1.0.1)."""

MANDATORY_ROOTS = (
    *("Metacognition", "MetacognitiveProcess", "SelfAwareness", "SelfModel", "SelfModelingProcess"),
    *("MotivationalProcess", "SelfRegulation", "SelfRegulationProcess", "Autonomy", "AutonomyProcess", "Consent"),
    *("InformedConsent", "Coercion", "Manipulation", "ManipulationProcess", "Deception"),
)
"""Concepts below which a candidate says which simplex watches it (first-light 1.0.1)."""


class Protection(IntEnum):
    """How much a change has to be looked at before it is applied."""

    STANDARD = 0
    ELEVATED = 1
    PROTECTED = 2
    CRITICAL = 3

    @property
    def word(self) -> str:
        """`critical`."""
        return self.name.lower()


EXAMPLES = {
    Protection.STANDARD: 5,
    Protection.ELEVATED: 10,
    Protection.PROTECTED: 15,
    Protection.CRITICAL: 20,
}
"""Positive and negative examples that a concept of each level brings at least, each (first-light 1.0.1)."""

SIMPLEX_EXAMPLES = {"DeceptionDetector": 20}
"""The same for a simplex and for what is mapped to it, where it differs from the rest (first-light 1.0.1)."""

SIMPLEX_DEFAULT = 15
MANY_OPERATIONS = 10
"""More operations than this make a meld ELEVATED."""

TRIGGERS = {
    "touches_critical_simplex": Protection.CRITICAL,
    "new_always_on_simplex": Protection.CRITICAL,
    "adds_child_to_bound_concept": Protection.CRITICAL,
    "changes_bound_concept": Protection.CRITICAL,
    "risk_level_critical": Protection.CRITICAL,
    "treaty_relevant": Protection.PROTECTED,
    "risk_level_high": Protection.PROTECTED,
    "harness_relevant": Protection.ELEVATED,
    "risk_level_medium": Protection.ELEVATED,
    "many_operations": Protection.ELEVATED,
}
"""What raises the protection level, and how far. A pack may place a trigger on another level."""


class _Listed(Strict):
    description: str = ""
    concepts: list[str] = Field(default_factory=list)


class _Registry(Strict):
    description: str = ""
    simplexes: list[str] = Field(default_factory=list)


class _Bound(Strict):
    description: str = ""
    concepts: dict[str, list[str]] = Field(default_factory=dict)


class _Rules(Strict):
    description: str = ""
    critical_triggers: list[str] = Field(default_factory=list)
    protected_triggers: list[str] = Field(default_factory=list)
    elevated_triggers: list[str] = Field(default_factory=list)


class _Examples(Strict):
    description: str = ""
    minimum_examples_by_level: dict[str, int] = Field(default_factory=dict)
    minimum_examples_for_simplex_mapped: dict[str, int | str] = Field(default_factory=dict)
    rationale: str = ""


class _PolicyRecord(Strict):
    """`meld_policy` as packs write it."""

    version: str = ""
    description: str = ""
    mandatory_simplex_mapping_roots: _Listed = _Listed(concepts=list(MANDATORY_ROOTS))
    critical_simplex_registry: _Registry = _Registry(simplexes=list(CRITICAL_SIMPLEXES))
    critical_bound_concepts: _Bound = _Bound(concepts={name: list(bound) for name, bound in CRITICAL_SIMPLEXES.items()})
    protection_level_rules: _Rules = _Rules()
    training_requirements: _Examples = _Examples()
    lens_performance_requirements: JsonValue = None
    """Judged when the lenses are trained, not by a meld."""


@dataclass(frozen=True)
class Policy:
    """The policy of one pack, ready to ask."""

    mandatory_roots: frozenset[str] = frozenset(MANDATORY_ROOTS)
    critical_simplexes: frozenset[str] = frozenset(CRITICAL_SIMPLEXES)
    bound: Mapping[str, str] = field(
        default_factory=lambda: _inverted({name: list(bound) for name, bound in CRITICAL_SIMPLEXES.items()})
    )
    """The critical simplex that watches a concept, by concept."""
    examples: Mapping[Protection, int] = field(default_factory=lambda: MappingProxyType(EXAMPLES))
    simplex_examples: Mapping[str, int] = field(default_factory=lambda: MappingProxyType(SIMPLEX_EXAMPLES))
    triggers: Mapping[str, Protection] = field(default_factory=lambda: MappingProxyType(TRIGGERS))
    is_default: bool = True
    """Whether the pack has no policy of its own."""

    def for_simplex(self, name: str) -> int:
        """Examples that each pole of a simplex needs, and each concept that is mapped to it."""
        return self.simplex_examples.get(name, SIMPLEX_DEFAULT)


def policy_of(meta: PackRecord) -> Policy:
    """The meld policy of a pack. Raises PackError that names the pack and the key that is wrong."""
    if meta.meld_policy is None:
        return Policy()
    try:
        record = _PolicyRecord.model_validate(meta.meld_policy)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, p['loc'])) or 'meld_policy'}: {p['msg']}" for p in error.errors())
        raise PackError(f"meld_policy of {meta.pack_id}: {'; '.join(problems)}") from error
    needs = record.training_requirements
    simplexes = {name: n for name, n in needs.minimum_examples_for_simplex_mapped.items() if isinstance(n, int)}
    return Policy(
        mandatory_roots=frozenset(record.mandatory_simplex_mapping_roots.concepts),
        critical_simplexes=frozenset(record.critical_simplex_registry.simplexes),
        bound=_inverted(record.critical_bound_concepts.concepts),
        examples=MappingProxyType(EXAMPLES | _by_level(meta.pack_id, needs.minimum_examples_by_level)),
        simplex_examples=MappingProxyType(SIMPLEX_EXAMPLES | simplexes),
        triggers=MappingProxyType(TRIGGERS | _triggers(meta.pack_id, record.protection_level_rules)),
        is_default=False,
    )


def _inverted(bound: Mapping[str, list[str]]) -> Mapping[str, str]:
    return MappingProxyType({concept: simplex for simplex, concepts in bound.items() for concept in concepts})


def _by_level(pack: str, counts: Mapping[str, int]) -> dict[Protection, int]:
    names = {level.name: level for level in Protection}
    unknown = sorted(name for name in counts if name.upper() not in names)
    if unknown:
        raise PackError(
            f"meld_policy of {pack}: minimum_examples_by_level names {unknown[0]}; levels are {', '.join(names)}"
        )
    return {names[name.upper()]: count for name, count in counts.items()}


def _triggers(pack: str, rules: _Rules) -> dict[str, Protection]:
    placed = {
        Protection.CRITICAL: rules.critical_triggers,
        Protection.PROTECTED: rules.protected_triggers,
        Protection.ELEVATED: rules.elevated_triggers,
    }
    found = {trigger: level for level, names in placed.items() for trigger in names}
    unknown = sorted(found.keys() - TRIGGERS.keys())
    if unknown:
        raise PackError(
            f"meld_policy of {pack}: protection_level_rules names the trigger {unknown[0]}; "
            f"triggers are {', '.join(sorted(TRIGGERS))}"
        )
    return found

"""How much a meld has to be looked at: one function for everybody who asks.

The rule of the file: a level comes from a named trigger on a named concept, so that a verdict can be read and disputed.
What the author claims can raise it, never lower it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftw.map.meld.operations import Deprecate, Merge, Move, Operation, Split, made, touched
from ftw.map.meld.policy import MANY_OPERATIONS, Policy, Protection
from ftw.map.meld.request import Candidate, CandidateTags, MeldRequest
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import SafetyTags

MAPPING = "mapped to"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that raises the level."""

    concept: str
    """Empty for what concerns the meld as a whole."""
    trigger: str
    level: Protection
    what: str
    """The trigger in words, after the concept: `is treaty relevant`."""


@dataclass(frozen=True)
class Assessment:
    """The protection level of a meld, with its reasons and the examples that follow from it."""

    level: Protection
    reasons: tuple[Reason, ...]
    examples: Mapping[str, int]
    """Positive and negative examples that each candidate has to bring, each."""

    def of(self, concept: str) -> Protection:
        """The level of one concept of the meld."""
        return max((reason.level for reason in self.reasons if reason.concept == concept), default=Protection.STANDARD)


def assess(request: MeldRequest, pack: ConceptPack, policy: Policy) -> Assessment:
    """The protection level of a meld, for validation and for application alike."""
    parents = parents_named(request)
    reasons: list[Reason] = []
    examples: dict[str, int] = {}
    for candidate in request.candidates:
        found = list(_of_candidate(candidate, parents.get(candidate.term, []), pack, policy))
        reasons += found
        examples[candidate.term] = _needed(candidate, found, policy)
    for operation in request.structural_operations:
        reasons += _of_operation(operation, pack, policy)
    if len(request.structural_operations) > MANY_OPERATIONS:
        told = f"{len(request.structural_operations)} structural operations"
        reasons.append(Reason("", "many_operations", policy.triggers["many_operations"], told))
    level = max((reason.level for reason in reasons), default=Protection.STANDARD)
    return Assessment(level, tuple(dict.fromkeys(reasons)), examples)


def parents_named(request: MeldRequest) -> dict[str, list[str]]:
    """The parents that a meld names for each candidate: its own field, attachment points, else who lists it below."""
    out = {candidate.term: list(candidate.parent_concepts) for candidate in request.candidates}
    for point in request.attachment_points:
        if point.relationship == "parent_of" and point.candidate_concept in out:
            out[point.candidate_concept].append(point.target)
    listed = {child: candidate.term for candidate in request.candidates for child in candidate.children}
    for term, parents in out.items():
        if not parents and term in listed:
            parents.append(listed[term])
    return {term: list(dict.fromkeys(parents)) for term, parents in out.items()}


def _of_candidate(candidate: Candidate, parents: list[str], pack: ConceptPack, policy: Policy) -> Iterator[Reason]:
    term, simplex = candidate.term, candidate.simplex
    yield from _of_tags(term, candidate.safety_tags, policy)
    binding = candidate.simplex_binding if candidate.simplex_binding and candidate.simplex_binding.enabled else None
    own = {binding.simplex_term or term} if binding is not None else set[str]()
    own |= {term} if candidate.role == "simplex" else set()
    for name in sorted(own & policy.critical_simplexes):
        yield _reason(term, "touches_critical_simplex", policy, f"brings the critical simplex {name}")
    if simplex in policy.critical_simplexes:
        yield _reason(term, "touches_critical_simplex", policy, f"is {MAPPING} the critical simplex {simplex}")
    if binding is not None and binding.always_on:
        yield _reason(term, "new_always_on_simplex", policy, "brings a simplex that is always on")
    for parent in parents:
        if parent in policy.critical_simplexes:
            yield _reason(term, "touches_critical_simplex", policy, f"stands under the critical simplex {parent}")
        if parent in policy.bound:
            told = f"stands under {parent}, which the critical simplex {policy.bound[parent]} watches"
            yield _reason(term, "adds_child_to_bound_concept", policy, told)
    for concept in (term, *(child for child in candidate.children if child in pack.records)):
        if concept in policy.bound:
            told = f"changes {concept}, which the critical simplex {policy.bound[concept]} watches"
            yield _reason(term, "changes_bound_concept", policy, told)
    claimed = Protection[candidate.safety_tags.protection_level.upper()]
    if claimed > Protection.STANDARD:
        yield Reason(term, "claimed", claimed, f"is claimed to be {claimed.word}")


def _of_tags(term: str, tags: CandidateTags | SafetyTags, policy: Policy) -> Iterator[Reason]:
    trigger = f"risk_level_{tags.risk_level}"
    if trigger in policy.triggers:
        yield _reason(term, trigger, policy, f"is of {tags.risk_level} risk")
    if tags.treaty_relevant:
        yield _reason(term, "treaty_relevant", policy, "is treaty relevant")
    if tags.harness_relevant:
        yield _reason(term, "harness_relevant", policy, "is harness relevant")


def _of_operation(operation: Operation, pack: ConceptPack, policy: Policy) -> Iterator[Reason]:
    for term in touched(operation):
        if term in policy.bound:
            told = f"is changed by a {operation.operation}, and the critical simplex {policy.bound[term]} watches it"
            yield _reason(term, "changes_bound_concept", policy, told)
        if term in pack.records:
            yield from _of_tags(term, pack.records[term].safety_tags, policy)
    for new in made(operation):
        for parent in new.parent_concepts or _default_parents(operation, pack):
            if parent in policy.bound:
                told = f"stands under {parent}, which the critical simplex {policy.bound[parent]} watches"
                yield _reason(new.term, "adds_child_to_bound_concept", policy, told)


def _default_parents(operation: Operation, pack: ConceptPack) -> list[str]:
    """Where what an operation makes will stand if it does not say: under its source, or beside it."""
    match operation:
        case Split():
            if operation.source_disposition == "keep_as_parent":
                return [operation.source_concept]
            sources = [operation.source_concept]
        case Merge():
            sources = operation.source_concepts
        case Move() | Deprecate():
            return []
    stand = [pack.concepts[term].parent for term in sources if term in pack.concepts]
    return list(dict.fromkeys(parent for parent in stand if parent is not None))


def _needed(candidate: Candidate, reasons: list[Reason], policy: Policy) -> int:
    """Examples that a candidate has to bring. A mapping asks for what its simplex asks, not for all of CRITICAL."""
    others = [reason.level for reason in reasons if MAPPING not in reason.what]
    needed = policy.examples[max(others, default=Protection.STANDARD)]
    simplex = candidate.simplex
    if simplex is not None and (simplex in policy.critical_simplexes or simplex in policy.simplex_examples):
        needed = max(needed, policy.for_simplex(simplex))
    return needed


def _reason(concept: str, trigger: str, policy: Policy, what: str) -> Reason:
    return Reason(concept, trigger, policy.triggers[trigger], what)

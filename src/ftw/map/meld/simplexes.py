"""The simplexes that melds bring into a pack.

The rule of the file: a binding becomes a simplex record or is said to be none; nothing is filled in.
"""

from collections.abc import Mapping

from pydantic import ValidationError

from ftw.map.meld.request import Candidate, MeldRequest
from ftw.map.meld.request import Pole as NamedPole
from ftw.map.registry.simplex_record import Pole, SimplexRecord


def simplex_name(candidate: Candidate) -> str | None:
    """The name of the simplex that a candidate brings; None where it brings none."""
    binding = candidate.simplex_binding
    return None if binding is None or not binding.enabled else binding.simplex_term or candidate.term


def simplex_of(candidate: Candidate) -> SimplexRecord | None:
    """The simplex that a candidate brings, with its poles; None where it brings none.

    Raises ValueError for one without poles, or with poles that are no poles (too few texts, one text in two).
    """
    name, binding = simplex_name(candidate), candidate.simplex_binding
    if name is None or binding is None:
        return None
    if binding.poles is None:
        raise ValueError(f"simplex {name} has no poles")
    try:
        return SimplexRecord(
            name=name,
            negative=_pole("negative", binding.poles.negative),
            neutral=_pole("neutral", binding.poles.neutral),
            positive=_pole("positive", binding.poles.positive),
            concept=(candidate.related_concept or None) if candidate.role == "simplex" else candidate.term,
            always_on=binding.always_on,
            monitoring=binding.monitoring,
        )
    except ValidationError as error:
        raise ValueError("; ".join(problem["msg"] for problem in error.errors())) from error


def simplexes_of(request: MeldRequest) -> tuple[SimplexRecord, ...]:
    """The simplexes of a meld whose bindings are sound. Raises ValueError otherwise."""
    return tuple(record for candidate in request.candidates if (record := simplex_of(candidate)) is not None)


def renamed(simplex: SimplexRecord, replaced: Mapping[str, tuple[str, ...]]) -> SimplexRecord:
    """A simplex with its concept as it is called now: the first of what stands in its place."""
    concept = simplex.concept
    while concept is not None and concept in replaced:
        concept = next(iter(replaced[concept]), None)
    return simplex.model_copy(update={"concept": concept})


def _pole(name: str, pole: NamedPole) -> Pole:
    return Pole(name=pole.label or name, examples=list(dict.fromkeys(pole.examples)))

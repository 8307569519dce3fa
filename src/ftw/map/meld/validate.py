"""Is a meld fit for a pack: every rule, every finding, in one go.

The rule of the file: what would make a broken pack, or a lens without data, is an error; what a reader should know is a
warning. A meld without errors can be applied, and what validation built on the way is what is applied.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ftw.map.meld.draft import Draft
from ftw.map.meld.perform import obstacles, perform, record_of
from ftw.map.meld.policy import Policy, policy_of
from ftw.map.meld.protection import Assessment, assess, parents_named
from ftw.map.meld.request import Candidate, MeldRequest
from ftw.map.meld.rules import Finding, Kind, Setting, candidate_findings, is_term, made_findings, request_findings
from ftw.map.meld.simplexes import simplexes_of
from ftw.map.registry.concept_pack import ConceptPack

__all__ = ["Finding", "Verdict", "validate"]

GUESSED = 20
"""Missing parents for which the nearest terms are looked up: a meld for quite another pack has a thousand."""


@dataclass(frozen=True)
class Verdict:
    """What validation found, and the draft that it found it on."""

    request: MeldRequest
    pack: ConceptPack
    protection: Assessment
    findings: tuple[Finding, ...]
    policy: Policy
    draft: Draft
    """The pack with the meld in it. It makes a pack if there are no errors."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the meld from being applied."""
        return tuple(finding for finding in self.findings if finding.kind == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What a reader should know."""
        return tuple(finding for finding in self.findings if finding.kind == "warning")

    @property
    def is_valid(self) -> bool:
        """Whether the meld can be applied."""
        return not self.errors


def validate(
    request: MeldRequest,
    pack: ConceptPack,
    *,
    file_name: str | None = None,
    synsets: Container[str] | None = None,
) -> Verdict:
    """Every rule on every part of a meld for `pack`.

    `file_name` is held against the request's id, `synsets` are those that WordNet has (without them none is looked up).
    Raises PackError only where the pack's own meld_policy is malformed.
    """
    policy = policy_of(pack.meta)
    held = {term.lower(): term for term in pack.records}
    setting = Setting(request, pack, policy, parents_named(request), held, synsets)
    protection = assess(request, pack, policy)
    findings = list(request_findings(setting, file_name))
    draft = Draft(pack)
    findings += _candidates(setting, protection, draft)
    findings += _operations(setting, draft)
    findings += _tree(draft, pack, setting.parents)
    if not any(finding.kind == "error" for finding in findings):
        draft.simplexes += simplexes_of(request)
    findings += _claims(request, protection)
    return Verdict(request, pack, protection, tuple(dict.fromkeys(findings)), policy, draft)


def _candidates(setting: Setting, protection: Assessment, draft: Draft) -> list[Finding]:
    findings: list[Finding] = []
    placed: list[Candidate] = []
    attached: dict[str, list[str]] = {}
    for point in setting.request.attachment_points:
        attached.setdefault(point.candidate_concept, []).append(point.target)
    for candidate in setting.request.candidates:
        findings += candidate_findings(setting, candidate, protection)
        if candidate.role == "simplex" or candidate.term in draft or not is_term(candidate.term):
            continue
        parents = setting.parents[candidate.term]
        record = record_of(candidate, setting.request.meld_request_id, parents, attached.get(candidate.term, ()))
        draft.put(record, parents[0] if parents else None)
        placed.append(candidate)
    _give_domains(draft, placed)
    return findings + _children(setting, draft, placed)


def _children(setting: Setting, draft: Draft, placed: Sequence[Candidate]) -> list[Finding]:
    """Children that stood right under the candidate's own parent come under the candidate; others stay."""
    findings: list[Finding] = []
    taken: dict[str, str] = {}
    for candidate, child in [(one, child) for one in placed for child in dict.fromkeys(one.children)]:
        stands = setting.pack.concepts[child].parent if child in setting.pack.records else draft.parents.get(child)
        told = ""
        kind: Kind = "warning"
        if child not in draft:
            told = f"lists the child {child}, which neither the pack nor the meld holds"
        elif child in taken:
            told, kind = f"lists the child {child}, as does {taken[child]}: a concept has one parent", "error"
        elif child not in setting.pack.records:
            told = "" if stands == candidate.term else f"lists the child {child}, whose own parent is {stands}"
        elif stands is not None and stands == draft.parents[candidate.term]:
            taken[child] = candidate.term
            draft.move(child, candidate.term)
        else:
            told = f"lists the child {child}, which stays {_under(stands)}: add a move to bring it here"
        findings += [Finding(kind, "children", candidate.term, told)] if told else []
    return findings


def _under(parent: str | None) -> str:
    return "a root" if parent is None else f"under {parent}"


def _give_domains(draft: Draft, placed: Sequence[Candidate]) -> None:
    """Gives candidates without a domain that of the nearest concept above that has one."""
    for candidate in placed:
        above = [draft.records[term].domain for term in draft.ancestors(candidate.term) if term in draft]
        if not candidate.domain and any(above):
            draft.change(candidate.term, domain=next(domain for domain in above if domain))


def _operations(setting: Setting, draft: Draft) -> list[Finding]:
    """Performs the operations in their order, each on what those before it left."""
    findings: list[Finding] = []
    for number, operation in enumerate(setting.request.structural_operations, 1):
        place = f"operation {number}, {operation.operation}"
        findings += made_findings(setting, operation, place)
        problems = obstacles(draft, operation)
        findings += [Finding("error", "operation", place, problem) for problem in problems]
        if not problems and not any(f.kind == "error" and f.concept == place for f in findings):
            perform(draft, operation, setting.request.meld_request_id)
    return findings


def _tree(draft: Draft, pack: ConceptPack, parents: Mapping[str, object]) -> list[Finding]:
    """Whether the draft is a tree: every parent is there, none stands above itself, no candidate is left over."""
    findings = [
        Finding("error", "cycle", ring[0], f"stands above itself: {' > '.join((*ring, ring[0]))}")
        for ring in draft.cycles()
    ]
    nearest = cache(lambda parent: ", ".join(pack.nearest(parent, 3)))
    for number, (term, parent) in enumerate(draft.missing().items()):
        near = f" (near: {nearest(parent)})" if number < GUESSED else ""
        findings.append(
            Finding(
                "error",
                "parent",
                term,
                f"has the parent {parent}, which neither the pack nor the meld holds{near}",
            )
        )
    folded: dict[str, str] = {}
    for term in draft.records:
        other = folded.setdefault(term.lower(), term)
        if other != term and term not in parents:  # of candidates it is said already
            findings.append(Finding("error", "duplicate", term, f"differs from {other} only in case"))
    for term in parents:
        if term in draft and term not in pack.records and draft.parents[term] is None:
            told = (
                "is an orphan: it names no parent, no attachment point places it, and no candidate lists it as a child"
            )
            findings.append(Finding("error", "orphan", term, told))
    return findings


def _claims(request: MeldRequest, protection: Assessment) -> list[Finding]:
    claimed = request.protection_assessment
    level = claimed.get("protection_level") if isinstance(claimed, dict) else None
    if isinstance(level, str) and level.lower() != protection.level.word:
        told = f"the meld says its protection level is {level.lower()}; it is {protection.level.word}"
        return [Finding("warning", "protection", "", told)]
    return []

"""What may be asked of a running monitor from above: open a branch, close it, read it, say what is open.

The rule of the file: a request is answered, never raised: what was done, what was not and why. The manifest's aperture
decides, and everything is keyed by concept, of which a pack has one each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from ftw.hat.monitoring.hierarchy import Scope
from ftw.hat.monitoring.monitor import Bank
from ftw.substrate.errors import UnknownConcept, UsageError
from ftw.substrate.types import Site

STRONG = 0.7
"""A branch is read strongly from this calibrated probability of its strongest concept on …"""
MODERATE = 0.4
"""… and moderately from this one on."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """The answer to a request to open a branch."""

    success: bool
    branch: str
    reason: str
    loaded_concepts: tuple[str, ...] = ()
    """What is read now and was not before: of the branch, and siblings that belong with it."""
    cat_scope: str | None = None
    """Who has to oversee it, as the aperture says."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Collapse:
    """The answer to a request to close what stands below a concept."""

    success: bool
    branch: str
    reason: str
    collapsed_concepts: tuple[str, ...] = ()
    retained_concepts: tuple[str, ...] = ()
    """What stays open: demanded by the manifest, or a sibling of what is."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BranchReading:
    """A branch at one state."""

    branch: str
    readings: Mapping[str, float]
    """Calibrated probability by concept, strongest first, of what the manifest lets be read."""
    top_concept: str | None
    interpretation: Literal["strong", "moderate", "low"]
    """How strongly the strongest concept is read."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is open, what may be opened, what never is."""

    manifest_id: str
    version: str
    fingerprint: str
    """sha256 over the ids of what is open."""
    n_open: int
    n_lenses: int
    levels: Mapping[int, tuple[int, int]]
    """Per level: open, and in all."""
    must_enable: tuple[str, ...]
    may_enable: tuple[str, ...]
    must_not_enable: tuple[str, ...]
    """Patterns of the aperture."""
    on_request: tuple[str, ...]
    """Concepts open now that were not at the start."""
    collapsed: tuple[str, ...]
    """Concepts closed now that were open at the start."""
    dynamic: bool
    """Whether a parent's reading opens its children by itself."""


class Introspection:
    """Requests about the scope of a monitor."""

    def __init__(self, scope: Scope, bank: Bank) -> None:
        self._scope = scope
        self._bank = bank
        self._deployment = scope.deployment

    def request_lens_expansion(self, branch: str, reason: str, depth: int = 2) -> Expansion:
        """Open a concept and what stands below it, `depth` levels down, with siblings. What the aperture forbids and
        what lies too deep stays closed; where nothing is left, or the branch itself is forbidden, nothing changes."""
        deployment = self._deployment
        try:
            at = deployment.place(branch)
            places = deployment.tree.branch(at, depth)
        except UsageError as error:
            return Expansion(False, branch, reason, error=str(error))
        term = deployment.rows[at].term
        if deployment.forbidden(at):
            rule = deployment.why(term).rule
            return Expansion(False, term, reason, error=f"{term} is never read here: {rule} in the manifest")
        permitted = [each for each in places if each in deployment.may or each in deployment.must]
        if at not in permitted:
            return Expansion(False, term, reason, error=f"{term} is not in may_enable: this deployment never opens it")
        wanted = [each for each in permitted if not deployment.forbidden(each) and not deployment.too_deep(each)]
        if not wanted:
            bound = deployment.manifest.layer_bounds.absolute_max_layer
            return Expansion(
                False, term, reason, error=f"{term} lies below absolute_max_layer {bound}: nothing of it may be opened"
            )
        fresh = {each for one in wanted for each in deployment.group(one)} - self._scope.open
        self._scope.add(fresh)
        return Expansion(True, term, reason, self._terms(fresh), deployment.scope_of(at))

    def request_lens_collapse(self, branch: str, reason: str) -> Collapse:
        """Close what stands below a concept, sibling groups whole. What the manifest demands stays, with its siblings.

        Refused where all of it is demanded.
        """
        deployment = self._deployment
        try:
            at = deployment.place(branch)
        except UnknownConcept as error:
            return Collapse(False, branch, reason, error=str(error))
        term = deployment.rows[at].term
        below = deployment.tree.branch(at)[1:]
        if not below:
            return Collapse(False, term, reason, error=f"nothing stands below {term}: close the branch that it is in")
        demanded = {each for each in below if each in deployment.must or each in deployment.included}
        kept = {each for one in demanded for each in deployment.group(one)} | demanded
        closed = set(below) - kept
        collapsed = self._terms(closed & self._scope.open)
        retained = self._terms(kept & self._scope.open)
        if not closed:
            return Collapse(False, term, reason, (), retained, f"the manifest demands all that stands below {term}")
        self._scope.remove(closed)
        return Collapse(True, term, reason, collapsed, retained)

    def reading(self, branch: str, resid: Mapping[Site, Float[Tensor, "1 d_model"]]) -> BranchReading:
        """A branch at one state: every concept of it that the manifest lets be read, whether it is open or not.

        Raises UnknownConcept, UsageError for a branch that is never read, and what scoring raises.
        """
        deployment = self._deployment
        at = deployment.place(branch)
        open_now = self._scope.open
        places = [each for each in deployment.tree.branch(at) if each in open_now or deployment.readable(each)]
        term = deployment.rows[at].term
        if not places:
            raise UsageError(f"nothing of {term} may be read: manifest {deployment.manifest.manifest_id} forbids it")
        logits = self._bank.score(resid, full=True).logit[0, places].tolist()
        p = [deployment.rows[at].calibration(logit) for at, logit in zip(places, logits, strict=True)]
        ranked = sorted(zip(p, places, strict=True), key=lambda pair: (-pair[0], pair[1]))
        top = ranked[0][0]
        how: Literal["strong", "moderate", "low"] = (
            "strong" if top > STRONG else "moderate" if top > MODERATE else "low"
        )
        readings = {deployment.rows[place].term: value for value, place in ranked}
        return BranchReading(term, readings, next(iter(readings)), how)

    def envelope(self) -> Envelope:
        """What is open now, and what could be."""
        deployment, open_now = self._deployment, self._scope.open
        manifest, aperture = deployment.manifest, deployment.manifest.aperture
        levels: dict[int, tuple[int, int]] = {}
        for at, level in enumerate(deployment.tree.levels):
            here, of = levels.get(level, (0, 0))
            levels[level] = (here + (at in open_now), of + 1)
        must, may, never = (
            tuple(branch for opening in openings for branch in opening.branches)
            for openings in (aperture.must_enable, aperture.may_enable, aperture.must_not_enable)
        )
        return Envelope(
            manifest.manifest_id,
            manifest.version,
            self.loaded_fingerprint(),
            len(open_now),
            len(deployment.rows),
            dict(sorted(levels.items())),
            must,
            may,
            never,
            self._terms(open_now - deployment.loaded),
            self._terms(deployment.loaded - open_now),
            manifest.dynamic_loading.enabled,
        )

    def loaded_fingerprint(self) -> str:
        """sha256 over the ids of what is open now, hex."""
        return self._deployment.record(self._scope.open).fingerprint

    def _terms(self, places: frozenset[int] | set[int]) -> tuple[str, ...]:
        return tuple(self._deployment.rows[at].term for at in sorted(places))

"""A manifest resolved against the lenses of a bank: what is read, why, and what may be opened while it runs.

The rule of the file: `Deployment` decides once, on the host, and never changes; `Scope` is its state while it runs, two
masks on the device that are changed in place, so that a step never waits for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ftw.hat.classifiers.hierarchy import Tree
from ftw.hat.classifiers.index import LensRow, PackInfo
from ftw.hat.monitoring.comparability import Loaded
from ftw.hat.monitoring.manifest import DeploymentManifest, Depth, Opening, Pattern, Priority
from ftw.substrate.errors import ConfigError, PackError, UnknownConcept

Rule = Literal[
    "explicit exclude",
    "must not enable",
    "explicit include",
    "must enable",
    "absolute max",
    "always load",
    "branch rule",
    "domain override",
    "default max",
    "siblings",
    "budget",
]
"""What decided a concept, first to last; `siblings`: it came with one of its siblings; `budget`: there was no room."""
_RANK = {"critical": 1, "normal": 2, "low": 3}
_FORBIDS: tuple[Rule, ...] = ("explicit exclude", "must not enable")
_DEMANDS: tuple[Rule, ...] = ("explicit include", "must enable")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a manifest says of one concept."""

    loads: bool
    rule: Rule
    priority: Priority = "normal"


class Deployment:
    """A manifest's decision on every lens. Immutable.

    `domains` gives a concept's domain; a concept that it lacks belongs to the one named like its root. Raises
    UnknownConcept for a concept that no lens has, ConfigError for rules that contradict each other, more demanded than
    there is room for, or a domain that no concept has, PackError for a pack that the manifest is not for or where
    something else is loaded than its fingerprint says.
    """

    def __init__(
        self,
        manifest: DeploymentManifest,
        rows: Sequence[LensRow],
        *,
        tree: Tree | None = None,
        info: PackInfo | None = None,
        domains: Mapping[str, str] | None = None,
    ) -> None:
        if info is not None:
            manifest.check_pack(info)
        self.manifest = manifest
        self.rows = tuple(rows)
        """The lenses, with the calibrations that the manifest gives them."""
        self.tree = tree or Tree.of(rows)
        self._pack = "" if info is None else f"{info.name} {info.version}"
        self._place = {row.term.casefold(): at for at, row in enumerate(rows)}
        given = {self.place(term): calibration for term, calibration in manifest.concept_calibration.items()}
        self.rows = tuple(
            row.model_copy(update={"calibration": given[at]}) if at in given else row for at, row in enumerate(rows)
        )
        self._domain = self._domains(domains or {})
        explicit, aperture = manifest.explicit_concepts, manifest.aperture
        self.excluded = self._named(explicit.always_exclude)
        self.must_not = self._opened(aperture.must_not_enable)
        self.included = self._named(explicit.always_include)
        self.must = self._opened(aperture.must_enable)
        self.may = self._opened(aperture.may_enable)
        """Places that may be opened on request."""
        self._clash()
        self.decisions = self._budget(self._siblings(self._decide()))
        """One per lens."""
        self.loaded = frozenset(at for at, decision in enumerate(self.decisions) if decision.loads)
        """Places of what is read from the start."""
        wanted = manifest.comparability.fingerprint
        if wanted is not None and self.record().fingerprint != wanted:
            raise PackError(
                f"manifest {manifest.manifest_id} is for a deployment with fingerprint {wanted[:12]}, this one loads "
                f"{len(self.loaded)} concepts with {self.record().fingerprint[:12]}: another pack, or another manifest"
            )

    def why(self, term: str) -> Decision:
        """What decided a concept. Raises UnknownConcept."""
        return self.decisions[self.place(term)]

    def place(self, term: str) -> int:
        """The lens of a concept, by name in any case. Raises UnknownConcept."""
        at = self._place.get(term.casefold())
        if at is None:
            near = [self.rows[self._place[name]].term for name in get_close_matches(term.casefold(), self._place, 3)]
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise UnknownConcept(f"manifest {self.manifest.manifest_id}: no lens for {term!r} in this pack{hint}")
        return at

    def identity(self, at: int) -> str:
        """`Term:level` of a lens."""
        return f"{self.rows[at].term}:{self.tree.levels[at]}"

    def record(self, open_now: Iterable[int] | None = None) -> Loaded:
        """What is read, for comparing: from the start, or the places given."""
        comparability = self.manifest.comparability
        return Loaded(
            manifest_id=self.manifest.manifest_id,
            version=self.manifest.version,
            pack=self._pack,
            concepts=tuple(sorted(self.identity(at) for at in (self.loaded if open_now is None else open_now))),
            comparable_with=comparability.comparable_with,
            comparison_layers=comparability.comparison_layers,
        )

    def forbidden(self, at: int) -> bool:
        """Whether a concept is never read: excluded by name, or by the aperture."""
        return at in self.excluded or at in self.must_not

    def too_deep(self, at: int) -> bool:
        """Whether a concept lies below the absolute maximum, and is not demanded by name."""
        demanded = at in self.included or at in self.must
        return not demanded and _below(self.tree.levels[at], self.manifest.layer_bounds.absolute_max_layer)

    def readable(self, at: int) -> bool:
        """Whether a concept may be read when it is asked for: it is loaded, or the aperture may open it."""
        if at in self.loaded:
            return True
        return (at in self.may or at in self.must) and not self.forbidden(at) and not self.too_deep(at)

    def group(self, at: int) -> tuple[int, ...]:
        """What is read together with a lens: its siblings, without those that are never read."""
        among = self.tree.siblings(at) if self.rows[at].parent is not None else (at,)
        return tuple(each for each in among if not self.forbidden(each))

    def scope_of(self, at: int) -> str | None:
        """Who has to oversee the opening of a concept, as the aperture says."""
        aperture = self.manifest.aperture
        return next(
            (o.cat_scope for o in (*aperture.must_enable, *aperture.may_enable) if at in self._opened([o])), None
        )

    def _domains(self, given: Mapping[str, str]) -> tuple[str, ...]:
        by_term = {term.casefold(): domain for term, domain in given.items()}
        found: list[str] = []
        for at, row in enumerate(self.rows):
            root = self.rows[(*self.tree.path(at), at)[0]]
            found.append(by_term.get(row.term.casefold(), root.parent or root.term).casefold())
        unknown = [name for name in self.manifest.domain_overrides if name.casefold() not in found]
        if unknown:
            raise ConfigError(
                f"manifest {self.manifest.manifest_id} has a domain override for {unknown[0]!r}: no concept of this "
                f"pack lies there; domains are {', '.join(sorted(set(found))[:12])}"
            )
        return tuple(found)

    def _named(self, patterns: Iterable[Pattern]) -> frozenset[int]:
        return frozenset(at for pattern in patterns for at in self._matching(pattern, whole=False))

    def _opened(self, openings: Iterable[Opening]) -> frozenset[int]:
        return frozenset(
            at for each in openings for branch in each.branches for at in self._matching(branch, whole=True)
        )

    def _matching(self, pattern: Pattern, *, whole: bool) -> Sequence[int]:
        """Places that a pattern means; of a bare name the `whole` branch, or it alone. Raises UnknownConcept."""
        if pattern == "*":
            return range(len(self.rows))
        if pattern.endswith("/*"):
            return self.tree.branch(self.place(pattern[:-2]))[1:]
        at = self.place(pattern)
        return self.tree.branch(at) if whole else (at,)

    def _clash(self) -> None:
        for one, name in ((self.included, "always_include"), (self.must, "must_enable")):
            for other, against in ((self.excluded, "always_exclude"), (self.must_not, "must_not_enable")):
                # an exclusion takes single concepts out of what is included; what must be on cannot be taken out
                if (name, against) != ("always_include", "always_exclude") and one & other:
                    term = self.rows[min(one & other)].term
                    raise ConfigError(f"manifest {self.manifest.manifest_id}: {term} is in {name} and in {against}")

    def _decide(self) -> list[Decision]:
        manifest, bounds = self.manifest, self.manifest.layer_bounds
        branches = [(rule, frozenset(self._matching(rule.branch, whole=True))) for rule in manifest.branch_rules]
        overrides = {name.casefold(): override for name, override in manifest.domain_overrides.items()}

        def decide(at: int) -> Decision:
            level, domain = self.tree.levels[at], overrides.get(self._domain[at])
            rule = next((rule for rule, places in branches if at in places), None)
            speaks = rule or domain
            priority = speaks.priority if speaks else "normal"
            for places, name in zip(
                (self.excluded, self.must_not, self.included, self.must), (*_FORBIDS, *_DEMANDS), strict=True
            ):
                if at in places:
                    return Decision(name in _DEMANDS, name, "critical" if name in _DEMANDS else priority)
            if _below(level, bounds.absolute_max_layer):
                return Decision(False, "absolute max", priority)
            if level in bounds.always_load_layers:
                return Decision(True, "always load", priority)
            if rule is not None:
                return Decision(not _below(level, rule.max_layer), "branch rule", priority)
            if domain is not None:
                return Decision(not _below(level, domain.max_layer), "domain override", priority)
            return Decision(not _below(level, bounds.default_max_layer), "default max", priority)

        return [decide(at) for at in range(len(self.rows))]

    def _siblings(self, decisions: list[Decision]) -> list[Decision]:
        """Lenses trained against their siblings are read with all of them or not at all; what is excluded stays out."""
        out = list(decisions)
        for at, decision in enumerate(decisions):
            if decision.loads:
                for each in self.group(at):
                    if not out[each].loads:
                        out[each] = Decision(True, "siblings", decision.priority)
        return out

    def _budget(self, decisions: list[Decision]) -> tuple[Decision, ...]:
        """Keep what fits, sibling groups whole: what is demanded, then by priority, then level by level."""
        room = self.manifest.dynamic_loading.max_loaded_concepts
        if room == "all" or sum(decision.loads for decision in decisions) <= room:
            return tuple(decisions)
        groups = dict.fromkeys(self.group(at) for at, decision in enumerate(decisions) if decision.loads)
        demanded = [group for group in groups if any(decisions[at].rule in _DEMANDS for at in group)]
        needed = sum(map(len, demanded))
        if needed > room:
            raise ConfigError(
                f"manifest {self.manifest.manifest_id} demands {needed} concepts with their siblings, "
                f"max_loaded_concepts is {room}: allow more, or demand less"
            )
        kept = {at for group in demanded for at in group}
        rest = [group for group in groups if group not in set(demanded)]
        rest.sort(key=lambda group: (min(_RANK[decisions[at].priority] for at in group), self.tree.levels[group[0]]))
        for group in rest:
            if len(kept) + len(group) > room:
                break  # what comes after matters less: a smaller group further down does not pass by
            kept.update(group)
        return tuple(
            Decision(False, "budget", decision.priority) if decision.loads and at not in kept else decision
            for at, decision in enumerate(decisions)
        )


class Scope:
    """What may be shown now: what the deployment loads, plus what was opened since, less what was closed.

    Its masks lie on the device and are changed in place. A bank that holds every lens scores all of them anyway, so
    what a parent's reading opens is read within the same token, and nothing has to be loaded or kept open.
    """

    def __init__(self, deployment: Deployment, device: torch.device | str = "cpu") -> None:
        self.deployment = deployment
        self.tree = deployment.tree.to(device)
        self._places = set(deployment.loaded)
        n = len(self.tree)
        self._openable: set[int] = set()
        if deployment.manifest.dynamic_loading.enabled:
            for at in deployment.may | deployment.must:
                if at not in self._openable and deployment.readable(at):
                    self._openable.update(deployment.group(at))
        self._open = torch.zeros(n, dtype=torch.bool, device=self.tree.device)
        self._by_itself = torch.zeros(n, dtype=torch.bool, device=self.tree.device)
        closed = [self.tree.levels[at] for at in self._openable - self._places]
        self._rounds = max(closed) - min(closed) + 1 if closed else 0
        self._sync()

    @property
    def open(self) -> frozenset[int]:
        """Places of what is open whatever is read."""
        return frozenset(self._places)

    @property
    def openable(self) -> frozenset[int]:
        """Places that a parent's reading may open."""
        return frozenset(self._openable)

    def add(self, places: Iterable[int]) -> None:
        """Open lenses, from the next step on."""
        self._places |= set(places)
        self._sync()

    def remove(self, places: Iterable[int]) -> None:
        """Close lenses, from the next step on, and keep them closed until they are added again."""
        self._places -= set(places)
        self._openable -= set(places)
        self._sync()

    def allowed(self, p: Float[Tensor, "row lens"]) -> Bool[Tensor, "row lens"]:
        """Which readings may be shown, given the calibrated p: the open ones, and children of a parent read strongly.

        A child opens where its parent is open and reads at least `parent_threshold` at the same state. All siblings
        open together. No look at a value on the host.
        """
        shown = self._open.expand_as(p)
        parent, threshold = self.tree.parent.clamp_min(0), self.deployment.manifest.dynamic_loading.parent_threshold
        has_parent = self._by_itself & (self.tree.parent >= 0)
        for _ in range(self._rounds):
            strong = shown & (p >= threshold)
            shown = shown | (strong[:, parent] & has_parent)
        return shown

    def _sync(self) -> None:
        for mask, places in ((self._open, self._places), (self._by_itself, self._openable)):
            fresh = torch.zeros(len(self.tree), dtype=torch.bool)
            fresh[sorted(places)] = True
            mask.copy_(fresh)


def _below(level: int, bound: Depth) -> bool:
    """Whether a level lies below a bound."""
    return bound != "all" and level > bound

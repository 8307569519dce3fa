"""Which states a lens that learns for itself is shown: its own, and of all others those that teach it most.

All lenses draw from one set of states. Half of a lens's negatives are its family's states, which siblings share and
which their competition is settled over; of the other half a part are nephews (words below its siblings), a part
confusables (its antonyms, and what its record says is confusable, related or opposite), the rest any. What a lens has
none of is left to the rest.
The rule of the file: states are kept in tree order, so that a concept with all that is below it is one run of them, and
drawing for thousands of lenses is arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.targets import NEGATIVE, Targets

NEPHEWS, CONFUSABLES = 0.2, 0.2
"""Shares of the negatives beside the family's. The rest is drawn from all states, plain text among them."""


@dataclass(frozen=True)
class Kin:
    """For each lens, the concepts that are near it. -1 fills up."""

    siblings: Int[Tensor, "lens sibling"]
    confusables: Int[Tensor, "lens confusable"]
    order: Int[Tensor, " lens"]
    """Place of each concept in the tree, parents before what is below them."""
    size: Int[Tensor, " lens"]
    """Concepts of each branch, its root included."""

    @classmethod
    def of(cls, pack: ConceptPack, targets: Targets) -> "Kin":
        """The kin of every concept of a pack. Unknown names among what is related are left out."""
        at = targets.homes
        siblings = [[s for s in targets.siblings[g] if s != lens] for lens, g in enumerate(targets.group_of.tolist())]
        order, size = torch.zeros(len(at), dtype=torch.long), torch.zeros(len(at), dtype=torch.long)
        tree = [term for root in pack.roots for term in (root, *pack.descendants(root))]
        for place, term in enumerate(tree):
            order[at[term]] = place
            size[at[term]] = 1 + len(pack.descendants(term))
        near = [_near(pack, targets, term) for term in targets.terms]
        return cls(_filled(siblings), _filled(near), order, size)


class Drawer:
    """Draws positives and negatives for lenses from states whose homes are given."""

    def __init__(self, kin: Kin, targets: Targets, home: Int[Tensor, " state"]) -> None:
        n = len(targets.terms)
        self._kin, self._table, self._home = kin, targets.table, home
        own = (home >= 0) & (home < n)
        place = torch.where(own, kin.order[home.clamp(0, n - 1)], n)
        self._rows = place.argsort(stable=True)
        """States in tree order; what is no concept's word at the end."""
        count = torch.bincount(place, minlength=n + 1)
        start = torch.cat([torch.zeros(1, dtype=torch.long), count.cumsum(0)])
        self._start = start[kin.order]
        self._own = start[kin.order + 1]
        self._stop = start[kin.order + kin.size]

    def positives(self, lenses: Int[Tensor, " lens"], n: int, rng: torch.Generator) -> Int[Tensor, "lens n"]:
        """`n` states of each lens's concept and of what is below it. Every concept must have one."""
        return self._between(self._start[lenses], self._stop[lenses], n, rng)

    def families(self, groups: Sequence[Sequence[int]], n: int, rng: torch.Generator) -> Int[Tensor, "group n"]:
        """`n` states of each group of siblings: first which of them, all alike, then one of its states."""
        which = torch.stack([torch.tensor(g)[torch.randint(len(g), (n,), generator=rng)] for g in groups])
        return self._of(which, rng)

    def negatives(
        self, lenses: Int[Tensor, " lens"], n: int, rng: torch.Generator
    ) -> tuple[Int[Tensor, "lens n"], Float[Tensor, "lens n"]]:
        """`n` states of others for each lens, and a weight: 0 where the draw is no negative of it after all."""
        siblings = self._kin.siblings[lenses]
        draw = torch.rand(len(lenses), n, generator=rng)
        states = torch.randint(len(self._rows), (len(lenses), n), generator=rng)
        out = self._rows[states]
        near = self._one_of(self._kin.confusables[lenses], n, rng)
        out = torch.where((draw < NEPHEWS + CONFUSABLES) & (near >= 0), self._of(near, rng), out)
        sibling = self._one_of(siblings, n, rng)
        below = (self._stop - self._own)[sibling.clamp(min=0)] > 0
        out = torch.where((draw < NEPHEWS) & (sibling >= 0) & below, self._below(sibling, rng), out)
        weight = (self._table[self._home[out], lenses[:, None]] == NEGATIVE).float()
        return out, weight

    def _one_of(self, kin: Int[Tensor, "lens k"], n: int, rng: torch.Generator) -> Int[Tensor, "lens n"]:
        """One of each lens's kin, `n` times; -1 for a lens without any."""
        counts = (kin >= 0).sum(1, keepdim=True)
        at = (torch.rand(len(kin), n, generator=rng) * counts).long()
        found = kin.gather(1, at.clamp(max=max(0, kin.shape[1] - 1)))
        return torch.where(counts > 0, found, -1)

    def _of(self, concepts: Tensor, rng: torch.Generator) -> Tensor:
        """A state of each concept or of what is below it."""
        safe = concepts.clamp(min=0)
        return self._spot(self._start[safe], self._stop[safe], rng)

    def _below(self, concepts: Tensor, rng: torch.Generator) -> Tensor:
        """A state of what is below each concept, not of its own words."""
        safe = concepts.clamp(min=0)
        return self._spot(self._own[safe], self._stop[safe], rng)

    def _between(self, start: Tensor, stop: Tensor, n: int, rng: torch.Generator) -> Tensor:
        return self._spot(start[:, None].expand(-1, n), stop[:, None].expand(-1, n), rng)

    def _spot(self, start: Tensor, stop: Tensor, rng: torch.Generator) -> Tensor:
        at = start + (torch.rand(start.shape, generator=rng) * (stop - start)).long()
        return self._rows[at.clamp(max=len(self._rows) - 1)]


def _near(pack: ConceptPack, targets: Targets, term: str) -> list[int]:
    record = pack.records[term]
    ties, confusable = record.relationships, record.training_hints.confusable_with
    named = [*confusable, *ties.antonyms, *ties.related, *([ties.opposite] if ties.opposite else [])]
    kin = {term, *pack.ancestors(term), *pack.descendants(term)}
    return [targets.homes[name] for name in dict.fromkeys(named) if name in targets.homes and name not in kin]


def _filled(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])

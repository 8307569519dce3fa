"""Which word is an example of which concept, and which says nothing about it.

A word of a concept is a positive of that concept and of everything above it. It is a negative of all others but those
below it: whether a word that stands for "animal" is a bird is not said by its place in the tree.
The rule of the file: labels depend on a word's home alone, so a table of homes by lenses holds them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.prompts import Word

POSITIVE, NEGATIVE, UNSAID = 1, 0, -1
PLAIN = -1
"""The home of a state of plain text: a negative of every lens."""


@dataclass(frozen=True)
class Targets:
    """The labels of a pack. Lenses stand level by level, siblings side by side."""

    terms: tuple[str, ...]
    table: Int8[Tensor, "home lens"]
    """POSITIVE, NEGATIVE or UNSAID; the last row is that of plain text."""
    homes: Mapping[str, int]

    @classmethod
    def of(cls, pack: ConceptPack) -> "Targets":
        """The labels of every concept of the pack."""
        terms = list(pack.roots)
        for term in terms:
            terms.extend(pack.children(term))  # the list grows while it is walked: level by level
        homes = {term: at for at, term in enumerate(terms)}
        table = torch.full((len(terms) + 1, len(terms)), NEGATIVE, dtype=torch.int8)
        for term, at in homes.items():
            above = [homes[name] for name in pack.ancestors(term)]
            table[at, [at, *above]] = POSITIVE
            table[above, at] = UNSAID
        return cls(tuple(terms), table, homes)

    def home_of(self, words: Sequence[Word]) -> Int[Tensor, " word"]:
        """The home of each word."""
        return torch.tensor([self.homes[word.home] for word in words])

    def plain(self, n: int) -> Int[Tensor, " state"]:
        """The homes of `n` states of plain text."""
        return torch.full((n,), PLAIN)

    def labels(self, home: Int[Tensor, " state"]) -> Int8[Tensor, "state lens"]:
        """The label of each state for each lens."""
        return self.table[home]

    def counts(self, home: Int[Tensor, " state"]) -> tuple[Float[Tensor, " lens"], Float[Tensor, " lens"]]:
        """How many of the states are positives and negatives of each lens."""
        per_home = torch.bincount(home % len(self.table), minlength=len(self.table)).float()
        return per_home @ (self.table == POSITIVE).float(), per_home @ (self.table == NEGATIVE).float()

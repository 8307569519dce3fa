"""Which word is an example of which concept, and which says nothing about it.

A word of a concept is a positive of that concept and of everything above it. It is a negative of all others but those
below it: whether a word that stands for "animal" is a bird is not said by its place in the tree. An authored example of
what a concept is not is a negative of it and of everything below it, and says nothing else.
The rule of the file: labels depend on a word's home alone, so a table of homes by lenses holds them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.prompts import Prompt, Word

POSITIVE, NEGATIVE, UNSAID = 1, 0, -1
PLAIN = -1
"""The home of a state of plain text: a negative of every lens."""


@dataclass(frozen=True)
class Targets:
    """The labels of a pack. Lenses stand level by level, siblings side by side."""

    terms: tuple[str, ...]
    table: Int8[Tensor, "home lens"]
    """POSITIVE, NEGATIVE or UNSAID. First the words of each concept, then what each is denied by, last plain text."""
    homes: Mapping[str, int]
    siblings: tuple[tuple[int, ...], ...]
    """Lenses of one parent; the roots first. Groups of one too, so that every lens stands in one group."""

    @classmethod
    def of(cls, pack: ConceptPack) -> "Targets":
        """The labels of every concept of the pack."""
        terms = list(pack.roots)
        for term in terms:
            terms.extend(pack.children(term))  # the list grows while it is walked: level by level
        homes = {term: at for at, term in enumerate(terms)}
        n = len(terms)
        table = torch.full((2 * n + 1, n), NEGATIVE, dtype=torch.int8)
        table[n : 2 * n] = UNSAID
        for term, at in homes.items():
            above = [homes[name] for name in pack.ancestors(term)]
            table[at, [at, *above]] = POSITIVE
            table[above, at] = UNSAID
            table[n + at, at] = NEGATIVE
            for ancestor in above:
                table[n + ancestor, at] = NEGATIVE
        families = [pack.roots, *(pack.children(term) for term in terms)]
        siblings = tuple(tuple(homes[term] for term in family) for family in families if family)
        return cls(tuple(terms), table, homes, siblings)

    def home_of(self, prompts: Sequence[Prompt], words: Sequence[Word]) -> Int[Tensor, " prompt"]:
        """The home of each prompt: the row of `table` that labels it."""
        n = len(self.terms)
        return torch.tensor([self.homes[words[p.word].home] + (n if p.against else 0) for p in prompts])

    @property
    def group_of(self) -> Int[Tensor, " lens"]:
        """The group of siblings that each lens stands in."""
        out = torch.empty(len(self.terms), dtype=torch.long)
        for at, group in enumerate(self.siblings):
            out[list(group)] = at
        return out

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

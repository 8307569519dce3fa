"""Grids: the milestones' grids of all lenses, every prompt and layer of the run in each, beside the milestones.

The rule of the file: a number of a row that is not finite does not exist. It is NaN here, and so is a missing layer.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from ftw.sweep import milestones
from ftw.sweep.milestones import Milestones, Thresholds
from ftw.sweep.milestones.grid import first_token, grids
from ftw.sweep.outcome import Outcome, Why
from ftw.sweep.table import SweepTable


class Grids:
    """What the audits read: one matrix per lens and column, prompts down and layers across."""

    def __init__(
        self,
        table: SweepTable,
        found: Mapping[tuple[int, str], Milestones] | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.table = table
        self._found = found
        self._thresholds = thresholds
        self._named: dict[tuple[int, str], dict[str, Outcome]] = {}
        self._grids = grids(table)
        self._known: dict[tuple[str, str, int], np.ndarray] = {}

    @cached_property
    def found(self) -> Mapping[tuple[int, str], Milestones]:
        """The milestones by prompt index and lens, those that were given, else made at the first look."""
        return milestones.of(self.table, self._thresholds) if self._found is None else self._found

    @property
    def n_layers(self) -> int:
        """Blocks of the model."""
        return self.table.n_layers

    @property
    def ids(self) -> list[str]:
        """The prompts' ids."""
        return [item.id for item in self.table.items]

    @property
    def lenses(self) -> tuple[str, ...]:
        """The lenses of the run."""
        return self.table.lenses

    def has(self, lens: str) -> bool:
        """Whether a lens was part of the run."""
        return lens in self.table.lenses

    def matrix(self, lens: str, column: str, place: int = 0) -> Float[np.ndarray, "prompt layer"]:
        """A column of one lens, float64; NaN where there is no such row or it holds no number.

        Of a column of lists the entry at `place`.
        """
        key = lens, column, place
        if key not in self._known:
            found = np.full((len(self.table.items), self.n_layers + 1), np.nan)
            grid = self._grids.get(lens)
            if grid is not None and grid.has(column):
                found[np.ix_(grid.prompts, grid.layers)] = grid.numbers(column, place)
            self._known[key] = found
        return self._known[key]

    def best(self, lens: str) -> Int[np.ndarray, "prompt layer"]:
        """The best token of every layer; -1 where there is none."""
        best = self.matrix(lens, "top_ids")
        return np.where(np.isnan(best), -1, best).astype(np.int64)

    def listed(self, lens: str, place: int) -> Float[np.ndarray, "prompt layer"]:
        """The log-probability (nats) of the best token (place 0), the second best (1), …; NaN where not listed."""
        listed = self.table["top_logprobs"].shape[1]
        nothing = np.full((len(self.table.items), self.n_layers + 1), np.nan)
        return self.matrix(lens, "top_logprobs", place) if place < listed else nothing

    def ranks(self, lens: str) -> Float[np.ndarray, "prompt layer"]:
        """The answer's rank, 1 = first; NaN where there is no answer, or its first token is only a blank."""
        return self.matrix(lens, "answer_rank")

    def is_first(self, lens: str) -> Bool[np.ndarray, "prompt layer"]:
        """Whether the answer is ranked first."""
        first: np.ndarray = self.ranks(lens) == 1
        return first

    def onset(self, lens: str) -> Int[np.ndarray, " prompt"]:
        """The milestone `semantic`: the first layer that ranks the answer first; -1 where none does."""
        return self.layer(lens, "semantic")

    def layer(self, lens: str, name: str) -> Int[np.ndarray, " prompt"]:
        """A milestone that is a layer; -1 where there is none."""
        values = self.figure(lens, name)
        return np.where(np.isnan(values), -1, values).astype(np.int64)

    def figure(self, lens: str, name: str) -> Float[np.ndarray, " prompt"]:
        """A milestone of each prompt as a number; NaN where there is none."""
        found = (self._outcomes(at, lens)[name].value for at in range(len(self.table.items)))
        return np.array([value if isinstance(value, int | float) else np.nan for value in found], dtype=float)

    def reason(self, lens: str, name: str, prompt: int) -> Why | None:
        """Why a prompt has no such milestone; None where it has."""
        return self._outcomes(prompt, lens)[name].why

    def milestones(self, lens: str) -> list[str]:
        """The names of all milestones of a lens."""
        return list(self._outcomes(0, lens))

    def _outcomes(self, prompt: int, lens: str) -> dict[str, Outcome]:
        if (prompt, lens) not in self._named:
            self._named[prompt, lens] = dict(self.found[prompt, lens].outcomes())
        return self._named[prompt, lens]

    def facts(self) -> Bool[np.ndarray, " prompt"]:
        """Which prompts ask for a fact: those whose answer's first token says something, no negative controls."""
        speaks = [first_token(self.table, item.answer) is None for item in self.table.items]
        facts: np.ndarray = self._asked & np.array(speaks, dtype=bool)
        return facts

    @property
    def why_no_facts(self) -> Why:
        """Why there is none, where there is none."""
        return "blank_first" if self._asked.any() else "no_answer"

    @cached_property
    def _asked(self) -> Bool[np.ndarray, " prompt"]:
        kinds = [getattr(item.source, "kind", "fact") for item in self.table.items]
        answers = [bool(item.answer) for item in self.table.items]
        return np.array([a and kind == "fact" for a, kind in zip(answers, kinds, strict=True)], dtype=bool)

    def flat(self, lens: str, share: float) -> Bool[np.ndarray, "prompt layer"]:
        """Rows whose entropy exceeds this share of log2 V: close to uniform."""
        high: np.ndarray = self.matrix(lens, "entropy_bits") > share * np.log2(self.table.vocab_size)
        return high


def first_true(mask: Bool[np.ndarray, "prompt layer"]) -> Int[np.ndarray, " prompt"]:
    """The first layer of each row that is true; -1 where none is."""
    return np.where(mask.any(1), mask.argmax(1), -1)


def at(matrix: Float[np.ndarray, "prompt layer"], layers: Int[np.ndarray, " prompt"]) -> Float[np.ndarray, " prompt"]:
    """One layer of each prompt; NaN for layer -1."""
    picked = matrix[np.arange(len(matrix)), np.maximum(layers, 0)]
    return np.where(layers >= 0, picked, np.nan)


def share(mask: Sequence[bool] | np.ndarray) -> float:
    """The share that is true; NaN of nothing."""
    mask = np.asarray(mask, dtype=float)
    return float(mask.mean()) if len(mask) else float("nan")

"""Grid: the rows of one lens at the prompts' ends as matrices, prompt by layer; and onsets read off them.

The rule of the file: an onset is a layer or a reason. A column that the run did not measure is `not_asked`, never zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from ftw.substrate.errors import UsageError
from ftw.sweep.outcome import Outcome, Why
from ftw.sweep.shelf import is_norm_view, names
from ftw.sweep.table import SweepTable

LOGIT, RAW = "logit", "raw"
"""The lens that the others are held against, and the one without a norm."""
NORMED = tuple(name for name in names() if is_norm_view(name) and name != RAW)
"""Lenses that only choose a norm: they do not confirm one another."""
ALWAYS = ("is_finite", "resid_norm")
"""Columns that mean something in a row without a distribution."""


@dataclass(frozen=True)
class Grid:
    """One lens at every prompt's last position. Matrices are [prompt, layer], layers ascending."""

    rows: SweepTable
    """Its rows, prompt by prompt."""
    lens: str
    prompts: tuple[int, ...]
    """Indices into the table's items."""
    layers: tuple[int, ...]
    """Blocks that have run, consecutive."""

    def __getitem__(self, name: str) -> np.ndarray:
        """A column as [prompt, layer, …]: numbers as float64 (NaN in a row that is no distribution) or int64 (0 there).

        Raises UsageError where it was not measured.
        """
        if not self.has(name):
            raise UsageError(f"the table has no column {name}: sweep again with it")
        column = self.rows[name]
        if column.dtype.kind in "if":
            is_float = column.dtype.kind == "f"
            column = column.astype(np.float64 if is_float else np.int64)
            column[~self.rows["is_finite"]] = np.nan if is_float else 0
        return self.shaped(column)

    def numbers(self, name: str, place: int = 0) -> Float[np.ndarray, "prompt layer"]:
        """A column as float64, NaN where there is no number: no distribution, a rank of 0, an id of -1.

        Of a column of lists the entry at `place`. An answer whose first token is only a blank has no rank. Raises
        UsageError where the column was not measured.
        """
        values = (self.shaped(self.rows[name]) if name in ALWAYS else self[name]).astype(np.float64)
        values = values if values.ndim == 2 else values[:, :, place]
        if name.endswith("_rank"):
            values = np.where(values > 0, values, np.nan)
        elif name.endswith("_id") or name == "top_ids":
            values = np.where(values >= 0, values, np.nan)
        if name in ALWAYS:
            return values
        silent = [name == "answer_rank" and why is not None for why in no_first_token(self)]
        return np.where(self["is_finite"].astype(bool) & ~np.array(silent, dtype=bool)[:, None], values, np.nan)

    def has(self, *names: str) -> bool:
        """Whether these columns were measured."""
        return all(name in self.rows.columns for name in names)

    def shaped(self, rows: np.ndarray) -> np.ndarray:
        """Something of each row as [prompt, layer, …]."""
        return rows.reshape(len(self.prompts), len(self.layers), *rows.shape[1:])

    @cached_property
    def broken(self) -> Bool[np.ndarray, " prompt"]:
        """Prompts with a layer that is no distribution."""
        return np.logical_not(np.asarray(self["is_finite"].all(axis=1)))

    def onset(self, is_there: Bool[np.ndarray, "prompt layer"], *, missing: "Reasons" = None) -> list[Outcome]:
        """Per prompt the first layer where it is so. `missing` gives, per prompt, why there can be none."""
        return self._layers(np.where(is_there.any(axis=1), is_there.argmax(axis=1), -1), missing)

    def stays(self, is_there: Bool[np.ndarray, "prompt layer"], *, missing: "Reasons" = None) -> list[Outcome]:
        """Per prompt the first layer from which on it is so at every layer."""
        ever_after = np.logical_and.accumulate(is_there[:, ::-1], axis=1)[:, ::-1]
        return self.onset(ever_after, missing=missing)

    def step(self, is_there: Bool[np.ndarray, "prompt layer"], *, missing: "Reasons" = None) -> list[Outcome]:
        """Per prompt the layer c that splits the depth best into "not yet" and "from here on".

        It minimises the layers on the wrong side: those before c where it is so, plus those from c on where it is not
        (the least-squares step function). Of several the last; c beyond the last layer is never.
        """
        yes = is_there.astype(int)
        before = np.concatenate([np.zeros((len(yes), 1), dtype=int), yes.cumsum(axis=1)], axis=1)
        after = (1 - yes)[:, ::-1].cumsum(axis=1)[:, ::-1]
        wrong = before + np.concatenate([after, np.zeros((len(yes), 1), dtype=int)], axis=1)
        last = wrong.shape[1] - 1 - wrong[:, ::-1].argmin(axis=1)
        return self._layers(np.where(last < len(self.layers), last, -1), missing)

    def _layers(self, at: np.ndarray, missing: "Reasons") -> list[Outcome]:
        out = []
        for prompt, place in enumerate(at.tolist()):
            why = None if missing is None else missing[prompt]
            if why is None and place < 0:
                why = "not_finite" if self.broken[prompt] else "never"
            out.append(Outcome(self.layers[place]) if why is None else Outcome.none(why))
        return out


Reasons = Sequence[Why | None] | None
"""Per prompt why a milestone cannot be, or None; None altogether where it always can."""


def grids(table: SweepTable) -> dict[str, Grid]:
    """A grid for each lens of the table, from the rows at each prompt's last position.

    Raises UsageError where prompts differ in their layers, or layers are missing: a table of some rows has no onsets.
    """
    ends = table.last()
    out = {}
    for lens in table.lenses:
        rows = ends.where(lens=lens)
        if not len(rows):
            continue
        prompts = tuple(dict.fromkeys(rows["prompt"].tolist()))
        layers = rows["layer"].tolist()[: len(rows) // len(prompts)]
        whole = layers == list(range(layers[0], table.n_layers + 1)) if layers else False
        if not whole or rows["layer"].tolist() != layers * len(prompts):
            raise UsageError(
                f"the table does not hold every layer of lens {lens} up to {table.n_layers} for each prompt: "
                "milestones need all rows of a sweep"
            )
        out[lens] = Grid(rows, lens, prompts, tuple(layers))
    return out


def number(value: float) -> Outcome:
    """A number, or `not_finite`."""
    return Outcome(float(value)) if np.isfinite(value) else Outcome.none("not_finite")


def read_at(grid: Grid, curve: Float[np.ndarray, "prompt layer"], onsets: Sequence[Outcome]) -> list[Outcome]:
    """Per prompt a curve's value at its onset; `no_onset`, or why there can be none, without one."""
    return [
        no_onset(onset) if onset.value is None else number(float(curve[prompt, int(onset.value) - grid.layers[0]]))
        for prompt, onset in enumerate(onsets)
    ]


def no_onset(onset: Outcome) -> Outcome:
    """Why nothing can be counted from an onset that there is not."""
    return Outcome.none("no_onset") if onset.why in ("never", None) else onset


def unmeasured(grid: Grid, *columns: str) -> list[Why | None]:
    """Per prompt: `not_asked` where one of these columns was not measured, else None."""
    return [None if grid.has(*columns) else "not_asked"] * len(grid.prompts)


def first_token(table: SweepTable, answer: Sequence[int]) -> Why | None:
    """Why an answer's first token says nothing of it: there is no answer, or the token is only a blank."""
    if not answer:
        return "no_answer"
    piece = table.pieces.get(answer[0], "")
    return "blank_first" if piece and not piece.strip() else None


def no_first_token(grid: Grid, *columns: str) -> list[Why | None]:
    """Per prompt why nothing can be said of its answer's first token, or None."""
    return [
        why or first_token(grid.rows, grid.rows.items[prompt].answer)
        for why, prompt in zip(unmeasured(grid, *columns), grid.prompts, strict=True)
    ]


def no_answer(grid: Grid, *columns: str) -> list[Why | None]:
    """Per prompt why nothing can be said of its answer: it has none, or the columns were not measured."""
    return [
        why or (None if grid.rows.items[prompt].answer else "no_answer")
        for why, prompt in zip(unmeasured(grid, *columns), grid.prompts, strict=True)
    ]

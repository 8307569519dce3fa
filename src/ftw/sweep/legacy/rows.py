"""Rows of a table that belong together: one prompt's, one lens's, and their values as JSON knows them.

The rule of the file: a table is sorted by prompt, so a prompt's rows are a slice; nothing is copied.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ftw.sweep.table import SweepTable


def of_prompt(table: SweepTable, prompt: int) -> SweepTable:
    """The rows of one prompt."""
    start, end = np.searchsorted(table["prompt"], [prompt, prompt + 1])
    return replace(table, columns={name: column[start:end] for name, column in table.columns.items()})


def next_token(table: SweepTable, prompt: int, lens: str) -> SweepTable:
    """A prompt's rows of one lens at its last position, by ascending layer; none where the lens did not read it."""
    return of_prompt(table, prompt).where(lens=lens, pos=len(table.items[prompt].ids) - 1)


def at_layers(rows: SweepTable, layers: np.ndarray) -> SweepTable:
    """The rows at any of these layers."""
    mask = np.isin(rows["layer"], layers)
    return replace(rows, columns={name: column[mask] for name, column in rows.columns.items()})


def values(column: np.ndarray) -> list[Any]:
    """A column as Python values, None for a NaN or an infinity."""
    out: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        return [value if fine else None for value, fine in zip(out, np.isfinite(column).tolist(), strict=True)]
    return out


def ranks(column: np.ndarray) -> list[int | None]:
    """A column of ranks, None where there is no token to rank."""
    return [rank if rank > 0 else None for rank in column.tolist()]


def chances(column: np.ndarray) -> np.ndarray:
    """Probabilities of log-probabilities, in fp64; NaN stays NaN."""
    exp: np.ndarray = np.exp(column.astype(np.float64))
    return exp

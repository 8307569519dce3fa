"""Plan: which sequences of a sweep run, and what each of their states is read for.

The rule of the file: a prompt is run once, however many rows of the table it fills; an answer of many tokens runs with
its prompt.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from ftw.sweep.forward import Pass
from ftw.sweep.table import Item

Role = Literal["answer", "control"]
"""Whose later tokens are forced."""


class Cell:
    """What one state of one sequence is read for."""

    def __init__(self) -> None:
        self.base: list[tuple[int, int]] = []
        """Item and position: a row of the table."""
        self.forced: list[tuple[int, Role, int]] = []
        """Item, whose answer, and the token that follows here in it."""


class Plan:
    """Sequences and cells of a sweep, and the sums over whole answers while they grow."""

    def __init__(self, items: tuple[Item, ...], positions: Literal["last", "all"]) -> None:
        self.items = items
        self.sequences: list[tuple[int, ...]] = []
        self.cells: dict[tuple[int, int], Cell] = {}
        self.whole: dict[tuple[Role, int], np.ndarray] = {}
        """Log-probability of a whole answer so far, by whose it is and item: one number per view."""
        self.pool_size = max(1, *(len(item.pool) for item in items))
        """Width of the columns that hold something for each id of a pool."""
        self._left = [0] * len(items)
        """How many readings each item still waits for."""
        first: dict[tuple[int, ...], int] = {}

        def cell(ids: tuple[int, ...], pos: int) -> Cell:
            if ids not in first:
                first[ids] = len(self.sequences)
                self.sequences.append(ids)
            return self.cells.setdefault((first[ids], pos), Cell())

        for index, item in enumerate(items):
            end = len(item.ids) - 1
            own = (*item.ids, *item.answer[:-1])
            for pos in range(end + 1) if positions == "all" else [end]:
                cell(own, pos).base.append((index, pos))
            roles: tuple[tuple[Role, tuple[int, ...]], ...] = (("answer", item.answer), ("control", item.control))
            for role, whole in roles:
                for step, token in enumerate(whole[1:], start=1):
                    cell((*item.ids, *whole[:-1]), end + step).forced.append((index, role, token))
        self._count(self.cells.values(), 1)

    @property
    def positions(self) -> list[Sequence[int]]:
        """For each sequence the positions to read."""
        found: list[list[int]] = [[] for _ in self.sequences]
        for sequence, pos in self.cells:
            found[sequence].append(pos)
        return list(found)

    def of(self, run: Pass) -> list[Cell]:
        """The cells of a pass, row by row."""
        return [self.cells[at] for at in run.cells]

    @property
    def finished(self) -> list[int]:
        """The items of which everything was read."""
        return [item for item, left in enumerate(self._left) if not left]

    def finish(self, cells: Iterable[Cell]) -> None:
        """Count these cells as read."""
        self._count(cells, -1)

    def _count(self, cells: Iterable[Cell], by: int) -> None:
        for cell in cells:
            for item in [*(item for item, _ in cell.base), *(item for item, _, _ in cell.forced)]:
                self._left[item] += by

    def is_end(self, item: int, pos: int) -> bool:
        """Whether a position is an item's last."""
        return pos == len(self.items[item].ids) - 1

    def add(self, role: Role, item: int, logprobs: np.ndarray) -> None:
        """Add a token's log-probabilities (one per view) to the sum of its answer."""
        self.whole[role, item] = self.whole.get((role, item), 0) + logprobs

    def key(self, run: Pass) -> Any:
        """Everything that decides a pass's numbers besides model and lenses, as JSON values. Items count by content."""
        asked = [
            [
                [[pos, *self._looked_for(item)] for item, pos in cell.base],
                [token for _, _, token in cell.forced],
            ]
            for cell in self.of(run)
        ]
        return {
            "sequences": [list(each.ids) for each in run.runs],
            "cells": [list(at) for at in _local(run)],
            "asked": asked,
            "pool_size": self.pool_size,
        }

    def _looked_for(self, item: int) -> list[list[int]]:
        one = self.items[item]
        return [list(ids) for ids in (one.ids, one.answer, one.accepted, one.control, one.pool)]


def _local(run: Pass) -> list[tuple[int, int]]:
    """Each row's sequence, counted within the pass, and position."""
    return [(index, at) for index, each in enumerate(run.runs) for at in each.keep]

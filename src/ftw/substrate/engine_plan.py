"""What goes into a pass: which prompts are prefilled together, and which edits act on which rows."""

from collections.abc import Sequence

from ftw.substrate.engine_request import Run
from ftw.substrate.taps import RowEdit
from ftw.substrate.types import Edit

PATIENCE = 4
"""How many steps a waiting request stays outside so that others can join with it."""
SPARE = 512
"""At most this many columns of the cache are set aside for tokens to come."""
_PREFILL_TOKENS = 4096
"""A prefill pass of several prompts holds at most this many positions, padding included."""
_PREFILL_WASTE = 1.25
"""… and at most this many times the tokens of its prompts,"""
_PREFILL_SLACK = 32
"""… plus this many: a pass has a price of its own."""


def acting(runs: Sequence[Run]) -> list[RowEdit]:
    """Each row's edits, in its order; one edit object that several rows share becomes one call."""
    rows: dict[tuple[int, int], tuple[Edit, list[int]]] = {}
    for row, run in enumerate(runs):
        for place, edit in enumerate(run.edits):
            rows.setdefault((place, id(edit)), (edit, []))[1].append(row)
    return [RowEdit(edit, tuple(where)) for _, (edit, where) in sorted(rows.items(), key=lambda item: item[0][0])]


def alike(runs: Sequence[Run], *, batched: bool) -> list[list[Run]]:
    """Which prompts are prefilled together: those of similar length. Where edits act there is no padding to edit."""
    if not batched:
        return [[run] for run in runs]
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: len(run.request.ids)):
        if groups and _fits(groups[-1], run):
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _fits(group: Sequence[Run], run: Run) -> bool:
    width = len(run.request.ids)
    positions = width * (len(group) + 1)
    if positions > _PREFILL_TOKENS:
        return False
    if width == len(group[0].request.ids):
        return True
    real = width + sum(len(other.request.ids) for other in group)
    return positions <= _PREFILL_WASTE * real + _PREFILL_SLACK and not any(each.edits for each in (*group, run))

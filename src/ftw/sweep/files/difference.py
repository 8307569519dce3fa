"""Difference: what one run has and another has not, and how far their numbers and milestones are apart, in words too.

The rule of the file: a difference is B − A, and says where it is largest.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ftw.substrate.errors import ConfigError

WIDTH = 80
Verdict = Literal["identical", "alike", "different"]
"""`identical`: the same rows, bit for bit. `alike`: the same rows, numbers within the tolerance, the same most likely
tokens and milestones. `different`: the rest."""
Where = tuple[str, int, str, int]
"""Prompt id, position, lens, layer."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two numbers may be apart and still count as alike: `absolute + relative * |the one of A|`.

    Ranks may differ by a share of the rank: far down, tokens stand too close for any rounding. Tokens, flags and layers
    are alike only when equal; milestones that are amounts are judged like numbers. Raises ConfigError for what is
    negative or not finite.
    """

    absolute: float = 1e-4
    relative: float = 1e-4
    ranks: float = 0.01

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"the tolerance {name} is {value}: give a number of 0 or more")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is said of both runs, and differs. None where one does not say it."""

    what: str
    """Where it stands in the document, for example `provenance.versions.torch`."""
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Moved:
    """A column in the rows that both runs have."""

    column: str
    n_differ: int
    """Rows in which any bit differs."""
    n_beyond: int
    """Rows that are apart by more than the tolerance, or where only one has a number."""
    largest: float | None
    """The largest |B − A|; None for tokens and flags, and where there is no pair of numbers."""
    where: Where | None
    """The row it stands in; of tokens and flags the first that differs."""


@dataclass(frozen=True, slots=True)
class Token:
    """A row whose most likely token changed."""

    where: Where
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Shift:
    """One milestone through one lens, over the prompts of both runs."""

    lens: str
    name: str
    is_layer: bool
    """Whether it is a layer or a count, not an amount."""
    n: int
    """Prompts that have it in both documents, with a value or without."""
    n_changed: int
    """Prompts where it differs; of an amount, by more than the tolerance."""
    n_gained: int
    """Prompts where only B has a value."""
    n_lost: int
    """Prompts where only A has one."""
    median: float | None
    """The median of B − A over prompts that have a number in both."""
    largest: tuple[str, float] | None
    """The prompt that moved furthest, and how far."""


@dataclass(frozen=True)
class Diff:
    """What differs from run A to run B."""

    a: str
    b: str
    verdict: Verdict
    made: tuple[Change, ...]
    prompts_only_a: tuple[str, ...]
    prompts_only_b: tuple[str, ...]
    prompts_changed: tuple[str, ...]
    """Prompts with one id and other tokens."""
    n_common: int
    n_only_a: int
    """Rows that only A has: of prompts, positions, lenses or layers that B did not read."""
    n_only_b: int
    n_beyond: int
    """Rows of both in which any column is beyond the tolerance."""
    columns_only_a: tuple[str, ...]
    columns_only_b: tuple[str, ...]
    moved: tuple[Moved, ...]
    """Columns that differ anywhere."""
    n_tokens: int
    """Rows whose most likely token changed."""
    tokens: tuple[Token, ...]
    """The first of them, the deepest layers first."""
    shifts: tuple[Shift, ...]
    """Milestones that changed for any prompt: layers first, those of most prompts first."""
    tolerance: Tolerance

    def document(self) -> dict[str, Any]:
        """The whole as plain JSON values."""
        return {"schema": 1, **asdict(self)}

    def lines(self, *, width: int = WIDTH, most: int = 12) -> list[str]:
        """The whole in words for a terminal of this width; of each list at most so many."""
        return [line[: width - 1] + "…" if len(line) > width else line for line in _told(self, most)]


def _told(found: Diff, most: int) -> list[str]:
    lines = [_reading(found), "", f"A  {found.a}", f"B  {found.b}", ""]
    lines += _block("What made them", [f"{each.what}  {each.a} → {each.b}" for each in found.made], most)
    for what, prompts in (
        ("Prompts only in A", found.prompts_only_a),
        ("Prompts only in B", found.prompts_only_b),
        ("Prompts with other tokens", found.prompts_changed),
        ("Columns only in A", found.columns_only_a),
        ("Columns only in B", found.columns_only_b),
    ):
        lines += _block(what, prompts, most)
    numbers = sorted(found.moved, key=lambda each: -each.n_beyond)
    lines += _block(
        "Columns that differ: rows beyond tolerance, largest |B − A|, where",
        [f"{each.column:24} {each.n_beyond:>7,}  {_size(each.largest):>8}  {_place(each.where)}" for each in numbers],
        most,
    )
    lines += _block(
        f"Most likely token, changed in {found.n_tokens:,} of {found.n_common:,} rows",
        [f"{_place(each.where)}  {each.a!r} → {each.b!r}" for each in found.tokens],
        most,
    )
    for title, is_layer in (("Milestones in layers, B − A", True), ("Other milestones, B − A", False)):
        lines += _block(title, [_shift(each) for each in found.shifts if each.is_layer == is_layer], most)
    return lines[:-1]


def _reading(found: Diff) -> str:
    rows = f"{found.n_common:,} rows in both"
    only = f", {found.n_only_a:,} only in A, {found.n_only_b:,} only in B" if found.n_only_a or found.n_only_b else ""
    if found.verdict == "identical":
        return f"The runs are the same, bit for bit: {rows}"
    if found.verdict == "alike":
        return f"The runs agree within the tolerance: {rows}"
    layers = sum(each.is_layer for each in found.shifts)
    moved = f"{layers} milestones in layers moved" if layers else "no milestone in layers moved"
    return f"The runs differ in {found.n_beyond:,} of {found.n_common:,} rows{only}; {moved}"


def _block(title: str, lines: Sequence[str], most: int) -> list[str]:
    if not lines:
        return []
    more = [f"  … and {len(lines) - most:,} more"] if len(lines) > most else []
    return [title, *(f"  {line}" for line in lines[:most]), *more, ""]


def _size(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _place(where: Where | None) -> str:
    return "" if where is None else f"{where[2]} {where[3]} {where[0]}@{where[1]}"


def _shift(each: Shift) -> str:
    parts = [f"{each.n_changed} of {each.n}"]
    if each.median is not None:
        parts.append(f"median {each.median:+.3g}")
    if each.largest is not None and each.largest[1]:
        parts.append(f"largest {each.largest[1]:+.3g} ({each.largest[0]})")
    parts += [f"{count} {what}" for count, what in ((each.n_gained, "gained"), (each.n_lost, "lost")) if count]
    return f"{each.lens} {each.name}  {', '.join(parts)}"

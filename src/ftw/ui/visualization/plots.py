"""What a chart on a page shows: lines, bars, points, heat maps and ribbons as plain records, and their table twins.

The rule of the file: a chart is data. Every value that is drawn also stands in the twin, and a baseline is a `Rule`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from ftw.substrate.errors import ConfigError, NumericError

Cell = str | int | float | None
"""One cell of a table. None is shown as a dash."""
Numbers = Sequence[int | float]
MOST_CELLS = 8000
"""Cells of a heat map that a page still draws at once."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it measures, and optionally where it begins and ends."""

    label: str
    """The quantity with its unit, for example `latency, ms`."""
    low: float | None = None
    high: float | None = None
    percent: bool = False
    """Whether values are shares, shown as whole percents."""
    log: bool = False
    """Whether equal distances are equal ratios: for ranks and the like, all above zero. An axis at the side only."""
    down: bool = False
    """Whether the least stands on top: rank 1 is the best. An axis at the side only."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve through points, with a band where `low` and `high` are given."""

    name: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    dashed: bool = False
    """For what is expected rather than measured."""


@dataclass(frozen=True, slots=True)
class Points:
    """Single values, each with its interval where `low` and `high` are given."""

    name: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """A histogram: one more edge than values. Several on one chart are drawn through each other.

    Over names the edges are -0.5, 0.5, 1.5, …: one bar for each name.
    """

    name: str
    edges: Numbers
    values: Numbers


Mark = Line | Points | Bars


@dataclass(frozen=True, slots=True)
class Rule:
    """A straight line for what a reading is held against: a baseline, chance, a threshold."""

    at: float
    label: str
    """At most some 40 characters: it stands in the picture."""
    across: bool = False
    """Whether it runs from left to right at a height; otherwise upright."""
    left: bool = False
    """Whether the label of one across stands at its left end: where curves are dense at the right."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Marks over two axes. Raises ConfigError and NumericError for what cannot be drawn."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    rules: tuple[Rule, ...] = ()
    names: tuple[str, ...] = ()
    """Names of the places 0, 1, 2, … on the x axis, where it holds no numbers."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.marks) <= 6:
            raise ConfigError(f"a chart has {len(self.marks)} marks: 1 to 6 can be told apart")
        object.__setattr__(self, "marks", tuple(_floats(mark) for mark in self.marks))
        for mark in self.marks:
            _check(mark)
        if self.x.log or self.x.down:
            raise ConfigError("only the axis at the side can be logarithmic or run downwards")
        if self.y.log:
            _check_log(self)

    def twin(self) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
        """The columns and rows of the table that says what the picture shows."""
        heads, rows = _wide(self) if _same_places(self.marks) else _long(self)
        return tuple(heads), tuple(rows)

    def lines(self) -> str:
        """The rules in words, for the table's reader. Empty where there are none."""
        return _said(self.rules, self.x, self.y)


@dataclass(frozen=True, slots=True)
class Layer:
    """A second value of each cell of a heat map, which is said and not drawn."""

    unit: str
    """What a value is."""
    values: tuple[tuple[float, ...], ...]
    """One tuple for each row. NaN is said as a dash."""


@dataclass(frozen=True, slots=True)
class Heat:
    """Values over rows and columns. Raises ConfigError and NumericError for what cannot be drawn.

    One hue from ground to full; with `middle`, blue below it and orange above it through the ground. A map with
    `labels` that is wider than the page is scrolled, so that they stay legible.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """One tuple for each row. NaN is left empty."""
    x: str
    """What the columns are."""
    y: str
    """What the rows are."""
    unit: str
    """What a value is."""
    low: float | None = None
    high: float | None = None
    middle: float | None = None
    percent: bool = False
    labels: tuple[tuple[str, ...], ...] = ()
    """What stands in each cell instead of its value, for example the token that a block reads."""
    labelled: str = "label"
    """What a label is."""
    more: tuple[Layer, ...] = ()
    """What else is said of each cell where the pointer is."""
    from_end: bool = False
    """Whether a map that is scrolled begins at its last columns."""

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise ConfigError("a heat map needs at least one row and one column")
        for cells in (self.values, *([self.labels] if self.labels else []), *(one.values for one in self.more)):
            if len(cells) != len(self.rows) or any(len(row) != len(self.columns) for row in cells):
                shape = f"{len(self.rows)} rows and {len(self.columns)} columns"
                raise ConfigError(f"a heat map of {shape} got other values or labels")
        if len(self.rows) * len(self.columns) > MOST_CELLS:
            raise ConfigError(f"a heat map draws at most {MOST_CELLS} cells: average or cut before")
        layers = (self.values, *(one.values for one in self.more))
        if any(math.isinf(value) for values in layers for row in values for value in row):
            raise NumericError("a heat map cannot show infinity: cut the values, or leave them out as NaN")

    @property
    def span(self) -> tuple[float, float]:
        """The values of no tint and of full tint (with `middle`: of full blue and full orange)."""
        flat = [value for row in self.values for value in row if not math.isnan(value)] or [0.0]
        low = min(flat) if self.low is None else self.low
        high = max(flat) if self.high is None else self.high
        if self.middle is not None:
            reach = max(high - self.middle, self.middle - low)
            low, high = self.middle - reach, self.middle + reach
        return low, high if high > low else low + 1.0

    def twin(self) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
        """The columns and rows of the table that says what the picture shows. Labels stand above their values."""
        rows: list[tuple[Cell, ...]] = []
        for i, name in enumerate(self.rows):
            if self.labels:
                rows.append((f"{name}, {self.labelled}", *self.labels[i]))
            called = f"{name}, {self.unit}" if self.labels or self.more else name
            rows.append((called, *_cells(self.values[i])))
            rows += [(f"{name}, {layer.unit}", *_cells(layer.values[i])) for layer in self.more]
        return (f"{self.y} \\ {self.x}", *self.columns), tuple(rows)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of an axis on which one row is of one kind."""

    row: int
    """Which row, from 0."""
    low: float
    high: float
    kind: int
    """Which of the kinds, from 0."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One place on a row of ribbons, with a symbol for what it is."""

    row: int
    """Which row, from 0."""
    at: float
    sort: int
    """Which of the sorts of pins, from 0."""


@dataclass(frozen=True, slots=True)
class Ribbons:
    """Rows of stretches along an axis, for milestones: from which block on an answer is among the top 100, 10, first.

    Pins stand on them, for single places: a median, the first block that says the answer.

    Raises ConfigError and NumericError for what cannot be drawn.
    """

    x: Axis
    rows: tuple[str, ...]
    y: str
    """What the rows are."""
    kinds: tuple[str, ...]
    """Names of the kinds in rising order: each is drawn stronger than the one before."""
    stretches: tuple[Stretch, ...]
    rules: tuple[Rule, ...] = ()
    """Upright ones only."""
    pins: tuple[Pin, ...] = ()
    sorts: tuple[str, ...] = ()
    """Names of the sorts of pins: each has a symbol of its own."""
    whole: bool = False
    """Whether the axis counts whole things, half a unit wide on either side: 2.5 to 5.5 is said as 3 to 5."""
    nested: bool = False
    """Whether a kind is drawn narrower than the one before: an interval within a spread."""

    def __post_init__(self) -> None:
        if not self.rows or not (self.stretches or self.pins) or not 1 <= len(self.kinds) <= 4:
            raise ConfigError(f"ribbons need rows, stretches and 1 to 4 kinds: there are {len(self.kinds)}")
        for one in self.stretches:
            if not (0 <= one.row < len(self.rows) and 0 <= one.kind < len(self.kinds) and one.low <= one.high):
                raise ConfigError(
                    f"{one}: there are {len(self.rows)} rows and {len(self.kinds)} kinds, low before high"
                )
            if not (math.isfinite(one.low) and math.isfinite(one.high)):
                raise NumericError(f"{one} ends at an infinity: cut it at the axis")
        for pin in self.pins:
            if not (0 <= pin.row < len(self.rows) and 0 <= pin.sort < len(self.sorts) and len(self.sorts) <= 4):
                raise ConfigError(f"{pin}: there are {len(self.rows)} rows and {len(self.sorts)} sorts, 4 at most")
            if not math.isfinite(pin.at):
                raise NumericError(f"{pin} stands at no finite place: leave it out")
        if any(rule.across for rule in self.rules):
            raise ConfigError("ribbons have no height that a rule across could stand at")

    def twin(self) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
        """The columns and rows of the table that says what the picture shows."""
        said = [(one.row, (self.rows[one.row], self.kinds[one.kind], *self._ends(one))) for one in self.stretches]
        said += [(pin.row, (self.rows[pin.row], self.sorts[pin.sort], pin.at, pin.at)) for pin in self.pins]
        rows = tuple(row for _, row in sorted(said, key=lambda each: each[0]))
        return (self.y, "reading", f"{self.x.label}, from", "to"), rows

    def _ends(self, one: Stretch) -> tuple[float, float]:
        return (float(math.ceil(one.low)), float(math.floor(one.high))) if self.whole else (one.low, one.high)

    def lines(self) -> str:
        """The rules in words, for the table's reader. Empty where there are none."""
        return _said(self.rules, self.x, self.x)


Picture = Chart | Heat | Ribbons


def shown(value: Cell, *, percent: bool = False) -> str:
    """A cell as a person reads it: three digits, whole percents, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if percent:
        return f"{100 * value:.3g} %"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u2009")
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"


def _cells(values: Numbers) -> tuple[Cell, ...]:
    """Values for a table: NaN is nothing."""
    return tuple(None if math.isnan(value) else value for value in values)


def _said(rules: Sequence[Rule], x: Axis, y: Axis) -> str:
    said = [f"{rule.label} ({(y if rule.across else x).label} {shown(rule.at)})" for rule in rules]
    return f"Lines: {'; '.join(said)}." if said else ""


def _floats(mark: Mark) -> Mark:
    """The mark with every number as a float."""
    numbers = {
        part.name: tuple(float(value) for value in getattr(mark, part.name))
        for part in fields(mark)
        if part.name not in ("name", "dashed")
    }
    return replace(mark, **numbers)  # type: ignore[arg-type]


def _places(mark: Mark) -> tuple[float, ...]:
    return tuple(mark.edges[:-1]) if isinstance(mark, Bars) else tuple(mark.x)


def _values(mark: Mark) -> Numbers:
    return mark.values if isinstance(mark, Bars) else mark.y


def _check(mark: Mark) -> None:
    values = _values(mark)
    places = _places(mark)
    bands = () if isinstance(mark, Bars) else (mark.low, mark.high)
    if not len(values) or len(values) != len(places) or any(len(band) not in (0, len(values)) for band in bands):
        raise ConfigError(f"{mark.name!r} has {len(places)} places, {len(values)} values and bands of other lengths")
    if not all(map(math.isfinite, (*places, *values, *(each for band in bands for each in band)))):
        raise NumericError(f"{mark.name!r} holds a NaN or an infinity: leave such points out before drawing")


def _check_log(chart: Chart) -> None:
    bars = [mark.name for mark in chart.marks if isinstance(mark, Bars)]
    if bars:
        raise ConfigError(f"{bars[0]!r} is a histogram, which begins at zero: no logarithmic axis shows that")
    heights = [rule.at for rule in chart.rules if rule.across]
    for mark in chart.marks:
        if not isinstance(mark, Bars):
            heights += [*mark.y, *mark.low, *mark.high]
    heights += [end for end in (chart.y.low, chart.y.high) if end is not None]
    if min(heights) <= 0:
        raise NumericError(f"a logarithmic axis ends above zero, and {min(heights):g} is to be drawn on it")


def _same_places(marks: Sequence[Mark]) -> bool:
    first = marks[0]
    return all(type(mark) is type(first) and _places(mark) == _places(first) for mark in marks)


def _names(chart: Chart, mark: Mark) -> list[Cell]:
    """What stands for each place of a mark. A bar over names stands over the middle of its edges."""
    places = _places(mark)
    if chart.names and isinstance(mark, Bars):
        places = tuple((low + high) / 2.0 for low, high in pairwise(mark.edges))
    return [chart.names[round(x)] if 0 <= round(x) < len(chart.names) else float(x) for x in places]


def _wide(chart: Chart) -> tuple[list[str], list[tuple[Cell, ...]]]:
    """One row for each place, one column for each series."""
    heads = [chart.x.label]
    columns: list[list[Cell]] = [_names(chart, chart.marks[0])]
    for mark in chart.marks:
        if isinstance(mark, Bars) and mark is chart.marks[0] and not chart.names:
            heads[0] += ", from"
            heads.append("to")
            columns.append([float(edge) for edge in mark.edges[1:]])
        heads.append(mark.name)
        columns.append([float(value) for value in _values(mark)])
        if not isinstance(mark, Bars) and len(mark.low):
            heads += [f"{mark.name}, low", f"{mark.name}, high"]
            columns += [[float(value) for value in mark.low], [float(value) for value in mark.high]]
    return heads, list(zip(*columns, strict=True))


def _long(chart: Chart) -> tuple[list[str], list[tuple[Cell, ...]]]:
    """One row for each point of each series."""
    rows: list[tuple[Cell, ...]] = []
    for mark in chart.marks:
        rows += [(mark.name, x, float(y)) for x, y in zip(_names(chart, mark), _values(mark), strict=True)]
    return ["series", chart.x.label, chart.y.label], rows

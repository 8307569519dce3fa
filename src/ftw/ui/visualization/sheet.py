"""The score sheet of a text: its words, tinted by what leads there, the concept's name under the word where it changes.

The rule of the file: a line that is complete never changes when more words come, so a text can be drawn as it is
written.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from ftw.ui.visualization.marks import Mark, Word
from ftw.ui.visualization.palette import Palette, grey

NAME_ROWS = 2
"""Rows for names under a line of text. What does not fit there is still in the tracks."""


def label(concept: str) -> str:
    """A concept's name as people write it: `NaturalPhenomenon` is `natural phenomenon`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", concept.replace("_", " "))
    return spaced if spaced.isupper() else spaced.lower()


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of a token at its place in a line."""

    column: int
    text: str
    word: int
    """Index of the token."""


Line = list[Cell]


def lay_out(words: Sequence[Word], width: int) -> list[Line]:
    """The tokens in lines of at most `width` columns, broken at spaces; a word longer than a line is cut."""
    lines: list[Line] = [[]]
    column = 0
    for unit in _units(words):
        if unit is None:
            lines.append([])
            column = 0
            continue
        size = sum(cell_len(text) for _, text in unit)
        if column + size > width and lines[-1]:
            lines.append([])
            column = 0
        if column == 0:
            unit = _strip(unit)
        for place, text in unit:
            for part in _fit(text, width):
                if column + cell_len(part) > width:
                    lines.append([])
                    column = 0
                lines[-1].append(Cell(column, part, place))
                column += cell_len(part)
    return lines


Unit = list[tuple[int, str]]


def _units(words: Sequence[Word]) -> Iterator[Unit | None]:
    """Runs of tokens that belong to one word (its space comes with it); None is a line break."""
    unit: Unit = []
    for place, word in enumerate(words):
        for number, part in enumerate(re.split(r"\r?\n", word.text)):
            if number:
                if unit:
                    yield unit
                unit = []
                yield None
            for text in re.findall(r"\s+\S*|\S+", part.replace("\t", "    ")):
                shown = _printable(text)
                if shown[:1].isspace() and unit:
                    yield unit
                    unit = []
                unit.append((place, shown))
    if unit:
        yield unit


def _printable(text: str) -> str:
    """Control characters would move the cursor of whoever reads this: they show as a replacement character."""
    return "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in text)


def _strip(unit: Unit) -> Unit:
    """A unit at the beginning of a line, without its space."""
    pieces = unit
    while pieces and not pieces[0][1].strip():
        pieces = pieces[1:]
    return [(place, text.lstrip() if number == 0 else text) for number, (place, text) in enumerate(pieces)]


def _fit(text: str, width: int) -> Iterator[str]:
    part = ""
    for character in text:
        if cell_len(part + character) > width:
            yield part
            part = ""
        part += character
    if part:
        yield part


def draw_line(line: Line, leaders: Sequence[Mark | None], palette: Palette, *, width: int, colour: bool) -> list[Text]:
    """One line of the text and, under it, the names of the concepts that begin to lead in it.

    `leaders` has one entry per token. With `colour`, words are tinted and names take their hue. A name that would stand
    out over `width` is moved to the left.
    """
    text = Text(no_wrap=True)
    for cell in line:
        mark = leaders[cell.word] if cell.word < len(leaders) else None
        lead = len(cell.text) - len(cell.text.lstrip())
        text.append(cell.text[:lead])
        text.append(cell.text[lead:], palette.word(mark.concept, mark.p) if mark is not None and colour else "")
    return [text, *_names(line, leaders, palette, width=width, colour=colour)]


def _names(line: Line, leaders: Sequence[Mark | None], palette: Palette, *, width: int, colour: bool) -> list[Text]:
    """Up to two rows of names, the strongest placed first; rows without a name are left out."""
    found = [(cell, mark) for cell in line if (mark := _begins(cell.word, leaders)) is not None]
    seen: set[int] = set()
    starts = []
    for cell, mark in found:
        if cell.word not in seen:
            seen.add(cell.word)
            starts.append((cell.column + len(cell.text) - len(cell.text.lstrip()), mark))
    rows: list[list[tuple[int, str, Style]]] = [[] for _ in range(NAME_ROWS)]
    for column, mark in sorted(starts, key=lambda start: (-start[1].p, start[0])):
        name = label(mark.concept)
        column = max(0, min(column, width - cell_len(name)))
        style = palette.name(mark.concept) if colour else grey()
        for row in rows:
            if all(column > at + cell_len(other) + 1 or column + cell_len(name) + 1 < at for at, other, _ in row):
                row.append((column, name, style))
                break
    return [_row(sorted(row, key=lambda each: each[0])) for row in rows if row]


def _begins(word: int, leaders: Sequence[Mark | None]) -> Mark | None:
    """The reading that leads at a token, if another one (or none) led at the token before."""
    if word >= len(leaders) or leaders[word] is None:
        return None
    before = leaders[word - 1] if word else None
    now = leaders[word]
    return now if now is not None and (before is None or before.concept != now.concept) else None


def _row(names: Sequence[tuple[int, str, Style]]) -> Text:
    text = Text(no_wrap=True)
    for column, name, style in names:
        text.append(" " * (column - text.cell_len))
        text.append(name, style)
    return text


def sheet(
    words: Sequence[Word], leaders: Sequence[Mark | None], palette: Palette, *, width: int, colour: bool
) -> list[Text]:
    """The whole text with its names."""
    return [
        row for line in lay_out(words, width) for row in draw_line(line, leaders, palette, width=width, colour=colour)
    ]

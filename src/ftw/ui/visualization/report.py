"""A report: one HTML file with figures, tables and everything needed to repeat it. It loads nothing from elsewhere.

The order is that of a lab notebook: what was asked, the answer in at most three sentences, figures, tables, methods,
provenance, the command. The rule of the file: a figure's title is its reading, and its values stand below as a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from ftw.substrate.errors import ConfigError, StorageError
from ftw.ui.visualization.page import embed, page
from ftw.ui.visualization.plots import Cell, Heat, Picture, shown

MOST_BYTES = 2_000_000
"""A report is smaller than this, so that it can be mailed."""
SHORT = 20
"""Characters that a cell keeps on one line."""
PRINTED_ROWS = 45
"""A figure's table of more rows stays off the paper."""
PRINTED_COLUMNS = 14
"""So does one of more columns, which no sheet is wide enough for."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture under its reading."""

    reading: str
    """The claim, for example `Paris is first from block 5 on`."""
    picture: Picture
    foot: str
    """Units and provenance, in one line."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Figures of which one is seen at a time: a list above them says which. Without script all are seen."""

    label: str
    """What is chosen, for example `Prompt`."""
    names: tuple[str, ...]
    """One for each figure."""
    figures: tuple[Figure, ...]

    def __post_init__(self) -> None:
        if not self.figures or len(self.names) != len(self.figures):
            raise ConfigError(f"a choice of {len(self.figures)} figures has {len(self.names)} names")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ConfigError(f"the table {self.title!r} has {len(self.columns)} columns and rows of other lengths")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report says. Raises ConfigError for an answer of more than three sentences, or none."""

    title: str
    """The main reading."""
    asked: str
    answer: tuple[str, ...]
    """One to three sentences."""
    methods: tuple[str, ...]
    """Paragraphs: how it was computed, and what that leaves open."""
    provenance: Mapping[str, str]
    """Model, data, versions, seed, date."""
    command: str
    """The exact command that makes this report again."""
    figures: Sequence[Figure | Choice] = field(default=())
    tables: Sequence[Table] = field(default=())

    def __post_init__(self) -> None:
        if not 1 <= len(self.answer) <= 3:
            raise ConfigError(f"the answer has {len(self.answer)} sentences: a report answers in one to three")

    def html(self) -> str:
        """The page. Raises ConfigError where it would be 2 MB or more."""
        body = "".join(
            [
                f'<header><p class="brand"><b>ftw</b> report</p><h1>{_text(self.title)}</h1></header>',
                f"<h2>What was asked</h2><p>{_text(self.asked)}</p>",
                f'<h2>Answer</h2><div class="answer">{_paragraphs(self.answer)}</div>',
                _section("Figures", _drawn(self.figures)),
                _section("Tables", [_table(table) for table in self.tables]),
                f"<h2>Methods</h2>{_paragraphs(self.methods)}",
                f"<h2>Provenance</h2><dl>{_facts(self.provenance)}</dl>",
                "<h2>To repeat it</h2>",
                f'<pre id="command">{escape(self.command)}</pre>{_copy("command", "Copy command")}',
            ]
        )
        html = page(self.title, body)
        size = len(html.encode())
        if size >= MOST_BYTES:
            raise ConfigError(f"the report would be {size / 1e6:.1f} MB: draw fewer points, 2 MB is the most")
        return html

    def write(self, file: Path) -> None:
        """The page into a file. Raises StorageError and ConfigError; OSError where the medium does not take it."""
        check_target(file).write_text(self.html(), encoding="utf-8")


def check_target(file: Path) -> Path:
    """`file`, if a report can be written there. Raises ConfigError or StorageError, before any work is done."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--report {file}: a report is .html, so give the file this ending")
    if not file.parent.is_dir():
        raise StorageError(f"--report {file}: there is no folder {file.parent}; make it first")
    return file


def _section(name: str, parts: Sequence[str]) -> str:
    return f"<h2>{name}</h2>{''.join(parts)}" if parts else ""


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{_text(text)}</p>" for text in texts)


def _facts(facts: Mapping[str, str]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())


def _drawn(figures: Sequence[Figure | Choice]) -> list[str]:
    """Every figure with its number; those of a choice follow their list."""
    parts: list[str] = []
    number = 0
    for one in figures:
        several = one.figures if isinstance(one, Choice) else (one,)
        drawn = [_figure(figure, number + place) for place, figure in enumerate(several, 1)]
        number += len(several)
        parts.append(_choice(one, number, drawn) if isinstance(one, Choice) else drawn[0])
    return parts


def _choice(choice: Choice, number: int, drawn: Sequence[str]) -> str:
    """The list, which the script shows, and the figures."""
    options = "".join(f"<option>{escape(name)}</option>" for name in choice.names)
    listed = f'<label hidden>{escape(choice.label)} <select id="choice{number}">{options}</select></label>'
    return f'<div class="choice">{listed}{"".join(drawn)}</div>'


def _figure(figure: Figure, number: int) -> str:
    """Reading, the place of the picture with its data, the foot, and the table twin."""
    heads, rows = figure.picture.twin()
    said = "" if isinstance(figure.picture, Heat) else figure.picture.lines()
    note = f'<p class="note">{escape(said)}</p>' if said else ""
    long = ' class="long"' if len(rows) > PRINTED_ROWS or len(heads) > PRINTED_COLUMNS else ""
    twin = f"values{number}"
    label = f"{figure.reading}. The values stand in the table below."
    return (
        f'<figure><div class="drawing"><figcaption><h3>{_text(figure.reading)}</h3></figcaption>'
        f'<div class="legend"></div><div class="picture" aria-label="{escape(label)}"></div></div>'
        f'<script type="application/json">{embed(figure.picture)}</script>'
        '<noscript><p class="note">The picture is drawn by the script inside this file, which is switched off here. '
        "Its values stand in the table.</p></noscript>"
        f'<p class="foot">{escape(figure.foot)}</p><details{long}><summary>Values as a table</summary>'
        f"{_copy(twin, 'Copy data')}{_grid(heads, rows, twin, figure.reading)}{note}</details></figure>"
    )


def _table(table: Table) -> str:
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    grid = _grid(table.columns, table.rows, "", table.title)
    return f'<div class="table"><h3>{escape(table.title)}</h3>{grid}{note}</div>'


def _grid(heads: Sequence[str], rows: Sequence[Sequence[Cell]], identity: str, label: str) -> str:
    numeric = [bool(rows) and all(_is_figure(row[i]) for row in rows) for i in range(len(heads))]
    name = f' id="{identity}"' if identity else ""
    head = "".join(f'<th scope="col"{_right(numeric[i])}>{escape(text)}</th>' for i, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(_cell(value, right=numeric[i]) for i, value in enumerate(row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}, table">'
        f"<table{name}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Cell, *, right: bool) -> str:
    """A cell; a float keeps its full precision for the clipboard."""
    full = f' data-v="{value!r}"' if isinstance(value, float) else ""
    text = shown(value)
    style = _right(right) or (' class="short"' if len(text) <= SHORT else "")
    return f"<td{style}{full}>{escape(text)}</td>"


def _is_figure(value: Cell) -> bool:
    """Whether a cell is aligned as a number: it is one, or a percentage in words."""
    return not isinstance(value, str) or value.endswith(" %")


def _text(text: str) -> str:
    """Text for the page; a percent sign stays with its number."""
    return escape(text).replace(" %", "\u00a0%")


def _right(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _copy(target: str, text: str) -> str:
    """A button that the script shows; without script there is none that does nothing."""
    return f'<button type="button" data-copy="{target}" hidden>{text}</button>'

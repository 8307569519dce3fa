"""A figure: its reading as the title, the picture, one grey line with units and provenance."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ftw.ui.visualization.palette import grey

TITLE = Style(bold=True)


def title(reading: str) -> Text:
    """The reading of a figure, which is its title."""
    return Text(reading, TITLE)


def foot(*parts: str) -> Text:
    """Units and provenance, in one grey paragraph."""
    return Text(" · ".join(part for part in parts if part), grey())


def figure(reading: str, picture: Sequence[Text], *parts: str) -> Group:
    """Title, picture and foot, with a line of air between them."""
    return Group(title(reading), Text(), *picture, Text(), foot(*parts))


def facts(rows: Mapping[str, str]) -> Table:
    """Names in grey, what they say beside them; long ones keep their column."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=grey(), no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(f"  {name}"), Text(value))
    return table


def count(n: int, noun: str, plural: str | None = None) -> str:
    """`1 token`, `2 tokens`."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def size(n_bytes: int) -> str:
    """`16 MB`, `2.1 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            value = n_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{n_bytes} B"

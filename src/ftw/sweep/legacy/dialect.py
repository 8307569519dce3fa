r"""The legacy CSV: comma, quotes where needed, backslash as escape character, LF, UTF-8.

None is an empty cell, booleans are True and False, numbers are Python's shortest form, token text stands as it is and
may hold line breaks. A reader is `csv.reader(stream, escapechar="\\")` on a file opened with `newline=""`.

The rule of the file: what is written is read back as the same cells, whatever is in them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftw.substrate.errors import NumericError, StorageError

QUOTED = frozenset(',"\n\r')
"""Cells that hold one of these stand in quotes."""


def line(cells: Iterable[Any]) -> str:
    """One row as text, with its line end. Raises NumericError for a NaN or an infinity: a missing number is None."""
    return ",".join(_cell(cell) for cell in cells) + "\n"


def lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A table as text, the columns' names first. What a row does not have is an empty cell."""
    yield line(columns)
    for row in rows:
        yield line([row.get(name) for name in columns])


def write(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes a table row by row, under another name until it is whole. Raises StorageError that names the file."""
    fresh = file.with_name(f".{file.name}.part")
    try:
        with fresh.open("w", encoding="utf-8", errors="surrogatepass", newline="") as stream:
            stream.writelines(lines(columns, rows))
        fresh.replace(file)
    except OSError as error:
        raise StorageError(
            f"{file} cannot be written: {error.strerror or error}: make room, or choose --out"
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
    return file


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        raise NumericError(f"a cell cannot be {value}: leave it empty")
    if not isinstance(value, str):
        return str(value)
    text = value.replace("\\", "\\\\")
    return '"' + text.replace('"', '""') + '"' if QUOTED & set(text) else text

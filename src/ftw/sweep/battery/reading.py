"""From a battery's bytes to its records: TOML, CSV (one prompt per row) and JSONL (one prompt per line).

The rule of the file: nothing is dropped. An unknown key, a row of the wrong length or a key that stands twice is a
ConfigError that names the file, the table or line, the key, and the nearest one that is known.
"""

import csv
import io
import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ftw.substrate.errors import ConfigError, StorageError
from ftw.sweep.battery.records import BatteryFile, Line, Named

Record = TypeVar("Record", bound=BaseModel)

NO_RELATION = "prompts"
"""The relation of rows that name none."""
BETWEEN_ALIASES = "|"
"""Separates aliases in a CSV cell."""


class Row(Line):
    """A row of a CSV or JSONL file: a prompt that also names its relation."""

    relation: Named = NO_RELATION


def read_bytes(file: Path) -> bytes:
    """The file's content. Raises ConfigError where there is no such file, StorageError where it cannot be read."""
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no battery file {file}: check the path") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}") from error


def read_toml(data: bytes, source: str) -> BatteryFile:
    """The battery of a TOML file. Raises ConfigError."""
    try:
        values = tomllib.loads(_text(data, source))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}") from error
    return _checked(BatteryFile, values, source)


def read_csv(data: bytes, source: str) -> list[tuple[Row, str]]:
    """The rows of a CSV file, each with its place. The first row names the columns; an empty cell is not given."""
    reader = csv.reader(io.StringIO(_text(data, source), newline=""), strict=True)
    rows: list[tuple[Row, str]] = []
    columns: list[str] = []
    try:
        for cells in reader:
            where = f"{source}: line {reader.line_num}"
            if not columns:
                columns = _columns(cells, where)
            elif cells:
                rows.append((_checked(Row, _cells(columns, cells, where), where), where))
    except csv.Error as error:
        raise ConfigError(f"{source}: line {reader.line_num} is not CSV: {error}") from error
    return _some(rows, source)


def read_jsonl(data: bytes, source: str) -> list[tuple[Row, str]]:
    """The rows of a JSONL file, each with its place. Blank lines are passed over."""
    rows = []
    for number, line in enumerate(_text(data, source).split("\n"), 1):
        where = f"{source}: line {number}"
        if line.strip():
            rows.append((_checked(Row, _object(line, where), where), where))
    return _some(rows, source)


def _some(rows: list[tuple[Row, str]], source: str) -> list[tuple[Row, str]]:
    if not rows:
        raise ConfigError(f"{source} holds no prompt: give it at least one row with a text")
    return rows


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def _columns(cells: Sequence[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"{where}: column {twice[0]!r} stands twice: name each once")
    for name in names:
        if name not in Row.model_fields:
            raise ConfigError(f"{where}: {name!r} is not a known column{_nearest(name, tuple(Row.model_fields))}")
    if "text" not in names:
        raise ConfigError(f"{where}: there is no column text; the first row names the columns")
    return names


def _cells(columns: Sequence[str], cells: Sequence[str], where: str) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise ConfigError(
            f"{where} has {len(cells)} cells, the first row names {len(columns)}: put cells with commas in quotes"
        )
    given: dict[str, Any] = {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
    if "aliases" in given:
        given["aliases"] = [alias.strip() for alias in given["aliases"].split(BETWEEN_ALIASES)]
    return given


def _object(line: str, where: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise ConfigError(f"{where}: key {twice[0]!r} stands twice: name each once")
        return dict(pairs)

    try:
        value = json.loads(line, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f'{where} is no JSON object: write {{"text": …, "answer": …}}')
    return value


def _checked(kind: type[Record], values: Mapping[str, Any], source: str) -> Record:
    """A record of plain values. Raises ConfigError with one phrase per problem."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(_complaints(error, kind))}") from error


def _complaints(error: ValidationError, kind: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors():
        *tables, key = problem["loc"] or ("",)
        if isinstance(key, int) or not problem["loc"]:  # an entry of an array as a whole, or the whole file
            tables, key = [*problem["loc"]], ""
        table = _table(tables)
        if problem["type"] == "extra_forbidden":
            yield f"{table}{key} is not a known key{_nearest(str(key), _keys(kind, tables))}"
        elif problem["type"] == "missing":
            yield f"{table}{key} is missing"
        elif problem["type"] == "value_error":
            yield f"{table}{key}{': ' if key else ''}{problem['ctx']['error']}"
        else:
            yield f"{table}{key}{': ' if key else ''}{problem['msg']} (got {problem['input']!r})"


def _table(loc: Sequence[int | str]) -> str:
    """A place in the file as a person would look it up: `[[relations]] 2, [[facts]] 3: `, counted from 1."""
    parts: list[str] = []
    for at, step in enumerate(loc):
        if isinstance(step, int):
            continue
        number = loc[at + 1] if at + 1 < len(loc) else None
        parts.append(f"[[{step}]] {number + 1}" if isinstance(number, int) else f"[{step}]")
    return f"{', '.join(parts)}: " if parts else ""


def _keys(kind: type[BaseModel], loc: Sequence[int | str]) -> tuple[str, ...]:
    """The keys that the table at `loc` may have."""
    for step in loc:
        if isinstance(step, str) and step in kind.model_fields:
            inner = kind.model_fields[step].annotation
            kind = next((each for each in (inner, *get_args(inner)) if _is_record(each)), kind)
    return tuple(kind.model_fields)


def _is_record(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, BaseModel)


def _nearest(key: str, known: Sequence[str]) -> str:
    close = get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"

"""JSON as evidence: the one text of a value that is hashed and signed, and a reader that lets nothing slip through.

The rule of the file: what is written has one form, and what is read means what every other parser makes of it. Light
to import, so that evidence can be checked without a model.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftw.substrate.errors import ConfigError, NumericError, StorageError

SAFE_INT = 2**53 - 1
"""Larger integers do not survive a JSON parser that reads numbers as doubles."""


def canonical_json(obj: object) -> bytes:
    """The one JSON text of `obj` after RFC 8785: keys sorted by UTF-16, no spaces, numbers as ECMAScript prints them.

    Raises NumericError for NaN, infinities and integers beyond 2**53 - 1, TypeError for what JSON does not have.
    """
    return _canonical(obj, "$").encode("utf-8")


def sha256_hex(data: bytes | Path) -> str:
    """SHA-256 of bytes, or of a file's content, as 64 hex digits."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    try:
        with data.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{data} cannot be read: {error.strerror}") from error


def read_json(file: Path, most_bytes: int) -> Any:
    """The value in a JSON file of UTF-8. Raises ConfigError for what is no file, too large, or not strictly JSON.

    Refused are also what parsers disagree on or drop silently: a key that stands twice, NaN and infinities, halves of
    surrogate pairs, and depth that overflows a stack.
    """
    if not file.is_file():
        raise ConfigError(f"there is no file {file}: check the path")
    try:
        with file.open("rb") as stream:
            data = stream.read(most_bytes + 1)
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}") from error
    if len(data) > most_bytes:
        raise ConfigError(f"{file} is larger than {most_bytes >> 20} MiB: that is no file of this kind; split it")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # halves of surrogate pairs fail here
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{file} is not JSON, or cut short: {why}") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than any number that programs hold")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _canonical(obj: object, path: str) -> str:
    if obj is None or isinstance(obj, bool | str):
        return json.dumps(obj, ensure_ascii=False)
    if isinstance(obj, int):
        if abs(obj) > SAFE_INT:
            raise NumericError(f"{path} is {obj}: integers beyond 2**53 - 1 do not survive JSON; write it as a string")
        return str(int(obj))
    if isinstance(obj, float):
        return _number(obj, path)
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, str):
                raise TypeError(f"{path}: key {key!r} is not a string")
        keys = sorted(obj, key=lambda key: key.encode("utf-16-be"))
        return (
            "{"
            + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_canonical(obj[k], f'{path}.{k}')}" for k in keys)
            + "}"
        )
    if isinstance(obj, list | tuple):
        return "[" + ",".join(_canonical(item, f"{path}[{i}]") for i, item in enumerate(obj)) + "]"
    raise TypeError(f"{path} is a {type(obj).__name__}: JSON has none")


def _number(value: float, path: str) -> str:
    """A double as ECMAScript's Number::toString prints it (RFC 8785, 3.2.2.3)."""
    if not math.isfinite(value):
        raise NumericError(f"{path} is {value}: JSON has no such number")
    if value == 0:
        return "0"
    sign, value = ("-", -value) if value < 0 else ("", value)
    mantissa, exponent = f"{value!r}e0".split("e")[:2] if "e" not in repr(value) else repr(value).split("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    n = len(digits)
    if 0 < point <= 21:
        text = digits.ljust(point, "0") if n <= point else f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        shift = point - 1
        text = f"{digits[0]}{'.' + digits[1:] if n > 1 else ''}e{'+' if shift > 0 else '-'}{abs(shift)}"
    return sign + text

"""Request bodies: read within bounds, parsed without guessing, handed to routes as checked records.

The rule of the file: what JSON does not define (NaN, Infinity, a key given twice) is refused here, and so is every body
that is longer than the server takes.
"""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from ftw.ui.api.problems import BadBody, Complaint, TooLarge

Body = TypeVar("Body", bound=BaseModel)


def parse(text: bytes) -> Any:
    """The JSON value in `text`. Raises BadBody for what RFC 8259 does not define, and for keys given twice."""
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique, parse_int=_integer
        )
    except RecursionError as error:
        raise BadBody([Complaint(("body",), "the JSON is nested too deeply", "json_invalid")]) from error
    except ValueError as error:  # also text that is not UTF-8
        raise BadBody([Complaint(("body",), f"this is no JSON: {error}", "json_invalid")]) from error


async def read(request: Request, limit: int) -> bytes:
    """The whole body. Raises TooLarge once more than `limit` bytes have come."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limit:
        raise TooLarge(limit)
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > limit:
            raise TooLarge(limit)
    return bytes(found)


def body_of(model: type[Body], limit: int) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that gives a route its body as a `model`, checked with strict types. Parsed in a thread."""

    def checked(text: bytes) -> Body:
        value = parse(text)
        try:
            return model.model_validate(value, strict=True)
        except ValidationError as error:
            raise BadBody([_complaint(problem) for problem in error.errors(include_url=False)]) from error

    async def give(request: Request) -> Body:
        text = await read(request, limit)
        return checked(text) if len(text) < 1 << 14 else await asyncio.to_thread(checked, text)

    return give


def described(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route whose body is a `model`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema(model)}}}}


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model with its parts written in place: a body's own $defs cannot be found in OpenAPI."""
    whole = model.model_json_schema()
    parts = whole.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inline(parts[value["$ref"].removeprefix("#/$defs/")])
            return {key: inline(each) for key, each in value.items()}
        return [inline(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = inline(whole)
    return found


def _complaint(problem: Any) -> Complaint:
    where = ("body", *problem["loc"])
    if problem["type"] == "extra_forbidden":
        return Complaint(where, f"{problem['loc'][-1]!r} is not a known key", "extra_forbidden")
    return Complaint(where, problem["msg"].removeprefix("Value error, "), problem["type"])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large for a double")
    return value


def _integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError("an integer has more than 40 digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return found

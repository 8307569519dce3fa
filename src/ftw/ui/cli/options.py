"""The options that several verbs share, each defined once."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ftw.substrate.errors import ConfigError, UsageError

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="reference (bundled), a local folder, or a hub id.", show_default=False
    ),
]
PackName = Annotated[
    str | None,
    typer.Option("--pack", "-p", metavar="PACK", help="Lens pack: a folder or a bundled name.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", "-n", metavar="N", help="Tokens to write at most. Default: 96.", show_default=False),
]
Temperature = Annotated[float, typer.Option("--temperature", "-t", metavar="T", help="0 writes the likeliest token.")]
Seed = Annotated[int, typer.Option("--seed", help="Makes draws repeatable.")]
Complete = Annotated[
    bool, typer.Option("--complete", help="Continue the prompt itself; without it a chat model answers it.")
]
Export = Annotated[
    Path | None,
    typer.Option("--export", metavar="FILE", help="Write the picture to FILE (.svg or .txt).", show_default=False),
]


def verb(name: str, *examples: str) -> dict[str, Any]:
    r"""How a verb is registered: its name, and an epilog with examples that the tests run. `\b` keeps the lines."""
    lines = "\n".join(f"  {example}" for example in examples)
    return {"name": name, "epilog": f"\b\nExamples:\n{lines}"}


def said(prompt: str) -> str:
    """The prompt, which must say something. Raises UsageError."""
    if not prompt.strip():
        raise UsageError('the prompt is empty: put the text in quotes, for example "Tell me a story about a storm."')
    return prompt


def names(text: str | None, option: str = "--concepts", like: str = "food,weather") -> tuple[str, ...] | None:
    """Names from `a,b`. None means no choice was made. Raises ConfigError for a list without a name."""
    if text is None:
        return None
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise ConfigError(f"{option} names nothing: give names with commas between them, for example {like}")
    return found


def at_least(name: str, value: int, least: int) -> int:
    """`value`, if it is at least `least`. Raises ConfigError."""
    if value < least:
        raise ConfigError(f"{name} is {value}: it must be at least {least}")
    return value


def size(name: str, text: str) -> int:
    """Bytes from a size such as 64MB. Raises ConfigError."""
    from ftw.substrate.config import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def strength_of(text: str) -> float:
    """The strength as a number. Raises ConfigError for what is none, or is no finite one."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"--strength is {text!r}: give a number, for example 0.8 (0 is none, below 0 pushes away)")
    return value

"""`ftw demo`: one minute with a real model."""

from typing import Annotated

import typer

from ftw.ui.cli.options import Json, ModelName, verb
from ftw.ui.cli.output import Out, repeat

COMMAND = verb("demo", "ftw demo", "ftw demo --json")


def command(
    model: ModelName = None,
    fast: Annotated[bool, typer.Option("--fast", help="Do not wait between the parts.")] = False,
    json: Json = False,
) -> None:
    """A minute with a real model: it writes, is steered, shows where an answer forms, and proves its work."""
    from ftw.ui.verbs.demo import run

    run(Out(json=json, command=repeat()), model=model, is_paced=not fast)

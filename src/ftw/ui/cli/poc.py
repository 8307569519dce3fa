"""`ftw poc`: proof of compute."""

from typing import Annotated

import typer

from ftw.ui.cli.options import Json, ModelName, at_least, verb
from ftw.ui.cli.output import Out, repeat

app = typer.Typer(
    name="poc", help="Prove that a model was computed: first vectors.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _poc() -> None:
    """Prove that a model was computed: first vectors."""


@app.command(**verb("hello", "ftw poc hello", "ftw poc hello -n 4 --json"))
def hello(
    model: ModelName = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Vectors to compute.")] = 8,
    json: Json = False,
) -> None:
    """Compute a round's first vectors twice, in different batch shapes, and compare them."""
    at_least("-n", n, 1)
    from ftw.ui.verbs.poc import run

    run(Out(json=json, command=repeat()), model=model, n=n)

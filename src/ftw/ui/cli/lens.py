"""`ftw lens`: train the lenses of a model, and read their report."""

from pathlib import Path
from typing import Annotated

import typer

from ftw.ui.cli.options import Json, ModelName, PackName, Seed, verb
from ftw.ui.cli.output import Out, repeat

app = typer.Typer(
    name="lens", help="Train concept lenses and read their report.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _lens() -> None:
    """Train concept lenses and read their report."""


@app.command(**verb("train", "ftw lens train --out ./my-lenses"))
def train(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the lens pack goes.")],
    model: ModelName = None,
    pack: Annotated[
        str, typer.Option("--pack", "-p", metavar="PACK", help="Concept pack: bundled name or folder.")
    ] = "everyday",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a lens for every concept of a pack on one model, calibrate them, and save them with their report."""
    from ftw.ui.verbs.lens import run_train

    run_train(Out(json=json, command=repeat()), model=model, pack=pack, folder=out, seed=seed)


@app.command(**verb("report", "ftw lens report", "ftw lens report --json"))
def report(
    pack: PackName = None,
    json: Json = False,
) -> None:
    """Show how good the lenses of a pack are, on templates and words that training never saw."""
    from ftw.ui.verbs.lens import run_report

    run_report(Out(json=json, command=repeat()), pack=pack)

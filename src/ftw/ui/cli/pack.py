"""`ftw pack`: the concepts that lenses are named by."""

from typing import Annotated

import typer

from ftw.ui.cli import pack_build, pack_meld, pack_registry
from ftw.ui.cli.options import Json, verb
from ftw.ui.cli.output import Out

app = typer.Typer(name="pack", help="List packs and look up concepts.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _pack() -> None:
    """List packs and look up concepts."""


@app.command(**verb("list", "ftw pack list", "ftw pack list --json"))
def list_(json: Json = False) -> None:
    """List the packs that were pulled and those that ship."""
    from ftw.ui.verbs.pack import run_list

    run_list(Out(json=json))


@app.command(**verb("show", "ftw pack show", "ftw pack show --concept food"))
def show(
    name: Annotated[str, typer.Argument(metavar="[PACK]", help="Concept pack: bundled name or folder.")] = "everyday",
    concept: Annotated[
        str | None, typer.Option("--concept", "-c", help="One concept: its place and its words.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show the tree of a concept pack, or one concept of it."""
    from ftw.ui.verbs.pack import run_show

    run_show(Out(json=json), name, concept=concept)


pack_build.register(app)
pack_registry.register(app)
app.add_typer(pack_meld.app)

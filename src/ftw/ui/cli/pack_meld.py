"""`ftw pack meld`: changes to a concept pack, validated, applied, compared."""

from pathlib import Path
from typing import Annotated

import typer

from ftw.ui.cli.options import Json, verb
from ftw.ui.cli.output import Out, repeat

app = typer.Typer(
    name="meld", help="Change a concept pack under its rules.", no_args_is_help=True, rich_markup_mode=None
)

Meld = Annotated[Path, typer.Argument(metavar="MELD", help="A meld: new concepts and operations, as JSON.")]
Pack = Annotated[str, typer.Option("--pack", "-p", metavar="PACK", help="Concept pack: bundled name or folder.")]
WordNetFolder = Annotated[
    Path | None,
    typer.Option(
        "--wordnet",
        metavar="FOLDER",
        help="WordNet's dict files, to look synsets up in. Default: Debian's, if there.",
        show_default=False,
    ),
]


@app.callback()
def _meld() -> None:
    """Change a concept pack under its rules."""


@app.command(**verb("validate", "ftw pack meld validate my-meld.json", "ftw pack meld validate my-meld.json --json"))
def validate(meld: Meld, pack: Pack = "everyday", wordnet: WordNetFolder = None, json: Json = False) -> None:
    """Say what is wrong with a meld, how much it has to be looked at, and which lenses it calls into question."""
    from ftw.ui.verbs.pack_meld import run_validate

    if not run_validate(Out(json=json, command=repeat()), meld, pack, wordnet=wordnet):
        raise typer.Exit(1)


@app.command(**verb("apply", "ftw pack meld apply my-meld.json --pack everyday --out ./my-concepts"))
def apply(
    meld: Meld,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the new pack goes.")],
    pack: Pack = "everyday",
    wordnet: WordNetFolder = None,
    json: Json = False,
) -> None:
    """Write a new version of a concept pack with a meld in it, and list the lenses that wait for training."""
    from ftw.ui.verbs.pack_meld import run_apply

    if not run_apply(Out(json=json, command=repeat()), meld, pack, out, wordnet=wordnet):
        raise typer.Exit(1)


@app.command(**verb("diff", "ftw pack meld diff everyday ./my-concepts"))
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Concept pack: bundled name or folder.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The pack that it is held against.")],
    json: Json = False,
) -> None:
    """Show what changed between two concept packs, and which lenses of A that calls into question."""
    from ftw.ui.verbs.pack_meld import run_diff

    run_diff(Out(json=json, command=repeat()), before, after)

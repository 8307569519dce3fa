"""`ftw pack build` and `ftw pack check`: concept packs from ontologies, and what is weak in a pack."""

from pathlib import Path
from typing import Annotated

import typer

from ftw.ui.cli.options import Json, names, verb
from ftw.ui.cli.output import Out


def register(app: typer.Typer) -> None:
    """Add both verbs to `ftw pack`."""
    app.command(
        **verb(
            "build",
            "ftw pack build --out ./my-concepts --size 500",
            "ftw pack build --out ./zoo --roots animal.n.01,plant.n.02 --size 300",
        )
    )(build)
    app.command(**verb("check", "ftw pack check", "ftw pack check everyday --json"))(check)


def build(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the concept pack goes.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The pack's name. Default: that of the folder.", show_default=False)
    ] = None,
    version: Annotated[str, typer.Option("--version", metavar="V", help="The pack's version.")] = "1.0.0",
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="What the pack is about.")] = "",
    roots: Annotated[
        str | None,
        typer.Option(
            "--roots",
            metavar="A,B",
            help="What stands on top: synsets (animal.n.01) or SUMO classes. Default: 17 broad kinds, or Entity.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[int, typer.Option("--size", metavar="N", help="Concepts at most.")] = 1000,
    children: Annotated[int, typer.Option("--children", metavar="N", help="Children of a concept at most.")] = 31,
    levels: Annotated[int, typer.Option("--levels", metavar="N", help="Levels at most.")] = 12,
    words: Annotated[int, typer.Option("--words", metavar="N", help="Words that a concept needs at least.")] = 5,
    listed: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="A TOML list of concepts instead.", show_default=False),
    ] = None,
    wordnet: Annotated[Path, typer.Option("--wordnet", metavar="FOLDER", help="WordNet's dict files.")] = Path(
        "/usr/share/wordnet"
    ),
    sumo: Annotated[
        list[Path] | None,
        typer.Option("--sumo", metavar="FILE", help="A KIF file of SUMO; may stand several times.", show_default=False),
    ] = None,
    mappings: Annotated[
        Path | None,
        typer.Option(
            "--mappings",
            metavar="FOLDER",
            help="SUMO's WordNetMappings30-*.txt: words for its classes.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Build a concept pack from WordNet or SUMO: chosen roots, a chosen size, the same bytes every time."""
    from ftw.map.ontology.taxonomy import Limits
    from ftw.ui.verbs.pack_build import run_build

    run_build(
        Out(json=json),
        out,
        name=name or out.name,
        version=version,
        description=description,
        listed=listed,
        wordnet=wordnet,
        kif=tuple(sumo or ()),
        mappings=mappings,
        roots=names(roots, "--roots", "animal.n.01,plant.n.02") or (),
        limits=Limits(size, most_children=children, deepest=levels, fewest_words=words, most_words=max(25, words)),
    )


def check(
    name: Annotated[str, typer.Argument(metavar="[PACK]", help="Concept pack: a name or a folder.")] = "everyday",
    wordnet: Annotated[
        Path | None,
        typer.Option(
            "--wordnet", metavar="FOLDER", help="WordNet's dict files. Default: Debian's, if there.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Say what is weak in a concept pack: lone children, crowded parents, few words, words with other meanings."""
    from ftw.ui.verbs.pack_build import run_check

    run_check(Out(json=json), name, wordnet=wordnet)

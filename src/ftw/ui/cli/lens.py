"""`ftw lens`: train the lenses of a model, and read their report."""

from pathlib import Path
from typing import Annotated

import typer

from ftw.substrate.errors import UsageError
from ftw.ui.cli.options import Json, ModelName, PackName, Seed, at_least, verb
from ftw.ui.cli.output import Out, repeat

ConceptsName = Annotated[
    str | None,
    typer.Option(
        "--concepts",
        metavar="PACK",
        help="Concept pack: bundled name or folder. Default: the pack's own.",
        show_default=False,
    ),
]


Prompts = Annotated[
    int | None,
    typer.Option(
        "--prompts", metavar="N", help="Read at most N prompts. Default: one for each word.", show_default=False
    ),
]


def checked(prompts: int | None) -> int | None:
    """How many prompts to read, at least one. Raises ConfigError."""
    return None if prompts is None else at_least("--prompts", prompts, 1)


def one_of(name: str | None, pack: str | None) -> str | None:
    """The pack, given either way. Raises UsageError where it is given both ways."""
    if name is not None and pack is not None:
        raise UsageError(f"the pack is given twice, as {name} and as --pack {pack}: give it once")
    return pack if name is None else name


app = typer.Typer(
    name="lens", help="Train concept lenses and read their report.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _lens() -> None:
    """Train concept lenses and read their report."""


@app.command(**verb("train", "ftw lens train --out ./my-lenses", "ftw lens train --out ./my-lenses --shard 1/2"))
def train(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the lens pack goes.")],
    model: ModelName = None,
    concepts: Annotated[
        str,
        typer.Option("--concepts", "--pack", "-p", metavar="PACK", help="Concept pack: bundled name or folder."),
    ] = "everyday",
    blocks: Annotated[
        str | None,
        typer.Option("--blocks", metavar="N,N-N", help="Blocks to choose from. Default: all.", show_default=False),
    ] = None,
    form: Annotated[
        str, typer.Option("--form", metavar="FORM", help="shared (one first layer for all lenses) or separate.")
    ] = "shared",
    per_depth: Annotated[
        bool, typer.Option("--per-depth", help="Also lenses at the best early, mid and late block.")
    ] = False,
    false_alarms: Annotated[
        float, typer.Option("--false-alarms", metavar="SHARE", help="Of plain text, that may read above threshold.")
    ] = 0.01,
    target: Annotated[
        float, typer.Option("--target", metavar="AUROC", help="Lenses below it get more prompts.")
    ] = 0.95,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Do share I of N, and stop.", show_default=False)
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", metavar="FOLDER", help="Take over what a share wrote elsewhere.", show_default=False),
    ] = None,
    ray: Annotated[
        int | None, typer.Option("--ray", metavar="N", help="Share the work on Ray with N workers.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on where a killed training stopped.")] = True,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", metavar="FOLDER", help="Where states are kept. Default: OUT.training", show_default=False
        ),
    ] = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Leave the states there at the end.")] = False,
    no_directions: Annotated[bool, typer.Option("--no-directions", help="Make no steering directions.")] = False,
    directions: Annotated[
        Path | None,
        typer.Option("--directions", metavar="FOLDER", help="Take those of another pack.", show_default=False),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a lens for every concept of a pack on one model, calibrate them, and save them with their report."""
    from ftw.ui.verbs.lens_train import Ask, form_of, run_train

    ask = Ask(
        model=model,
        concepts=concepts,
        folder=out,
        seed=seed,
        blocks=blocks,
        form=form_of(form),
        false_alarms=false_alarms,
        target=target,
        per_depth=per_depth,
        shard=shard,
        merge=tuple(merge or ()),
        ray=ray,
        resume=resume,
        work=work,
        keep_work=keep_work,
        directions=False if no_directions else directions or True,
    )
    run_train(Out(json=json, command=repeat()), ask)


@app.command(**verb("report", "ftw lens report", "ftw lens report --json"))
def report(
    name: Annotated[
        str | None, typer.Argument(metavar="[PACK]", help="Lens pack: a folder or a bundled name.", show_default=False)
    ] = None,
    pack: PackName = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure now, on this machine.")] = False,
    model: ModelName = None,
    concepts: ConceptsName = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page.", show_default=False)
    ] = None,
    prompts: Prompts = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Show how good the lenses of a pack are, against what, and whether the five properties hold on their model."""
    from ftw.ui.verbs.lens_report import run_report

    run_report(
        Out(json=json, command=repeat()),
        pack=one_of(name, pack),
        measure=measure,
        model=model,
        concepts=concepts,
        html=html,
        prompts=checked(prompts),
        seed=seed,
    )


@app.command(**verb("compare", "ftw lens compare ./my-lenses ./small-lenses"))
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Lens pack: a folder or a bundled name.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, of the same concepts and model.")],
    model: ModelName = None,
    concepts: ConceptsName = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the comparison as a page.", show_default=False)
    ] = None,
    prompts: Prompts = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Say which of two lens packs reads what better, and how far they say the same of the same text."""
    from ftw.ui.verbs.lens_compare import run_compare

    run_compare(
        Out(json=json, command=repeat()),
        a,
        b,
        model=model,
        concepts=concepts,
        html=html,
        prompts=checked(prompts),
        seed=seed,
    )


@app.command(**verb("import", "ftw lens import ./old-lenses --out ./my-lenses"))
def import_(
    legacy: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of .pt lenses: layer0, layer1, …")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the lens pack goes.")],
    model: ModelName = None,
    concepts: Annotated[
        str | None,
        typer.Option("--concepts", metavar="PACK", help="Concept pack that gives the parents.", show_default=False),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option("--block", metavar="N", help="Where lenses read whose files do not say it.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Make a lens pack of a folder of .pt files, in whichever of the published layouts it is."""
    from ftw.ui.verbs.lens_convert import run_import

    run_import(Out(json=json, command=repeat()), legacy=legacy, folder=out, model=model, concepts=concepts, block=block)


@app.command(**verb("export", "ftw lens export --out ./old-lenses"))
def export(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the .pt files go.")],
    pack: PackName = None,
    json: Json = False,
) -> None:
    """Write a lens pack as a folder of .pt files that older programs read."""
    from ftw.ui.verbs.lens_convert import run_export

    run_export(Out(json=json, command=repeat()), pack=pack, folder=out)


@app.command(**verb("convert", "ftw lens convert --to int8 --out ./small-lenses"))
def convert(
    to: Annotated[str, typer.Option("--to", metavar="KIND", help="fp32, bf16 or int8.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the lens pack goes.")],
    pack: PackName = None,
    states: Annotated[
        Path | None,
        typer.Option("--states", metavar="FILE", help="States to compare on (.safetensors).", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", help="Random states, without --states.")] = 200,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Write a lens pack in another number format, and show how far it reads as before."""
    from ftw.ui.verbs.lens_convert import run_convert

    run_convert(
        Out(json=json, command=repeat()),
        pack=pack,
        to=to,
        folder=out,
        states=states,
        samples=at_least("--samples", samples, 1),
        seed=seed,
    )


@app.command(**verb("trunk", "ftw lens trunk ./my-lenses --rank 40"))
def trunk(
    pack: Annotated[str, typer.Argument(metavar="PACK", help="Lens pack: a folder or a bundled name.")],
    rank: Annotated[int, typer.Option("--rank", metavar="R", help="Numbers that are kept of each state.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="A copy of the pack with it. Default: in PACK.", show_default=False
        ),
    ] = None,
    model: ModelName = None,
    concepts: ConceptsName = None,
    prompts: Prompts = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fit one projection that all lenses read instead of the state, and show what it costs and saves."""
    from ftw.ui.verbs.lens_trunk import run_trunk

    run_trunk(
        Out(json=json, command=repeat()),
        pack,
        rank=at_least("--rank", rank, 1),
        folder=out,
        model=model,
        concepts=concepts,
        prompts=checked(prompts),
        seed=seed,
    )

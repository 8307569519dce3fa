"""`ftw sweep`: every layer of a model, read on many prompts. `ftw sweep MODEL` is `ftw sweep run MODEL`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ftw.substrate.errors import UsageError
from ftw.ui.cli.options import Json, Seed, at_least, names, verb
from ftw.ui.cli.output import Out, repeat

DEFAULT = "run"
HELP = "Read every layer of models on many prompts: when does the answer appear, and is it copied or meant."


class Routed(TyperGroup):
    """A group whose first word may also be a model or an option: then it is that of `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `run` where no verb is named. Only help of the group itself stays the group's."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options of `run` stand on the group's page too: they work without its name."""
        command = self.commands[DEFAULT]
        command.format_options(typer.Context(command, parent=ctx, info_name=DEFAULT), formatter)
        self.format_commands(ctx, formatter)


app = typer.Typer(name="sweep", cls=Routed, help=HELP, rich_markup_mode=None, subcommand_metavar="[MODEL]... | VERB")

Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="reference (bundled), a local folder, or a hub id.", show_default=False),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:N, or map: spread over all of them and the disk.",
        show_default=False,
    ),
]
DType = Annotated[
    str | None,
    typer.Option("--dtype", metavar="DTYPE", help="auto, float32, bfloat16 or float16.", show_default=False),
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="Processor threads. Default: all.", show_default=False)
]


@app.callback()
def _sweep() -> None:
    """Read every layer of models on many prompts: when does the answer appear, and is it copied or meant."""


@app.command(
    **verb(
        "run",
        "ftw sweep --lens logit --legacy-schema none",
        "ftw sweep run tiny --battery germany --out ./sweeps --json",
    )
)
def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Bundled names, folders or hub ids. Default: reference.", show_default=False
        ),
    ] = None,
    battery: Annotated[
        str | None,
        typer.Option(
            "--battery",
            "-b",
            metavar="FILE",
            help="Prompts: a bundled name or a file (.toml, .csv, .jsonl). Default: reference for the bundled model, "
            "germany for others.",
            show_default=False,
        ),
    ] = None,
    lens: Annotated[
        str | None,
        typer.Option(
            "--lens",
            "-l",
            metavar="A,B",
            help="logit, next, own, raw, tuned, prism. Default: all that the model has and that were accepted.",
            show_default=False,
        ),
    ] = None,
    positions: Annotated[
        str, typer.Option("--positions", metavar="last|all", help="Which positions of each prompt to read.")
    ] = "all",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Runs go in here; the last one is run-latest.")
    ] = Path("sweeps"),
    device: Device = None,
    dtype: DType = None,
    heldout: Annotated[
        str | None,
        typer.Option(
            "--heldout",
            metavar="TEXT",
            help="Text for temperatures: a file, a folder, a hub data set, or self: the model's own.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take up what a run that ended early had finished.")] = False,
    legacy: Annotated[
        str,
        typer.Option("--legacy-schema", metavar="seed|extended|none", help="Which of the legacy files to write."),
    ] = "seed",
    precision: Annotated[
        str, typer.Option("--precision", metavar="exact|fast", help="fast: a bf16 product, exact where it is reported.")
    ] = "exact",
    seed: Seed = 0,
    tuned: Annotated[
        Path | None,
        typer.Option("--tuned", metavar="FOLDER", help="A tuned lens to read through.", show_default=False),
    ] = None,
    prism: Annotated[
        Path | None,
        typer.Option("--prism", metavar="FOLDER", help="A prism lens to read through.", show_default=False),
    ] = None,
    lens_folder: Annotated[
        list[str] | None,
        typer.Option(
            "--lens-folder",
            metavar="NAME=FOLDER",
            help="A fitted lens of any kind to read through.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="K", help="Tokens to list for each row.")] = 20,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="NAME=VALUE", help="Change what counts, for example copy_p=0.9.", show_default=False
        ),
    ] = None,
    keep_states: Annotated[
        bool, typer.Option("--keep-states", help="Keep the residual streams that were read.")
    ] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Read every layer of each model through its lenses, on a battery of prompts, and write the run's folder.

    Each model runs in a process of its own: one that fails leaves the others alone. Exit code 1 if any failed.
    """
    from ftw.ui.verbs.sweep import Ask, folders
    from ftw.ui.verbs.sweep import run as sweep

    _no_verb_among(models or [])
    ask = Ask(
        models=tuple(models or ()),
        battery=battery,
        lenses=names(lens, "--lens", "logit,tuned"),
        positions=positions,
        out=out,
        device=device,
        dtype=dtype,
        heldout=heldout,
        resume=resume,
        legacy=legacy,
        precision=precision,
        seed=seed,
        folders=folders(tuned=tuned, prism=prism, more=lens_folder or ()),
        k=top,
        thresholds=tuple(threshold or ()),
        keep_states=keep_states,
        threads=threads,
    )
    sweep(Out(json=json, command=repeat()), ask)


def _no_verb_among(models: list[str]) -> None:
    """Raises UsageError where a verb's name stands among models, behind options."""
    for name in models:
        if name in ("report", "diff", "fit-tuned", "fit-prism") and not Path(name).is_dir():
            raise UsageError(f"{name!r} is no model here: a verb comes first, as in `ftw sweep {name} …`")


Corpus = Annotated[
    str,
    typer.Option(
        "--corpus",
        "-c",
        metavar="TEXT",
        help="Text to fit on: a file or folder (.txt, .jsonl, .parquet), a hub data set, or self: the model's own.",
    ),
]
Field = Annotated[str, typer.Option("--field", metavar="NAME", help="Key or column that holds the text.")]
Documents = Annotated[
    int | None,
    typer.Option("--documents", metavar="N", help="Documents of the corpus to read at most.", show_default=False),
]
FitOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Where the lens goes. Default: where `ftw sweep` finds it by itself.",
        show_default=False,
    ),
]


@app.command(
    **verb(
        "fit-tuned",
        "ftw sweep fit-tuned tiny --documents 24 --steps 4 --out ./tiny-tuned",
        "ftw sweep fit-tuned reference --corpus ./texts --kind all",
    )
)
def fit_tuned(
    model: Model = None,
    corpus: Corpus = "self",
    field: Field = "text",
    documents: Documents = None,
    kind: Annotated[
        str, typer.Option("--kind", metavar="bias|rank|full|all", help="What a layer's translator is made of.")
    ] = "rank",
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="R", help="Rank of a low-rank translator.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Steps at most. Default: 400.", show_default=False)
    ] = None,
    out: FitOut = None,
    device: Device = None,
    dtype: DType = None,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Fit a tuned lens to a model on text, and say on held-out text whether it beats the logit lens.

    With --kind all: a bias, a low-rank and a full translator side by side, and the best of them is kept.
    """
    from ftw.ui.verbs.sweep_fit import Ask, run_tuned

    ask = Ask(model, corpus, field, documents, steps, out, device, dtype, seed, threads)
    run_tuned(Out(json=json, command=repeat()), ask, kind=kind, rank=rank)


@app.command(
    **verb(
        "fit-prism",
        "ftw sweep fit-prism reference --corpus ./texts",
        "ftw sweep fit-prism tiny --documents 600 --positions 10000 --out ./tiny-prism --json",
    )
)
def fit_prism(
    model: Model = None,
    corpus: Corpus = "self",
    field: Field = "text",
    documents: Documents = None,
    positions: Annotated[
        int, typer.Option("--positions", metavar="N", help="Distinct positions to fit on; at least 10,000.")
    ] = 20_000,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="head|states",
            help="What lens inputs are rotated onto. Default: both, and the better is kept.",
            show_default=False,
        ),
    ] = None,
    covariance: Annotated[
        str, typer.Option("--covariance", metavar="diagonal|full", help="How lens inputs are whitened.")
    ] = "diagonal",
    k: Annotated[
        int | None,
        typer.Option("--k", metavar="K", help="Directions that count. Default: by the spectrum.", show_default=False),
    ] = None,
    out: FitOut = None,
    device: Device = None,
    dtype: DType = None,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Fit a Prism to a model on text: one whitening and one rotation for all layers, judged on held-out text."""
    from ftw.ui.verbs.sweep_fit import Ask, run_prism

    ask = Ask(model, corpus, field, documents, None, out, device, dtype, seed, threads)
    out_ = Out(json=json, command=repeat())
    run_prism(out_, ask, target=target, covariance=covariance, k=k, positions=positions)


@app.command(**verb("report", "ftw sweep report sweeps/run-latest", "ftw sweep report sweeps --json"))
def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or the folder of runs: then its run-latest.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE", help="Where the report goes (.html). Default: into the run.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a run's report again from its rows and its document, and show its figure. No model is loaded."""
    from ftw.ui.verbs.sweep_report import run as make

    make(Out(json=json, command=repeat()), run, to=to)


@app.command(
    **verb("diff", "ftw sweep diff sweeps/run-20261121-1603 sweeps/run-latest", "ftw sweep diff before after --json")
)
def diff(
    run_a: Annotated[Path, typer.Argument(metavar="A", help="A run's folder, or the folder of runs.")],
    run_b: Annotated[Path, typer.Argument(metavar="B", help="The one that it is compared with.")],
    absolute: Annotated[
        float, typer.Option("--tolerance", metavar="X", help="How far numbers may be apart and still be alike.")
    ] = 1e-4,
    relative: Annotated[
        float, typer.Option("--relative", metavar="X", help="And this share of the number in A.")
    ] = 1e-4,
    ranks: Annotated[float, typer.Option("--ranks", metavar="X", help="Ranks: this share of the rank in A.")] = 0.01,
    most: Annotated[int, typer.Option("--most", metavar="N", help="Lines of each list.")] = 12,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 where the runs differ.")] = False,
    json: Json = False,
) -> None:
    """Compare two runs: what made them, which rows they share, how far numbers and milestones moved."""
    at_least("--most", most, 1)
    from ftw.sweep.files.diff import Tolerance
    from ftw.ui.verbs.sweep_diff import run as compare

    tolerance = Tolerance(absolute, relative, ranks)
    is_alike = compare(Out(json=json, command=repeat()), run_a, run_b, tolerance=tolerance, most=most)
    if exit_code and not is_alike:
        raise typer.Exit(1)

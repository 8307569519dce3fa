"""`ftw poc`: proof of compute."""

from pathlib import Path
from typing import Annotated

import typer

from ftw.ui.cli import poc_analysis, poc_commit
from ftw.ui.cli.options import Json, ModelName, at_least, verb
from ftw.ui.cli.output import Out, repeat

app = typer.Typer(
    name="poc",
    help="Prove that a model was computed, validate proofs, and calibrate what they are worth.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


for options, analysis in (*poc_commit.COMMANDS, *poc_analysis.COMMANDS):
    app.command(**options)(analysis)


@app.callback()
def _poc() -> None:
    """Prove that a model was computed, validate proofs, and calibrate what they are worth."""


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


@app.command(
    **verb(
        "bench",
        "ftw poc bench --seq-len 16 --rows 2 --rounds 2",
        "ftw poc bench --profile ftw-1 --seq-len 16 --rows 2 --rounds 2 --json",
    )
)
def bench(
    model: ModelName = None,
    profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="Protocol profile.")] = "artifact-k12",
    seq_len: Annotated[
        int | None,
        typer.Option("--seq-len", metavar="T", help="Positions per nonce. Default: 256.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", help="Nonces per forward pass.")] = 8,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="Batches to measure.")] = 5,
    json: Json = False,
) -> None:
    """Measure nonces per second, where the time goes, and the ratio to the bare forward pass."""
    at_least("--rows", rows, 1)
    at_least("--rounds", rounds, 1)
    from ftw.ui.verbs.poc_bench import run

    run(Out(json=json, command=repeat()), model=model, name=profile, seq_len=seq_len, rows=rows, rounds=rounds)


@app.command(
    **verb(
        "receiver",
        "ftw poc receiver --port 0 --seconds 1",
        "ftw poc receiver --port 0 --seconds 1 --fail 503 --for 30 --json",
    )
)
def receiver(
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Port to listen on; 0 takes a free one.")] = 9000,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Append each delivery to FILE, one JSON line.", show_default=False),
    ] = None,
    fail: Annotated[
        int | None,
        typer.Option("--fail", metavar="STATUS", help="Answer with this status instead.", show_default=False),
    ] = None,
    fail_s: Annotated[
        float | None,
        typer.Option("--for", metavar="S", help="Fail for so many seconds, then take.", show_default=False),
    ] = None,
    delay: Annotated[float, typer.Option("--delay", metavar="S", help="Wait before every answer.")] = 0.0,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="S", help="End by itself after so many seconds.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Take callbacks, count them, and tell what came twice or never; can fail on purpose."""
    from ftw.ui.verbs.poc_receiver import Asked, run

    run(Out(json=json, command=repeat()), Asked(host, port, save, fail, fail_s, delay, seconds))

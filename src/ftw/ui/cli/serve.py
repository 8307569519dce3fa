"""`ftw serve`: the model over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from ftw.ui.cli.options import Json, ModelName, verb
from ftw.ui.cli.output import Out, repeat

COMMAND = verb("serve", "ftw serve --port 0 --seconds 1", "ftw serve --model tiny --port 0 --seconds 1 --json")


def command(
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Port to listen on; 0 takes a free one.")] = 8000,
    model: ModelName = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", metavar="FILE", help="The journal. Default: POC_JOURNAL.", show_default=False),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the token to ask for. Default: FTW_TOKEN.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="S", help="End by itself after so many seconds.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Serve the model over HTTP: chat as OpenAI's API, and proofs of compute. POC_* variables set the proofs."""
    from ftw.ui.verbs.serve import Asked, run

    run(Out(json=json, command=repeat()), Asked(host, port, model, journal, token_file, seconds))

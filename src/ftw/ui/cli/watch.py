"""`ftw watch`: a model writes, and what its states represent stands beside its words."""

from typing import Annotated

import typer

from ftw.ui.cli.options import (
    Complete,
    Export,
    Json,
    MaxTokens,
    ModelName,
    PackName,
    Seed,
    Temperature,
    at_least,
    names,
    said,
    size,
    verb,
)
from ftw.ui.cli.output import Out, repeat

COMMAND = verb(
    "watch",
    'ftw watch "Tell me a story about a storm."',
    'ftw watch "Tell me a story about a cook." --concepts food,weather -n 40',
    'ftw watch "Tell me a story about a dog." --manifest minimal-efficient -n 40',
    'ftw watch "Once upon a time" --complete --temperature 0.8 --seed 3 --json',
)


def command(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to say to the model.")],
    model: ModelName = None,
    pack: PackName = None,
    concepts: Annotated[
        str | None, typer.Option("--concepts", "-c", metavar="A,B", help="Read these only.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="K", help="Readings per token, and tracks to draw.")] = 5,
    manifest: Annotated[
        str | None,
        typer.Option(
            "--manifest",
            metavar="M",
            help="Which concepts are read: a manifest's file, or general-chat, safety-auditor, minimal-efficient, "
            "benchmark-v1.",
            show_default=False,
        ),
    ] = None,
    lens_memory: Annotated[
        str | None,
        typer.Option(
            "--lens-memory",
            metavar="SIZE",
            help="Room for lenses, such as 64MB; what does not fit is fetched when its parent is read. "
            "Default: FTW_LENS_MEMORY, or room for all.",
            show_default=False,
        ),
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    complete: Complete = False,
    export: Export = None,
    json: Json = False,
) -> None:
    """Watch a model write: each word is coloured by the concept that leads in the state that wrote it."""
    said(prompt)
    chosen = names(concepts)
    at_least("--top", top, 1)
    memory = None if lens_memory is None else size("--lens-memory", lens_memory)
    from ftw.ui.verbs.generation import Ask
    from ftw.ui.verbs.watch import run

    ask = Ask(prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, is_chat=not complete)
    out = Out(json=json, command=repeat())
    run(out, ask, model=model, pack=pack, concepts=chosen, top=top, export=export, manifest=manifest, memory=memory)

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
    verb,
)
from ftw.ui.cli.output import Out, repeat

COMMAND = verb(
    "watch",
    'ftw watch "Tell me a story about a storm."',
    'ftw watch "Tell me a story about a cook." --concepts food,weather -n 40',
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
    from ftw.ui.verbs.generation import Ask
    from ftw.ui.verbs.watch import run

    ask = Ask(prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, is_chat=not complete)
    run(Out(json=json, command=repeat()), ask, model=model, pack=pack, concepts=chosen, top=top, export=export)

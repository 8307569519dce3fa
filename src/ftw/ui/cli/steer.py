"""`ftw steer`: the same prompt with and without a concept pushed into the model's state."""

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
    said,
    strength_of,
    verb,
)
from ftw.ui.cli.output import Out, repeat

COMMAND = verb(
    "steer",
    'ftw steer "Tell me a story." --concept food',
    'ftw steer "Tell me a story." --concept plant --strength 0.5 -n 48 --json',
)


def command(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to say to the model.")],
    concept: Annotated[str, typer.Option("--concept", "-c", help="A concept of the pack.")],
    strength: Annotated[
        str | None,
        typer.Option(
            "--strength",
            "-s",
            metavar="S",
            help="0 is none, 1 is far, below 0 pushes away. Default: what the concept was calibrated for.",
            show_default=False,
        ),
    ] = None,
    model: ModelName = None,
    pack: PackName = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    complete: Complete = False,
    export: Export = None,
    json: Json = False,
) -> None:
    """Steer a model towards a concept and see the text beside the unsteered one, with effect and damage."""
    said(prompt)
    amount = None if strength is None else strength_of(strength)
    from ftw.ui.verbs.generation import Ask
    from ftw.ui.verbs.steer import run

    ask = Ask(prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, is_chat=not complete)
    out = Out(json=json, command=repeat())
    run(out, ask, model=model, pack=pack, concept=concept, strength=amount, export=export)

"""`ftw peek`: what each block of a model would say next."""

from typing import Annotated

import typer

from ftw.substrate.errors import ConfigError
from ftw.ui.cli.options import Json, ModelName, at_least, said, verb
from ftw.ui.cli.output import Out, repeat

COMMAND = verb(
    "peek",
    'ftw peek "The capital of France is"',
    'ftw peek "The opposite of hot is" --answer cold --top 2',
    'ftw peek "A dog is a kind of" --json',
)


def command(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text that the model continues.")],
    model: ModelName = None,
    answer: Annotated[
        str | None,
        typer.Option("--answer", "-a", help="The word to follow. Default: the model's own.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="K", help="Words to show for each block.")] = 3,
    json: Json = False,
) -> None:
    """See at which block an answer appears: every block decoded, the answer's rank and probability followed."""
    said(prompt)
    at_least("--top", top, 1)
    if answer is not None and not answer.strip():
        raise ConfigError("--answer is empty: name a word, or leave it out to follow the model's own choice")
    from ftw.ui.verbs.peek import run

    run(Out(json=json, command=repeat()), prompt, model=model, answer=answer, top=top)

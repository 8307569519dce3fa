"""`ftw models`: can a model be opened up, and what does it cost."""

from typing import Annotated

import typer

from ftw.ui.cli.options import Json, verb
from ftw.ui.cli.output import Out

app = typer.Typer(
    name="models", help="Check models: anatomy, identity gate, memory.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _models() -> None:
    """Check models: anatomy, identity gate, memory."""


@app.command(**verb("check", "ftw models check reference", "ftw models check reference tiny --json"))
def check(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Bundled names, folders or hub ids.")],
    json: Json = False,
) -> None:
    """Prove that decoding a model's last block gives its own logits, or name why it is refused.

    Works without a tokenizer. Exit code 0 when every model is exact or refused by name; 1 when one could not be loaded.
    """
    from ftw.ui.verbs.models import run

    run(Out(json=json), names)

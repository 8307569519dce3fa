"""`ftw pack pull`, `push`, `status`, `verify`, `diff`, `fork` and `lock`: packs come, go, and stay what they were."""

import re
from pathlib import Path
from typing import Annotated

import typer

from ftw.ui.cli.options import Json, verb
from ftw.ui.cli.output import Out

Name = Annotated[str, typer.Argument(metavar="PACK", help="A pack's name.")]
Kind = Annotated[
    str | None,
    typer.Option("--kind", metavar="KIND", help="concept or lens, where a name could mean both.", show_default=False),
]
Version = Annotated[
    str | None, typer.Option("--version", metavar="V", help="A version instead of the newest.", show_default=False)
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="R", help="A commit, tag or branch instead.", show_default=False),
]
Source = Annotated[
    str | None,
    typer.Option("--from", metavar="SOURCE", help="hf://org/repo, a folder, or git+https://…", show_default=False),
]
Levels = Annotated[
    str | None,
    typer.Option("--levels", metavar="0,1", help="Levels of a lens pack, instead of all.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `ftw pack`."""
    app.command(**verb("status", "ftw pack status", "ftw pack status --offline --json"))(status)
    app.command(
        **verb(
            "pull", "ftw pack pull first-light", "ftw pack pull apertus-8b_first-light --levels 0,1,2", "ftw pack pull"
        )
    )(pull)
    app.command(**verb("push", "ftw pack push my-pack --to me/lens-my-pack", "ftw pack push everyday --to ./shared"))(
        push
    )
    app.command(**verb("fork", "ftw pack fork everyday my-concepts"))(fork)
    app.command(**verb("lock", "ftw pack lock", "ftw pack lock --check"))(lock)
    app.command(**verb("verify", "ftw pack verify first-light"))(verify)
    app.command(**verb("diff", "ftw pack diff first-light", "ftw pack diff first-light --version 1.0.0"))(diff)


def status(
    names: Annotated[list[str] | None, typer.Argument(metavar="[PACK]…", help="Packs; all without one.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no source for newer revisions.")] = False,
    json: Json = False,
) -> None:
    """Tell which installed packs were modified here, are outdated, or hold only some levels."""
    from ftw.ui.verbs.pack_registry import run_status

    run_status(Out(json=json), names or [], offline=offline)


def pull(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[PACK]", help="A pack's name, or a source; all of packs.lock without one."),
    ] = None,
    version: Version = None,
    revision: Revision = None,
    source: Source = None,
    levels: Levels = None,
    kind: Kind = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what was changed here.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Take the newest, whatever packs.lock pins.")] = False,
    json: Json = False,
) -> None:
    """Install a pack from the hub, a folder or git; only what changed is fetched."""
    from ftw.ui.verbs.pack_registry import run_pull

    run_pull(
        Out(json=json),
        name,
        version=version,
        revision=revision,
        source=source,
        levels=numbers(levels),
        kind=kind,
        force=force,
        update=update,
    )


def push(
    name: Annotated[str, typer.Argument(metavar="PACK", help="An installed pack, or the folder of one.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="org/repo on the hub, a folder, or git+https://…. Default: where it came from.",
            show_default=False,
        ),
    ] = None,
    levels: Levels = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="What the commit says.", show_default=False)
    ] = None,
    kind: Kind = None,
    json: Json = False,
) -> None:
    """Put a pack where others can pull it, tagged with its version, with a card."""
    from ftw.ui.verbs.pack_registry import run_push

    run_push(Out(json=json), name, to=to, levels=numbers(levels), message=message, kind=kind)


def fork(
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="The copy's name.")],
    kind: Kind = None,
    json: Json = False,
) -> None:
    """Copy a pack under another name, to change it here."""
    from ftw.ui.verbs.pack_registry import run_fork

    run_fork(Out(json=json), name, new_name, kind=kind)


def lock(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where packs differ.")] = False,
    file: Annotated[Path, typer.Option("--file", metavar="FILE", help="The lock.")] = Path("packs.lock"),
    json: Json = False,
) -> None:
    """Pin the installed packs by name, revision and digest in packs.lock, or hold them against it."""
    from ftw.ui.verbs.pack_registry import run_lock

    run_lock(Out(json=json), check=check, file=file)


def verify(name: Name, kind: Kind = None, json: Json = False) -> None:
    """Read every byte of a pack and tell what is not as it was pulled."""
    from ftw.ui.verbs.pack_registry import run_verify

    run_verify(Out(json=json), name, kind=kind)


def diff(
    name: Name,
    version: Version = None,
    revision: Revision = None,
    source: Source = None,
    kind: Kind = None,
    json: Json = False,
) -> None:
    """Tell what a pull would change: files, lenses, and the bytes it would fetch."""
    from ftw.ui.verbs.pack_registry import run_diff

    run_diff(Out(json=json), name, version=version, revision=revision, source=source, kind=kind)


def numbers(text: str | None) -> tuple[int, ...] | None:
    """Levels from `0,1,2`. Raises ConfigError for anything else."""
    from ftw.substrate.errors import ConfigError

    if text is None:
        return None
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise ConfigError(f"--levels is {text!r}: give numbers with commas between them, for example 0,1,2")
    return tuple(sorted({int(part) for part in text.split(",")}))

"""The command `ftw`: parse, run a verb, and turn every error into one line with the way out and an exit code.

Exit codes: 0 done, 1 failed, 2 the request itself is wrong, 130 interrupted, 141 the reader of our output went away.
The rule of the room: nothing heavy is imported before a verb runs, so `ftw --help` answers at once.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from ftw import __version__
from ftw.ui.cli import demo, lens, models, pack, peek, poc, serve, steer, sweep, watch
from ftw.ui.cli.output import COMMAND_LINE, Stopped, clean

app = typer.Typer(
    name="ftw",
    help="Open up, watch, steer and prove open-weight language models.",
    epilog="Start with: ftw demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for verbs in (demo, watch, steer, peek, serve):
    app.command(**verbs.COMMAND)(verbs.command)
for group in (sweep, models, lens, pack, poc):
    app.add_typer(group.app)


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"ftw {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_show_version, is_eager=True),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error. Works in any place."),
) -> None:
    """Open up, watch, steer and prove open-weight language models."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command line, by default quietly about tracebacks. Gives the exit code; writes to stdout and stderr."""
    args = list(argv)
    plain = args[: args.index("--")] if "--" in args else args
    debug = "--debug" in plain
    if debug:
        args.remove("--debug")
    command = typer.main.get_command(app)
    COMMAND_LINE.set(tuple(args))
    try:
        code = command.main(args, prog_name="ftw", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the process edge: every way to end gets its exit code here
        if debug and not isinstance(error, SystemExit | typer.Exit):
            traceback.print_exc()
        return _end(error)
    return code if isinstance(code, int) else 0


def _end(error: BaseException) -> int:
    """Says in one line what ended the command, and gives its exit code."""
    from ftw.substrate.errors import FtwError

    match error:
        case typer.Exit():
            return error.exit_code
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case KeyboardInterrupt() | typer.Abort():
            return 130
        case Stopped() | BrokenPipeError():
            _close_stdout()
            return 141
        case typer.TyperException():
            return _usage(error)
        case FtwError():
            return _say(str(error), error.exit_code)
        case OSError():
            return _say(_medium(error), 1)
        case MemoryError():
            return _say("out of memory: take a smaller model or a half-precision FTW_DTYPE", 1)
    kind = type(error).__name__
    return _say(f"{kind}: {error} (a fault of ftw itself: run it again with --debug and report what it shows)", 1)


def _usage(error: typer.TyperException) -> int:
    """What the parser did not understand, and where help is. Without a verb the help itself is shown."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = "ftw" if context is None else context.command_path
    return _say(f"{message.rstrip('.')}. See `{path} --help`", error.exit_code)


def _medium(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    ways = {
        errno.ENOSPC: f"no space left on the disk{where}: free some, or name another folder",
        errno.EDQUOT: f"the disk quota is used up{where}: free some space, or name another folder",
        errno.EACCES: f"no permission{where}: change it, or name another folder",
        errno.EPERM: f"no permission{where}: change it, or name another folder",
        errno.EROFS: f"the file system is read-only{where}: name another folder",
        errno.ENOENT: f"no such file or folder{where}",
        errno.EISDIR: f"a folder stands{where} where a file should be written: name a file in it",
        errno.ENOTDIR: f"a part of the path is not a folder{where}",
    }
    return ways.get(error.errno or 0, f"{error.strerror or error}{where}")


def _say(message: str, code: int) -> int:
    """Write the one line. A reader that left or a closed stderr changes nothing about the exit code."""
    try:
        print(f"ftw: {clean(message)}", file=sys.stderr)
    except OSError:
        return code
    return code


def _close_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit does not fail on the closed pipe."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a stdout without a file descriptor has nothing to flush
        return

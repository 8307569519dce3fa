"""The console blocks of a page: `$ ftw …` lines with what they print. Run them, compare them, refresh them.

A block opens with three backticks and `console`. In one that opens with `console stable`, the first line of each output
must be what stands in the page; of the others only the exit code is held. `…` on a line stands for lines left out.

    python -m tools.docs.examples          # all pages and the picture, after a change of model or lenses
    python -m tools.docs.examples FILE…    # these pages only
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

BLOCK = re.compile(r"^```console(?P<mark>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LEFT_OUT = "…"
ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
PICTURE = ("watch", "Tell me a story about a storm.", "--export", "docs/pictures/watch.svg")
MOST = 24
"""Lines of output that a page shows; a longer one is cut, with `…` as its last line."""


@dataclass(frozen=True)
class Example:
    """One command of a page and what the page says it prints."""

    command: str
    output: str
    is_stable: bool
    """Whether the first line of the output is to be the same everywhere."""

    @property
    def argv(self) -> list[str]:
        """The arguments after `ftw`."""
        words = shlex.split(self.command)
        if words[:1] != ["ftw"]:
            raise ValueError(f"an example must be an ftw command: {self.command}")
        return words[1:]


def examples(page: str) -> list[Example]:
    """The examples of a page, in order. Lines before the first `$` of a block belong to nothing."""
    return [example for match in BLOCK.finditer(page) for example in _in_block(match)]


def _in_block(match: re.Match[str]) -> list[Example]:
    parts = re.split(r"^\$ (.*)\n", match["body"], flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [Example(command, output, "stable" in match["mark"]) for command, output in pairs]


def refresh(page: str, run: Callable[[Sequence[str]], str]) -> str:
    """The page with every output replaced by what `run` gives for its arguments."""

    def again(match: re.Match[str]) -> str:
        made = [f"$ {example.command}\n{shown(run(example.argv))}" for example in _in_block(match)]
        return f"```console{match['mark']}\n{''.join(made)}```"

    return BLOCK.sub(again, page)


def shown(output: str) -> str:
    """Output as a page shows it: no blanks at line ends, not too long."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    if len(lines) > MOST:
        lines = [*lines[: MOST - 1], LEFT_OUT]
    return "".join(f"{line}\n" for line in lines)


def desk(folder: Path) -> Path:
    """`folder` with what the examples of a page read: the tests' data, as from the top of the repository."""
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


def _ftw(argv: Sequence[str], folder: Path = ROOT) -> str:
    command = [sys.executable, "-m", "ftw", *argv]
    env = {**os.environ, "FTW_PACKS_DIR": str(folder / "packs")}  # not those of whoever writes the page
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=env).stdout
    return told.replace(str(folder), "/home/me")


def main(files: Sequence[str]) -> None:
    """Refresh the pages in `files`; without any, all pages and the picture."""
    if not files:
        _ftw(PICTURE)
        print(f"refreshed {PICTURE[-1]}")
    for name in files or PAGES:
        file = ROOT / name
        with TemporaryDirectory() as folder:
            run = partial(_ftw, folder=desk(Path(folder)))
            file.write_text(refresh(file.read_text(encoding="utf-8"), run), encoding="utf-8")
        print(f"refreshed {name}")


if __name__ == "__main__":
    main(sys.argv[1:])

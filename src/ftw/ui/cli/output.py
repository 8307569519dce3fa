"""Where a verb writes: results on stdout, the story on stderr, or one JSON document instead of both.

The rule of the file: stdout carries the result and nothing else, so that a pipe gets what a person would read.
"""

import dataclasses
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

WIDTH = 80
"""Columns that every chart fits into, and what is assumed where the output is not a terminal."""


class Stopped(Exception):
    """The reader of our output went away."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the process edge decide; rich would end the process with 1."""
        raise Stopped


class Out:
    """The two streams of one run of a verb."""

    def __init__(self, *, json: bool = False, command: str = "") -> None:
        self.json = json
        self.command = command
        """The command line that makes this result again, for the foot of a figure."""
        self.stdout = _console(sys.stdout)
        self.stderr = _console(sys.stderr)

    @property
    def is_live(self) -> bool:
        """Whether a person watches a terminal that can be drawn over."""
        return self.stdout.is_terminal and not self.stdout.is_dumb_terminal and not self.json

    @property
    def has_colour(self) -> bool:
        """Whether hues can be told apart: a terminal with colours, and no NO_COLOR."""
        return self.stdout.color_system is not None and not self.stdout.no_color

    @property
    def width(self) -> int:
        """Columns to draw in: the terminal's, at most 100; 80 in a pipe."""
        return min(self.stdout.width, 100) if self.stdout.is_terminal else WIDTH

    def show(self, *renderables: Any, sep: str = " ") -> None:
        """Print to stdout, unless this run answers with JSON."""
        if not self.json:
            self.stdout.print(*renderables, sep=sep, highlight=False, markup=False, width=self.width)

    def document(self, value: Any) -> None:
        """The one JSON document of this run, with NaN and infinity as null. Nothing without --json."""
        if self.json:
            self.stdout.file.write(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            self.stdout.file.flush()

    def tell(self, message: str) -> None:
        """One line of the story, on stderr."""
        self.stderr.print(message, style="dim", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Something without a known length is going on: a line with a spinner on a terminal's stderr, then gone."""
        if not self.stderr.is_terminal or self.stderr.is_dumb_terminal:
            yield
            return
        with self.stderr.status(what, spinner="line", spinner_style="dim"):
            yield

    @contextmanager
    def bar(self, what: str, unit: str = "") -> Iterator["Bar"]:
        """A progress bar with the time left, on a terminal's stderr; gone when done. With a unit also the rate."""
        rate = (_Rate(unit),) if unit else ()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), *rate, TimeRemainingColumn())
        shown = self.stderr.is_terminal and not self.stderr.is_dumb_terminal
        with Progress(*columns, console=self.stderr, transient=True, disable=not shown) as progress:
            yield Bar(progress, what)


class _Rate(ProgressColumn):
    """Steps per second, once some are done."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """`120 positions/s`; nothing where it is not known."""
        if not task.speed or not task.total:
            return Text("")
        return Text(f"{task.speed:{'.0f' if task.speed >= 1 else '.1g'}} {self._unit}/s")


class Bar:
    """A running progress bar. Call it with what is being done, and how many of how many steps are done.

    A total of 0 is one that nobody knows.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress, self._done = progress, 0
        self._task = progress.add_task(what, total=None)

    def __call__(self, what: str, done: int, total: int) -> None:
        if done < self._done:  # another stage: its rate and time left are not those of the one before
            self._progress.reset(self._task)
        self._done = done
        self._progress.update(self._task, description=what, completed=done, total=total or None)


def _console(file: Any) -> _Console:
    console = _Console(file=file, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: records as objects, tuples as lists, NaN and infinity as null, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def clean(text: str) -> str:
    """`text` on one line and without control characters, for a message that quotes what came from outside."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text).split())


COMMAND_LINE: ContextVar[tuple[str, ...]] = ContextVar("ftw_command_line", default=())
"""The arguments that are being run, without the program's name."""


def repeat() -> str:
    """The command line that makes this result again."""
    return " ".join(["ftw", *(_quoted(word) for word in COMMAND_LINE.get())])


def _quoted(word: str) -> str:
    return f'"{word}"' if re.search(r"\s", word) and not re.search(r'["$`\\!]', word) else shlex.quote(word)

"""A text along its tokens, prompt and answer: where each concept comes up, how high, how long.

The rule of the file: the prompt counts like what is written after it. Its states were read in the pass that read the
prompt, one reading each, so nothing is run again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftw.hat.monitoring.records import Reading
from ftw.substrate.errors import UsageError


@dataclass(frozen=True, slots=True)
class Line:
    """One concept along a text."""

    term: str
    p: tuple[float, ...]
    """Calibrated probability per state; 0 where it is not among the readings."""
    first: int
    """The first state where it reads above its threshold; -1: nowhere."""
    peak_at: int
    peak: float
    in_prompt: float
    """Share of the prompt's states where it reads above its threshold."""
    in_written: float
    """The same of the states of what was written."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """All concepts of a text."""

    request_id: str
    tokens: tuple[int, ...]
    """The token whose pass made each state."""
    prompt: int
    """How many of them are the prompt's."""
    lines: tuple[Line, ...]
    """The concept with the largest sum of p first."""
    late: tuple[int, ...]
    """States whose readings lack lenses that were still being loaded."""

    def line(self, term: str) -> Line | None:
        """The line of a concept, by name in any case, if there is one."""
        return next((line for line in self.lines if line.term.casefold() == term.casefold()), None)

    def record(self) -> dict[str, Any]:
        """The timeline as plain values for a JSON document."""
        return asdict(self)


def timeline(readings: Sequence[Reading], *, top: int | None = None) -> Timeline:
    """The timeline of one request's readings, prompt first; the `top` concepts, or all of them.

    Raises UsageError for no reading, for readings of several requests, or where positions are missing.
    """
    if not readings or len({reading.request_id for reading in readings}) > 1:
        raise UsageError("a timeline is of one request, and of at least one reading of it")
    if [reading.position for reading in readings] != list(range(len(readings))):
        raise UsageError(f"readings of request {readings[0].request_id!r} have gaps: a timeline begins with the prompt")
    prompt = sum(reading.phase == "prompt" for reading in readings)
    p: dict[str, list[float]] = {}
    above: dict[str, list[bool]] = {}
    for at, reading in enumerate(readings):
        for score in reading.scores:
            p.setdefault(score.term, [0.0] * len(readings))[at] = score.p
            above.setdefault(score.term, [False] * len(readings))[at] = score.above
    lines = [_line(term, p[term], above[term], prompt) for term in p]
    lines.sort(key=lambda line: (-sum(line.p), line.term))
    return Timeline(
        readings[0].request_id,
        tuple(reading.input_token for reading in readings),
        prompt,
        tuple(lines[:top]),
        tuple(at for at, reading in enumerate(readings) if reading.late),
    )


def _line(term: str, p: Sequence[float], above: Sequence[bool], prompt: int) -> Line:
    peak_at = max(range(len(p)), key=p.__getitem__)
    first = above.index(True) if True in above else -1
    return Line(term, tuple(p), first, peak_at, p[peak_at], _share(above[:prompt]), _share(above[prompt:]))


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0

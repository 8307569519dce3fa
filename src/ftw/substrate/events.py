"""What happened, told once to whoever remembers. A Sink never answers; a failing sink stops the run.

Events are plain records. Rooms above add their own by subclassing `Event`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one request."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Requested(Event):
    """A request was accepted."""

    prompt_tokens: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class StepSeen(Event):
    """One token was chosen."""

    index: int
    token: int
    labels: tuple[str, ...] = ()
    """Labels of the edits that acted on the pass that chose it."""


@dataclass(frozen=True, slots=True)
class Steered(Event):
    """A controller answered a step with edits; they act on the next one."""

    index: int
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Breach(Event):
    """A reading left its profile."""

    index: int
    concept: str
    score: float
    bound: float


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """A request ended."""

    reason: Literal["stop", "length", "cancelled", "error"]
    new_tokens: int


Sink = Callable[[Event], None]


def fan_out(sinks: Sequence[Sink]) -> Sink:
    """One sink that tells each of `sinks`, in order."""
    kept = tuple(sinks)

    def tell(event: Event) -> None:
        for sink in kept:
            sink(event)

    return tell

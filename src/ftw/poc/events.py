"""What happens in the proof service, told to the sinks: batches, rounds, verdicts, callbacks.

The rule of the file: an event says what has happened, with numbers only. `request_id` is a round's id or a request's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ftw.substrate.events import Event


class Split(NamedTuple):
    """Seconds of a batch by stage."""

    rng: float
    """Waiting for the inputs."""
    forward: float
    readout: float
    encode: float


@dataclass(frozen=True, slots=True)
class BatchMade(Event):
    """One forward pass gave artifacts."""

    split: Split
    """Seconds by stage."""
    n: int
    """How many artifacts."""


@dataclass(frozen=True, slots=True)
class NotFinite(Event):
    """A batch held a NaN or an infinity and was rejected."""

    in_a_row: int
    """How many of this round or request, this one included, since the last good one."""


@dataclass(frozen=True, slots=True)
class RoundStarted(Event):
    """A round is being generated."""

    index: int
    """The index it goes on at: 0, or the journal's high-water mark."""


@dataclass(frozen=True, slots=True)
class RoundEnded(Event):
    """A round is not being generated any more."""

    state: Literal["STOPPED", "FAILED"]
    reason: str
    """Why it failed; empty for a stop."""
    made: int
    """Artifacts made since it started."""


@dataclass(frozen=True, slots=True)
class Judged(Event):
    """A validation has its verdict."""

    n_total: int
    n_mismatch: int
    distances: tuple[float, ...]
    """Of every nonce that could be compared."""
    reasons: Mapping[str, int]
    """How many nonces failed for which reason."""


@dataclass(frozen=True, slots=True)
class CallbackDone(Event):
    """A callback was tried."""

    ok: bool
    status: int | None
    """The HTTP status; None where no answer came."""
    artifacts: int
    """How many artifacts it carried."""

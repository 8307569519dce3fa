"""A proof service on the tiny model, with everything about it in the hands of a test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ftw.poc.deployment import Deployment
from ftw.poc.events import BatchMade
from ftw.poc.forward import Prover, Round
from ftw.poc.jobs import Ask, Start
from ftw.poc.journal import Journal
from ftw.poc.rounds import Rounds, Status
from ftw.substrate.config import PocSettings
from ftw.substrate.events import Event
from ftw.substrate.lease import Lease
from ftw.substrate.model import Model

Kind = TypeVar("Kind", bound=Event)
PATIENCE_S = 60.0
"""A failing test ends; no test's result depends on it."""
ROWS = 4
SETTINGS = PocSettings(seq_len=8, forward_rows=ROWS, stop_deadline_sec=PATIENCE_S, rpc_timeout_ms=50)
START = Start(block_hash="block", block_height=7, public_key="key", node_id=1, node_count=3, batch_size=8)


def ask(*nonces: int, **changes: object) -> Ask:
    values = {"block_hash": "block", "block_height": 7, "public_key": "key", "node_id": 1, "node_count": 3}
    return Ask(**(values | {"batch_size": 8, "nonces": nonces} | changes))  # type: ignore[arg-type]


def until(claim: Callable[[], bool]) -> None:
    """Waits for something that another thread does."""
    for _ in range(int(PATIENCE_S / 0.002)):
        if claim():
            return
        threading.Event().wait(0.002)
    raise AssertionError("it did not happen")


@dataclass
class Ear:
    """A sink that keeps all events and can stop whoever tells of a batch."""

    events: list[Event] = field(default_factory=list)
    goes: threading.Event = field(default_factory=threading.Event)
    """Cleared: after the next batch its maker waits until this is set."""
    waits: threading.Event = field(default_factory=threading.Event)
    """Set while a maker waits."""

    def __post_init__(self) -> None:
        self.goes.set()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, BatchMade) and not self.goes.is_set():
            self.waits.set()
            assert self.goes.wait(PATIENCE_S)
            self.waits.clear()

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Service:
    """Rounds, and what they stand on."""

    model: Model
    path: Path
    settings: PocSettings = SETTINGS
    clock: Callable[[], float] | None = None
    lease: Lease = field(default_factory=Lease)
    ear: Ear = field(default_factory=Ear)
    max_pages: int | None = None

    def __post_init__(self) -> None:
        self.deployment = Deployment.of(self.model, self.settings)
        self.journal = Journal(self.path / "poc.sqlite", max_pages=self.max_pages)
        more = {} if self.clock is None else {"clock": self.clock}
        self.rounds = Rounds(
            self.model, self.deployment, self.settings, self.journal, self.lease, sink=self.ear, **more
        )

    def close(self) -> None:
        self.ear.goes.set()
        self.rounds.close()
        self.journal.close()

    def made(self, start: Start = START) -> int:
        """Artifacts of a round in the journal."""
        return self.journal.count(self.deployment.key(start).round_id)

    def nonces(self, start: Start = START) -> list[int]:
        rows = self.journal.artifacts(self.deployment.key(start).round_id, limit=1_000_000)
        return [row.nonce for row in rows]

    def generate(self, n: int, start: Start = START) -> Status:
        """At least n artifacts more, then a stop."""
        before = self.made(start)
        self.rounds.start(start)
        until(lambda: self.made(start) >= before + n)
        return self.rounds.stop()

    def expected(self, nonces: list[int], start: Start = START) -> list[str]:
        """The vectors that these nonces have when nothing else runs."""
        round_ = Round(start.block_hash, start.public_key, seq_len=8, stronger_rng=start.stronger_rng)
        return [one.vector_b64 for one in Prover(self.model, round_, ROWS).artifacts(nonces)]


@contextmanager
def service(model: Model, path: Path, **changes: object) -> Iterator[Service]:
    """A service that ends with the test. Settings may be changed by name."""
    own = {name: changes.pop(name) for name in ("clock", "lease", "max_pages") if name in changes}
    one = Service(model, path, SETTINGS.model_copy(update=changes), **own)  # type: ignore[arg-type]
    try:
        yield one
    finally:
        one.close()


def started(**changes: object) -> Start:
    return replace(START, **changes)  # type: ignore[arg-type]

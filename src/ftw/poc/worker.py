"""The worker thread of the proof service, and the forward passes that it and waiting callers make in turn with chat.

The rule of the file: one forward pass is one hold of the lease. Only a busy model and a full device memory are worth
another try; every other error is told at once.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from ftw.poc.events import BatchMade, NotFinite
from ftw.poc.forward import Batch, Prover, Round
from ftw.poc.reflections import LayerVectors
from ftw.substrate.errors import Cancelled, LeaseTimeout, NumericError, ProofError
from ftw.substrate.events import Sink
from ftw.substrate.lease import Lease
from ftw.substrate.model import Model

LOG = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
"""Bounds of the pause before another try; a stop is noticed after at most this long."""
MEMORY_TRIES = 5
"""How often a pass is tried for which the device has no memory: chat may give some back."""


@dataclass(eq=False)
class Line:
    """What one round or one request computes with."""

    id: str
    """The round's id, or the request's."""
    round: Round
    prover: Prover | None = None
    """Made with the first pass, for that runs the model too."""
    rejected: int = 0
    """Batches in a row that were not finite."""


@dataclass
class Passes:
    """Makes forward passes, one at a time, each under a hold of the lease."""

    model: Model
    rows: int
    lease: Lease
    sink: Sink
    clock: Callable[[], float]
    hold_s: float
    """How long one try waits for the model."""
    layers: LayerVectors = field(default_factory=LayerVectors)
    rng: random.Random = field(default_factory=random.Random)
    pause: Callable[[float], None] = time.sleep

    def make(
        self,
        line: Line,
        nonces: Sequence[int],
        then: Sequence[int],
        *,
        stop: Callable[[], bool],
        patience_s: float | None = None,
    ) -> Batch:
        """The artifacts of at most `rows` nonces; inputs for `then` are made meanwhile.

        Raises LeaseTimeout where the model stays in use for `patience_s` (None: as long as it takes), Cancelled when
        `stop` becomes true before the pass begins, NumericError where it is not finite, and whatever else it raises.
        """
        deadline = None if patience_s is None else self.clock() + patience_s
        pause_s, shortages = FIRST_PAUSE_S, 0
        while True:
            if stop():
                raise Cancelled("the computation was called off between two forward passes")
            try:
                batch = self._pass(line, nonces, then, stop, deadline)
            except LeaseTimeout as error:
                if deadline is not None and self.clock() >= deadline:
                    raise LeaseTimeout(
                        f"timeout waiting for the engine: the model was in use for {patience_s:g} s"
                    ) from error
            except torch.OutOfMemoryError as error:
                shortages += 1
                if shortages >= MEMORY_TRIES:
                    raise ProofError(
                        f"the device has no memory for a pass of {self.rows} nonces ({shortages} tries): lower "
                        "POC_FORWARD_ROWS, or free some"
                    ) from error
            except NumericError:
                line.rejected += 1
                self.sink(NotFinite(line.id, line.rejected))
                raise
            else:
                line.rejected = 0
                self.sink(BatchMade(line.id, batch.seconds, len(batch.artifacts)))
                return batch
            self.pause(pause_s * self.rng.uniform(0.5, 1.0))
            pause_s = min(LONGEST_PAUSE_S, 2.0 * pause_s)

    def _pass(
        self, line: Line, nonces: Sequence[int], then: Sequence[int], stop: Callable[[], bool], deadline: float | None
    ) -> Batch:
        if line.prover is None:  # a hold of its own, so that chat never waits for this and a pass
            with self._hold(stop, deadline):
                line.prover = Prover(self.model, line.round, self.rows, self.layers)
        with self._hold(stop, deadline):
            return line.prover.batch(nonces, then)

    def _hold(self, stop: Callable[[], bool], deadline: float | None) -> AbstractContextManager[None]:
        wait_s = self.hold_s if deadline is None else max(0.0, min(self.hold_s, deadline - self.clock()))
        return self.lease.hold("proof", timeout_s=wait_s, stop=stop)


class Worker:
    """One thread that takes step after step, and sleeps where there is nothing to do. Started by the first `wake`."""

    def __init__(self, step: Callable[[], bool], idle_s: Callable[[], float | None], name: str) -> None:
        """`step` does a piece of work, False where there was none; `idle_s` says how long to sleep then at most."""
        self._step = step
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._is_woken = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        """There is something to do."""
        with self._changed:
            self._is_woken = True
            if self._thread.ident is None and not self._is_closed:
                self._thread.start()
            self._changed.notify_all()

    def close(self, deadline_s: float) -> None:
        """Ends the thread after its step; waits for that for so long at most. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                self._is_woken = False
            try:
                is_busy = self._step()
            except Exception:  # a thread's edge: one failing step must not end the service
                LOG.exception("a step of the proof worker failed")
                is_busy = False
            with self._changed:
                if not is_busy and not self._is_woken and not self._is_closed:
                    self._changed.wait(self._idle_s())

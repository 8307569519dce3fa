"""Rounds and requests of the proof service: one state machine over the journal, the model's lease and one worker.

The rule of the file: an artifact is in the journal before anyone hears of it, and what was asked is never dropped
silently: it is made, refused, failed with a reason, or called off.
"""

import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

from ftw.poc.codec import Artifact, decode
from ftw.poc.deployment import Deployment
from ftw.poc.events import Judged, RoundEnded, RoundStarted
from ftw.poc.forward import Round
from ftw.poc.jobs import MAX_INT, Ask, Job, JobBook, JobResult, JobState, Start
from ftw.poc.journal import Journal, RoundKey
from ftw.poc.payloads import generated_in_parts, validated
from ftw.poc.verify import StatTest, judge
from ftw.poc.worker import Line, Passes, Worker
from ftw.substrate.config import PocSettings
from ftw.substrate.errors import AlreadyGenerating, Busy, Cancelled, ConfigError, FtwError, NumericError
from ftw.substrate.events import Sink
from ftw.substrate.lease import Lease
from ftw.substrate.model import Model

LOG = logging.getLogger(__name__)

__all__ = ["Ask", "JobResult", "JobState", "Rounds", "Start", "State", "Status"]

State = Literal["IDLE", "GENERATING", "STOPPED", "FAILED"]


@dataclass(frozen=True, slots=True)
class Status:
    """How the service stands."""

    state: State
    start: Start | None = None
    """The round that is, or last was, generated. None when IDLE."""
    round_id: str | None = None
    reason: str = ""
    """Why it is FAILED."""
    total_processed: int = 0
    """Artifacts of this round that were really made; those of before a restart are counted."""
    nonces_per_second: float = 0.0
    """Artifacts made since this start, per second."""
    queued_nonces: int = 0
    """Nonces of queued and running requests."""
    not_finite: int = 0
    """Batches rejected since this start for a NaN or an infinity."""


@dataclass(eq=False)
class _Generation:
    """One stretch of a round, from a start to its end. Changed by the worker, but for `stops`."""

    start: Start
    key: RoundKey
    line: Line
    began_at: float
    index: int
    """Of the next nonce."""
    base: int
    """Artifacts that the round had before."""
    sealed_at: float
    made: int = 0
    not_finite: int = 0
    stops: bool = False
    ended_at: float | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    claim: ExitStack = field(default_factory=ExitStack)
    """Its claim to the model, from the start to the end."""

    def nonces(self, index: int, n: int) -> list[int]:
        """n nonces from an index on."""
        return [self.key.nonce(x) for x in range(index, index + n)]


class Rounds:
    """The service: start, stop, status; queued and waited-for requests. All methods may be called from any thread.

    A batch that is not finite is rejected and its nonces are passed over; POC_NAN_KILL_THRESHOLD of them in a row fail
    the round. Queued requests wait while a round is generated, also one that has begun.
    """

    def __init__(
        self,
        model: Model,
        deployment: Deployment,
        settings: PocSettings,
        journal: Journal,
        lease: Lease,
        *,
        sink: Sink,
        clock: Callable[[], float] = time.monotonic,
        posted: Callable[[], None] = lambda: None,
    ) -> None:
        """`posted` is told when a request's callback was put into the outbox (a sender's `wake`)."""
        self.deployment = deployment
        self._settings = settings
        self._journal = journal
        self._lease = lease
        self._sink = sink
        self._clock = clock
        self._posted = posted
        hold_s = settings.rpc_timeout_ms / 1e3
        self._passes = Passes(model, deployment.rows, lease, sink, clock, hold_s)
        self._book = JobBook(settings.max_queued_nonces, settings.generate_result_ttl_sec, clock)
        self._running: tuple[Job, Line] | None = None
        """The request that is under way, and perhaps waits for a round to end."""
        self._pending: deque[_Generation] = deque()
        """Stretches that have not ended; the worker is at the first."""
        self._starting = threading.Lock()
        self._lock = threading.Lock()
        self._state: State = "IDLE"
        self._reason = ""
        self._generation: _Generation | None = None
        self._stops = 0
        self._is_closed = False
        self._worker = Worker(self._step, self._book.sweep, "ftw-proof")

    def start(self, start: Start) -> Status:
        """Generates this round, from the journal's high-water mark on. Returns before the first batch.

        The round that already runs: the same answer, nothing restarts. Raises AlreadyGenerating for another one,
        ConfigError for what the profile does not have, StorageError where the journal takes nothing.
        """
        deployment = self.deployment
        round_ = deployment.round(start.block_hash, start.public_key, stronger_rng=start.stronger_rng)
        key = deployment.key(start)
        with self._starting:
            with self._lock:
                self._require_open()
                running = self._generation if self._state == "GENERATING" else None
            if running is not None:
                if running.key != key:
                    raise AlreadyGenerating("another round is being generated: stop it before this one is started")
                return self.status()
            index = self._journal.open_round(key)  # raises before anything is promised
            now = self._clock()
            generation = _Generation(start, key, Line(key.round_id, round_), now, index, 0, now)
            generation.base = self._journal.count(key.round_id)
            with self._lock:
                self._require_open()
                generation.claim.enter_context(self._lease.claim("proof"))
                self._generation, self._state, self._reason = generation, "GENERATING", ""
                self._pending.append(generation)
            self._worker.wake()
        return self.status()

    def stop(self, deadline_s: float | None = None) -> Status:
        """Ends the round and calls off all requests; waits up to `deadline_s` (the setting's) for the batch in flight.

        Nothing is lost: what the batch in flight makes is journalled even when it takes longer than the deadline.
        """
        with self._lock:
            generation = self._generation
            self._state, self._reason = "STOPPED", ""
            self._stops += 1
            if generation is not None:
                generation.stops = True
        self._book.cancel_all("the service was stopped")
        self._worker.wake()
        if generation is not None:
            generation.ended.wait(self._settings.stop_deadline_sec if deadline_s is None else deadline_s)
        return self.status()

    def status(self) -> Status:
        """How the service stands. Never waits for the model or the disk."""
        with self._lock:
            state, reason, one = self._state, self._reason, self._generation
        queued = self._book.queued_nonces
        if one is None:
            return Status(state, queued_nonces=queued)
        ended_at = one.ended_at
        seconds = (self._clock() if ended_at is None else ended_at) - one.began_at
        return Status(
            state,
            one.start,
            one.key.round_id,
            reason,
            one.base + one.made,
            one.made / seconds if seconds > 0 else 0.0,
            queued,
            one.not_finite,
        )

    def enqueue(self, ask: Ask) -> tuple[str, int]:
        """Queues a request: its id, and how many nonces were queued for it. Raises QueueFull, ConfigError."""
        self._check(ask)
        claims = ask.sorted_claims(self.deployment.k_dim)
        with self._lock:
            self._require_open()
        job = self._book.add(ask, claims)
        self._worker.wake()
        return job.request_id, len(ask.nonces)

    def run(self, ask: Ask, cancelled: threading.Event) -> JobResult:
        """Computes a request now, in this thread; its `url` gets no callback, for the caller has the result.

        Raises AlreadyGenerating while a round is generated, LeaseTimeout where the model stays in use, Cancelled when
        `cancelled` was set or the service stopped, NumericError for a NaN or infinity.
        """
        round_ = self._check(ask)
        job = Job(str(uuid.uuid4()), ask, ask.sorted_claims(self.deployment.k_dim), "running")
        with self._lock:
            self._require_open()
            if self._state == "GENERATING":
                raise AlreadyGenerating("a round is being generated: stop it, or queue the request with wait=false")
            stops = self._stops
        line = Line(job.request_id, round_)
        while len(job.made) < len(job.todo):
            self._advance(job, line, lambda: cancelled.is_set() or self._stops != stops)
        return self._result(job)

    def result(self, request_id: str) -> JobState | None:
        """How a queued request stands; None where it is unknown or its result has expired."""
        return self._book.state(request_id)

    def close(self) -> None:
        """Stops, and ends the worker. Idempotent."""
        with self._lock:
            self._is_closed = True
        self.stop()
        self._worker.close(self._settings.stop_deadline_sec)

    # --- the worker's thread

    def _step(self) -> bool:
        """A whole stretch of a round, or one forward pass of a request. False where there is nothing to do."""
        if self._pending:
            self._generate(self._pending[0])
            self._pending.popleft()
            return True
        if self._running is None:
            job = self._book.take()
            if job is None:
                return False
            self._running = (job, Line(job.request_id, self._check(job.ask)))
        if not self._serve(*self._running):
            self._running = None
        return True

    def _generate(self, one: _Generation) -> None:
        """From the high-water mark until the round is stopped or fails."""
        try:
            reason = self._try_generate(one)
        except FtwError as error:
            reason = str(error)
        except Exception as error:  # a thread's edge: the round fails with what happened
            LOG.exception("a round failed")
            reason = f"{type(error).__name__}: {error}"
        one.line.prover = None
        one.ended_at = self._clock()
        one.claim.close()
        with self._lock:
            if reason and self._generation is one:
                self._state, self._reason = "FAILED", reason
        one.ended.set()
        self._sink(RoundEnded(one.key.round_id, "FAILED" if reason else "STOPPED", reason, one.made))

    def _try_generate(self, one: _Generation) -> str:
        """Why the round has failed; empty for a stop."""
        round_id, reason = one.key.round_id, ""
        one.index = self._journal.open_round(one.key)  # a stretch that ended after this start may have moved it
        one.base = self._journal.count(round_id)
        self._sink(RoundStarted(round_id, one.index))
        try:
            while not one.stops and not reason:
                reason = self._make_unit(one)
                self._seal(one, is_last=False)
        except Cancelled:
            pass  # a stop, not a failure: `_make_unit` has journalled what was made before it
        self._seal(one, is_last=True)
        return reason

    def _make_unit(self, one: _Generation) -> str:
        """One unit of work: its passes, then one step of the journal. Why the round has failed; empty if it goes on.

        What was made is journalled whatever ends the unit. Units are made of full passes: a part-filled one costs as
        much, and where a round is cut into units decides no bit.
        """
        rows = self.deployment.rows
        made: list[Artifact] = []
        mark = one.index
        try:
            for _ in range(-(-one.start.batch_size // rows)):
                nonces, then = one.nonces(one.index, rows), one.nonces(one.index + rows, rows)
                if then[-1] > MAX_INT:
                    return f"the round is at its end: nonces lie in 0..{MAX_INT}"
                one.index += rows
                try:
                    batch = self._passes.make(one.line, nonces, then, stop=lambda: one.stops)
                except NumericError as error:
                    one.not_finite += 1
                    if one.line.rejected >= self._settings.nan_kill_threshold:
                        return f"{one.line.rejected} batches in a row were rejected, the last one because {error}"
                    continue
                made += batch.artifacts
                mark = one.index
        finally:
            if made:
                self._journal.append(one.key.round_id, made, mark)
                one.made += len(made)
        return ""

    def _seal(self, one: _Generation, *, is_last: bool) -> None:
        """Closes runs of a round without a url, as often as they would be delivered: else nobody does."""
        now = self._clock()
        if one.key.url is None and (is_last or now - one.sealed_at >= self._settings.callback_interval_sec):
            one.sealed_at = now
            self._journal.seal(one.key.round_id, self._settings.callback_max_artifacts)

    def _serve(self, job: Job, line: Line) -> bool:
        """One pass of a queued request, and with the last one its end. Whether there is more to do."""
        try:
            if len(job.made) < len(job.todo):
                self._advance(job, line, lambda: job.status != "running" or bool(self._pending))
            if len(job.made) < len(job.todo):
                return True
            result = self._result(job)
            self._post(result)
            self._book.complete(job, result)
        except Cancelled:
            return job.status == "running"  # a round came first: go on after it
        except FtwError as error:
            self._book.fail(job, str(error))
        except Exception as error:  # a thread's edge: the request fails with what happened
            LOG.exception("a request failed")
            self._book.fail(job, f"{type(error).__name__}: {error}")
        return False

    # --- in the worker's thread, or in that of a waiting caller

    def _check(self, ask: Ask) -> Round:
        """The round that a request is of. Raises ConfigError."""
        most = self._settings.max_queued_nonces
        if len(ask.nonces) > most:
            raise ConfigError(f"{len(ask.nonces)} nonces are too many for one request: at most {most}")
        return self.deployment.round(ask.block_hash, ask.public_key, stronger_rng=ask.stronger_rng)

    def _advance(self, job: Job, line: Line, stop: Callable[[], bool]) -> None:
        at, rows = len(job.made), self.deployment.rows
        nonces, then = job.todo[at : at + rows], job.todo[at + rows : at + 2 * rows]
        patience_s = self._settings.generate_chunk_timeout_sec
        job.made += self._passes.make(line, nonces, then, stop=stop, patience_s=patience_s).artifacts

    def _result(self, job: Job) -> JobResult:
        if job.claims is None:
            return JobResult(job.request_id, job.ask, artifacts=tuple(job.made))
        computed = {one.nonce: decode(one.vector_b64, self.deployment.k_dim) for one in job.made}
        verdict = judge(job.claims, computed, job.ask.test or StatTest())
        reasons = Counter[str](one.reason for one in verdict.mismatches)
        distances = tuple(verdict.distances.values())
        self._sink(Judged(job.request_id, verdict.n_total, verdict.n_mismatch, distances, dict(reasons)))
        return JobResult(job.request_id, job.ask, verdict=verdict)

    def _post(self, result: JobResult) -> None:
        """Puts the callback into the outbox, in parcels of bounded size."""
        ask, id_ = result.ask, result.request_id
        if ask.url is None:
            return
        limit = self._settings.callback_max_artifacts
        if result.verdict is not None:
            body = validated(ask, id_, result.verdict, with_test=result.concludes)
            self._journal.enqueue_all(id_, ask.url, "/validated", [(body, id_, 0)])
        else:
            made = result.artifacts or ()
            bodies = generated_in_parts(ask, made, self.deployment.k_dim, limit, id_)
            parts = [(body, f"{id_}:{i + 1}", len(made[i * limit : (i + 1) * limit])) for i, body in enumerate(bodies)]
            self._journal.enqueue_all(id_, ask.url, "/generated", parts)
        self._posted()

    def _require_open(self) -> None:
        if self._is_closed:
            raise Busy("the proof service is shutting down: ask again when it is back")

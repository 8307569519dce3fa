"""What can be asked of the proof service, and the book of queued requests: in order, bounded, forgotten in time.

The rule of the file: what an `Ask` or a `Start` holds has been checked; a result lives for its TTL by the clock,
whether or not anything else happens.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ftw.poc.codec import Artifact
from ftw.poc.verify import Claims, StatTest, Verdict, sort_claims
from ftw.substrate.errors import ConfigError, QueueFull

MAX_INT = 2**53 - 1
"""The largest number on the wire: larger ones do not survive every JSON parser."""
MAX_NODES = 1_000_000
"""Nodes of a network, and groups of a node."""
MAX_BATCH = 65_536
"""Nonces in one unit of work."""

JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who proves what for which block. Raises ConfigError for numbers that cannot be meant."""

    block_hash: str
    block_height: int
    public_key: str
    node_id: int
    node_count: int
    group_id: int = 0
    """Which of the replicas behind one node this is."""
    n_groups: int = 1
    batch_size: int
    """Nonces in one unit of work of a round: what is journalled in one step. It decides no bit of any vector."""
    url: str | None = None
    """Where callbacks go."""
    stronger_rng: bool = False

    def __post_init__(self) -> None:
        _between("block_height", self.block_height, 0, MAX_INT)
        _between("node_count", self.node_count, 1, MAX_NODES)
        _between("node_id", self.node_id, 0, self.node_count - 1, "node_count - 1")
        _between("n_groups", self.n_groups, 1, MAX_NODES)
        _between("group_id", self.group_id, 0, self.n_groups - 1, "n_groups - 1")
        _between("batch_size", self.batch_size, 1, MAX_BATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Identity):
    """A round to generate, until it is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Identity):
    """Nonces to compute, or claims about them to judge.

    Raises ConfigError also for nonces that are negative, too large, or given twice, and for a test without claims.
    """

    nonces: tuple[int, ...]
    claims: tuple[Artifact, ...] | None = None
    """What is to be validated. None: compute the artifacts."""
    test: StatTest | None = None
    """The parameters of the verdict. None: mismatches are counted at the default distance, nothing is concluded."""

    def __post_init__(self) -> None:
        Identity.__post_init__(self)
        if len(set(self.nonces)) != len(self.nonces):
            raise ConfigError("a nonce is given twice: each counts once")
        if self.nonces:
            _between("a nonce", min(self.nonces), 0, MAX_INT)
            _between("a nonce", max(self.nonces), 0, MAX_INT)
        if self.test is not None and self.claims is None:
            raise ConfigError("stat_test judges a validation, and there is none: leave it out, or give validation")

    def sorted_claims(self, k_dim: int) -> Claims | None:
        """The claims, sorted before any forward pass. Raises ConfigError for one that was not asked for."""
        return None if self.claims is None else sort_claims(self.nonces, self.claims, k_dim)


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a request gave: artifacts, or a verdict."""

    request_id: str
    ask: Ask
    artifacts: tuple[Artifact, ...] | None = None
    """In the order of the nonces."""
    verdict: Verdict | None = None

    @property
    def concludes(self) -> bool:
        """Whether p-value and fraud are part of the answer: only where a test was asked for."""
        return self.verdict is not None and self.ask.test is not None


@dataclass(frozen=True, slots=True)
class JobState:
    """How a queued request stands."""

    request_id: str
    status: JobStatus
    ask: Ask
    result: JobResult | None = None
    """Set when `completed`."""
    error: str | None = None
    """Why, when `failed` or `cancelled`."""


@dataclass(eq=False)
class Job:
    """A queued request under way. Changed by its book and by the worker alone."""

    request_id: str
    ask: Ask
    claims: Claims | None
    status: JobStatus = "queued"
    result: JobResult | None = None
    error: str | None = None
    ended_at: float | None = None
    made: list[Artifact] = field(default_factory=list)
    """Artifacts made so far, in the order of `todo`."""
    todo: tuple[int, ...] = field(init=False)
    """The nonces to compute: all, or those whose claim can be compared."""

    def __post_init__(self) -> None:
        self.todo = self.ask.nonces if self.claims is None else tuple(self.claims.vectors)

    @property
    def weight(self) -> int:
        """What it counts in the queue: its nonces, and at least 1."""
        return max(1, len(self.ask.nonces))


class JobBook:
    """Queued requests in their order, and the states of those that ended until their TTL is over. Thread-safe."""

    def __init__(self, limit_nonces: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._limit = limit_nonces
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._ended: deque[Job] = deque()
        self._weight = 0

    @property
    def queued_nonces(self) -> int:
        """Nonces of the requests that wait or run."""
        return self._weight

    def add(self, ask: Ask, claims: Claims | None) -> Job:
        """Puts a request at the end of the queue. Raises QueueFull."""
        job = Job(str(uuid.uuid4()), ask, claims)
        with self._lock:
            self._sweep()
            if self._weight + job.weight > self._limit:
                raise QueueFull(
                    f"{self._weight} nonces are queued and {job.weight} more are too many: the queue takes "
                    f"{self._limit} (POC_MAX_QUEUED_NONCES). Ask again later"
                )
            self._jobs[job.request_id] = job
            self._queue.append(job)
            self._weight += job.weight
        return job

    def take(self) -> Job | None:
        """The next request, now running; None where none waits."""
        with self._lock:
            if not self._queue:
                return None
            job = self._queue.popleft()
            job.status = "running"
            return job

    def complete(self, job: Job, result: JobResult) -> None:
        """The request has its result. Changes nothing where it was called off meanwhile."""
        self._end(job, "completed", result, None)

    def fail(self, job: Job, error: str) -> None:
        """The request has failed. Changes nothing where it was called off meanwhile."""
        self._end(job, "failed", None, error)

    def cancel_all(self, why: str) -> None:
        """Calls off what waits and what runs."""
        with self._lock:
            going = [job for job in self._jobs.values() if job.ended_at is None]
            self._queue.clear()
        for job in going:
            self._end(job, "cancelled", None, why)

    def state(self, request_id: str) -> JobState | None:
        """How a request stands; None where it is unknown or its TTL is over."""
        with self._lock:
            self._sweep()
            job = self._jobs.get(request_id)
            return None if job is None else JobState(job.request_id, job.status, job.ask, job.result, job.error)

    def sweep(self) -> float | None:
        """Forgets what has expired. Seconds until the next one does; None where nothing will."""
        with self._lock:
            self._sweep()
            return self._ended[0].ended_at + self._ttl_s - self._clock() if self._ended else None  # type: ignore[operator]

    def __len__(self) -> int:
        """Requests remembered, those that ended included."""
        return len(self._jobs)

    def _end(self, job: Job, status: JobStatus, result: JobResult | None, error: str | None) -> None:
        with self._lock:
            if job.ended_at is not None:
                return
            job.status, job.result, job.error, job.ended_at = status, result, error, self._clock()
            job.made = []
            self._ended.append(job)
            self._weight -= job.weight

    def _sweep(self) -> None:
        """In the order in which they ended: the clock does not go back."""
        now = self._clock()
        while self._ended and now - (self._ended[0].ended_at or 0.0) >= self._ttl_s:
            del self._jobs[self._ended.popleft().request_id]


def _between(name: str, value: int, low: int, high: int, what: str = "") -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}: it lies in {low}..{f'{high} ({what})' if what else high}")

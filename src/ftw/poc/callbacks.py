"""Callbacks: the thread that brings the outbox's parcels to their receivers, each tried until it is taken.

The rule of the file: what a receiver does (down, slow, failing, redirecting, talking without end) costs time of its own
parcels and of nobody else's, and a parcel is done with only when the journal has been told so.
"""

import base64
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ftw.poc.commitments import Commitment
from ftw.poc.events import CallbackDone
from ftw.poc.payloads import generated
from ftw.poc.post import Answer, Poster
from ftw.poc.records import Parcel
from ftw.substrate.canonical import canonical_json
from ftw.substrate.config import PocSettings
from ftw.substrate.errors import ConfigError, ProofError, StorageError
from ftw.substrate.events import Sink

LOG = logging.getLogger(__name__)

LANES = 16
"""Receivers that are served at the same time. One that does not answer is given up after the time of one post."""
STRIKES = 3
"""Failures in a row after which a receiver that does answer is left alone until its next turn."""
LEAVE_S = 2.0
"""How long a close waits for lanes whose connections it has cut."""
COMMITMENT = "X-Ftw-Commitment"
"""The header with the commitment to what a parcel carries: its canonical JSON in base64."""
LONGEST_HEADER = 4096
"""Characters of that header at most, for receivers bound theirs: a longer commitment has to be pulled."""


@runtime_checkable
class Outbox(Protocol):
    """What a sender needs of the journal (`Journal` has it)."""

    def urls(self) -> list[str]:
        """Urls with anything undelivered."""

    def pending(self, limit_artifacts: int, url: str | None = None) -> Parcel | None:
        """The next parcel that is due at a url; the same one until `delivered` or `failed` is told of it."""

    def delivered(self, parcel_id: int) -> None:
        """The receiver has it."""

    def failed(self, parcel_id: int, error: str, retry_at: float) -> None:
        """It is due again at `retry_at`, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between two tries: doubling, and drawn from the upper half, so that senders do not march in step."""

    least_s: float = 1.0
    most_s: float = 30.0

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The pause after so many failures in a row (from 1 on)."""
        ceiling = min(self.most_s, self.least_s * 2.0 ** min(failures, 60))
        return max(self.least_s, rng.uniform(ceiling / 2, ceiling))


@dataclass(slots=True)
class _Lane:
    """What a sender remembers of one receiver. Times are Unix times."""

    due_at: float = 0.0
    """When it gets its next turn."""
    retry_at: float = 0.0
    """When the parcel that failed last is due again, if that is still to come."""
    is_busy: bool = False
    is_resting: bool = False
    """Whether it gave no answer at all, so that a wake does not concern it."""
    misses: int = 0
    """Posts in a row without any answer."""
    turn: int = 0
    """Number of its last turn, over all receivers."""


class Sender:
    """Brings the outbox's parcels to their receivers, and keeps at it.

    Every POC_CALLBACK_INTERVAL_SEC, and when `wake` is called, each receiver with something due gets a turn: a thread
    that posts parcel by parcel in the journal's order. Success is a status of 200 to 299. After anything else, a
    redirect among it, the parcel waits; after no answer at all the receiver rests, half as long as the parcel, so that
    a parcel that breaks its receiver does not hold up those behind it.

    The clock gives Unix time and is the journal's own. The sink hears of every try (CallbackDone), in the turn's
    thread.
    """

    def __init__(
        self,
        journal: Outbox,
        poster: Poster,
        settings: PocSettings,
        *,
        sink: Sink,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        backoff: Backoff | None = None,
        commit: Callable[[Parcel], Commitment | None] = lambda parcel: None,
    ) -> None:
        """`commit` gives the signed commitment that goes along with a parcel (a sealer's `seal`)."""
        self._journal = journal
        self._poster = poster
        self._interval_s = settings.callback_interval_sec
        self._limit = settings.callback_max_artifacts
        self._sink = sink
        self._clock = clock
        self._rng = rng or random.Random()
        self._backoff = backoff or Backoff()
        self._commit = commit
        self._flushing = threading.Lock()
        self._changed = threading.Condition()
        self._lanes: dict[str, _Lane] = {}
        self._turns = 0
        self._flush_turn: int | None = None
        self._is_woken = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ftw-callbacks", daemon=True)

    def start(self) -> None:
        """Starts the thread. What an earlier process left in the outbox goes first."""
        self._thread.start()

    def wake(self) -> None:
        """Something was put into the outbox that need not wait for the next interval: the result of a request."""
        with self._changed:
            for lane in self._lanes.values():
                lane.due_at = lane.due_at if lane.is_resting else 0.0
            self._is_woken = True
            self._changed.notify_all()

    def flush(self, deadline_s: float) -> bool:
        """Posts all that is due, to resting receivers too. Whether that was done before the deadline.

        What failed waits in the outbox for its retry: it is not lost, and a later process goes on with it.
        """
        until = self._clock() + deadline_s
        if not self._flushing.acquire(timeout=deadline_s):
            return False
        try:
            return self._flush(max(0.0, until - self._clock()))
        finally:
            self._flushing.release()

    def _flush(self, deadline_s: float) -> bool:
        with self._changed:
            self._flush_turn = self._turns
            for lane in self._lanes.values():
                lane.is_resting, lane.due_at = False, 0.0
            self.wake()
            done = self._changed.wait_for(lambda: self._closed.is_set() or self._is_flushed(), deadline_s)
            self._flush_turn = None
            return done and not self._closed.is_set()

    def close(self) -> None:
        """Ends the thread and cuts the posts that run; their parcels stay in the outbox. Idempotent."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        self._poster.close()
        with self._changed:
            self._changed.wait_for(lambda: not any(lane.is_busy for lane in self._lanes.values()), LEAVE_S)
        if self._thread.is_alive():
            self._thread.join(LEAVE_S)

    def _is_flushed(self) -> bool:
        """Whether every receiver with anything undelivered has had a turn since the flush began. Holds the lock."""
        if self._is_woken or self._flush_turn is None or any(lane.is_busy for lane in self._lanes.values()):
            return False
        urls = self._urls()
        lanes = [self._lanes.get(url) for url in urls or ()]
        return urls is not None and all(
            lane is not None and (lane.turn > self._flush_turn or lane.is_resting) for lane in lanes
        )

    # --- when: the thread that gives out turns

    def _run(self) -> None:
        with self._changed:
            while not self._closed.is_set():
                self._is_woken = False
                next_at = self._give_turns()
                self._changed.notify_all()
                wait_s = max(0.0, next_at - self._clock())
                self._changed.wait_for(lambda: self._closed.is_set() or self._is_woken, wait_s)

    def _give_turns(self) -> float:
        """Starts the turns that are due; gives the time of the next look. Holds the lock."""
        now = self._clock()
        urls = self._urls()
        if urls is None:
            return now + self._interval_s
        self._lanes = {url: lane for url, lane in self._lanes.items() if lane.is_busy or url in urls}
        for url in urls:
            self._lanes.setdefault(url, _Lane())
        idle = [(lane.turn, url) for url, lane in self._lanes.items() if not lane.is_busy]
        due = [url for _, url in sorted(idle) if self._lanes[url].due_at <= now]
        for url in due[: LANES - (len(self._lanes) - len(idle))]:
            lane = self._lanes[url]
            self._turns += 1
            lane.turn, lane.is_busy, lane.is_resting, lane.due_at = self._turns, True, False, now + self._interval_s
            threading.Thread(target=self._take_turn, args=(url, lane), name="ftw-callback", daemon=True).start()
        later = [lane.due_at for lane in self._lanes.values() if not lane.is_busy and lane.due_at > now]
        return min([now + self._interval_s, *later])

    def _urls(self) -> list[str] | None:
        """Receivers with anything undelivered; None where the journal cannot say."""
        try:
            return self._journal.urls()
        except StorageError as error:
            LOG.warning("the outbox cannot be read, callbacks wait: %s", error)
            return None

    # --- what: one receiver's turn

    def _take_turn(self, url: str, lane: _Lane) -> None:
        try:
            self._drain(url, lane)
        except StorageError as error:
            LOG.warning("the outbox cannot be used, callbacks wait: %s", error)
            self._rest(lane, self._backoff.most_s)
        finally:
            with self._changed:
                if not lane.is_resting and lane.retry_at > self._clock():
                    lane.due_at = min(lane.due_at, lane.retry_at)
                lane.is_busy = False
                self._is_woken = True  # the next look sees when this lane is due again, and who waited for its place
                self._changed.notify_all()

    def _drain(self, url: str, lane: _Lane) -> None:
        """Posts until nothing is due, the receiver gives no answer or fails again and again, or the end comes.

        Outside a flush a round's parcel that is not full is the last of a turn: the next one gathers for an interval.
        """
        strikes = 0
        while strikes < STRIKES and not self._closed.is_set():
            parcel = self._journal.pending(self._limit, url)
            if parcel is None:
                return
            answer = self._poster.post(url, parcel.path, _body(parcel), _headers(parcel, self._committed(parcel)))
            if self._closed.is_set() and not answer.ok:
                return  # cut by us: this try says nothing about the receiver
            if answer.ok:
                self._journal.delivered(parcel.parcel_id)
                strikes, lane.misses = 0, 0
            else:
                strikes += 1
                self._fail(parcel, answer, lane)
            self._sink(CallbackDone(parcel.owner, answer.ok, answer.status, parcel.artifacts))
            is_full = parcel.key is None or parcel.artifacts >= self._limit
            if lane.is_resting or (answer.ok and not is_full and self._flush_turn is None):
                return

    def _committed(self, parcel: Parcel) -> Commitment | None:
        try:
            return self._commit(parcel)
        except (ConfigError, ProofError) as error:  # it is delivered all the same
            LOG.warning("a callback of %.12s… goes without its commitment: %s", parcel.owner, error)
            return None

    def _fail(self, parcel: Parcel, answer: Answer, lane: _Lane) -> None:
        lane.misses = lane.misses + 1 if answer.status is None else 0
        pause_s = self._backoff.delay_s(max(parcel.tries + 1, lane.misses), self._rng)
        retry_at = self._clock() + pause_s
        self._journal.failed(parcel.parcel_id, answer.error, retry_at)
        lane.retry_at = retry_at if lane.retry_at <= self._clock() else min(lane.retry_at, retry_at)
        if answer.status is None:
            self._rest(lane, pause_s / 2)
        if parcel.tries == 0:
            LOG.warning("a callback of %.12s… waits for its retry: %s", parcel.owner, answer.error)

    def _rest(self, lane: _Lane, pause_s: float) -> None:
        with self._changed:
            lane.is_resting, lane.due_at = True, self._clock() + pause_s


def _body(parcel: Parcel) -> bytes:
    if parcel.key is None:
        return parcel.body or b""
    return generated(parcel.key, (row.artifact for row in parcel.rows), parcel.key.k_dim)


def _headers(parcel: Parcel, commitment: Commitment | None) -> dict[str, str]:
    marks = {
        "X-Ftw-Sequence": str(parcel.sequence),
        "Idempotency-Key": parcel.idempotency_key,
        "X-Ftw-Round": parcel.owner,
    }
    if commitment is not None:
        text = base64.b64encode(canonical_json(commitment.model_dump())).decode("ascii")
        marks |= {COMMITMENT: text} if len(text) <= LONGEST_HEADER else {}
    return marks

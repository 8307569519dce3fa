"""Prometheus metrics: a sink that counts what happens, and gauges that are read when somebody asks for `/metrics`.

The rule of the file: a registry of its own, numbers only, and no label that a client chooses.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ftw.poc.events import BatchMade, CallbackDone, Judged, NotFinite, RoundEnded, RoundStarted
from ftw.substrate.events import Event, Finished, Requested, StepSeen

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DISTANCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.2, 1.4, 1.6, 2.0)


@dataclass(frozen=True, slots=True)
class Levels:
    """How the server stands now."""

    is_generating: bool
    nonces_per_second: float
    queued_nonces: int
    outbox_age_s: float
    outbox_artifacts: int
    chat_requests: int


class Metrics:
    """All metrics of a server. Call it with events."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        made = self._counter
        self._nonces = made("ftw_poc_nonces", "Nonces computed: rate() of it is nonces per second.")
        self._batches = made("ftw_poc_batches", "Forward passes that gave artifacts.")
        self._not_finite = made("ftw_poc_not_finite", "Batches rejected for a NaN or an infinity.")
        self._starts = made("ftw_poc_rounds_started", "Rounds started or taken up again.")
        self._ends = made("ftw_poc_rounds_ended", "Rounds ended, by the state that they ended in.", "state")
        self._stage = Histogram(
            "ftw_poc_batch_seconds", "Seconds of a batch by stage.", ["stage"], buckets=SECONDS, registry=self._registry
        )
        self._verdicts = made("ftw_poc_validations", "Validations judged.")
        self._mismatches = made("ftw_poc_mismatches", "Nonces that failed a validation, by reason.", "reason")
        self._share = Histogram(
            "ftw_poc_mismatch_share", "Share of nonces that failed.", buckets=SHARES, registry=self._registry
        )
        self._distance = Histogram(
            "ftw_poc_distance", "Distances of claims that were compared.", buckets=DISTANCES, registry=self._registry
        )
        self._callbacks = made("ftw_poc_callbacks", "Callbacks tried, by outcome.", "outcome")
        self._delivered = made("ftw_poc_callback_artifacts", "Artifacts delivered by callbacks.")
        self._requests = made("ftw_chat_requests", "Chat and completion requests accepted.")
        self._prompt = made("ftw_chat_prompt_tokens", "Tokens of prompts.")
        self._tokens = made("ftw_chat_tokens", "Tokens written.")
        self._finished = made("ftw_chat_finished", "Chat and completion requests ended, by reason.", "reason")
        for stage in ("rng", "forward", "readout", "encode"):
            self._stage.labels(stage)
        for outcome in ("delivered", "failed"):
            self._callbacks.labels(outcome)

    def __call__(self, event: Event) -> None:
        """Counts an event. A sink: of any thread."""
        match event:
            case StepSeen():
                self._tokens.inc()
            case BatchMade():
                self._nonces.inc(event.n)
                self._batches.inc()
                for stage, seconds in event.split._asdict().items():
                    self._stage.labels(stage).observe(seconds)
            case Requested():
                self._requests.inc()
                self._prompt.inc(event.prompt_tokens)
            case Finished():
                self._finished.labels(event.reason).inc()
            case NotFinite():
                self._not_finite.inc()
            case RoundStarted():
                self._starts.inc()
            case RoundEnded():
                self._ends.labels(event.state).inc()
            case Judged():
                self._judged(event)
            case CallbackDone():
                self._callbacks.labels("delivered" if event.ok else "failed").inc()
                self._delivered.inc(event.artifacts if event.ok else 0)

    def watch(self, levels: Callable[[], Levels]) -> None:
        """From now on, `/metrics` also shows what `levels` says. Once."""
        self._registry.register(_Gauges(levels))

    def text(self) -> bytes:
        """All metrics as Prometheus reads them. Asks the disk: not on an event loop."""
        return generate_latest(self._registry)

    def _judged(self, event: Judged) -> None:
        self._verdicts.inc()
        for reason, times in event.reasons.items():
            self._mismatches.labels(reason).inc(times)
        if event.n_total:
            self._share.observe(event.n_mismatch / event.n_total)
        for distance in event.distances:
            self._distance.observe(distance)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self._registry)


class _Gauges(Collector):
    """Levels, read at each scrape."""

    def __init__(self, levels: Callable[[], Levels]) -> None:
        self._levels = levels

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it must not ask for levels."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One gauge per level."""
        now = self._levels()
        for name, about, value in (
            ("ftw_poc_generating", "1 while a round is generated.", float(now.is_generating)),
            ("ftw_poc_nonces_per_second", "Nonces per second since the round was started.", now.nonces_per_second),
            ("ftw_poc_queue_nonces", "Nonces of queued and running requests.", now.queued_nonces),
            ("ftw_poc_outbox_age_seconds", "Age of the oldest undelivered artifact or verdict.", now.outbox_age_s),
            ("ftw_poc_outbox_artifacts", "Artifacts and verdicts that are not delivered yet.", now.outbox_artifacts),
            ("ftw_chat_running", "Chat requests that wait or are being written.", now.chat_requests),
        ):
            yield GaugeMetricFamily(name, about, value=value)

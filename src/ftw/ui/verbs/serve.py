"""Serve: the model over HTTP, for chat and for proofs of compute."""

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ftw.poc.events import BatchMade, CallbackDone, Judged
from ftw.substrate.config import PocSettings, Settings
from ftw.substrate.errors import ConfigError
from ftw.substrate.events import Event, Requested, StepSeen
from ftw.ui.api.server import Parts, application
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.listening import ended_after, listen, url_of
from ftw.ui.service import access_of, build, is_loopback
from ftw.ui.visualization.figure import count, facts, foot
from ftw.ui.visualization.figure import title as heading

SWITCH_S = 0.001
"""How long one thread may keep the interpreter from the others: the event loop must not wait for the model's."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to listen, with what, until when."""

    host: str
    port: int
    """0 takes a free one."""
    model: str | None
    journal: Path | None
    """None is that of the settings."""
    token_file: Path | None
    seconds: float | None
    """When to end by itself; None runs until interrupted."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 <= self.seconds <= 1e9:
            raise ConfigError(f"--seconds is {self.seconds}: give seconds, 0 or more")


class Tally:
    """A sink that counts for the last words."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(("artifacts", "delivered", "verdicts", "requests", "tokens"), 0)

    def __call__(self, event: Event) -> None:
        """Counts what a person would want to know at the end."""
        match event:
            case StepSeen():
                self._add("tokens", 1)
            case BatchMade():
                self._add("artifacts", event.n)
            case CallbackDone() if event.ok:
                self._add("delivered", event.artifacts)
            case Judged():
                self._add("verdicts", 1)
            case Requested():
                self._add("requests", 1)

    def _add(self, what: str, n: int) -> None:
        with self._lock:
            self.counts[what] += n


def run(out: Out, asked: Asked) -> None:
    """Serve until the end, then tell the counts. Raises ConfigError where the address cannot be had."""
    settings = PocSettings.from_env()
    if asked.journal is not None:
        settings = moved(settings, asked.journal)
    access, is_new = access_of(asked.host, asked.token_file, Settings.from_env())
    with listen(asked.host, asked.port) as listener:
        tally = Tally()
        model = open_model(asked.model, out)
        parts = build(model, settings, access, allow_loopback=is_loopback(asked.host), sinks=(tally,))
        where = url_of(listener)
        _tell(out, parts, where, settings)
        if is_new:
            out.tell(f"Token, made for this run (FTW_TOKEN or --token-file keeps one): {access.token}")
        try:
            _serve(parts, listener, asked.seconds, settings)
        finally:
            _report(out, tally.counts, where)


def moved(settings: PocSettings, journal: Path) -> PocSettings:
    """The settings with another journal. The signing key lies beside it, unless it was given a place of its own."""
    usual = settings.journal is not None and settings.signing_key == settings.journal.with_suffix(".key.pem")
    key = journal.with_suffix(".key.pem") if usual else settings.signing_key
    return settings.model_copy(update={"journal": journal, "signing_key": key})


def _serve(parts: Parts, listener: socket.socket, seconds: float | None, settings: PocSettings) -> None:
    config = uvicorn.Config(
        application(parts),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.stop_deadline_sec)),
    )
    server = uvicorn.Server(config)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        with _logged(), ended_after(server, seconds):
            server.run(sockets=[listener])
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _logged() -> Iterator[None]:
    """Within, requests and warnings go to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s"))
    loggers = {"ftw": logging.INFO, "uvicorn": logging.WARNING}
    before = {name: logging.getLogger(name).level for name in loggers}
    for name, level in loggers.items():
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)


def _tell(out: Out, parts: Parts, where: str, settings: PocSettings) -> None:
    deployment = parts.pow.deployment
    guarded = "no token is asked for" if parts.access.token is None else "a token is asked for"
    out.tell(f"Serving at {where} (chat below /v1, proofs below /api/v1/pow; {guarded}); Ctrl-C ends it")
    shape = f"seq_len {deployment.seq_len}, k_dim {deployment.k_dim}, {deployment.rows} nonces per pass"
    out.tell(f"Model {deployment.names[0]}, weights {deployment.fingerprint[:12]}; {settings.priority} goes first")
    out.tell(f"Proofs by {deployment.profile.id}: {shape}")
    out.tell(f"Journal {settings.journal}; commitments signed by {parts.pow.sealer.public[:16]}…")


def _report(out: Out, counts: dict[str, int], where: str) -> None:
    rows = {
        "proofs": f"{counts['artifacts']:,} artifacts computed, {counts['delivered']:,} delivered",
        "validations": f"{counts['verdicts']:,}",
        "chat": f"{count(counts['requests'], 'request')}, {count(counts['tokens'], 'token')} written",
    }
    title = f"Served {count(counts['artifacts'], 'artifact')} and {count(counts['tokens'], 'token')}"
    out.show(heading(title), "", facts(rows), "", foot(where, out.command), sep="\n")
    out.document({"command": "serve", "url": where, **counts})

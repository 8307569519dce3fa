"""The server's composition root: from a model and settings to everything that `ftw serve` runs.

The rule of the file: parts are built here, and closed in the order in which nothing is lost: first what makes
artifacts, then what delivers them, then the journal.
"""

import random
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

from ftw.poc.callbacks import Sender
from ftw.poc.deployment import Deployment
from ftw.poc.journal import Journal
from ftw.poc.post import Poster, Transport, open_transport
from ftw.poc.rounds import Rounds
from ftw.poc.sealer import Sealer
from ftw.poc.urls import Resolve, UrlGuard
from ftw.substrate.config import PocSettings, Settings
from ftw.substrate.engine import TransformersEngine
from ftw.substrate.errors import ConfigError
from ftw.substrate.events import Sink, fan_out
from ftw.substrate.lease import Lease
from ftw.substrate.model import Model
from ftw.substrate.signing import SigningKey
from ftw.ui.api.chat import ChatDesk
from ftw.ui.api.gate import LOOPBACK, Access
from ftw.ui.api.metrics import Levels, Metrics
from ftw.ui.api.pow import WAITING, PowDesk
from ftw.ui.api.server import Parts
from ftw.ui.serving import Serving

LEAST_TOKEN = 16
"""Characters of a token at least."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    name = host.strip("[]").lower()
    if name in LOOPBACK:
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def access_of(host: str, token_file: Path | None, settings: Settings) -> tuple[Access, bool]:
    """Who may use a server bound to `host`, and whether its token was made just now (so that somebody must be told it).

    Raises ConfigError for a token that is too short or a file that holds none.
    """
    token = settings.token if token_file is None else _read_token(token_file)
    here = is_loopback(host)
    if token is not None:
        _require_token(token)
    made = token is None and not here
    if made:
        token = secrets.token_urlsafe(32)
    names = tuple(dict.fromkeys((*LOOPBACK, host.strip("[]").lower()))) if here else None
    return Access(token, names), made


def build(
    model: Model,
    settings: PocSettings,
    access: Access,
    *,
    allow_loopback: bool,
    transport: Transport | None = None,
    resolve: Resolve | None = None,
    clock: Callable[[], float] = time.time,
    sinks: tuple[Sink, ...] = (),
) -> Parts:
    """All parts, wired; nothing runs yet. Raises StorageError where the journal cannot be had, ConfigError.

    The settings' paths must be filled in (`PocSettings.from_env` does).
    """
    if settings.journal is None or settings.signing_key is None:
        raise ConfigError("the journal and the signing key need paths: use PocSettings.from_env")
    deployment = Deployment.of(model, settings)
    metrics = Metrics()
    sink: Sink = fan_out((metrics, *sinks))
    lease = Lease(settings.priority)
    guard = UrlGuard(settings.callback_allow, allow_loopback, resolve)
    key = SigningKey.load_or_create(settings.signing_key)
    journal = Journal(settings.journal, clock=clock)
    sealer = Sealer(journal, key)
    transport = transport or open_transport()
    sender = Sender(
        journal, Poster(transport, guard), settings, sink=sink, clock=clock, rng=random.Random(), commit=sealer.seal
    )
    rounds = Rounds(model, deployment, settings, journal, lease, sink=sink, posted=sender.wake)
    serving = Serving(TransformersEngine(model, sinks=(sink,)), lease)
    quick = ThreadPoolExecutor(8, "ftw-quick")
    waiting = ThreadPoolExecutor(WAITING, "ftw-waiting")
    tokenizing = ThreadPoolExecutor(1, "ftw-tokenizer")

    def levels() -> Levels:
        now = rounds.status()
        age, depth = journal.outbox_age_s(clock()), journal.outbox_depth()
        speed = now.nonces_per_second if now.state == "GENERATING" else 0.0
        return Levels(now.state == "GENERATING", speed, now.queued_nonces, age, depth, serving.running)

    def start() -> None:
        serving.start()
        sender.start()

    def close() -> None:
        rounds.close()
        serving.close(settings.stop_deadline_sec)
        sender.flush(settings.stop_deadline_sec)
        sender.close()
        for pool in (quick, waiting, tokenizing):
            pool.shutdown(wait=False, cancel_futures=True)
        transport.close()
        journal.close()

    metrics.watch(levels)
    desk = PowDesk(rounds, journal, sealer, guard, settings, quick, waiting, sender.flush)
    return Parts(desk, ChatDesk(model, deployment, serving, tokenizing), metrics, access, start, close)


def _read_token(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {file} cannot be read: name another one with --token-file") from error
    if not text:
        raise ConfigError(f"the token file {file} is empty: write a token of {LEAST_TOKEN} or more characters into it")
    return text


def _require_token(token: str) -> None:
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token is no good one: {LEAST_TOKEN} or more ASCII characters without spaces "
            "(`python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes one)"
        )

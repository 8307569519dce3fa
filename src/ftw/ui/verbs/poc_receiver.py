"""Poc receiver: takes callbacks, keeps books on them, and can misbehave on purpose."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from ftw.poc.receiver import Books
from ftw.substrate.errors import ConfigError
from ftw.ui.api.receiver import Faults, receiver_app
from ftw.ui.cli.output import Out
from ftw.ui.listening import ended_after, listen, url_of
from ftw.ui.visualization.figure import count, facts, foot
from ftw.ui.visualization.figure import title as heading

GRACE_S = 2
"""Seconds that open connections get at the end."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to listen, what to save, how to fail, when to end."""

    host: str
    port: int
    """0 takes a free one."""
    save: Path | None
    fail: int | None
    """The status that is answered on purpose; None takes every delivery."""
    fail_s: float | None
    """For how long; None for good."""
    delay_s: float
    seconds: float | None
    """When to end by itself; None runs until interrupted."""

    def __post_init__(self) -> None:
        if self.fail is not None and not 300 <= self.fail <= 599:
            raise ConfigError(f"--fail is {self.fail}: give a status of 300 to 599, for example 503")
        if self.fail is None and self.fail_s is not None:
            raise ConfigError("--for says how long to fail: give --fail with it, for example --fail 503 --for 30")
        for name, value in (("--for", self.fail_s), ("--delay", self.delay_s), ("--seconds", self.seconds)):
            if value is not None and not 0 <= value <= 1e9:
                raise ConfigError(f"{name} is {value}: give seconds, 0 or more")


def run(out: Out, asked: Asked) -> None:
    """Listen until the end, then tell the counts. Raises ConfigError where the address cannot be had."""
    with ExitStack() as stack:
        books = Books(time.time, _saver(asked.save, stack))
        listener = stack.enter_context(listen(asked.host, asked.port))
        where = url_of(listener)
        out.tell(f"Taking callbacks at {where} (books at {where}/stats); Ctrl-C ends it")
        try:
            serve(books, asked, listener)
        finally:
            _report(out, books.stats(), where, asked)


def serve(books: Books, asked: Asked, listener: socket.socket) -> None:
    """Answers on `listener` until interrupted, or for `asked.seconds`."""
    until = float("inf") if asked.fail_s is None else time.time() + asked.fail_s
    faults = Faults(asked.fail or 200, until, asked.delay_s)
    config = uvicorn.Config(
        receiver_app(books, faults, time.time),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)
    with ended_after(server, asked.seconds):
        server.run(sockets=[listener])


def _saver(path: Path | None, stack: ExitStack) -> Callable[[str], None] | None:
    """Appends a line to the file, and has handed it to the system when it returns."""
    if path is None:
        return None
    file = stack.enter_context(path.open("a", encoding="utf-8"))

    def save(line: str) -> None:
        file.write(line)
        file.flush()

    return save


def _report(out: Out, stats: dict[str, Any], where: str, asked: Asked) -> None:
    rounds = stats["rounds"].values()
    missing = sum(one["missing_sequences"] for one in rounds)
    rows = {
        "deliveries": f"{stats['deliveries']:,}, {stats['bytes']:,} bytes",
        "artifacts": f"{stats['artifacts']:,} in {count(len(rounds), 'round')}",
        "committed": f"{stats['committed']:,} of {count(stats['batches'], 'batch', 'batches')}, signature holds",
        "verdicts": f"{stats['validated']:,}",
        "came twice": f"{count(stats['duplicates_by_key'], 'delivery', 'deliveries')} by key, "
        f"{count(stats['duplicates_by_nonce'], 'nonce')}",
        "never came": count(missing, "sequence number"),
        "not taken": f"{stats['malformed']:,} malformed, {stats['failed']:,} failed on purpose, "
        f"{stats['too_large']:,} too large",
    }
    title = f"{count(stats['batches'], 'batch', 'batches')} received, {missing or 'none'} missing"
    saved = "" if asked.save is None else f"saved to {asked.save}"
    out.show(heading(title), "", facts(rows), "", foot(where, saved, out.command), sep="\n")
    out.document({"command": "poc receiver", "url": where, **stats})

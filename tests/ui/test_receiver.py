"""The receiver over HTTP and on the command line: books that agree with what a real sender sent."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from ftw.poc.callbacks import Backoff, Sender
from ftw.poc.codec import Artifact
from ftw.poc.journal import Journal, RoundKey
from ftw.poc.post import Poster, open_transport
from ftw.poc.receiver import Books
from ftw.poc.urls import UrlGuard
from ftw.substrate.config import PocSettings
from ftw.ui.api import receiver
from ftw.ui.api.receiver import Faults, receiver_app
from ftw.ui.verbs.poc_receiver import Asked
from tests.ui.conftest import Ftw

BODY: dict[str, Any] = {
    "block_hash": "b",
    "block_height": 1,
    "public_key": "pk",
    "node_id": 0,
    "artifacts": [{"nonce": 1, "vector_b64": "ADwAAA=="}],
    "encoding": {"dtype": "f16", "k_dim": 2, "endian": "le"},
}


TAKING = Faults()


def exchange(*asked: tuple[str, str, Any], faults: Faults = TAKING, now: float = 0.0) -> list[httpx2.Response]:
    """The answers to these requests, of one fresh receiver: method, path, and JSON or bytes to send."""

    async def talk() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(receiver_app(Books(lambda: now), faults, lambda: now))
        async with httpx2.AsyncClient(transport=transport, base_url="http://receiver") as client:
            return [
                await client.request(method, path, **({"content": sent} if isinstance(sent, bytes) else {"json": sent}))
                for method, path, sent in asked
            ]

    return asyncio.run(talk())


@pytest.mark.parametrize("base", ["", "/pow", "/v2/poc-batches/Qwen%2FQwen3"])
def test_deliveries_are_taken_below_any_base(base: str) -> None:
    taken, stats, batches = exchange(
        ("POST", f"{base}/generated", BODY), ("GET", "/stats", None), ("GET", "/batches", None)
    )
    assert taken.json() == {"status": "OK", "duplicate": False}
    assert (stats.json()["batches"], stats.json()["artifacts"]) == (1, 1)
    assert batches.json()["next"] == 1
    assert batches.json()["batches"][0]["path"] == "/generated"


def test_a_verdict_is_taken_and_clear_forgets_it() -> None:
    verdict = {key: BODY[key] for key in ("block_hash", "block_height", "public_key", "node_id")}
    verdict |= {"request_id": "q", "n_total": 1, "n_mismatch": 0, "mismatch_nonces": []}
    taken, before, _, after = exchange(
        ("POST", "/validated", verdict), ("GET", "/stats", None), ("POST", "/clear", None), ("GET", "/stats", None)
    )
    assert taken.status_code == 200
    assert (before.json()["validated"], after.json()["validated"]) == (1, 0)


def test_a_wrong_delivery_is_a_400_that_says_why() -> None:
    answers = exchange(("POST", "/generated", {**BODY, "x": 1}), ("POST", "/generated", b"{"), ("GET", "/stats", None))
    assert [one.status_code for one in answers] == [400, 400, 200]
    assert "x is not a known key" in answers[0].json()["detail"]
    assert answers[2].json()["malformed"] == 2


def test_a_delivery_too_large_is_a_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MAX_BODY", 10)
    answers = exchange(("POST", "/generated", BODY), ("GET", "/stats", None))
    assert answers[0].status_code == 413
    assert answers[1].json()["too_large"] == 1


@pytest.mark.parametrize(("status", "until", "expected"), [(503, 10.0, 503), (302, 10.0, 302), (503, 5.0, 200)])
def test_failures_are_made_on_purpose_for_as_long_as_asked(status: int, until: float, expected: int) -> None:
    answers = exchange(("POST", "/generated", BODY), ("GET", "/stats", None), faults=Faults(status, until), now=7.0)
    assert answers[0].status_code == expected
    assert ("location" in answers[0].headers) == (expected == 302)
    assert answers[1].json()["failed"] == (expected != 200)
    assert answers[1].json()["batches"] == (expected == 200)


def test_pages_of_batches_follow_each_other() -> None:
    asked = [("POST", "/generated", BODY)] * 3
    *_, first, second, wrong = exchange(
        *asked, ("GET", "/batches?limit=2", None), ("GET", "/batches?after=2", None), ("GET", "/batches?after=-1", None)
    )
    assert (len(first.json()["batches"]), first.json()["next"]) == (2, 2)
    assert (len(second.json()["batches"]), second.json()["next"]) == (1, 3)
    assert wrong.status_code == 422


# --- the command line


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_receiver_on_the_command_line_saves_and_tells_what_came(ftw: Ftw, tmp_path: Any) -> None:
    port, answers = free_port(), []

    def deliver() -> None:
        for _ in range(2000):
            try:
                with httpx2.Client(trust_env=False) as client:
                    for _ in range(2):
                        given = {"Idempotency-Key": "k", "X-Ftw-Sequence": "3", "X-Ftw-Round": "r"}
                        answer = client.post(f"http://127.0.0.1:{port}/pow/generated", json=BODY, headers=given)
                        answers.append(answer.status_code)
                return
            except httpx2.ConnectError:
                time.sleep(0.02)

    thread = threading.Thread(target=deliver)
    thread.start()
    saved = tmp_path / "came.jsonl"
    ran = ftw("poc", "receiver", "--port", str(port), "--seconds", "3", "--save", str(saved), "--json")
    thread.join()
    assert ran.code == 0, ran.err
    assert answers == [200, 200]
    document = ran.document
    assert (document["batches"], document["duplicates_by_key"], document["artifacts"]) == (1, 1, 1)
    assert document["rounds"]["r"]["first_missing"] == [1, 2]
    assert json.loads(saved.read_text())["body"] == BODY
    assert f"http://127.0.0.1:{port}" in ran.err


def test_a_taken_port_is_told_with_the_way_out(ftw: Ftw) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in ftw("poc", "receiver", "--port", str(port)).failed(2)


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["--port", "70000"], "--port is 70000"),
        (["--fail", "200"], "--fail is 200"),
        (["--for", "3"], "--for says how long to fail"),
        (["--delay", "-1"], "--delay is -1.0"),
        (["--seconds", "nan"], "--seconds is nan"),
        (["--host", "nowhere.invalid"], "no such host"),
        (["--host", "203.0.113.1", "--port", "0"], "give an address of this machine"),
        (["--save", "/nowhere/at/all"], "no such file or folder"),
    ],
)
def test_what_cannot_be_is_refused(ftw: Ftw, argv: list[str], match: str) -> None:
    ran = ftw("poc", "receiver", "--seconds", "0", *argv)
    assert ran.code in (1, 2)
    assert match in ran.err


def test_what_is_asked_is_kept() -> None:
    asked = Asked("127.0.0.1", 0, None, 503, 30.0, 0.5, None)
    assert (asked.fail, asked.fail_s, asked.delay_s) == (503, 30.0, 0.5)


# --- with a real sender


@contextmanager
def served(books: Books, faults: Faults) -> Iterator[str]:
    """The receiver on a socket, in a thread; its url."""
    config = uvicorn.Config(receiver_app(books, faults, time.time), log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/pow"
        finally:
            server.should_exit = True
            thread.join()


def test_books_agree_with_the_journal_after_a_receiver_that_failed_at_first(tmp_path: Path) -> None:
    books = Books(time.time)
    journal = Journal(tmp_path / "poc.sqlite")
    transport = open_transport()
    settings = PocSettings(callback_interval_sec=0.05, callback_max_artifacts=40)
    poster = Poster(transport, UrlGuard("", True))
    sender = Sender(journal, poster, settings, sink=lambda event: None, backoff=Backoff(0.02, 0.2))
    with served(books, Faults(503, time.time() + 0.5)) as url:
        key = RoundKey("b", 1, "pk", 1, 3, 0, 1, "artifact-k12/1", "f" * 64, 16, 2, 8, False, url)
        journal.open_round(key)
        sender.start()
        for i in range(20):
            made = [Artifact(key.nonce(j), "ADwAAA==") for j in range(10 * i, 10 * i + 10)]
            journal.append(key.round_id, made, 10 * i + 10)
            time.sleep(0.01)
        until = time.monotonic() + 20
        while journal.outbox_depth() and time.monotonic() < until:
            time.sleep(0.02)
        assert sender.flush(5.0)
        sender.close()
    stats = books.stats()
    its = stats["rounds"][key.round_id]
    assert (stats["artifacts"], its["nonces"], its["repeated_nonces"]) == (200, 200, 0)
    assert (its["missing_sequences"], its["out_of_order"], stats["duplicates_by_key"]) == (0, 0, 0)
    assert its["batches"] == len(journal.sealed(key.round_id))
    assert stats["failed"] > 0
    journal.close()
    transport.close()


@pytest.mark.slow
def test_ctrl_c_ends_a_receiver_and_tells_the_counts() -> None:
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "from ftw.ui.cli import main; main(sys.argv[1:])"
    argv = [sys.executable, "-c", start, "poc", "receiver", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "Taking callbacks at http://127.0.0.1:" in process.stderr.readline()
        time.sleep(0.5)  # the loop takes the signal over a moment after the line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "0 batches received" in out

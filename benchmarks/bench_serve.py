"""The server under load: how fast `/status` answers while a round is generated, and what generation costs a chat.

A real server in a process of its own, the client in this one. Both sides are asked in turn: each round of requests
while idle is followed by one while generating.
"""

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Context, Figure, at_most

POW = "/api/v1/pow"
SEQ_LEN = 256
ASKED = 60
"""`/status` requests per side and round."""
TOKENS = 16


class Client:
    """Requests over one kept connection, timed."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def __call__(self, method: str, path: str, sent: Any = None) -> tuple[Any, float]:
        """The JSON of the answer, and the seconds that it took."""
        began = time.perf_counter()
        self._connection.request(method, path, None if sent is None else json.dumps(sent))
        answer = self._connection.getresponse()
        text = answer.read()
        seconds = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {text[:200]!r}")
        return json.loads(text), seconds


def run(context: Context) -> Iterable[Figure]:
    """Latencies on the bundled model, at the usual length and rows."""
    with server(context.device) as client:
        status: dict[str, list[float]] = {"idle": [], "generating": []}
        chat: dict[str, list[float]] = {"idle": [], "generating": []}
        shares: list[float] = []
        for round_ in range(context.rounds):
            _ask(client, status["idle"], chat["idle"])
            client("POST", f"{POW}/init/generate", start(round_))
            _until(lambda: client("GET", f"{POW}/status")[0]["stats"]["total_processed"])
            _ask(client, status["generating"], chat["generating"])
            client("POST", f"{POW}/stop")
            shares.append(statistics.median(chat["generating"][-3:]) / statistics.median(chat["idle"][-3:]))
    p99 = {side: statistics.quantiles(found, n=100)[98] * 1e3 for side, found in status.items()}
    medians = {side: f"{statistics.median(found) * 1e3:.1f} ms" for side, found in status.items()}
    yield Figure(
        "serve",
        "p99 of /status while a round is generated",
        p99["generating"],
        "ms",
        at_most(20),
        medians | {"p99 idle": f"{p99['idle']:.1f} ms"},
        rounds=context.rounds,
    )
    yield Figure(
        "serve",
        f"a chat of {TOKENS} tokens while a round is generated, against idle",
        statistics.median(shares),
        "x",
        None,
        {side: f"{statistics.median(found) * 1e3:.0f} ms" for side, found in chat.items()},
        rounds=context.rounds,
    )


def start(number: int) -> dict[str, Any]:
    """The request for a round."""
    params = {"model": "reference", "seq_len": SEQ_LEN}
    return {
        "block_hash": f"0x{number:x}",
        "block_height": number,
        "public_key": "benchmark",
        "node_id": 0,
        "node_count": 1,
        "params": params,
    }


@contextmanager
def server(device: str) -> Iterator[Client]:
    """A server on the bundled model, with a journal of its own."""
    with tempfile.TemporaryDirectory() as folder:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("POC_", "FTW_"))}
        argv = [sys.executable, "-m", "ftw", "serve", "--port", "0", "--journal", str(Path(folder) / "poc.sqlite")]
        with subprocess.Popen(
            argv, env=env | {"FTW_DEVICE": device}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stderr is not None
            try:
                found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())
                if found is None:
                    raise RuntimeError("the server did not say where it listens")
                drain = _drained(process)
                client = Client(int(found[1]))
                client("GET", "/health")
                yield client
            finally:
                process.terminate()
                process.wait(60)
            drain.join(5)


def _drained(process: "subprocess.Popen[str]") -> Any:
    """A thread that reads what the server tells, so that its pipe does not fill."""
    stream: Any = process.stderr
    thread = threading.Thread(target=lambda: [None for _ in stream], daemon=True)
    thread.start()
    return thread


def _ask(client: Client, status: list[float], chat: list[float]) -> None:
    messages = [{"role": "user", "content": "Tell me a story about a storm."}]
    asked = {"model": "reference", "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    for i in range(ASKED):
        status.append(client("GET", f"{POW}/status")[1])
        time.sleep(0.005 + 0.001 * (i % 7))  # so that requests fall everywhere into a batch
        if i % (ASKED // 3) == 0:
            chat.append(client("POST", "/v1/chat/completions", asked)[1])


def _until(claim: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not claim():
        if time.monotonic() > end:
            raise RuntimeError("the round made nothing in two minutes")
        time.sleep(0.05)

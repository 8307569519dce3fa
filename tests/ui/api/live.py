"""A real `ftw serve` in a process of its own, for tests of what only sockets and signals show."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.ui.api.conftest import POW, SEQ_LEN

PATIENCE_S = 90.0


@dataclass(frozen=True)
class Live:
    """A server that listens."""

    process: subprocess.Popen[str]
    url: str
    journal: Path
    client: httpx2.Client
    told: list[str]
    """Its lines on stderr so far."""

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"{POW}/status").json()
        return found

    def kill(self) -> None:
        """Without a chance to do anything."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def end(self) -> int:
        """As an operator ends it."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextmanager
def serving(folder: Path, *arguments: str, token: str = "", **settings: Any) -> Iterator[Live]:
    """A server on a free port of loopback, on the tiny model, with its journal in `folder`."""
    usual = {"seq_len": SEQ_LEN, "forward_rows": 4, "callback_interval_sec": 0.1, "stop_deadline_sec": 5}
    env = {key: value for key, value in os.environ.items() if not key.startswith(("POC_", "FTW_"))}
    env |= {f"POC_{key.upper()}": str(value) for key, value in (usual | settings).items()}
    env |= {"OMP_NUM_THREADS": "1"} | ({"FTW_TOKEN": token} if token else {})
    argv = [sys.executable, "-m", "ftw", "serve", "--model", "tiny", "--port", "0"]
    argv += ["--journal", str(folder / "poc.sqlite"), *arguments]
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        told: list[str] = []
        listens = threading.Event()

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                told.append(line)
                if line.startswith("Journal"):
                    listens.set()
            listens.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            assert listens.wait(PATIENCE_S), told
            found = re.search(r"http://[\d.]+:(\d+)", told[0])
            assert found is not None, told
            url = f"http://127.0.0.1:{found[1]}"
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            with httpx2.Client(base_url=url, timeout=PATIENCE_S, headers=headers, trust_env=False) as client:
                wait_for(lambda: client.get("/health").status_code == 200)
                yield Live(process, url, folder / "poc.sqlite", client, told)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(PATIENCE_S)


def wait_for(claim: Any) -> Any:
    """What `claim` gives, once it is true and no connection is refused."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if found := claim():
                return found
        except httpx2.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError("it did not happen")

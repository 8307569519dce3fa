"""The whole server in this process: a tiny model, a journal in a temporary folder, requests through ASGI."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from ftw.substrate.config import PocSettings
from ftw.substrate.model import Model
from ftw.substrate.reference import tiny
from ftw.ui.api.gate import LOOPBACK, Access
from ftw.ui.api.server import Parts, application
from ftw.ui.service import build

SEQ_LEN = 8
POW = "/api/v1/pow"
PROXY = "/api/v1/inference/pow"
URL = "http://127.0.0.1:9/pow"
"""A callback url that is allowed; posts to it go to the fixture's transport."""


def body(**changes: Any) -> dict[str, Any]:
    """A request for a round; `params` are merged, a None takes a key out."""
    params = {"model": "tiny", "seq_len": SEQ_LEN, "k_dim": 12} | changes.pop("params", {})
    whole = {"block_hash": "0xabc", "block_height": 7, "public_key": "key", "node_id": 0, "node_count": 10}
    return {key: value for key, value in (whole | {"params": params} | changes).items() if value is not None}


def ask(*nonces: int, **changes: Any) -> dict[str, Any]:
    """A request for nonces that waits for its result."""
    return body(nonces=list(nonces), **{"wait": True} | changes)


@dataclass(frozen=True)
class Server:
    """A running server and a client of it."""

    client: TestClient
    parts: Parts
    posted: list[httpx2.Request]
    """The callbacks that were taken."""

    def post(self, path: str, json: Any = None, **more: Any) -> Any:
        return self.client.post(path, json=json, **more)

    def get(self, path: str, **params: Any) -> Any:
        return self.client.get(path, params=params)

    def ok(self, path: str, json: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.post(path, json)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def compute(self, *nonces: int, **changes: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ok(f"{POW}/generate", ask(*nonces, **changes))["artifacts"]
        return found


Open = Callable[..., Server]


@pytest.fixture(scope="session")
def model() -> Model:
    return tiny()


@pytest.fixture(scope="session")
def opener(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[ExitStack], Open]:
    """Makes functions that open servers for as long as a stack is open."""

    def make(stack: ExitStack) -> Open:
        def open_server(access: Access | None = None, **settings: Any) -> Server:
            folder: Path = tmp_path_factory.mktemp("serve")
            paths = {"journal": folder / "poc.sqlite", "signing_key": folder / "key.pem"}
            usual = {"seq_len": SEQ_LEN, "forward_rows": 4, "callback_interval_sec": 0.05, "stop_deadline_sec": 3}
            chosen = PocSettings(**paths | usual | settings)
            posted: list[httpx2.Request] = []

            def take(request: httpx2.Request) -> httpx2.Response:
                posted.append(request)
                return httpx2.Response(200)

            parts = build(
                model,
                chosen,
                access or Access(hosts=LOOPBACK),
                allow_loopback=True,
                transport=httpx2.MockTransport(take),
            )
            app = application(parts)
            client = stack.enter_context(TestClient(app, base_url="http://localhost", raise_server_exceptions=False))
            return Server(client, parts, posted)

        return open_server

    return make


@pytest.fixture
def open_server(opener: Callable[[ExitStack], Open]) -> Iterator[Open]:
    """Opens a server of this test's own, with other settings where given."""
    with ExitStack() as stack:
        yield opener(stack)


@pytest.fixture
def server(open_server: Open) -> Server:
    """A server of this test's own."""
    return open_server()


@pytest.fixture(scope="module")
def shared(opener: Callable[[ExitStack], Open]) -> Iterator[Server]:
    """A server for tests that leave nothing behind."""
    with ExitStack() as stack:
        yield opener(stack)()

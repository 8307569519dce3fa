"""Every error has its status and the shape of its API; a fault of ours is a 500 that tells nothing of the request."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ftw.substrate.errors import (
    AlreadyGenerating,
    Cancelled,
    ConfigError,
    FtwError,
    LeaseTimeout,
    NotThere,
    NumericError,
    ParamsMismatch,
    PromptTooLong,
    QueueFull,
    StorageError,
)
from ftw.ui.api.problems import BadBody, Complaint, TooLarge, install
from tests.ui.api.conftest import POW, Server

CASES: list[tuple[Exception, int, int]] = [
    (ConfigError("wrong"), 422, 400),
    (BadBody([Complaint(("body", "a", 0), "wrong")]), 422, 400),
    (TooLarge(5), 413, 413),
    (NotThere("no"), 404, 404),
    (ParamsMismatch({"a": 1}, {"a": 2}), 409, 409),
    (AlreadyGenerating("busy"), 409, 409),
    (Cancelled("off"), 409, 409),
    (QueueFull("full"), 429, 429),
    (LeaseTimeout("late"), 503, 503),
    (StorageError("full"), 503, 503),
    (PromptTooLong("long"), 422, 400),
    (NumericError("NaN"), 500, 500),
    (FtwError("failed"), 500, 500),
    (RuntimeError("a secret"), 500, 500),
]


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    install(app)

    for prefix in ("/v1", "/api"):

        @app.get(prefix + "/{number}")
        async def fail(number: int) -> None:
            raise CASES[number][0]

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[type(one).__name__ for one, _, _ in CASES])
def test_an_error_has_its_status_in_both_shapes(client: TestClient, number: int) -> None:
    error, proof, chat = CASES[number]
    answer = client.get(f"/api/{number}")
    assert answer.status_code == proof
    assert "detail" in answer.json()
    other = client.get(f"/v1/{number}")
    assert other.status_code == chat
    assert set(other.json()["error"]) == {"message", "type", "param", "code"}
    for one in (answer, other):
        assert ("retry-after" in one.headers) == (one.status_code in (429, 503))
        assert "a secret" not in one.text
    if isinstance(error, BadBody):
        assert answer.json() == {"detail": [{"loc": ["body", "a", 0], "msg": "wrong", "type": "value_error"}]}
        assert other.json()["error"]["param"] == "a.0"


def test_a_number_that_is_none_in_a_path_is_a_complaint(client: TestClient) -> None:
    found: Any = client.get("/api/x").json()["detail"]
    assert found[0]["loc"] == ["path", "number"]


def test_a_journal_that_takes_nothing_is_told_as_such(server: Server) -> None:
    server.parts.pow.journal.close()
    answer = server.get(f"{POW}/rounds")
    assert answer.status_code == 503
    assert "journal" in answer.json()["detail"]

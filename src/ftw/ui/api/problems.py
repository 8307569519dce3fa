"""From errors to answers: which status an error has, and how it is said to proof clients and to OpenAI clients.

The rule of the file: an answer says what is wrong and what to do, never what the request contained; only errors that
ftw raises on purpose are told, everything else is a 500 without details.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ftw.substrate.errors import (
    AlreadyGenerating,
    Busy,
    Cancelled,
    FtwError,
    NotThere,
    ParamsMismatch,
    PromptTooLong,
    QueueFull,
    StorageError,
    UsageError,
)

LOG = logging.getLogger(__name__)

RETRY_S = 5
"""Seconds after which a client that was told to come back should."""
OPENAI = "/v1/"
"""Below this, errors have OpenAI's shape."""


class Complaint(NamedTuple):
    """One thing that is wrong with a request."""

    where: tuple[str | int, ...]
    what: str
    kind: str = "value_error"


class BadBody(UsageError):
    """A request that does not have the form it must have."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        self.complaints = tuple(complaints)
        super().__init__("; ".join(f"{path(one)}: {one.what}" for one in self.complaints))


class TooLarge(UsageError):
    """A body beyond the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is too large: at most {limit} bytes. Split the request")


class NotMatching(UsageError):
    """Parts of a request that do not fit each other."""


class Denied(UsageError):
    """A request from somebody who may not make it."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def path(complaint: Complaint) -> str:
    """Where, as a person writes it: `params.k_dim`, `validation.artifacts.3.nonce`."""
    return ".".join(map(str, complaint.where[1:])) or "body"


STATUS: tuple[tuple[type[FtwError], int], ...] = (
    (TooLarge, 413),
    (NotMatching, 400),
    (NotThere, 404),
    (ParamsMismatch, 409),
    (AlreadyGenerating, 409),
    (Cancelled, 409),
    (QueueFull, 429),
    (Busy, 503),
    (StorageError, 503),
    (PromptTooLong, 422),
    (UsageError, 422),
)


def status_of(error: FtwError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Denied):
        return error.status
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def answer(error: FtwError, where: str) -> JSONResponse:
    """The answer to a request at the path `where` that ended with this error."""
    status = status_of(error)
    headers = {"Retry-After": str(RETRY_S)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if where.startswith(OPENAI):
        status = 400 if status == 422 else status
        return JSONResponse(openai_error(error, status), status, headers)
    return JSONResponse(_detail(error), status, headers)


def openai_error(error: FtwError, status: int) -> dict[str, Any]:
    """OpenAI's error object."""
    param = path(error.complaints[0]) if isinstance(error, BadBody) else None
    code: str | None = {401: "invalid_api_key", 404: "model_not_found"}.get(status)
    if isinstance(error, PromptTooLong):
        code = "context_length_exceeded"
    if isinstance(error, BadBody) and error.complaints[0].kind == "extra_forbidden":
        code = "unknown_parameter"
    kind = "invalid_request_error"
    if status >= 500:
        kind, code = ("service_unavailable", "503") if status == 503 else ("server_error", str(status))
    elif status == 429:
        kind, code = "rate_limit_error", "rate_limit_exceeded"
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def install(app: FastAPI) -> None:
    """Every error of this application gets its answer here."""

    @app.exception_handler(FtwError)
    async def told(request: Request, error: FtwError) -> JSONResponse:
        if status_of(error) == 500:
            LOG.error("%s %s failed: %s", request.method, request.url.path, error)
        return answer(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def wrong_query(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [Complaint(tuple(one["loc"]), one["msg"], one["type"]) for one in error.errors()]
        return answer(BadBody(found), request.url.path)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        return plain(error.status_code, str(error.detail), request.scope, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return plain(500, f"the server failed ({type(error).__name__}): see its log", request.scope)


def plain(status: int, message: str, scope: Scope, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that is not about an error of ours: an unknown path, a wrong method, a fault."""
    if scope["path"].startswith(OPENAI):
        kind = "invalid_request_error" if status < 500 else "server_error"
        body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    else:
        body = {"detail": message}
    return JSONResponse(body, status, headers)


def _detail(error: FtwError) -> dict[str, Any]:
    if isinstance(error, BadBody):
        return {"detail": [{"loc": list(one.where), "msg": one.what, "type": one.kind} for one in error.complaints]}
    if isinstance(error, ParamsMismatch):
        return {"detail": str(error), "requested": error.requested, "deployed": error.deployed}
    return {"detail": str(error)}

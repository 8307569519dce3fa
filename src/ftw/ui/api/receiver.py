"""The callback receiver over HTTP: `POST …/generated`, `POST …/validated`, `GET /batches`, `GET /stats`, `POST /clear`.

The rule of the file: an answer of 200 means that the delivery is in the books; failures are made on purpose only where
the operator asked for them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response

from ftw.poc.receiver import Books, Path
from ftw.substrate.errors import UsageError

MAX_BODY = 64 * 1024 * 1024
"""Bytes of one delivery at most."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How a receiver misbehaves, for operators who test their nodes."""

    status: int = 200
    """Answered to deliveries instead of taking them; 200 takes them. A 3xx points elsewhere."""
    until: float = float("inf")
    """Unix time at which it starts to take them."""
    delay_s: float = 0.0
    """Seconds before every answer."""


class TooLarge(Exception):
    """A body beyond MAX_BODY."""


def receiver_app(books: Books, faults: Faults, clock: Callable[[], float]) -> FastAPI:
    """The application. It keeps nothing itself: `books` does."""
    app = FastAPI(title="ftw callback receiver", docs_url=None, redoc_url=None)
    app.include_router(_deliveries(books, faults, clock))
    app.include_router(_reports(books))
    return app


def _deliveries(books: Books, faults: Faults, clock: Callable[[], float]) -> APIRouter:
    router = APIRouter()

    async def take(path: Path, request: Request) -> Response:
        try:
            body = await _body(request)
        except TooLarge:
            books.refuse("too_large")
            return _problem(413, f"a delivery has at most {MAX_BODY} bytes")
        await asyncio.sleep(faults.delay_s)
        if faults.status != 200 and clock() < faults.until:
            books.refuse("failed")
            headers = {"Location": "/elsewhere"} if 300 <= faults.status < 400 else None
            return JSONResponse({"detail": "this receiver fails on purpose"}, faults.status, headers)
        try:
            line = await asyncio.to_thread(books.take, path, request.headers, body)
        except UsageError as error:
            return _problem(400, str(error))
        return JSONResponse({"status": "OK", "duplicate": line.is_duplicate})

    @router.post("/generated")
    @router.post("/{prefix:path}/generated")
    async def generated(request: Request) -> Response:
        """Artifacts of a round or of a request."""
        return await take("/generated", request)

    @router.post("/validated")
    @router.post("/{prefix:path}/validated")
    async def validated(request: Request) -> Response:
        """The verdict of a request."""
        return await take("/validated", request)

    return router


def _reports(books: Books) -> APIRouter:
    router = APIRouter()

    @router.get("/batches")
    async def batches(after: int = Query(0, ge=0), limit: int = Query(100, ge=1, le=10_000)) -> dict[str, Any]:
        """The deliveries in the order in which they came; `next` is the `after` of the next page."""
        lines = [asdict(line) for line in books.batches(after, limit)]
        return {"batches": lines, "next": after + len(lines)}

    @router.get("/stats")
    async def stats() -> dict[str, Any]:
        """All counts, and per round what came twice or never."""
        return books.stats()

    @router.post("/clear")
    async def clear() -> dict[str, str]:
        """Forget all deliveries and counts; a file that was saved to stays."""
        books.clear()
        return {"status": "OK"}

    return router


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > MAX_BODY:
            raise TooLarge
    return bytes(found)


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)

"""The ASGI application: routes, gate, errors, and the life of the parts behind them.

The rule of the file: it builds no parts; it is given them, starts them and closes them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from starlette.types import ASGIApp

from ftw import __version__
from ftw.ui.api.chat import ChatDesk, chat_routes
from ftw.ui.api.connection import in_thread
from ftw.ui.api.gate import Access, Gate
from ftw.ui.api.metrics import CONTENT_TYPE, Metrics
from ftw.ui.api.pow import PowDesk, own_routes, pow_routes
from ftw.ui.api.problems import install
from ftw.ui.api.proxy import proxy_routes

ANSWERS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The parts of the request do not fit each other; below /v1: the request is wrong."},
    401: {"description": "The token is missing or wrong."},
    403: {"description": "The request comes from a page of another site."},
    404: {"description": "Unknown or expired."},
    409: {"description": "Something else is deployed, or a round is being generated."},
    413: {"description": "The body is too large."},
    421: {"description": "The server is not called by that name."},
    422: {"description": "The request is wrong; each complaint has its path."},
    429: {"description": "The queue is full: ask again later."},
    500: {"description": "The model gave no finite numbers, or the server failed."},
    503: {"description": "The model stays in use, or proofs go first and a round is generated: ask again later."},
}
"""What every route may answer besides 200."""


@dataclass(frozen=True)
class Parts:
    """What the application is put together from."""

    pow: PowDesk
    chat: ChatDesk
    metrics: Metrics
    access: Access
    start: Callable[[], None]
    """Starts what runs in threads."""
    close: Callable[[], None]
    """Ends it, within the deadlines of the settings."""


def application(parts: Parts) -> FastAPI:
    """The application. Its lifespan starts and closes the parts."""
    app = FastAPI(
        title="ftw",
        version=__version__,
        summary="Proof of compute, and chat with the model that is proved.",
        lifespan=lambda app: _lifespan(parts),
        docs_url=None,
        redoc_url=None,
        responses=ANSWERS,
    )
    install(app)
    for routes in (pow_routes(parts.pow), own_routes(parts.pow), proxy_routes(parts.pow), chat_routes(parts.chat)):
        app.include_router(routes)
    app.include_router(_operation(parts))
    app.add_middleware(_gate, access=parts.access)
    return app


def _gate(app: ASGIApp, access: Access) -> ASGIApp:
    return Gate(app, access)


def _operation(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server is there, and what it does. Needs no token."""
        return {"status": "ok", "pow_status": parts.pow.rounds.status().state}

    @router.head("/health", include_in_schema=False)
    async def there() -> Response:
        """The same without a body, for probes that ask so."""
        return Response()

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(await in_thread(parts.pow.quick, parts.metrics.text), media_type=CONTENT_TYPE)

    return router


def _lifespan(parts: Parts) -> AbstractAsyncContextManager[None]:
    @asynccontextmanager
    async def life() -> AsyncIterator[None]:
        parts.start()
        try:
            yield
        finally:
            await asyncio.to_thread(parts.close)  # in no pool of ours: those may be full of what it ends

    return life()

"""The gate before every route: who may ask, under which name the server is called, and one log line per request.

The rule of the file: it runs before a byte of the body is read, and its log never holds a body, a query or a token.
"""

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftw.ui.api.problems import Denied, answer

LOG = logging.getLogger("ftw.access")

OPEN = ("/health",)
"""Paths that need no token."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the server."""

    token: str | None = None
    """What `Authorization: Bearer` must give. None asks for nothing."""
    hosts: tuple[str, ...] | None = None
    """Names under which the server may be called: on loopback, so that no web page can reach it by a name of its own.
    None takes any."""

    def refusal(self, path: str, headers: Mapping[str, str]) -> Denied | None:
        """Why a request may not pass; None where it may."""
        if self.hosts is not None:
            host = hostname(headers.get("host", ""))
            if host not in self.hosts:
                return Denied(421, "this server is not called by that name: use localhost or 127.0.0.1")
            origin = headers.get("origin")
            if origin is not None and hostname(urlsplit(origin).netloc) not in self.hosts:
                return Denied(403, "pages of other sites may not use this server")
        if self.token is None or path in OPEN:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not is_right:
            return Denied(401, "this server needs its token: send it as Authorization: Bearer TOKEN")
        return None


def hostname(netloc: str) -> str:
    """The host in `host:port` or `[v6]:port`, in lower case."""
    host = netloc.rsplit("]", 1)[0].lstrip("[") if netloc.startswith("[") else netloc.partition(":")[0]
    return host.lower().removesuffix(".")


class Gate:
    """The ASGI middleware."""

    def __init__(self, app: ASGIApp, access: Access, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._access = access
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._clock(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._access.refusal(scope["path"], Headers(scope=scope))
            if refusal is not None:
                await answer(refusal, scope["path"])(scope, receive, watched)
                return
            await self._app(scope, receive, watched)
        finally:
            client = (scope.get("client") or ("-",))[0]
            path = scope["path"].encode("unicode_escape").decode("ascii")[:200]
            LOG.info("%s %s %s %s %.0f ms", client, scope["method"], path, status or "-", (self._clock() - began) * 1e3)

"""`/api/v1/inference/pow`: the same API in the shape of a node's proxy, for clients that speak to one.

The rule of the file: this server is a proxy's only backend. Answers that the proxy aggregates list it by its port, and
ids of queued requests carry that port in front.
"""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ftw.substrate.errors import NotThere
from ftw.ui.api.answers import pieces
from ftw.ui.api.body import body_of, described
from ftw.ui.api.pow import PowDesk, answered, state_of, unless_left
from ftw.ui.api.problems import NotMatching
from ftw.ui.api.wire import GenerateRequest, InitRequest


def proxy_routes(desk: PowDesk) -> APIRouter:
    """The artifact API as a proxy republishes it."""
    router = APIRouter(prefix="/api/v1/inference/pow", tags=["proof of compute, as a node's proxy"])
    init_body, generate_body = body_of(InitRequest, desk.max_body), body_of(GenerateRequest, desk.max_body)

    @router.post("/init/generate", openapi_extra=described(InitRequest))
    async def init(request: Request, asked: Annotated[InitRequest, Depends(init_body)]) -> Response:
        """Start generating a round on every backend."""
        now = await desk.init(asked)
        head = {"status": "OK", "backends": 1, "n_groups": asked.n_groups}
        return answered(pieces(head | _results(request, "OK")), now)

    @router.post("/generate", openapi_extra=described(GenerateRequest))
    async def generate(request: Request, asked: Annotated[GenerateRequest, Depends(generate_body)]) -> Response:
        """Compute or judge on one of the backends."""

        def composite(text: bytes) -> bytes:
            return text if asked.wait else _with_id(text, lambda id_: f"{_port(request)}:{id_}")

        return await unless_left(desk.generate(asked, request.receive), composite)

    @router.get("/generate/{request_id}")
    async def result(request: Request, request_id: str) -> Response:
        """How a queued request stands. The id is `port:uuid`, as it was given out."""
        port, colon, inner = request_id.partition(":")
        if not colon or not port.isdecimal():
            raise NotMatching("the request id must be port:uuid, as it was given out")
        if port != str(_port(request)):
            raise NotThere(f"no backend of this proxy has the port {port[:9]}: its only one has {_port(request)}")
        return answered(_with_id(await desk.result(inner), lambda _: request_id))

    @router.get("/status")
    async def status(request: Request) -> Response:
        """The backends' states, and one for all. A stopped or failed backend is an idle one."""
        now = desk.rounds.status()
        own = {"port": _port(request)} | state_of(now, desk.deployment)
        state = "GENERATING" if now.state == "GENERATING" else "IDLE"
        return answered(pieces({"status": state, "backends": [own]}), now)

    @router.post("/stop")
    async def stop(request: Request) -> Response:
        """End the round on every backend."""
        now = await desk.stop()
        return answered(pieces({"status": "OK"} | _results(request, "stopped")), now)

    return router


def _results(request: Request, status: str) -> dict[str, Any]:
    return {"results": [{"port": _port(request), "status": status}], "errors": None}


def _port(request: Request) -> int:
    server = request.scope.get("server")
    return int(server[1] or 0) if server else 0


def _with_id(text: bytes, name: Any) -> bytes:
    """The answer with another request id, which stands near its beginning; the rest may be long and is not parsed."""
    key = b'"request_id":"'
    at = text.index(key) + len(key)
    end = text.index(b'"', at)
    return text[:at] + json.dumps(name(text[at:end].decode()))[1:-1].encode() + text[end:]

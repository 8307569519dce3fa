"""Work that lasts only as long as its client listens: waiting requests and streams of events.

The rule of the file: a client that leaves ends the work at once, not at the next thing that would have been sent.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")

SSE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class ClientLeft(Exception):
    """Nobody waits for the answer."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client disconnects. Raises ClientLeft then.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_leave(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft
    finally:
        for each in (task, leaving):
            each.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def in_thread(pool: Executor, work: Callable[..., Result], *values: Any) -> Result:
    """Runs `work` in a thread of the pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, work, *values)


class EventStream(Response):
    """Server-sent events, one per text. Whatever ends the answer, the generator is closed and `on_end` called."""

    def __init__(self, texts: AsyncGenerator[str, None], on_end: Callable[[], None]) -> None:
        self._texts = texts
        self._on_end = on_end  # a generator that was never begun runs no cleanup of its own
        self.status_code = 200
        self.media_type = "text/event-stream"
        self.background = None
        self.init_headers(SSE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the texts end or the client leaves."""
        try:
            await while_connected(receive, self._send(send))
        except (ClientLeft, OSError):
            return
        finally:
            self._on_end()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._texts) as texts:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for text in texts:
                event = f"data: {text}\n\n".encode()
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Chat in the server: one thread steps the engine under the model's lease, and hands chunks to the event loop.

The rule of the file: the event loop never waits for the model. What ends a request, a client that left among it, ends
its work in the engine too.
"""

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ftw.substrate.engine import Chunk, Engine, Request
from ftw.substrate.errors import Busy, Cancelled, FtwError, QueueFull
from ftw.substrate.lease import Lease

LOG = logging.getLogger(__name__)

GLANCE_S = 0.02
"""How often chat looks whether a round that goes first has ended."""
YIELDS = "PoC generation is active: chat is answered again when the round is stopped"


@dataclass(eq=False)
class Ticket:
    """A submitted request: where its chunks arrive."""

    id: str
    loop: asyncio.AbstractEventLoop
    mail: asyncio.Queue[Chunk | FtwError] = field(default_factory=asyncio.Queue)
    is_over: bool = False


class Serving:
    """Runs an engine for an event loop. Where proofs go first and a round is generated, chat is refused with Busy."""

    def __init__(self, engine: Engine, lease: Lease, *, max_requests: int = 256) -> None:
        self._engine = engine
        self._lease = lease
        self._max = max_requests
        self._changed = threading.Condition()
        self._tickets: dict[str, Ticket] = {}
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="ftw-chat", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self, deadline_s: float = 5.0) -> None:
        """Ends the thread after its step, and every request with it. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        self._end_all(Busy("the server is shutting down: ask again when it is back"))

    @property
    def is_yielding(self) -> bool:
        """Whether a round that goes first is being generated."""
        return self._lease.first == "proof" and self._lease.claimed("proof")

    @property
    def running(self) -> int:
        """Requests that wait or are being written."""
        return len(self._tickets)

    def submit(self, request: Request) -> Ticket:
        """Hands a request to the engine; call `chunks` next, or `drop`. On an event loop.

        Raises Busy, QueueFull, and what the engine says of the request.
        """
        ticket = Ticket(request.id, asyncio.get_running_loop())
        with self._changed:
            if self._is_closed:
                raise Busy("the server is shutting down: ask again when it is back")
            if self.is_yielding:
                raise Busy(YIELDS)
            if len(self._tickets) >= self._max:
                raise QueueFull(f"{self._max} chat requests are waiting or running: ask again later")
            self._tickets[ticket.id] = ticket
        try:
            self._engine.submit(request)
        except BaseException:
            self.drop(ticket)
            raise
        with self._changed:
            self._changed.notify_all()
        return ticket

    async def chunks(self, ticket: Ticket) -> AsyncGenerator[Chunk, None]:
        """The chunks as they are written. Closing the generator early ends the request. Raises what ended it."""
        try:
            while True:
                came = await ticket.mail.get()
                if isinstance(came, FtwError):
                    raise came
                is_last = came.finished is not None  # `is_over` may be set by others, with an error on its way
                ticket.is_over = ticket.is_over or is_last
                if came.error is not None:
                    raise came.error
                yield came
                if is_last:
                    return
        finally:
            self.drop(ticket)

    def drop(self, ticket: Ticket) -> None:
        """Nobody waits for this request any more."""
        with self._changed:
            self._tickets.pop(ticket.id, None)
            if not ticket.is_over:
                ticket.is_over = True
                self._engine.cancel(ticket.id)
            self._changed.notify_all()

    # --- the engine's thread

    def _run(self) -> None:
        while self._await_work():
            with self._lease.claim("chat"):
                while self._engine.has_work and not self._is_closed and not self.is_yielding:
                    self._step()

    def _await_work(self) -> bool:
        """Sleeps until there is something to write. False at the end."""
        with self._changed:
            while not self._is_closed:
                if self.is_yielding:
                    self._end_all(Busy(YIELDS))
                elif self._engine.has_work:
                    return True
                # requests that were called off lie in the engine until its next step, which a round may hold up
                self._changed.wait(GLANCE_S if self._engine.has_work else None)
            return False

    def _step(self) -> None:
        try:
            with self._lease.hold("chat", stop=lambda: self._is_closed or self.is_yielding):
                chunks = self._engine.step()
        except Cancelled:
            return
        except Exception as error:  # a thread's edge: what was being written fails, the thread goes on
            LOG.exception("a step of the engine failed")
            self._end_all(FtwError(f"the engine failed: {type(error).__name__}"))
            return
        self._hand_out(chunks)

    def _hand_out(self, chunks: Sequence[Chunk]) -> None:
        mails: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Chunk]]] = defaultdict(list)
        for chunk in chunks:
            ticket = self._tickets.get(chunk.request_id)
            if ticket is not None:
                mails[ticket.loop].append((ticket, chunk))
        for loop, each in mails.items():
            _tell(loop, partial(_deliver, each))

    def _end_all(self, error: FtwError) -> None:
        with self._changed:
            tickets = list(self._tickets.values())
            for ticket in tickets:
                self.drop(ticket)
        for ticket in tickets:
            _tell(ticket.loop, partial(_deliver, [(ticket, error)]))


def _deliver(mail: Sequence[tuple[Ticket, Chunk | FtwError]]) -> None:
    for ticket, what in mail:
        ticket.mail.put_nowait(what)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Runs `what` on a loop, unless that has ended: then nobody waits."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        LOG.debug("chunks for an event loop that has ended")

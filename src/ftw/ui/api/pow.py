"""`/api/v1/pow`: the artifact API, and what we add to it: versions, rounds, artifacts to pull, commitments and proofs.

The rule of the file: the desk does, routes only name paths. The keys of every answer are those of the network's API.
"""

import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from ftw import __version__
from ftw.poc.commitments import Commitment, Inclusion
from ftw.poc.deployment import Deployment
from ftw.poc.jobs import MAX_INT, JobState
from ftw.poc.journal import Journal
from ftw.poc.rounds import Rounds, Status
from ftw.poc.sealer import Sealer
from ftw.poc.urls import UrlGuard
from ftw.substrate.config import PocSettings
from ftw.substrate.errors import NotThere, QueueFull, UrlRefused
from ftw.ui.api.answers import config_of, pieces, result_of, round_of, stats_of
from ftw.ui.api.body import body_of, described
from ftw.ui.api.connection import ClientLeft, in_thread, while_connected
from ftw.ui.api.problems import BadBody, Complaint
from ftw.ui.api.wire import GenerateRequest, InitRequest, RoundRequest, schemes

ROUND = "X-Ftw-Round"
"""The header that names the round, here as in callbacks."""
WAITING = 64
"""Requests that may wait for their result at the same time."""
PAGE = 10_000
"""Artifacts of one page at most."""
RoundId = Annotated[str, Query(alias="round", pattern="^[0-9a-f]{64}$", description="The round's id.")]
After = Annotated[int, Query(ge=0, le=MAX_INT)]


@dataclass(frozen=True)
class PowDesk:
    """What the routes work with. All slow work is done in threads."""

    rounds: Rounds
    journal: Journal
    sealer: Sealer
    guard: UrlGuard
    settings: PocSettings
    quick: Executor
    """For the disk, for names to resolve, for large answers."""
    waiting: Executor
    """For requests that wait for their result."""
    flush: Callable[[float], bool]
    """Delivers what is due, for so many seconds at most."""
    clock: Callable[[], float] = time.monotonic
    seats: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WAITING))
    """One for each request that waits."""

    @property
    def deployment(self) -> Deployment:
        """What is deployed."""
        return self.rounds.deployment

    @property
    def max_body(self) -> int:
        """Bytes of a request at most: room for as many claims as the queue takes."""
        return (1 << 20) + self.settings.max_queued_nonces * (160 + 4 * self.deployment.k_dim)

    async def init(self, asked: InitRequest) -> Status:
        """Starts a round, or goes on with it."""
        await self._check(asked)
        start = asked.start(self.settings.batch_size_default)
        return await in_thread(self.quick, self.rounds.start, start)

    async def generate(self, asked: GenerateRequest, receive: Any) -> bytes:
        """Computes or judges now, or queues it; the answer's text. Raises ClientLeft."""
        asked.params.check(self.deployment)
        ask = await in_thread(self.quick, asked.ask, self.settings.max_queued_nonces)
        await self._check(asked)
        if not asked.wait:
            request_id, count = await in_thread(self.quick, self.rounds.enqueue, ask)
            return pieces({"status": "queued", "request_id": request_id, "queued_count": count})
        if not self.seats.acquire(blocking=False):
            raise QueueFull(f"{WAITING} requests wait for their result: ask again later, or with wait=false")
        left = threading.Event()

        def work() -> bytes:
            return pieces(result_of(self.rounds.run(ask, left), self.deployment.k_dim))

        try:
            return await while_connected(receive, in_thread(self.waiting, work))
        finally:
            left.set()
            self.seats.release()

    async def result(self, request_id: str) -> bytes:
        """How a queued request stands; with its result when it is completed. Raises NotThere."""
        state = self.rounds.result(request_id)
        if state is None:
            raise NotThere("no such request: it is unknown, or its result has expired (POC_GENERATE_RESULT_TTL_SEC)")
        return await in_thread(self.quick, self._told, state)

    async def stop(self) -> Status:
        """Ends the round and calls off all requests, then delivers what was made, within one deadline for both."""
        deadline_s = self.settings.stop_deadline_sec

        def work() -> Status:
            until = self.clock() + deadline_s
            now = self.rounds.stop(deadline_s)
            self.flush(max(0.0, until - self.clock()))  # what is not taken by then is tried again later
            return now

        return await in_thread(self.quick, work)

    async def _check(self, asked: RoundRequest) -> None:
        asked.params.check(self.deployment)
        if asked.url is None:
            return
        try:
            await in_thread(self.quick, self.guard.check, asked.url)
        except UrlRefused as error:
            raise BadBody([Complaint(("body", "url"), str(error), "url_refused")]) from error

    def _told(self, state: JobState) -> bytes:
        if state.result is not None and state.status == "completed":
            return pieces(result_of(state.result, self.deployment.k_dim))
        error = {} if state.error is None else {"error": state.error}
        return pieces({"status": state.status, "request_id": state.request_id} | error)


def pow_routes(desk: PowDesk) -> APIRouter:
    """The artifact API."""
    router = APIRouter(prefix="/api/v1/pow", tags=["proof of compute"])
    init_body, generate_body = body_of(InitRequest, desk.max_body), body_of(GenerateRequest, desk.max_body)

    @router.post("/init/generate", openapi_extra=described(InitRequest))
    async def init(asked: Annotated[InitRequest, Depends(init_body)]) -> Response:
        """Start generating a round, until `/stop`. The round that already runs is left to run."""
        status = await desk.init(asked)
        return answered(pieces({"status": "OK", "pow_status": {"status": "GENERATING"}}), status)

    @router.post("/generate", openapi_extra=described(GenerateRequest))
    async def generate(request: Request, asked: Annotated[GenerateRequest, Depends(generate_body)]) -> Response:
        """Compute the artifacts of these nonces, or judge claims about them."""
        return await unless_left(desk.generate(asked, request.receive))

    @router.get("/generate/{request_id}")
    async def result(request_id: str) -> Response:
        """How a queued request stands, and its result."""
        return answered(await desk.result(request_id))

    @router.get("/status")
    async def status() -> Response:
        """The state, the round, and how fast it goes."""
        now = desk.rounds.status()
        return answered(pieces(state_of(now, desk.deployment)), now)

    @router.post("/stop")
    async def stop() -> Response:
        """End the round and call off all requests. What was made is kept, and delivered now where it is taken."""
        now = await desk.stop()
        return answered(pieces({"status": "OK", "pow_status": {"status": "STOPPED"}}), now)

    return router


def own_routes(desk: PowDesk) -> APIRouter:
    """What we add: which protocol this is, and everything the journal holds, to pull at any time."""
    router = APIRouter(prefix="/api/v1/pow", tags=["proof of compute, additions"])
    journal, sealer = desk.journal, desk.sealer

    @router.get("/versions")
    async def versions() -> dict[str, Any]:
        """Which protocol is deployed: nothing is negotiated silently."""
        deployment = desk.deployment
        return {
            "ftw_version": __version__,
            "poc_validation_inference": desk.settings.priority == "chat",
            "profile": deployment.profile.id,
            "schemes": schemes(deployment),
            "deployed": deployment.deployed,
            "models": list(deployment.names),
            "fingerprint": deployment.fingerprint,
            "forward_rows": deployment.rows,
            "signer": sealer.public,
        }

    @router.get("/rounds")
    async def rounds() -> dict[str, Any]:
        """All rounds of the journal, the oldest first."""
        found = await in_thread(desk.quick, journal.rounds)
        return {"rounds": [round_of(one) for one in found]}

    @router.get("/artifacts")
    async def artifacts(round_: RoundId, after: After = 0, limit: int = Query(1000, ge=1, le=PAGE)) -> Response:
        """A round's artifacts in the order in which they were made; `next` is the `after` of the next page."""

        def read() -> bytes:
            state = journal.round(round_)
            if state is None:
                raise NotThere(f"the journal has no round {round_[:16]}…: see /rounds for those that it has")
            rows = journal.artifacts(round_, after, limit)
            found = [{"seq": row.seq, **asdict(row.artifact)} for row in rows]
            encoding = {"dtype": "f16", "k_dim": state.key.k_dim, "endian": "le"}
            head = {"round": round_, "count": state.count, "next": rows[-1].seq if rows else after}
            return pieces(head | {"encoding": encoding, "artifacts": found})

        return answered(await in_thread(desk.quick, read))

    @router.get("/commitments")
    async def commitments(
        round_: RoundId, after: After = 0, limit: int = Query(100, ge=1, le=1000)
    ) -> dict[str, list[Commitment]]:
        """The signed Merkle roots over a round's sealed batches; `after` is the last sequence that was seen."""
        return {"commitments": list(await in_thread(desk.quick, sealer.commitments, round_, after, limit))}

    @router.get("/evidence")
    async def evidence(round_: RoundId, after: After = 0, limit: int = Query(PAGE, ge=1, le=10 * PAGE)) -> Response:
        """Whole sealed batches with their commitments, as the file that `ftw poc validate` reads.

        `after` is the last sequence that was seen, `limit` is in artifacts (a larger batch comes alone). The header
        `Link` names the next page, where there is one.
        """

        def read() -> tuple[bytes, int | None]:
            found, next_ = sealer.evidence(
                round_, after, limit, {desk.deployment.fingerprint: desk.deployment.names[0]}
            )
            return pieces(found), next_

        text, next_ = await in_thread(desk.quick, read)
        answer = answered(text)
        if next_ is not None:
            query = f"round={round_}&after={next_}&limit={limit}"
            answer.headers["Link"] = f'<{router.prefix}/evidence?{query}>; rel="next"'
        return answer

    @router.get("/proof")
    async def proof(round_: RoundId, nonce: int = Query(ge=0, le=MAX_INT)) -> Inclusion:
        """That a nonce's artifact is in a batch that was committed to."""
        return await in_thread(desk.quick, sealer.proof, round_, nonce)

    return router


def state_of(now: Status, deployment: Deployment) -> dict[str, Any]:
    """The body of `/status`."""
    config = None if now.start is None or now.state == "IDLE" else config_of(now.start, deployment)
    stats = stats_of(now) if now.state == "GENERATING" else None
    reason = {"reason": now.reason} if now.state == "FAILED" else {}
    return {"status": now.state, "config": config, "stats": stats} | reason


def answered(text: bytes, now: Status | None = None) -> Response:
    """An answer with a JSON text that is ready; with the round named in its header."""
    headers = {} if now is None or now.round_id is None else {ROUND: now.round_id}
    return Response(text, media_type="application/json", headers=headers)


async def unless_left(work: Awaitable[bytes], change: Callable[[bytes], bytes] = bytes) -> Response:
    """The answer, or nothing for a client that has left."""
    try:
        return answered(change(await work))
    except ClientLeft:
        return Response(status_code=499)

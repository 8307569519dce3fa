"""Chat and proofs on one model: neither changes the other, and who goes first does."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import pytest

from ftw.substrate.engine import Chunk, Request, TransformersEngine
from ftw.substrate.errors import Busy, FtwError, PromptTooLong, QueueFull
from ftw.substrate.lease import Lease
from ftw.substrate.model import Model
from ftw.ui.serving import Serving
from tests.ui.api.conftest import POW, Open, Server, ask, body
from tests.ui.api.test_chat import CHAT, COMPLETIONS, chat, complete
from tests.ui.api.test_pow import until


class FakeEngine:
    """Writes "x" for every request at each step, for as long as it is not cancelled; a step can be told to fail."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.cancelled: list[str] = []
        self.steps = 0
        self.fails = False

    @property
    def has_work(self) -> bool:
        return bool(self.running)

    def submit(self, request: Request) -> str:
        self.running.append(request.id)
        return request.id

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    def step(self) -> list[Chunk]:
        self.steps += 1
        self.running = [one for one in self.running if one not in self.cancelled]
        time.sleep(0.001)
        if self.fails:
            self.fails = False
            raise RuntimeError("the device is gone")
        return [Chunk(one, 1, "x", 0.0) for one in self.running]


@asynccontextmanager
async def served(engine: Any, lease: Lease | None = None, **more: Any) -> AsyncIterator[Serving]:
    serving = Serving(engine, lease or Lease(), **more)
    serving.start()
    try:
        yield serving
    finally:
        await asyncio.to_thread(serving.close)


def request(n: int = 4) -> Request:
    return Request((1, 2, 3), max_new_tokens=n)


async def first(serving: Serving, asked: Request, n: int = 1) -> Sequence[Chunk]:
    """The first chunks of a request that is then left."""
    found: list[Chunk] = []
    async with aclosing(serving.chunks(serving.submit(asked))) as chunks:
        async for chunk in chunks:
            found.append(chunk)
            if len(found) == n:
                break
    return found


def test_requests_of_one_loop_are_written_side_by_side_as_alone(model: Model) -> None:
    alone = [one.text for one in TransformersEngine(model).generate([request(9), request(5)])]

    async def both() -> list[str]:
        async with served(TransformersEngine(model)) as serving:

            async def text(asked: Request) -> str:
                return "".join([chunk.text async for chunk in serving.chunks(serving.submit(asked))])

            return list(await asyncio.gather(text(request(9)), text(request(5))))

    assert asyncio.run(both()) == alone


def test_a_reader_that_leaves_ends_the_request(model: Model) -> None:
    async def leave() -> None:
        engine = TransformersEngine(model)
        async with served(engine) as serving:
            await first(serving, request(200))
            await asyncio.to_thread(until, lambda: not engine.has_work)
            assert serving.running == 0

    asyncio.run(leave())


def test_a_failing_step_ends_what_was_written_and_nothing_else() -> None:
    async def fail() -> None:
        engine = FakeEngine()
        async with served(engine) as serving:
            ticket = serving.submit(request())
            engine.fails = True
            with pytest.raises(FtwError, match="the engine failed: RuntimeError"):
                async for _ in serving.chunks(ticket):
                    pass
            assert [chunk.text for chunk in await first(serving, request(), 2)] == ["x", "x"]

    asyncio.run(fail())


def test_what_the_engine_refuses_is_raised_and_takes_no_place(model: Model) -> None:
    async def refuse() -> None:
        async with served(TransformersEngine(model), max_requests=1) as serving:
            with pytest.raises(PromptTooLong):
                serving.submit(request(10**6))
            await first(serving, request())

    asyncio.run(refuse())


def test_more_requests_than_there_is_room_for_are_sent_away() -> None:
    async def fill() -> None:
        async with served(FakeEngine(), max_requests=2) as serving:
            for _ in range(2):
                serving.submit(request())
            with pytest.raises(QueueFull, match="2 chat requests"):
                serving.submit(request())

    asyncio.run(fill())


def test_an_end_of_the_server_ends_its_requests() -> None:
    async def end() -> None:
        async with served(FakeEngine()) as serving:
            ticket = serving.submit(request())
            await asyncio.to_thread(serving.close)
            with pytest.raises(Busy, match="shutting down"):
                async for _ in serving.chunks(ticket):
                    pass
            with pytest.raises(Busy, match="shutting down"):
                serving.submit(request())

    asyncio.run(end())


def test_where_chat_goes_first_it_waits_for_one_hold_at_most() -> None:
    async def wait() -> None:
        lease, engine = Lease("chat"), FakeEngine()
        async with served(engine, lease) as serving:
            with lease.claim("proof"):
                entered, leave = threading.Event(), threading.Event()
                holder = threading.Thread(target=_hold, args=(lease, entered, leave))
                holder.start()
                entered.wait()
                ticket = serving.submit(request())
                await asyncio.sleep(0.05)
                assert engine.steps == 0
                leave.set()
                async with aclosing(serving.chunks(ticket)) as chunks:
                    assert (await anext(chunks)).text == "x"
                holder.join()

    asyncio.run(wait())


def _hold(lease: Lease, entered: threading.Event, leave: threading.Event) -> None:
    with lease.hold("proof"):
        entered.set()
        leave.wait()


def test_where_proofs_go_first_a_round_ends_running_chat_and_refuses_more() -> None:
    async def yield_() -> None:
        lease = Lease("proof")
        async with served(FakeEngine(), lease) as serving:
            ticket = serving.submit(request())
            with lease.claim("proof"):
                with pytest.raises(Busy, match="PoC generation is active"):
                    async for _ in serving.chunks(ticket):
                        pass
                with pytest.raises(Busy, match="PoC generation is active"):
                    serving.submit(request())
            assert [chunk.text for chunk in await first(serving, request())] == ["x"]

    asyncio.run(yield_())


# --- the whole server


@contextmanager
def generating(server: Server, **changes: Any) -> Iterator[str]:
    """Within, a round is generated; its id."""
    round_: str = server.post(f"{POW}/init/generate", body(**changes)).headers["x-ftw-round"]
    try:
        yield round_
    finally:
        server.ok(f"{POW}/stop", {})


def pulled(server: Server, round_: str, n: int) -> list[tuple[int, str]]:
    """The first n artifacts of a round."""

    def found() -> Any:
        page = server.get(f"{POW}/artifacts", round=round_, limit=n).json()["artifacts"]
        return len(page) == n and [(one["nonce"], one["vector_b64"]) for one in page]

    result: list[tuple[int, str]] = until(found)
    return result


def test_chat_and_proofs_at_once_give_the_same_as_alone(open_server: Open) -> None:
    alone = open_server()
    asked = [complete(max_tokens=20), complete(max_tokens=20, temperature=1, seed=3), complete(prompt="a longer one")]
    texts = [alone.ok(COMPLETIONS, one)["choices"] for one in asked]
    with generating(alone) as round_:
        artifacts = pulled(alone, round_, 60)
    together = open_server()
    with generating(together) as round_:
        for _ in range(3):
            assert [together.ok(COMPLETIONS, one)["choices"] for one in asked] == texts
        assert pulled(together, round_, 60) == artifacts
        before = together.get(f"{POW}/status").json()["stats"]["total_processed"]
        until(lambda: together.get(f"{POW}/status").json()["stats"]["total_processed"] > before)


def test_where_proofs_go_first_chat_is_told_so_and_comes_back(open_server: Open) -> None:
    server = open_server(priority="proof")
    whole = server.ok(CHAT, chat())["choices"]
    with generating(server):
        for path, asked in ((CHAT, chat()), (CHAT, chat(stream=True)), (COMPLETIONS, complete())):
            answer = server.post(path, asked)
            assert answer.status_code == 503
            assert "PoC generation is active" in answer.json()["error"]["message"]
            assert answer.json()["error"]["type"] == "service_unavailable"
            assert int(answer.headers["retry-after"]) > 0
        assert server.get("/v1/models").status_code == 200
    assert server.ok(CHAT, chat())["choices"] == whole
    assert server.get(f"{POW}/versions").json()["poc_validation_inference"] is False


def test_where_proofs_go_first_a_long_answer_is_called_off_when_a_round_starts(open_server: Open) -> None:
    server = open_server(priority="proof")
    answers: list[Any] = []

    def talk(**more: Any) -> None:
        answers.append(server.post(CHAT, chat(max_tokens=230, temperature=2, seed=1, **more)))

    for more in ({}, {"stream": True}):
        talker = threading.Thread(target=talk, kwargs=more)
        talker.start()
        until(lambda: server.parts.chat.serving.running)
        with generating(server):
            talker.join()
    whole, streamed = answers
    assert whole.status_code == 503
    assert "PoC generation is active" in whole.json()["error"]["message"]
    assert "PoC generation is active" in streamed.text.split("\n\n")[-2]
    assert "[DONE]" not in streamed.text


def test_explicit_requests_leave_chat_alone_where_proofs_go_first(open_server: Open) -> None:
    server = open_server(priority="proof")
    checks: list[Callable[[], Any]] = [
        lambda: server.ok(f"{POW}/generate", ask(*range(64)))["status"],
        lambda: server.ok(CHAT, chat())["choices"][0]["finish_reason"],
    ]
    threads = [threading.Thread(target=check) for check in checks * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checks[1]() == "length"

"""A real server on loopback: OpenAI's own client, a real receiver, clients that leave, kill -9 and going on."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ftw.poc.journal import Journal
from tests.poc.receivers import Receiver, receiving
from tests.ui.api.conftest import POW, PROXY, ask, body
from tests.ui.api.live import Live, serving, wait_for
from tests.ui.conftest import Ftw

TOKEN = "a-token-of-some-length"
CANCELLED = 'ftw_chat_finished_total{reason="cancelled"}'


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server for all tests that leave it as they found it."""
    with serving(tmp_path_factory.mktemp("live"), token=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def delivered(receiver: Receiver) -> list[tuple[int, str]]:
    """All artifacts that came, each parcel once."""
    parcels = {came.headers["Idempotency-Key"]: json.loads(came.body) for came in receiver.came}
    return [(one["nonce"], one["vector_b64"]) for parcel in parcels.values() for one in parcel["artifacts"]]


# --- OpenAI's client, unmodified


def test_the_client_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "ftw"


def test_the_client_chats_streaming_and_not(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 8,
        "seed": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ["\0"],
    }
    whole = client.chat.completions.create(**asked)
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8
    assert whole.choices[0].finish_reason == "length"
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage == whole.usage
    talk = [*asked["messages"], whole.choices[0].message, {"role": "user", "content": "and?"}]
    assert client.chat.completions.create(**asked | {"messages": talk}).choices[0].message.content


def test_the_client_s_own_stream_helper_gathers_the_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=8, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        gathered = stream.current_completion_snapshot
    assert "content.delta" in kinds
    assert gathered.choices[0].finish_reason == "length"


def test_the_client_completes_streaming_and_not(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "hi", "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**asked, logprobs=0)
    assert whole.choices[0].logprobs is not None
    assert len(whole.choices[0].logprobs.token_logprobs or ()) == 8
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
    assert text == whole.choices[0].text


def test_the_client_gets_its_own_errors(client: openai.OpenAI, live: Live) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="gpt", messages=messages)
    with pytest.raises(openai.BadRequestError, match="max_new_tokens") as refused:
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=10_000)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=messages, extra_body={"top_q": 1})
    assert refused.value.param == "top_q"
    with (
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_the_async_client_chats_side_by_side(live: Live) -> None:
    async def all_() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=TOKEN, max_retries=0) as client:
            asked = (
                client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=8, temperature=0
                )
                for _ in range(6)
            )
            return [one.choices[0].message.content for one in await asyncio.gather(*asked)]

    assert len(set(asyncio.run(all_()))) == 1


# --- clients that leave


def running(live: Live, name: str) -> float:
    """A metric; 0 where it has never been counted."""
    lines = live.client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def raw(live: Live, path: str, sent: dict[str, Any]) -> socket.socket:
    """A request over a socket of our own, which can be cut."""
    host, port = live.url.removeprefix("http://").split(":")
    text = json.dumps(sent)
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {len(text)}\r\n\r\n{text}".encode()
    )
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat_client_that_leaves_ends_its_text(live: Live, stream: bool) -> None:
    for _ in range(10):  # a text may end by itself before its reader leaves
        before = running(live, CANCELLED)
        sent = {"model": "tiny", "prompt": "hi", "max_tokens": 250, "temperature": 2, "stream": stream}
        with raw(live, "/v1/completions", sent):
            until = time.monotonic() + 2  # one that ended at once is never seen running: then comes the next
            while running(live, "ftw_chat_running") != 1 and time.monotonic() < until:
                time.sleep(0.01)
        wait_for(lambda: running(live, "ftw_chat_running") == 0)
        if running(live, CANCELLED) > before:
            return
    raise AssertionError("no text was called off")


def test_a_waiting_request_ends_when_its_client_leaves(live: Live) -> None:
    before = running(live, "ftw_poc_nonces_total")
    with raw(live, f"{POW}/generate", ask(*range(40_000))):
        wait_for(lambda: running(live, "ftw_poc_nonces_total") > before)

    def is_still() -> bool:
        made = running(live, "ftw_poc_nonces_total")
        time.sleep(0.2)
        return running(live, "ftw_poc_nonces_total") == made

    wait_for(is_still)
    assert running(live, "ftw_poc_nonces_total") < before + 40_000


# --- a round with a real receiver


def test_a_receiver_gets_a_round_in_bounded_parcels_and_a_stop_loses_nothing(live: Live) -> None:
    with receiving() as receiver:
        started = live.client.post(f"{POW}/init/generate", json=body(url=receiver.url, block_hash="a round"))
        assert started.status_code == 200
        receiver.wait_for(3)
        assert live.client.post(f"{POW}/stop").json()["pow_status"]["status"] == "STOPPED"
        wait_for(lambda: running(live, "ftw_poc_outbox_artifacts") == 0)
        came = delivered(receiver)
    round_ = started.headers["x-ftw-round"]
    page = live.client.get(f"{POW}/artifacts", params={"round": round_, "limit": 10_000}).json()
    assert came == [(one["nonce"], one["vector_b64"]) for one in page["artifacts"]]
    assert [nonce for nonce, _ in came] == [10 * i for i in range(len(came))]
    assert {came.path for came in receiver.came} == {"/pow/generated"}
    assert len({came.headers["X-Ftw-Sequence"] for came in receiver.came}) == len(receiver.came)


def test_the_proxy_s_port_is_the_server_s(live: Live) -> None:
    port = int(live.url.rsplit(":", 1)[1])
    assert live.client.get(f"{PROXY}/status").json()["backends"][0]["port"] == port
    queued = live.client.post(f"{PROXY}/generate", json=ask(1, wait=False)).json()
    assert queued["request_id"].startswith(f"{port}:")


def test_status_answers_while_a_round_and_chat_run(live: Live, client: openai.OpenAI) -> None:
    live.client.post(f"{POW}/init/generate", json=body(block_hash="busy"))
    try:
        chunks = client.completions.create(model="tiny", prompt="hi", max_tokens=50, stream=True)
        states = [(live.status()["status"], chunk.choices[0].finish_reason) for chunk in chunks]
    finally:
        live.client.post(f"{POW}/stop")
    assert {state for state, _ in states} == {"GENERATING"}
    assert states[-1][1] in ("length", "stop")


# --- ends


def test_kill_9_and_an_orderly_end_lose_nothing_double_nothing_and_tell_no_secrets(tmp_path: Path) -> None:
    with receiving() as receiver:
        start = body(url=receiver.url, node_id=3)
        with serving(tmp_path, token=TOKEN) as first:
            round_ = first.client.post(f"{POW}/init/generate", json=start).headers["x-ftw-round"]
            receiver.wait_for(2)
            first.kill()
        with serving(tmp_path, token=TOKEN) as second:
            assert second.status()["status"] == "IDLE"
            assert second.client.post(f"{POW}/init/generate", json=start).headers["x-ftw-round"] == round_
            receiver.wait_for(len(receiver.came) + 2)
            assert second.end() in (0, -signal.SIGTERM)
        came = delivered(receiver)
    journal = Journal(tmp_path / "poc.sqlite")
    try:
        rows = [row.artifact for row in journal.artifacts(round_, 0, 1_000_000)]
        assert journal.outbox_depth() == 0
    finally:
        journal.close()
    assert came == [(one.nonce, one.vector_b64) for one in rows]
    assert [nonce for nonce, _ in came] == [3 + 10 * i for i in range(len(came))]
    for log in ("".join(first.told), "".join(second.told)):
        assert "POST /api/v1/pow/init/generate 200" in log
        assert not any(secret in log for secret in (TOKEN, "0xabc", "Traceback"))


def test_a_second_server_on_the_same_journal_is_refused(live: Live, ftw: Ftw) -> None:
    line = ftw("serve", "--model", "tiny", "--port", "0", "--journal", str(live.journal)).failed(1)
    assert "in use" in line
    assert "POC_JOURNAL" in line


def test_a_taken_port_is_an_error_that_names_it(live: Live, ftw: Ftw) -> None:
    line = ftw("serve", "--model", "tiny", "--port", live.url.rsplit(":", 1)[1]).failed(2)
    assert "is taken" in line
    assert "--port" in line

"""The sender: nothing lost, in order, under the same keys, whatever receivers do, and none delays another."""

import base64
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.poc.callbacks import LANES, Backoff, Sender
from ftw.poc.codec import Artifact
from ftw.poc.events import CallbackDone
from ftw.poc.journal import Journal, RoundKey
from ftw.poc.post import Poster, open_transport
from ftw.poc.sealer import Sealer
from ftw.poc.urls import UrlGuard
from ftw.substrate.config import PocSettings
from ftw.substrate.errors import ProofError, StorageError
from ftw.substrate.signing import SigningKey
from tests.poc.receivers import free_port, receiving, talking

QUICK = Backoff(0.02, 0.1)


def key_of(url, block="b0"):
    return RoundKey(block, 7, "pk", 1, 3, 0, 1, "artifact-k12/1", "f" * 64, 16, 2, 8, False, url)


def vectors(first, n):
    rng = random.Random(first)
    return [Artifact(nonce, base64.b64encode(rng.randbytes(4)).decode()) for nonce in range(first, first + n)]


@pytest.fixture
def journal(tmp_path):
    it = Journal(tmp_path / "poc.sqlite")
    yield it
    it.close()


@contextmanager
def sending(
    journal,
    *,
    interval=0.05,
    limit=10,
    backoff=QUICK,
    timeout_s=10.0,
    sink=None,
    guard=None,
    commit=lambda parcel: None,
):
    transport = open_transport()
    settings = PocSettings(callback_interval_sec=interval, callback_max_artifacts=limit)
    poster = Poster(transport, guard or UrlGuard("", True), timeout_s)
    it = Sender(journal, poster, settings, sink=sink or (lambda event: None), backoff=backoff, commit=commit)
    it.start()
    try:
        yield it
    finally:
        it.close()
        transport.close()


def filled(journal, url, n, block="b0"):
    """A round with n artifacts, not sent yet."""
    key = key_of(url, block)
    journal.open_round(key)
    journal.append(key.round_id, vectors(0, n), n)
    return key


def nonces(came):
    return [artifact["nonce"] for each in came for artifact in json.loads(each.body)["artifacts"]]


def sequences(came):
    return [int(each.headers["X-Ftw-Sequence"]) for each in came]


def until(holds, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- what is sent


def test_a_round_is_sent_in_bounded_parcels_in_order_and_to_the_last_byte(journal):
    with receiving() as receiver, sending(journal, limit=10) as sender:
        key = filled(journal, receiver.url, 35)
        sender.wake()
        came = receiver.wait_for(4)
    assert [each.path for each in came] == ["/pow/generated"] * 4
    assert sequences(came) == [1, 2, 3, 4]
    assert nonces(came) == list(range(35))
    assert [len(json.loads(each.body)["artifacts"]) for each in came] == [10, 10, 10, 5]
    assert {each.headers["X-Ftw-Round"] for each in came} == {key.round_id}
    assert len({each.headers["Idempotency-Key"] for each in came}) == 4
    assert json.loads(came[3].body) == {
        "block_hash": "b0",
        "block_height": 7,
        "public_key": "pk",
        "node_id": 1,
        "artifacts": [{"nonce": one.nonce, "vector_b64": one.vector_b64} for one in vectors(0, 35)[30:]],
        "encoding": {"dtype": "f16", "k_dim": 2, "endian": "le"},
    }


def test_a_parcel_carries_its_commitment(journal):
    sealer = Sealer(journal, SigningKey.from_seed(b"k" * 32))
    with receiving() as receiver, sending(journal, limit=10, commit=sealer.seal) as sender:
        key = filled(journal, receiver.url, 15)
        sender.wake()
        came = receiver.wait_for(2)
    given = [json.loads(base64.b64decode(each.headers["X-Ftw-Commitment"])) for each in came]
    assert given == [one.model_dump() for one in sealer.commitments(key.round_id)]


def test_a_commitment_too_long_for_a_header_is_left_to_be_pulled(journal):
    sealer = Sealer(journal, SigningKey.from_seed(b"k" * 32))
    with receiving() as receiver, sending(journal, commit=sealer.seal) as sender:
        filled(journal, receiver.url, 2, block="b" * 4000)
        sender.wake()
        assert "X-Ftw-Commitment" not in receiver.wait_for(1)[0].headers


def test_a_parcel_that_cannot_be_sealed_is_delivered_all_the_same(journal, caplog):
    def refuse(parcel):
        raise ProofError("a nonce stands twice")

    with receiving() as receiver, sending(journal, commit=refuse) as sender:
        filled(journal, receiver.url, 2)
        sender.wake()
        assert nonces(receiver.wait_for(1)) == [0, 1]
    assert "goes without its commitment: a nonce stands twice" in caplog.text


def test_a_request_is_sent_as_it_was_enqueued(journal):
    with receiving() as receiver, sending(journal, interval=60) as sender:
        journal.enqueue("request-1", receiver.url, "/validated", b'{"request_id":"request-1"}', "request-1:1")
        sender.wake()
        came = receiver.wait_for(1)[0]
    assert (came.path, came.body) == ("/pow/validated", b'{"request_id":"request-1"}')
    assert (came.headers["Idempotency-Key"], came.headers["X-Ftw-Sequence"]) == ("request-1:1", "1")


def test_what_was_left_is_sent_without_being_asked(journal):
    with receiving() as receiver:
        filled(journal, receiver.url, 3)
        with sending(journal, interval=60):
            assert nonces(receiver.wait_for(1)) == [0, 1, 2]


def test_artifacts_gather_for_an_interval(journal):
    with receiving() as receiver, sending(journal, interval=0.4):
        key = filled(journal, receiver.url, 3)
        receiver.wait_for(1)
        for i in range(3, 9):
            journal.append(key.round_id, vectors(i, 1), i + 1)
            time.sleep(0.01)
        assert nonces(receiver.wait_for(2)) == list(range(9))


def test_a_result_does_not_wait_for_the_interval_though_its_receiver_is_busy(journal):
    release = threading.Event()
    with receiving() as receiver, sending(journal, interval=3600) as sender:
        receiver.answer = lambda came: (release.wait(20) and 200, {}, b"")
        filled(journal, receiver.url, 3)
        sender.wake()
        receiver.wait_for(1)
        journal.enqueue("request-1", receiver.url, "/validated", b"{}", "request-1:1")
        sender.wake()
        release.set()
        assert [each.path for each in receiver.wait_for(2)] == ["/pow/generated", "/pow/validated"]


def test_every_try_is_told(journal):
    told = []
    with receiving() as receiver, sending(journal, sink=told.append) as sender:
        answers = iter([503, 302, 200])
        receiver.answer = lambda came: (next(answers), {}, b"")
        key = filled(journal, receiver.url, 4)
        sender.wake()
        until(lambda: len(told) == 3)
    assert told == [
        CallbackDone(key.round_id, False, 503, 4),
        CallbackDone(key.round_id, False, 302, 4),
        CallbackDone(key.round_id, True, 200, 4),
    ]


# --- when receivers misbehave


@pytest.mark.parametrize("status", [500, 503, 302, 400])
def test_a_failing_receiver_gets_the_same_parcel_until_it_takes_it(journal, status):
    with receiving() as receiver, sending(journal, limit=10) as sender:
        receiver.answer = lambda came: (status if len(receiver.came) < 4 else 200, {"Location": "/else"}, b"")
        filled(journal, receiver.url, 25)
        sender.wake()
        came = receiver.wait_for(6)
        until(lambda: journal.outbox_depth() == 0)
    assert sequences(came) == [1, 1, 1, 1, 2, 3]
    assert len({(each.body, each.headers["Idempotency-Key"]) for each in came[:4]}) == 1
    assert nonces(came[3:]) == list(range(25))
    assert {each.path for each in came} == {"/pow/generated"}


def test_a_receiver_that_was_down_gets_all_of_it(journal):
    told = []
    port = free_port()
    with sending(journal, limit=10, sink=told.append):
        key = filled(journal, f"http://127.0.0.1:{port}/pow", 5)
        until(lambda: len(told) >= 2)
        journal.append(key.round_id, vectors(5, 30), 35)
        assert not any(one.ok for one in told)
        with receiving(port=port) as receiver:
            until(lambda: journal.outbox_depth() == 0)
            came = list(receiver.came)
    assert nonces(came) == list(range(35))
    assert sequences(came) == list(range(1, len(came) + 1))


def test_a_slow_receiver_is_given_up_and_tried_again(journal):
    told = []
    release = threading.Event()
    with receiving() as receiver, sending(journal, timeout_s=0.2, sink=told.append):
        receiver.answer = lambda came: (release.wait(20) and 200, {}, b"")
        key = filled(journal, receiver.url, 5)
        until(lambda: len(told) >= 2)
        release.set()
        until(lambda: journal.outbox_depth() == 0)
    assert told[0] == CallbackDone(key.round_id, False, None, 5)
    assert told[-1] == CallbackDone(key.round_id, True, 200, 5)
    assert len({(each.body, each.headers["Idempotency-Key"]) for each in receiver.came}) == 1


def test_one_dead_receiver_delays_no_other(journal):
    with talking(lambda connection: time.sleep(30)) as dead, receiving() as receiver:
        filled(journal, f"http://127.0.0.1:{dead}/a", 5, "b1")
        with sending(journal, timeout_s=60.0) as sender:
            sender.wake()
            time.sleep(0.1)  # the dead one has its lane
            filled(journal, receiver.url, 5, "b2")
            sender.wake()
            assert nonces(receiver.wait_for(1, 10)) == [0, 1, 2, 3, 4]


def test_many_dead_receivers_do_not_keep_a_live_one_for_good(journal):
    with talking(lambda connection: time.sleep(30)) as dead, receiving() as receiver:
        for i in range(2 * LANES):
            journal.enqueue(f"r{i}", f"http://127.0.0.1:{dead}/{i}", "/validated", b"{}", f"r{i}:1")
        with sending(journal, timeout_s=0.1, backoff=Backoff(0.2, 0.4)) as sender:
            time.sleep(0.2)
            filled(journal, receiver.url, 5, "b2")
            sender.wake()
            assert nonces(receiver.wait_for(1, 10)) == [0, 1, 2, 3, 4]


def test_a_parcel_that_is_never_taken_holds_up_no_other_round(journal):
    with receiving() as receiver, sending(journal) as sender:
        receiver.answer = lambda came: (400 if b'"poison"' in came.body else 200, {}, b"")
        filled(journal, receiver.url, 5, "poison")
        good = filled(journal, receiver.url, 7, "good")
        sender.wake()
        until(lambda: journal.sealed(good.round_id) and journal.sealed(good.round_id)[0].delivered_at is not None)
        assert journal.outbox_depth() == 5


def test_a_parcel_that_breaks_its_receiver_holds_up_no_other_round(journal):
    def talk(connection):
        came = b""
        while not came.endswith(b"}"):
            came += connection.recv(1 << 20)
        if b'"poison"' in came:
            return  # hangs up without an answer
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with talking(talk) as port, sending(journal):
        url = f"http://127.0.0.1:{port}"
        journal.enqueue("r1", url, "/validated", b'{"a":"poison"}', "r1:1")
        journal.enqueue("r2", url, "/validated", b'{"a":"good"}', "r2:1")
        until(lambda: journal.outbox_depth() == 1)
        waiting = []  # asked once: between two tries it is out, and then nothing is pending
        until(lambda: waiting.append(journal.pending(1, url)) or waiting[-1] is not None)
        assert waiting[-1].owner == "r1"


def test_a_url_that_may_not_be_called_any_more_is_not_called(journal):
    told = []
    answers = {"n": 0}

    def resolve(host, port):
        answers["n"] += 1
        return ["127.0.0.1" if answers["n"] == 1 else "10.0.0.1"]

    with receiving() as receiver, sending(journal, sink=told.append, guard=UrlGuard("", True, resolve)) as sender:
        url = f"http://receiver.example:{receiver.port}"
        key = filled(journal, url, 3)
        sender.wake()
        until(lambda: journal.outbox_depth() == 0)
        journal.append(key.round_id, vectors(3, 3), 6)
        sender.wake()
        until(lambda: len(told) >= 3)
        assert nonces(receiver.came) == [0, 1, 2]
    assert [one.ok for one in told[:3]] == [True, False, False]


# --- at the end, and after it


def test_a_flush_sends_what_is_there_and_says_so(journal):
    with receiving() as receiver, sending(journal, interval=3600, limit=10) as sender:
        key = filled(journal, receiver.url, 1)
        assert sender.flush(20.0)
        journal.append(key.round_id, vectors(1, 34), 35)
        assert sender.flush(20.0)
        assert nonces(receiver.came) == list(range(35))
        assert sender.flush(0.5)


def test_flushes_at_once_all_end_with_what_is_there_sent(journal):
    with receiving() as receiver, sending(journal, interval=600) as sender, ThreadPoolExecutor() as pool:
        receiver.answer = lambda came: time.sleep(0.1) or (200, {}, b"")
        filled(journal, receiver.url, 35)
        assert list(pool.map(sender.flush, [5.0] * 3)) == [True] * 3
        assert nonces(receiver.came) == list(range(35))


def test_a_flush_does_not_wait_for_another_beyond_its_deadline(journal):
    free = threading.Event()
    with receiving() as receiver, sending(journal, interval=600) as sender, ThreadPoolExecutor() as pool:
        receiver.answer = lambda came: free.wait(20) and (200, {}, b"")
        filled(journal, receiver.url, 3)
        first = pool.submit(sender.flush, 20.0)
        receiver.wait_for(1)
        assert not sender.flush(0.05)
        free.set()
        assert first.result()


def test_a_flush_ends_at_its_deadline_and_loses_nothing(journal):
    with talking(lambda connection: time.sleep(30)) as dead, receiving() as receiver:
        filled(journal, f"http://127.0.0.1:{dead}", 5, "b1")
        filled(journal, receiver.url, 25, "b2")
        with sending(journal, interval=3600, timeout_s=60.0) as sender:
            began = time.monotonic()
            assert not sender.flush(0.5)
            assert time.monotonic() - began < 10
            assert nonces(receiver.came) == list(range(25))
        assert journal.outbox_depth() == 5


def test_a_flush_does_not_wait_for_a_receiver_that_is_down(journal):
    with sending(journal, interval=3600, backoff=Backoff(60.0, 120.0)) as sender:
        filled(journal, f"http://127.0.0.1:{free_port()}", 5)
        assert sender.flush(30.0)
    assert journal.outbox_depth() == 5


def test_a_resting_receiver_is_tried_once_more_by_a_flush(journal):
    told = []
    port = free_port()
    with sending(journal, interval=3600, backoff=Backoff(60.0, 120.0), sink=told.append) as sender:
        filled(journal, f"http://127.0.0.1:{port}", 5, "b1")
        sender.wake()
        until(lambda: len(told) == 1)
        with receiving(port=port) as receiver:
            filled(journal, f"http://127.0.0.1:{port}", 7, "b2")
            sender.wake()
            assert not receiver.came  # it rests
            assert sender.flush(20.0)
            assert nonces(receiver.came) == list(range(7))


@pytest.mark.parametrize("lost", ["the request", "the answer"])
def test_a_new_sender_sends_the_same_parcel_under_the_same_key(tmp_path, lost):
    """The process ended between a post and its acknowledgement: the receiver sees the very same thing again."""
    first = Journal(tmp_path / "poc.sqlite")
    hold = threading.Event()
    with receiving() as receiver:
        if lost == "the answer":
            receiver.answer = lambda came: (hold.wait(5) and 200, {}, b"")
        else:
            receiver.answer = lambda came: (503, {}, b"")
        key = filled(first, receiver.url, 5)
        with sending(first, backoff=Backoff(0.01, 0.02)):
            receiver.wait_for(1)
        first.append(key.round_id, vectors(5, 5), 10)
        first.close()
        hold.set()
        receiver.answer = lambda came: (200, {}, b"")
        seen = len(receiver.came)
        second = Journal(tmp_path / "poc.sqlite")
        with sending(second):
            until(lambda: second.outbox_depth() == 0)
        second.close()
        before, after = receiver.came[0], receiver.came[seen:]
    assert (after[0].body, after[0].headers["Idempotency-Key"]) == (before.body, before.headers["Idempotency-Key"])
    assert sequences(after) == [1, 2]
    assert nonces(after) == list(range(10))


def test_a_close_cuts_the_post_that_runs(journal):
    with talking(lambda connection: time.sleep(30)) as dead:
        filled(journal, f"http://127.0.0.1:{dead}", 5)
        with sending(journal, timeout_s=60.0) as sender:
            until(lambda: journal.sealed(key_of(f"http://127.0.0.1:{dead}").round_id))
            time.sleep(0.1)
            began = time.monotonic()
            sender.close()
            assert time.monotonic() - began < 1.5
            assert not sender.flush(0.1)
        assert journal.outbox_depth() == 5
        assert not [one for one in threading.enumerate() if one.name.startswith("ftw-callback")]


class Failing:
    """An outbox on a disk that is full: it gives parcels and cannot note what became of them."""

    def __init__(self, journal):
        self.journal = journal
        self.is_full = True

    def check(self):
        if self.is_full:
            raise StorageError("the disk is full")

    def urls(self):
        return self.journal.urls()

    def pending(self, limit_artifacts, url=None):
        return self.journal.pending(limit_artifacts, url)

    def delivered(self, parcel_id):
        self.check()
        self.journal.delivered(parcel_id)

    def failed(self, parcel_id, error, retry_at):
        self.check()
        self.journal.failed(parcel_id, error, retry_at)


def test_a_full_disk_stops_no_callback_for_good(journal, caplog):
    outbox = Failing(journal)
    with receiving() as receiver, sending(outbox):
        filled(journal, receiver.url, 5)
        receiver.wait_for(2)
        outbox.is_full = False
        until(lambda: journal.outbox_depth() == 0)
        assert len({each.headers["Idempotency-Key"] for each in receiver.came}) == 1
    assert "the disk is full" in caplog.text


class Unreadable(Failing):
    """An outbox that cannot be read at all."""

    def urls(self):
        self.check()
        return super().urls()


def test_an_unreadable_outbox_is_no_empty_one(journal, caplog):
    outbox = Unreadable(journal)
    with receiving() as receiver, sending(outbox) as sender:
        filled(journal, receiver.url, 5)
        assert not sender.flush(0.2)
        outbox.is_full = False
        assert nonces(receiver.wait_for(1)) == [0, 1, 2, 3, 4]
    assert "cannot be read" in caplog.text


def test_logs_hold_no_body_and_no_url(journal, caplog):
    with receiving() as receiver, sending(journal) as sender:
        receiver.answer = lambda came: (500 if len(receiver.came) < 2 else 200, {}, b"no")
        filled(journal, receiver.url + "/secret", 5)
        sender.wake()
        until(lambda: journal.outbox_depth() == 0)
    assert "the receiver answered 500: no" in caplog.text
    assert "secret" not in caplog.text
    assert "vector_b64" not in caplog.text


# --- the pauses


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(0, 2**32))
def test_pauses_lie_between_1_and_30_seconds_and_grow(failures, seed):
    pause = Backoff().delay_s(failures, random.Random(seed))
    assert 1.0 <= pause <= 30.0
    assert pause >= min(15.0, 2.0 ** min(failures, 10) / 2)


def test_pauses_are_drawn_and_not_in_step():
    rng = random.Random(0)
    assert len({Backoff().delay_s(9, rng) for _ in range(50)}) == 50

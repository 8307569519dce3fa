"""The proof service: what is started, stopped, queued and asked for is made once, in order, and nothing is lost."""

import json
import threading
from dataclasses import replace

import pytest

from ftw.poc.codec import Artifact
from ftw.poc.events import BatchMade, Judged, RoundEnded, RoundStarted
from ftw.poc.rounds import Status
from ftw.poc.verify import StatTest
from ftw.substrate.errors import AlreadyGenerating, Busy, Cancelled, ConfigError, LeaseTimeout, QueueFull, StorageError
from ftw.substrate.lease import Lease
from ftw.substrate.reference import tiny
from tests.poc.service import PATIENCE_S, START, ask, service, started, until


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture
def one(model, tmp_path):
    with service(model, tmp_path) as one:
        yield one


# --- the state machine


def test_a_service_is_idle_until_it_is_started(one):
    assert one.rounds.status() == Status("IDLE")


def test_a_round_is_generated_until_it_is_stopped(one):
    status = one.rounds.start(START)
    assert (status.state, status.start) == ("GENERATING", START)
    until(lambda: one.made() >= 16)
    assert one.rounds.status().nonces_per_second > 0
    stopped = one.rounds.stop()
    assert (stopped.state, stopped.start, stopped.reason) == ("STOPPED", START, "")
    assert stopped.total_processed == one.made()
    assert one.rounds.status() == stopped


def test_the_nonces_of_a_node_come_one_by_one_and_their_vectors_are_those_made_alone(one):
    start = started(group_id=1, n_groups=2)
    one.generate(12, start)
    nonces = one.nonces(start)
    assert nonces == [1 + 3 + 6 * x for x in range(len(nonces))]
    rows = one.journal.artifacts(one.deployment.key(start).round_id, limit=len(nonces))
    assert [row.artifact.vector_b64 for row in rows] == one.expected(nonces, start)


def test_a_stop_in_mid_batch_keeps_what_was_made_and_a_start_goes_on_behind_it(one):
    one.ear.goes.clear()
    one.rounds.start(START)  # units of 8 nonces, in passes of 4
    assert one.ear.waits.wait(PATIENCE_S)
    assert one.made() == 0
    stopping = threading.Thread(target=one.rounds.stop)
    stopping.start()
    until(lambda: one.rounds.status().state == "STOPPED")
    one.ear.goes.set()
    stopping.join(PATIENCE_S)
    assert one.nonces() == [1, 4, 7, 10]
    assert one.rounds.status().total_processed == 4
    one.generate(4)
    nonces = one.nonces()
    assert nonces == [1 + 3 * x for x in range(len(nonces))]


def test_a_stop_does_not_wait_beyond_its_deadline_and_the_batch_in_flight_is_kept_all_the_same(one):
    one.ear.goes.clear()
    one.rounds.start(START)
    assert one.ear.waits.wait(PATIENCE_S)
    assert one.rounds.stop(deadline_s=0.0).state == "STOPPED"
    assert one.made() == 0
    again = one.rounds.start(START)
    assert again.state == "GENERATING"
    one.ear.goes.set()
    until(lambda: one.made() >= 12)
    one.rounds.stop()
    nonces = one.nonces()
    assert nonces == [1 + 3 * x for x in range(len(nonces))]
    assert one.rounds.status().total_processed == len(nonces)


def test_the_same_start_again_restarts_nothing(one):
    first = one.rounds.start(START)
    until(lambda: one.made() >= 8)
    again = one.rounds.start(START)
    assert (again.state, again.start, again.round_id) == ("GENERATING", first.start, first.round_id)
    assert again.total_processed >= 8
    one.rounds.stop()
    assert len(one.ear.of(RoundStarted)) == 1


@pytest.mark.parametrize(
    "change", [{"block_hash": "next"}, {"node_id": 0}, {"url": "http://x"}, {"stronger_rng": True}], ids=str
)
def test_another_start_is_refused_while_a_round_is_generated(one, change):
    one.rounds.start(START)
    with pytest.raises(AlreadyGenerating, match="another round is being generated: stop it"):
        one.rounds.start(started(**change))
    one.rounds.stop()
    assert one.rounds.start(started(**change)).state == "GENERATING"


def test_of_two_starts_at_once_one_is_made_and_the_other_hears_of_it(one):
    starts = [started(block_hash=str(i % 2)) for i in range(8)]
    gate, answers = threading.Barrier(len(starts)), list[str]()

    def begin(start):
        gate.wait(PATIENCE_S)
        try:
            answers.append(one.rounds.start(start).start.block_hash)
        except AlreadyGenerating:
            answers.append("refused")

    threads = [threading.Thread(target=begin, args=(start,)) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(answers) in (["0"] * 4 + ["refused"] * 4, ["1"] * 4 + ["refused"] * 4)
    one.rounds.stop()
    assert len(one.ear.of(RoundStarted)) == 1


def test_a_stop_is_reported_until_the_next_start(one):
    assert one.rounds.stop() == Status("STOPPED")
    assert one.rounds.stop().state == "STOPPED"
    one.rounds.start(START)
    assert one.rounds.status().state == "GENERATING"


def test_a_round_that_is_generated_claims_the_model_from_its_start_to_its_end(one):
    assert not one.lease.claimed("proof")
    one.rounds.start(START)
    assert one.lease.claimed("proof")
    one.rounds.stop()
    assert not one.lease.claimed("proof")


def test_a_later_process_goes_on_with_the_round(model, tmp_path):
    with service(model, tmp_path) as first:
        first.generate(8)
        before = first.made()
    with service(model, tmp_path) as second:
        status = second.generate(8)
        nonces = second.nonces()
        assert second.ear.of(RoundStarted)[0].index == before
    assert nonces == [1 + 3 * x for x in range(len(nonces))]
    assert status.total_processed == len(nonces)


def test_a_round_ends_where_nonces_would_outgrow_the_wire(one):
    start = started(node_count=1_000_000, n_groups=1_000_000)
    key = one.deployment.key(start)
    one.journal.open_round(key)
    one.journal.append(key.round_id, [], 8999)
    one.rounds.start(start)
    until(lambda: one.rounds.status().state == "FAILED")
    assert one.rounds.status().reason == "the round is at its end: nonces lie in 0..9007199254740991"
    assert max(one.nonces(start)) <= 2**53 - 1


def test_a_round_without_a_url_is_sealed_as_it_is_made_and_at_its_end(model, tmp_path):
    with service(model, tmp_path, callback_interval_sec=0.001, callback_max_artifacts=5) as one:
        one.generate(24)
        runs = one.journal.sealed(one.deployment.key(START).round_id)
        assert runs[-1].last == one.made()
        assert max(run.last - run.first + 1 for run in runs) <= 5


def test_batches_and_rounds_are_told(one):
    one.generate(16)
    assert one.ear.of(RoundStarted)[0].index == 0
    assert sum(event.n for event in one.ear.of(BatchMade)) == one.made()
    (ended,) = one.ear.of(RoundEnded)
    assert (ended.state, ended.reason, ended.made) == ("STOPPED", "", one.made())


def test_a_switch_that_the_profile_does_not_have_is_refused_before_anything_starts(model, tmp_path):
    with service(model, tmp_path, profile="distance-k64", k_dim=12) as one:
        with pytest.raises(ConfigError, match="has no poc_stronger_rng"):
            one.rounds.start(started(stronger_rng=True))
        assert one.rounds.status().state == "IDLE"


def test_a_journal_that_takes_nothing_refuses_the_start(one):
    one.journal.close()
    with pytest.raises(StorageError, match="is closed"):
        one.rounds.start(START)
    assert one.rounds.status().state == "IDLE"
    assert not one.lease.claimed("proof")


def test_a_service_that_closes_takes_nothing_more(one):
    one.close()
    for call in (lambda: one.rounds.start(START), lambda: one.rounds.enqueue(ask(1))):
        with pytest.raises(Busy, match="shutting down"):
            call()
    with pytest.raises(Busy, match="shutting down"):
        one.rounds.run(ask(1), threading.Event())


# --- requests


def completed(one, request_id):
    until(lambda: one.rounds.result(request_id).status not in ("queued", "running"))
    return one.rounds.result(request_id)


def test_a_queued_request_gives_the_vectors_made_alone_in_the_order_asked_for(one):
    nonces = [9, 2, 30, 4, 5, 6, 1, 8, 77]
    request_id, queued = one.rounds.enqueue(ask(*nonces))
    assert queued == 9
    state = completed(one, request_id)
    assert state.status == "completed"
    assert [each.nonce for each in state.result.artifacts] == nonces
    assert [each.vector_b64 for each in state.result.artifacts] == one.expected(nonces)
    assert one.rounds.status().queued_nonces == 0


def test_a_waited_for_request_gives_the_same(one):
    result = one.rounds.run(ask(3, 1, 2, 40, 41), threading.Event())
    assert [each.vector_b64 for each in result.artifacts] == one.expected([3, 1, 2, 40, 41])
    assert one.journal.urls() == []


def test_requests_are_served_in_the_order_they_came(one):
    one.ear.goes.clear()
    ids = [one.rounds.enqueue(ask(*range(8)))[0] for _ in range(3)]
    assert one.ear.waits.wait(PATIENCE_S)
    assert [one.rounds.result(each).status for each in ids] == ["running", "queued", "queued"]
    assert one.rounds.status().queued_nonces == 24
    one.ear.goes.set()
    completed(one, ids[-1])
    told = [event.request_id for event in one.ear.of(BatchMade)]
    assert told == [ids[0]] * 2 + [ids[1]] * 2 + [ids[2]] * 2


def test_requests_wait_while_a_round_is_generated(one):
    one.rounds.start(START)
    with pytest.raises(AlreadyGenerating, match="or queue the request with wait=false"):
        one.rounds.run(ask(1), threading.Event())
    claims = tuple(Artifact(nonce, text) for nonce, text in zip((1, 2), one.expected([1, 2]), strict=True))
    request_id, _ = one.rounds.enqueue(ask(1, 2, claims=claims))
    made = one.made()
    until(lambda: one.made() >= made + 16)
    assert one.rounds.result(request_id).status == "queued"


def test_a_request_that_has_begun_lets_a_round_pass_and_goes_on_after_it(one):
    one.ear.goes.clear()
    request_id, _ = one.rounds.enqueue(ask(*range(12)))
    assert one.ear.waits.wait(PATIENCE_S)
    one.rounds.start(START)
    one.ear.goes.set()
    until(lambda: one.made() >= 16)
    assert one.rounds.result(request_id).status == "running"
    # the end of the round without a stop, which would call the request off
    one.rounds._generation.stops = True
    state = completed(one, request_id)
    assert [each.vector_b64 for each in state.result.artifacts] == one.expected(list(range(12)))


def test_a_stop_calls_off_what_waits_and_what_runs(one):
    one.ear.goes.clear()
    ids = [one.rounds.enqueue(ask(*range(8)))[0] for _ in range(2)]
    assert one.ear.waits.wait(PATIENCE_S)
    one.rounds.stop()
    one.ear.goes.set()
    for each in ids:
        state = one.rounds.result(each)
        assert (state.status, state.error) == ("cancelled", "the service was stopped")
    assert one.rounds.status().queued_nonces == 0
    assert completed(one, one.rounds.enqueue(ask(5))[0]).status == "completed"
    assert len(one.ear.of(BatchMade)) == 2


@pytest.mark.parametrize("how", ["caller", "stop"])
def test_a_waited_for_request_ends_when_it_is_called_off(one, how):
    one.ear.goes.clear()
    cancelled, seen = threading.Event(), list[str]()

    def wait():
        with pytest.raises(Cancelled, match="called off between two forward passes"):
            one.rounds.run(ask(*range(400)), cancelled)
        seen.append("ended")

    thread = threading.Thread(target=wait)
    thread.start()
    assert one.ear.waits.wait(PATIENCE_S)
    cancelled.set() if how == "caller" else one.rounds.stop()
    one.ear.goes.set()
    thread.join(PATIENCE_S)
    assert seen == ["ended"]
    assert len(one.ear.of(BatchMade)) == 1


def test_the_queue_is_bounded(model, tmp_path):
    with service(model, tmp_path, max_queued_nonces=10) as one:
        one.ear.goes.clear()
        one.rounds.enqueue(ask(*range(6)))
        with pytest.raises(QueueFull, match=r"6 nonces are queued and 5 more are too many: the queue takes 10"):
            one.rounds.enqueue(ask(*range(5)))
        one.rounds.enqueue(ask(*range(4)))
        for call in (one.rounds.enqueue, lambda each: one.rounds.run(each, threading.Event())):
            with pytest.raises(ConfigError, match="11 nonces are too many for one request: at most 10"):
                call(ask(*range(11)))


def test_a_hundred_thousand_nonces_can_be_queued(one):
    one.rounds.start(START)
    ids = [one.rounds.enqueue(ask(*range(i * 10_000, (i + 1) * 10_000)))[0] for i in range(10)]
    assert one.rounds.status().queued_nonces == 100_000
    with pytest.raises(QueueFull, match="100000 nonces are queued and 1 more"):
        one.rounds.enqueue(ask(1))
    one.rounds.stop()
    assert {one.rounds.result(each).status for each in ids} == {"cancelled"}


def test_a_result_expires_by_the_clock(model, tmp_path):
    now = [0.0]
    with service(model, tmp_path, generate_result_ttl_sec=10.0, clock=lambda: now[0]) as one:
        request_id, _ = one.rounds.enqueue(ask(1))
        completed(one, request_id)
        now[0] = 9.9
        assert one.rounds.result(request_id) is not None
        now[0] = 10.0
        assert one.rounds.result(request_id) is None


def test_a_result_expires_though_nobody_asks_for_it(model, tmp_path):
    with service(model, tmp_path, generate_result_ttl_sec=0.05) as one:
        one.rounds.enqueue(ask(1))
        until(lambda: len(one.rounds._book) == 0)


def test_a_busy_model_fails_a_request_after_its_timeout(model, tmp_path):
    with service(model, tmp_path, generate_chunk_timeout_sec=0.12) as one, one.lease.claim("chat"):
        with pytest.raises(LeaseTimeout, match=r"timeout waiting for the engine: the model was in use for 0\.12 s"):
            one.rounds.run(ask(1), threading.Event())
        state = completed(one, one.rounds.enqueue(ask(1))[0])
        assert state.status == "failed"
        assert state.error.startswith("timeout waiting for the engine")


def test_a_busy_model_keeps_a_round_waiting_and_does_not_fail_it(one):
    with one.lease.claim("chat"):
        one.rounds.start(START)
        threading.Event().wait(0.3)  # several of its tries (50 ms)
        assert one.made() == 0
        assert one.rounds.status().state == "GENERATING"
    until(lambda: one.made() > 0)


# --- verdicts and callbacks


def claims_of(one, nonces):
    return [Artifact(nonce, text) for nonce, text in zip(nonces, one.expected(nonces), strict=True)]


def test_honest_claims_pass_and_a_test_concludes(one):
    claims = tuple(claims_of(one, [1, 2, 3, 4, 5]))
    result = one.rounds.run(ask(5, 4, 3, 2, 1, claims=claims, test=StatTest()), threading.Event())
    assert result.concludes
    assert (result.verdict.n_total, result.verdict.n_mismatch, result.verdict.fraud_detected) == (5, 0, False)
    assert not one.rounds.run(ask(5, 4, 3, 2, 1, claims=claims), threading.Event()).concludes


def test_wrong_claims_are_told_with_their_reasons(one):
    good = claims_of(one, [1, 2, 3])
    claims = (good[0], Artifact(2, good[2].vector_b64), Artifact(3, ""), Artifact(5, "AA=="), Artifact(5, "AA=="))
    request_id, _ = one.rounds.enqueue(ask(1, 2, 3, 4, 5, claims=claims, test=StatTest()))
    verdict = completed(one, request_id).result.verdict
    found = {each.nonce: each.reason for each in verdict.mismatches}
    assert found == {2: "distance", 3: "empty", 4: "missing", 5: "duplicate"}
    assert verdict.fraud_detected
    (judged,) = one.ear.of(Judged)
    assert (judged.n_total, judged.n_mismatch, len(judged.distances)) == (5, 4, 2)
    assert judged.reasons == {"distance": 1, "empty": 1, "missing": 1, "duplicate": 1}


def test_no_pass_is_spent_on_claims_that_cannot_be_compared(one):
    claims = tuple(Artifact(nonce, "broken!") for nonce in range(50))
    result = one.rounds.run(ask(*range(50), claims=claims), threading.Event())
    assert result.verdict.n_mismatch == 50
    assert one.ear.of(BatchMade) == []


def test_claims_for_what_was_not_asked_are_refused(one):
    for call in (one.rounds.enqueue, lambda each: one.rounds.run(each, threading.Event())):
        with pytest.raises(ConfigError, match=r"claims for nonces \[9\], which were not asked for"):
            call(ask(1, claims=(Artifact(9, "x"),)))


def test_a_completed_request_is_called_back_in_bounded_parcels(model, tmp_path):
    with service(model, tmp_path, callback_max_artifacts=5) as one:
        request_id, _ = one.rounds.enqueue(ask(*range(12), url="http://x/pow"))
        completed(one, request_id)
        seen = []
        while (parcel := one.journal.pending(100)) is not None:
            seen.append(parcel)
            one.journal.delivered(parcel.parcel_id)
    assert [(parcel.path, parcel.owner, parcel.artifacts) for parcel in seen] == [
        ("/generated", request_id, 5),
        ("/generated", request_id, 5),
        ("/generated", request_id, 2),
    ]
    bodies = [json.loads(parcel.body) for parcel in seen]
    assert {body["request_id"] for body in bodies} == {request_id}
    assert [each["nonce"] for body in bodies for each in body["artifacts"]] == list(range(12))
    assert len({parcel.idempotency_key for parcel in seen}) == 3


@pytest.mark.parametrize("test", [None, StatTest()])
def test_a_verdict_is_called_back(one, test):
    claims = tuple(claims_of(one, [1, 2]))
    request_id, _ = one.rounds.enqueue(ask(1, 2, claims=claims, test=test, url="http://x/pow"))
    completed(one, request_id)
    parcel = one.journal.pending(100)
    body = json.loads(parcel.body)
    assert parcel.path == "/validated"
    assert (body["request_id"], body["n_total"], body["n_mismatch"]) == (request_id, 2, 0)
    assert ("p_value" in body, "fraud_detected" in body) == (test is not None, test is not None)


def test_the_sender_is_told_of_a_callback(model, tmp_path):
    told = threading.Event()
    with service(model, tmp_path) as one:
        one.rounds._posted = told.set
        one.rounds.enqueue(ask(1, url="http://x"))
        assert told.wait(PATIENCE_S)


# --- what is asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_id": 3}, r"node_id is 3: it lies in 0\.\.2 \(node_count - 1\)"),
        ({"node_id": -1}, "node_id is -1"),
        ({"node_count": 0}, r"node_count is 0: it lies in 1\.\.1000000"),
        ({"group_id": 1}, r"group_id is 1: it lies in 0\.\.0 \(n_groups - 1\)"),
        ({"n_groups": 0}, "n_groups is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"block_height": -1}, "block_height is -1"),
        ({"block_height": 2**53}, "block_height is 9007199254740992"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(START, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonces": (1, 1)}, "a nonce is given twice"),
        ({"nonces": (-1,)}, r"a nonce is -1: it lies in 0\.\."),
        ({"nonces": (2**53,)}, "a nonce is 9007199254740992"),
        ({"test": StatTest()}, "stat_test judges a validation, and there is none"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ask(**({"nonces": ()} | change))


# --- proof first


def test_where_proof_goes_first_a_round_keeps_chat_waiting_until_it_ends(model, tmp_path):
    with service(model, tmp_path, lease=Lease("proof")) as one:
        one.rounds.start(START)
        until(lambda: one.made() > 0)
        with pytest.raises(LeaseTimeout, match="chat waited"), one.lease.hold("chat", timeout_s=0.1):
            pass
        one.rounds.stop()
        with one.lease.hold("chat", timeout_s=PATIENCE_S):
            pass

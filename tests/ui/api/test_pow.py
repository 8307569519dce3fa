"""The artifact API through the ASGI transport: shapes, states, conflicts, verdicts, what the live client sends."""

import asyncio
import base64
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ftw.poc.forward import artifacts
from ftw.poc.profiles import ARTIFACT_K12
from ftw.substrate.model import Model
from tests.ui.api.conftest import POW, SEQ_LEN, URL, Open, Server, ask, body

TEST = {"dist_threshold": 0.02, "p_mismatch": 0.001, "fraud_threshold": 0.01}


def until(claim: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """What `claim` gives, once it is true."""
    end = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def vector(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)


def claims(made: list[dict[str, Any]], **replaced: Any) -> dict[str, Any]:
    """A validation of these artifacts; `n3="..."` replaces the vector of nonce 3."""
    return {
        "artifacts": [
            {"nonce": one["nonce"], "vector_b64": replaced.get(f"n{one['nonce']}", one["vector_b64"])} for one in made
        ]
    }


# --- computing


def test_the_vectors_asked_for_are_those_of_the_pipeline_and_finite(shared: Server, model: Model) -> None:
    answer = shared.ok(f"{POW}/generate", ask(0, 1, 2, 3))
    assert list(answer) == ["status", "request_id", "artifacts", "encoding"]
    assert answer["status"] == "completed"
    assert answer["encoding"] == {"dtype": "f16", "k_dim": 12, "endian": "le"}
    expected = artifacts(model, ARTIFACT_K12, "0xabc", "key", [0, 1, 2, 3], SEQ_LEN, rows=4)
    assert answer["artifacts"] == [{"nonce": one.nonce, "vector_b64": one.vector_b64} for one in expected]
    for one in answer["artifacts"]:
        assert len(base64.b64decode(one["vector_b64"])) == 24
        assert np.isfinite(vector(one["vector_b64"])).all()


def test_the_same_nonces_give_the_same_bytes_whatever_stands_beside_them(shared: Server) -> None:
    first = shared.compute(42, 43, 44, 45)
    again = shared.compute(45, 44, 43, 42, 46, batch_size=1)
    assert sorted(first, key=str) == sorted(again[:4], key=str)


def test_another_block_gives_vectors_far_away(shared: Server) -> None:
    (one,), (other,) = shared.compute(0), shared.compute(0, block_hash="0xdef")
    assert np.linalg.norm(vector(one["vector_b64"]) - vector(other["vector_b64"])) > 0.3


def test_five_times_four_nonces_repeat_to_the_bit(shared: Server) -> None:
    runs = [json.dumps(shared.compute(7, 8, 9, 10)) for _ in range(5)]
    assert len(set(runs)) == 1


def test_exactly_the_nonces_asked_for_come_back_in_their_order(shared: Server) -> None:
    nonces = [11, 3, 500, 2**31, 2**53 - 1]
    assert [one["nonce"] for one in shared.compute(*nonces, batch_size=4)] == nonces


def test_no_nonces_give_no_artifacts(shared: Server) -> None:
    assert shared.compute() == []


def test_the_wider_seeds_of_the_live_client_give_other_vectors(shared: Server) -> None:
    assert shared.compute(0) != shared.compute(0, poc_stronger_rng=True)


def test_a_request_of_the_live_client_works_unmodified(shared: Server) -> None:
    sent = ask(1, 2, url=None) | {"group_id": 0, "n_groups": 1, "poc_stronger_rng": False, "batch_size": 32}
    sent |= {"url": None, "validation": None, "stat_test": None}
    del sent["params"]["k_dim"]
    assert len(shared.ok(f"{POW}/generate", sent)["artifacts"]) == 2


# --- judging


def test_own_artifacts_pass_and_without_a_test_nothing_is_concluded(shared: Server) -> None:
    made = shared.compute(1, 2, 3)
    answer = shared.ok(f"{POW}/generate", ask(3, 1, 2, validation=claims(made)))
    assert list(answer) == ["status", "request_id", "n_total", "n_mismatch", "mismatch_nonces"]
    assert (answer["n_total"], answer["n_mismatch"], answer["mismatch_nonces"]) == (3, 0, [])


def test_a_verdict_repeats_its_parameters_and_gives_reasons(shared: Server) -> None:
    made = shared.compute(*range(6))
    far = base64.b64encode((-vector(made[5]["vector_b64"])).astype("<f2").tobytes()).decode()
    given = claims(made, n1="", n2="no base64!", n3=made[3]["vector_b64"][:-4], n4=None, n5=far)
    answer = shared.ok(f"{POW}/generate", ask(*range(6), validation=given, stat_test=TEST))
    assert answer["mismatch_nonces"] == [1, 2, 3, 4, 5]
    assert answer["stat_test"] == TEST
    reasons = {one["nonce"]: one["reason"] for one in answer["mismatches"]}
    assert reasons == {1: "empty", 2: "undecodable", 3: "short", 4: "missing", 5: "distance"}
    assert answer["mismatches"][-1]["distance"] == pytest.approx(2.0, abs=0.01)
    assert answer["fraud_detected"] is True
    assert 0 < answer["p_value"] < 1e-10


def test_non_finite_long_and_doubled_claims_are_mismatches(shared: Server) -> None:
    made = shared.compute(1, 2, 3, 4)
    nan = base64.b64encode(np.full(12, np.nan, dtype="<f2").tobytes()).decode()
    given = claims(made, n1=nan, n2=made[1]["vector_b64"] + "AAAA", n4=base64.b64encode(bytes(24)).decode())
    given["artifacts"].append({"nonce": 3, "vector_b64": None})
    answer = shared.ok(f"{POW}/generate", ask(1, 2, 3, 4, validation=given, stat_test={}))
    reasons = {one["nonce"]: one["reason"] for one in answer["mismatches"]}
    assert reasons == {1: "non-finite", 2: "long", 3: "duplicate", 4: "non-unit"}
    assert answer["n_total"] == 4


def test_one_of_five_mismatches_has_the_p_value_of_the_binomial_test(shared: Server) -> None:
    made = shared.compute(*range(5))
    answer = shared.ok(f"{POW}/generate", ask(*range(5), validation=claims(made, n2=""), stat_test={}))
    assert answer["p_value"] == pytest.approx(1 - 0.999**5)
    assert answer["fraud_detected"] is True


@pytest.mark.parametrize("name", ["fraud_threshold", "p_value_threshold"])
def test_both_names_of_the_cutoff_decide_the_verdict(shared: Server, name: str) -> None:
    made = shared.compute(*range(5))
    answer = shared.ok(f"{POW}/generate", ask(*range(5), validation=claims(made, n2=""), stat_test={name: 0.001}))
    assert answer["fraud_detected"] is False
    assert answer["stat_test"]["fraud_threshold"] == 0.001


def test_claims_about_other_nonces_are_a_bad_request(shared: Server) -> None:
    made = shared.compute(1, 2)
    answer = shared.post(f"{POW}/generate", ask(1, 3, validation=claims(made)))
    assert answer.status_code == 400
    assert "must match nonces field: there are claims for [2] and none for [3]" in answer.json()["detail"]


# --- what is deployed


@pytest.mark.parametrize("params", [{"model": "other"}, {"seq_len": 9}, {"k_dim": 13}])
@pytest.mark.parametrize("path", ["init/generate", "generate"])
def test_other_params_conflict_and_both_sides_are_shown(shared: Server, path: str, params: dict[str, Any]) -> None:
    sent = body(params=params) | ({"nonces": [1]} if path == "generate" else {})
    answer = shared.post(f"{POW}/{path}", sent)
    assert answer.status_code == 409
    assert set(answer.json()) == {"detail", "requested", "deployed"}
    assert answer.json()["deployed"] == {"model": "tiny", "seq_len": SEQ_LEN, "k_dim": 12}
    assert answer.json()["requested"] == {"model": "tiny", "seq_len": SEQ_LEN, "k_dim": 12} | params
    assert next(iter(params)) in answer.json()["detail"]


@pytest.mark.parametrize("params", [{"decode": True}, {"max_tokens": 16}, {"decode": True, "max_tokens": 16}])
@pytest.mark.parametrize("path", ["init/generate", "generate"])
def test_a_proof_by_decoding_conflicts_and_the_schemes_are_named(
    shared: Server, path: str, params: dict[str, Any]
) -> None:
    sent = body(params=params) | ({"nonces": [1]} if path == "generate" else {})
    answer = shared.post(f"{POW}/{path}", sent)
    assert answer.status_code == 409
    assert "prefill:artifact-k12/1" in answer.json()["detail"]
    assert answer.json()["deployed"]["schemes"] == ["prefill:artifact-k12/1"]
    assert answer.json()["requested"].items() >= params.items()


def test_decode_false_asks_for_what_is_deployed(shared: Server) -> None:
    assert len(shared.compute(1, params={"decode": False, "max_tokens": None})) == 1


def test_versions_say_which_protocol_is_deployed(shared: Server) -> None:
    found = shared.get(f"{POW}/versions").json()
    assert found["profile"] == "artifact-k12/1"
    assert found["poc_validation_inference"] is True
    assert found["deployed"] == {"model": "tiny", "seq_len": SEQ_LEN, "k_dim": 12}
    assert len(found["fingerprint"]) == 64


# --- rounds


def test_a_round_runs_from_start_to_stop(server: Server) -> None:
    assert server.get(f"{POW}/status").json() == {"status": "IDLE", "config": None, "stats": None}
    answer = server.ok(f"{POW}/init/generate", body(url=URL))
    assert answer == {"status": "OK", "pow_status": {"status": "GENERATING"}}
    status = until(lambda: (now := server.get(f"{POW}/status").json())["stats"]["total_processed"] and now)
    assert status["status"] == "GENERATING"
    assert status["config"] == {key: value for key, value in body().items() if key != "params"} | {
        "seq_len": SEQ_LEN,
        "k_dim": 12,
    }
    assert server.ok(f"{POW}/stop", {}) == {"status": "OK", "pow_status": {"status": "STOPPED"}}
    after = server.get(f"{POW}/status").json()
    assert (after["status"], after["stats"], after["config"]) == ("STOPPED", None, status["config"])
    again = server.post(f"{POW}/stop")
    assert again.json()["pow_status"] == {"status": "STOPPED"}


def test_the_same_start_twice_is_one_round_and_another_one_conflicts(server: Server) -> None:
    first = server.post(f"{POW}/init/generate", body())
    again = server.post(f"{POW}/init/generate", body())
    assert again.status_code == 200
    assert again.headers["x-ftw-round"] == first.headers["x-ftw-round"]
    other = server.post(f"{POW}/init/generate", body(block_hash="0xdef"))
    assert other.status_code == 409
    assert "another round" in other.json()["detail"]


def test_groups_share_a_nodes_nonces_out(server: Server) -> None:
    sent = body(node_id=3, group_id=1, n_groups=2)
    round_ = server.post(f"{POW}/init/generate", sent).headers["x-ftw-round"]
    page = until(lambda: server.get(f"{POW}/artifacts", round=round_, limit=3).json()["artifacts"])
    config = server.get(f"{POW}/status").json()["config"]
    assert (config["group_id"], config["n_groups"]) == (1, 2)
    server.ok(f"{POW}/stop", {})
    assert [one["nonce"] for one in page][:3] == [13, 33, 53]


def test_while_a_round_runs_waiting_requests_conflict_and_others_queue(server: Server) -> None:
    server.ok(f"{POW}/init/generate", body())
    refused = server.post(f"{POW}/generate", ask(1))
    assert refused.status_code == 409
    assert "wait=false" in refused.json()["detail"]
    queued = server.ok(f"{POW}/generate", ask(1, 2, wait=False))
    assert (queued["status"], queued["queued_count"]) == ("queued", 2)
    path = f"{POW}/generate/{queued['request_id']}"
    assert server.get(path).json()["status"] in ("queued", "running")
    server.ok(f"{POW}/stop", {})
    cancelled = server.get(path).json()
    assert cancelled["status"] == "cancelled"
    assert "stopped" in cancelled["error"]


def test_queued_requests_complete_in_order_and_are_called_back(server: Server) -> None:
    ids = [server.ok(f"{POW}/generate", ask(n, wait=None, url=URL))["request_id"] for n in (1, 2)]
    results = [
        until(lambda id_=id_: (s := server.get(f"{POW}/generate/{id_}").json())["status"] == "completed" and s)
        for id_ in ids
    ]
    assert [result["artifacts"][0]["nonce"] for result in results] == [1, 2]
    came = until(lambda: len(server.posted) == 2 and server.posted)
    bodies = [json.loads(request.content) for request in came]
    assert {one["request_id"] for one in bodies} == set(ids)
    for one in bodies:
        assert set(one) == {
            "request_id",
            "block_hash",
            "block_height",
            "public_key",
            "node_id",
            "artifacts",
            "encoding",
        }


def test_a_queued_validation_is_called_back_as_validated(server: Server) -> None:
    made = server.compute(1)
    server.ok(f"{POW}/generate", ask(1, wait=False, url=URL, validation=claims(made), stat_test={}))
    (came,) = until(lambda: server.posted)
    assert came.url.path == "/pow/validated"
    assert json.loads(came.content).keys() == {
        *("request_id", "block_hash", "block_height", "public_key", "node_id"),
        *("n_total", "n_mismatch", "mismatch_nonces", "p_value", "fraud_detected"),
    }


def test_an_unknown_request_is_not_found(shared: Server) -> None:
    answer = shared.get(f"{POW}/generate/nobody")
    assert answer.status_code == 404
    assert "expired" in answer.json()["detail"]


def test_a_full_queue_asks_to_come_back(open_server: Open) -> None:
    server = open_server(max_queued_nonces=3)
    server.ok(f"{POW}/init/generate", body())
    server.ok(f"{POW}/generate", ask(1, 2, wait=False))
    full = server.post(f"{POW}/generate", ask(1, 2, wait=False))
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) > 0
    large = server.post(f"{POW}/generate", ask(1, 2, 3, 4, wait=False))
    assert large.status_code == 422
    assert "at most 3" in large.json()["detail"]


def test_a_round_is_called_back_with_the_network_s_keys_and_can_be_pulled_and_proved(server: Server) -> None:
    round_ = server.post(f"{POW}/init/generate", body(url=URL)).headers["x-ftw-round"]
    until(lambda: len(server.posted) >= 2)
    server.ok(f"{POW}/stop", {})
    assert server.parts.pow.journal.outbox_depth() == 0
    parcels = [json.loads(request.content) for request in server.posted]
    for parcel, request in zip(parcels, server.posted, strict=True):
        assert set(parcel) == {"block_hash", "block_height", "public_key", "node_id", "artifacts", "encoding"}
        assert request.headers["x-ftw-round"] == round_
        assert request.url.path == "/pow/generated"
    delivered = [one for parcel in parcels for one in parcel["artifacts"]]
    pulled: list[dict[str, Any]] = []
    after = 0
    while page := server.get(f"{POW}/artifacts", round=round_, after=after, limit=7).json():
        pulled += page["artifacts"]
        after = page["next"]
        if not page["artifacts"]:
            break
    assert [{"nonce": one["nonce"], "vector_b64": one["vector_b64"]} for one in pulled] == delivered
    assert [one["seq"] for one in pulled] == list(range(1, len(pulled) + 1))
    assert [one["nonce"] for one in pulled] == [10 * i for i in range(len(pulled))]
    commitments = server.get(f"{POW}/commitments", round=round_).json()["commitments"]
    assert sum(one["count"] for one in commitments) == len(pulled)
    came = [json.loads(base64.b64decode(request.headers["x-ftw-commitment"])) for request in server.posted]
    assert came == commitments
    proof = server.get(f"{POW}/proof", round=round_, nonce=10).json()
    assert proof["commitment"] == commitments[0]
    listed = server.get(f"{POW}/rounds").json()["rounds"]
    assert [(one["round"], one["count"]) for one in listed] == [(round_, len(pulled))]
    assert "url" not in listed[0]


def test_a_stop_delivers_what_was_made_without_waiting_for_the_interval(open_server: Open) -> None:
    server = open_server(callback_interval_sec=600)
    server.ok(f"{POW}/init/generate", body(url=URL))
    until(lambda: server.get(f"{POW}/status").json()["stats"]["total_processed"] > 8)
    for _ in range(2):  # the second one has nothing to deliver and does not wait
        server.ok(f"{POW}/stop", {})
        assert server.parts.pow.journal.outbox_depth() == 0
    made = server.parts.pow.journal.rounds()[0].count
    assert sum(len(json.loads(request.content)["artifacts"]) for request in server.posted) == made


def test_a_receiver_that_is_down_keeps_a_stop_waiting_no_longer_than_its_deadline(open_server: Open) -> None:
    flushed: list[float] = []
    server = open_server(stop_deadline_sec=3)
    desk = replace(server.parts.pow, flush=lambda seconds: bool(flushed.append(seconds)))
    assert asyncio.run(desk.stop()).state == "STOPPED"
    assert 0 < flushed[0] <= 3


@pytest.mark.parametrize("path", ["artifacts", "commitments", "evidence", "proof"])
def test_an_unknown_round_is_not_found_and_a_bad_id_is_refused(shared: Server, path: str) -> None:
    more = {"nonce": 1} if path == "proof" else {}
    assert shared.get(f"{POW}/{path}", round="0" * 64, **more).status_code == 404
    assert shared.get(f"{POW}/{path}", round="x", **more).status_code == 422


def test_a_callback_url_that_may_not_be_called_is_refused_when_asked(shared: Server) -> None:
    for url in ("http://10.0.0.1/pow", "file:///etc/passwd", "http://user:secret@127.0.0.1/pow"):
        for path, sent in (("init/generate", body(url=url)), ("generate", ask(1, url=url))):
            answer = shared.post(f"{POW}/{path}", sent)
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"] == ["body", "url"]
            assert "secret" not in answer.text
    assert shared.get(f"{POW}/status").json()["status"] == "IDLE"


def test_a_round_that_fails_says_why(server: Server) -> None:
    handle = server.parts.chat.model.arch.blocks[0].register_forward_hook(lambda module, args, out: _poison(out))
    try:
        server.ok(f"{POW}/init/generate", body())
        status = until(lambda: (now := server.get(f"{POW}/status").json())["status"] == "FAILED" and now)
    finally:
        handle.remove()
    assert "3 batches in a row were rejected" in status["reason"]
    assert status["stats"] is None


def _poison(out: Any) -> Any:
    first = out[0] if isinstance(out, tuple) else out
    first = first * math.nan
    return (first, *out[1:]) if isinstance(out, tuple) else first


def test_a_waiting_request_that_is_not_finite_fails_with_the_reason(server: Server) -> None:
    handle = server.parts.chat.model.arch.blocks[0].register_forward_hook(lambda module, args, out: _poison(out))
    try:
        answer = server.post(f"{POW}/generate", ask(1))
    finally:
        handle.remove()
    assert answer.status_code == 500
    assert "not finite" in answer.json()["detail"]


def test_too_many_waiting_requests_are_sent_away(server: Server) -> None:
    seats = server.parts.pow.seats
    while seats.acquire(blocking=False):
        pass
    answer = server.post(f"{POW}/generate", ask(1))
    assert answer.status_code == 429
    assert "wait=false" in answer.json()["detail"]


def test_a_hundred_thousand_nonces_can_be_queued(server: Server) -> None:
    server.ok(f"{POW}/init/generate", body())
    queued = server.ok(f"{POW}/generate", ask(*range(100_000), wait=False))
    assert queued["queued_count"] == 100_000
    assert server.post(f"{POW}/generate", ask(1, wait=False)).status_code == 429

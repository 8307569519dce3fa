"""The artifact API in the shape of a node's proxy."""

import json

from tests.ui.api.conftest import POW, PROXY, URL, Server, ask, body
from tests.ui.api.test_pow import until


def test_states_are_aggregated_with_the_backend_by_its_port(server: Server) -> None:
    idle = server.get(f"{PROXY}/status").json()
    assert idle == {"status": "IDLE", "backends": [{"port": 80, "status": "IDLE", "config": None, "stats": None}]}
    started = server.ok(f"{PROXY}/init/generate", body(url=URL))
    results = [{"port": 80, "status": "OK"}]
    assert started == {"status": "OK", "backends": 1, "n_groups": 1, "results": results, "errors": None}
    now = server.get(f"{PROXY}/status").json()
    assert now["status"] == "GENERATING"
    assert now["backends"][0]["config"]["block_hash"] == "0xabc"
    assert server.get(f"{POW}/status").json()["status"] == "GENERATING"
    stopped = server.ok(f"{PROXY}/stop", {})
    assert stopped == {"status": "OK", "results": [{"port": 80, "status": "stopped"}], "errors": None}
    assert server.get(f"{PROXY}/status").json()["status"] == "IDLE"


def test_ids_of_queued_requests_carry_the_port(shared: Server) -> None:
    queued = shared.ok(f"{PROXY}/generate", ask(1, wait=False))
    id_ = queued["request_id"]
    assert id_.startswith("80:")
    done = until(lambda: (s := shared.get(f"{PROXY}/generate/{id_}").json())["status"] == "completed" and s)
    assert done["request_id"] == id_
    assert done["artifacts"] == shared.compute(1)
    assert shared.get(f"{POW}/generate/{id_[3:]}").json()["request_id"] == id_[3:]


def test_a_waiting_request_is_answered_as_the_backend_does(shared: Server) -> None:
    answer = shared.ok(f"{PROXY}/generate", ask(1, 2))
    assert json.dumps(answer["artifacts"]) == json.dumps(shared.compute(1, 2))
    assert ":" not in answer["request_id"]


def test_an_id_without_a_port_is_a_bad_request_and_an_unknown_one_not_found(shared: Server) -> None:
    for id_ in ("nobody", "x:nobody"):
        answer = shared.get(f"{PROXY}/generate/{id_}")
        assert answer.status_code == 400
        assert "port:uuid" in answer.json()["detail"]
    assert shared.get(f"{PROXY}/generate/80:nobody").status_code == 404


def test_an_id_of_another_backend_is_not_found(shared: Server) -> None:
    id_ = shared.ok(f"{PROXY}/generate", ask(1, wait=False))["request_id"]
    answer = shared.get(f"{PROXY}/generate/{id_.replace('80:', '81:')}")
    assert answer.status_code == 404
    assert "no backend of this proxy has the port 81: its only one has 80" in answer.json()["detail"]


def test_the_proxy_refuses_what_the_api_refuses(shared: Server) -> None:
    assert shared.post(f"{PROXY}/init/generate", body(params={"seq_len": 9})).status_code == 409
    assert shared.post(f"{PROXY}/generate", ask(1, r_target=1)).status_code == 422

"""What comes in is read strictly: types, bounds, unknown keys, and JSON that is none."""

import json
from typing import Any

import pytest

from ftw.poc.jobs import MAX_INT
from ftw.ui.api.body import parse
from ftw.ui.api.problems import BadBody
from tests.ui.api.conftest import POW, Open, Server, ask, body

START = f"{POW}/init/generate"
GENERATE = f"{POW}/generate"


def where(answer: Any) -> list[str]:
    """The paths of what was complained about."""
    assert answer.status_code == 422, answer.text
    return [".".join(map(str, one["loc"])) for one in answer.json()["detail"]]


WRONG = [
    ("block_hash", 1),
    ("block_hash", ""),
    ("block_hash", "x" * 1025),
    ("block_height", "7"),
    ("block_height", 7.0),
    ("block_height", True),
    ("block_height", -1),
    ("block_height", MAX_INT + 1),
    ("public_key", None),
    ("node_id", -1),
    ("node_id", False),
    ("node_count", 0),
    ("node_count", 10**9),
    ("group_id", -1),
    ("n_groups", 0),
    ("batch_size", 0),
    ("batch_size", 65537),
    ("batch_size", "32"),
    ("params", None),
    ("params", []),
    ("url", ""),
    ("url", 5),
    ("poc_stronger_rng", 1),
    ("poc_stronger_rng", "true"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_refused_with_its_path(shared: Server, key: str, value: Any) -> None:
    sent = body() | {key: value}
    assert where(shared.post(START, sent)) == [f"body.{key}"]
    assert where(shared.post(GENERATE, sent | {"nonces": [1]})) == [f"body.{key}"]


@pytest.mark.parametrize("key", ["block_hash", "block_height", "public_key", "node_id", "node_count", "params"])
def test_a_missing_key_is_named(shared: Server, key: str) -> None:
    assert where(shared.post(START, {k: v for k, v in body().items() if k != key})) == [f"body.{key}"]


@pytest.mark.parametrize(
    "params",
    [{"seq_len": 0}, {"seq_len": "8"}, {"k_dim": 0}, {"k_dim": 12.0}, {"model": ""}, {"model": 1}, {"decode": 1}],
)
def test_wrong_params_are_refused_with_their_path(shared: Server, params: dict[str, Any]) -> None:
    assert where(shared.post(START, body(params=params))) == [f"body.params.{next(iter(params))}"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_id": 10}, "node_id is 10 and node_count 10"),
        ({"group_id": 2, "n_groups": 2}, "group_id is 2 and n_groups 2"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused(shared: Server, change: dict[str, int], message: str) -> None:
    answer = shared.post(START, body(**change))
    assert answer.status_code == 422
    assert message in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    ("nonces", "path"),
    [
        ([-1], "body.nonces.0"),
        ([1, True], "body.nonces.1"),
        ([2**53], "body.nonces.0"),
        (["1"], "body.nonces.0"),
        ({}, "body.nonces"),
    ],
)
def test_wrong_nonces_are_refused_with_their_path(shared: Server, nonces: Any, path: str) -> None:
    assert where(shared.post(GENERATE, body(nonces=nonces))) == [path]


def test_a_nonce_given_twice_is_refused(shared: Server) -> None:
    answer = shared.post(GENERATE, ask(1, 2, 1))
    assert "nonces holds 1 more than once" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    "stat_test",
    [
        {"dist_threshold": 1e9},
        {"dist_threshold": -0.1},
        {"p_mismatch": 0},
        {"p_mismatch": 1},
        {"fraud_threshold": 0},
        {"fraud_threshold": "0.01"},
        {"p_value_threshold": 1.5},
        {"p_value_threshold": True},
        {"fraud_treshold": 0.01},
    ],
)
def test_a_verdict_s_parameters_have_bounds_and_no_typing_errors(shared: Server, stat_test: dict[str, Any]) -> None:
    sent = ask(1, validation={"artifacts": [{"nonce": 1, "vector_b64": ""}]}, stat_test=stat_test)
    assert where(shared.post(GENERATE, sent)) == [f"body.stat_test.{next(iter(stat_test))}"]


def test_two_cutoffs_that_differ_are_refused_and_equal_ones_are_not(shared: Server) -> None:
    sent = ask(1, validation={"artifacts": [{"nonce": 1, "vector_b64": ""}]})
    both = {"fraud_threshold": 0.01, "p_value_threshold": 0.05}
    answer = shared.post(GENERATE, sent | {"stat_test": both})
    assert where(answer) == ["body.stat_test"]
    assert "fraud_threshold is 0.01 and p_value_threshold 0.05" in answer.json()["detail"][0]["msg"]
    same = {"fraud_threshold": 0.05, "p_value_threshold": 0.05}
    assert shared.ok(GENERATE, sent | {"stat_test": same})["stat_test"]["fraud_threshold"] == 0.05


def test_a_test_without_a_validation_is_refused(shared: Server) -> None:
    answer = shared.post(GENERATE, ask(1, stat_test={}))
    assert "stat_test judges a validation" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("body.r_target", {"r_target": 1.2}),
        ("body.params.dtype", {"params": {"dtype": "f16"}}),
        ("body.validation.n", {"validation": {"artifacts": [], "n": 0}}),
        ("body.validation.artifacts.0.dist", {"validation": {"artifacts": [{"nonce": 1, "dist": 0.1}]}}),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(shared: Server, path: str, change: dict[str, Any]) -> None:
    assert path in where(shared.post(GENERATE, ask(1, **change)))


def test_an_init_takes_no_keys_of_a_generate(shared: Server) -> None:
    assert where(shared.post(START, ask(1))) == ["body.nonces", "body.wait"]


NO_JSON = [
    (b"", "no JSON"),
    (b"{", "no JSON"),
    (b'{"a": NaN}', "NaN is not a JSON number"),
    (b'{"a": [-Infinity]}', "-Infinity is not a JSON number"),
    (b'{"a": 1e999}', "too large for a double"),
    (b'{"a": 1' + b"0" * 50 + b"}", "more than 40 digits"),
    (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a": "\xff"}', "no JSON"),
    (b"{'a': 1}", "no JSON"),
]


@pytest.mark.parametrize(("text", "message"), NO_JSON)
def test_what_is_no_json_is_refused(shared: Server, text: bytes, message: str) -> None:
    with pytest.raises(BadBody, match=message):
        parse(text)
    for path in (START, GENERATE):
        assert shared.client.post(path, content=text).status_code == 422
    assert shared.client.post("/v1/completions", content=text).status_code == 400


@pytest.mark.parametrize("value", [[], 1, None, "text", True])
def test_a_body_that_is_no_object_is_refused(shared: Server, value: Any) -> None:
    assert where(shared.client.post(START, content=json.dumps(value))) == ["body"]


def test_half_a_character_is_refused(shared: Server) -> None:
    assert shared.client.post(START, content=json.dumps(body(public_key="\ud800"))).status_code == 422


def test_a_body_beyond_the_limit_is_not_read(open_server: Open) -> None:
    server = open_server(max_queued_nonces=10)
    limit = server.parts.pow.max_body
    told = server.client.post(GENERATE, content=b" " * (limit + 1))
    assert told.status_code == 413
    assert str(limit) in told.json()["detail"]
    untold = server.client.post(GENERATE, content=iter([b" " * (1 << 20)] * 3))
    assert untold.status_code == 413
    chat = server.client.post("/v1/completions", content=b" " * ((8 << 20) + 1))
    assert chat.status_code == 413
    assert chat.json()["error"]["type"] == "invalid_request_error"


def test_the_limit_leaves_room_for_as_many_claims_as_the_queue_takes(open_server: Open) -> None:
    server = open_server(max_queued_nonces=2000)
    nonces = list(range(MAX_INT - 2000, MAX_INT))
    artifacts = [{"nonce": nonce, "vector_b64": ""} for nonce in nonces]
    text = json.dumps(ask(*nonces, validation={"artifacts": artifacts}), indent=1)
    assert len(text) < server.parts.pow.max_body
    answer = server.client.post(GENERATE, content=text)
    assert answer.json()["n_mismatch"] == 2000

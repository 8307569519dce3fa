"""Callback bodies hold the keys that the network's receivers know, and no others."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.poc.codec import Artifact
from ftw.poc.payloads import generated, generated_in_parts, validated
from ftw.poc.receiver import read_body
from ftw.poc.verify import StatTest, judge, sort_claims


@dataclass(frozen=True)
class Who:
    """Somebody's round."""

    block_hash: str = "0xabc123"
    block_height: int = 12345
    public_key: str = "node_pubkey_here"
    node_id: int = 0


ARTIFACTS = [Artifact(100, "ADwAAA=="), Artifact(101, "AAAAPA==")]
HEAD = {"block_hash": "0xabc123", "block_height": 12345, "public_key": "node_pubkey_here", "node_id": 0}
TAIL = {
    "artifacts": [{"nonce": 100, "vector_b64": "ADwAAA=="}, {"nonce": 101, "vector_b64": "AAAAPA=="}],
    "encoding": {"dtype": "f16", "k_dim": 2, "endian": "le"},
}


def test_a_continuous_round_has_no_request_id():
    assert json.loads(generated(Who(), ARTIFACTS, 2)) == HEAD | TAIL


def test_an_explicit_request_has_its_request_id():
    assert json.loads(generated(Who(), ARTIFACTS, 2, "uuid")) == {"request_id": "uuid"} | HEAD | TAIL


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 20))
def test_parts_are_bounded_and_together_are_the_whole(n, limit):
    artifacts = [Artifact(nonce, "ADwAAA==") for nonce in range(n)]
    parts = [json.loads(part) for part in generated_in_parts(Who(), artifacts, 2, limit, "uuid")]
    assert all(1 <= len(part["artifacts"]) <= limit for part in parts)
    assert len(parts) == -(-n // limit)
    assert [one["nonce"] for part in parts for one in part["artifacts"]] == list(range(n))
    assert {part["request_id"] for part in parts} <= {"uuid"}


@pytest.mark.parametrize("with_test", [True, False])
def test_a_verdict_speaks_of_fraud_only_where_a_test_was_asked_for(with_test):
    verdict = judge(sort_claims([11, 57, 190], [], 12), {}, StatTest())
    body = json.loads(validated(Who(), "uuid", verdict, with_test=with_test))
    counts = {"n_total": 3, "n_mismatch": 3, "mismatch_nonces": [11, 57, 190]}
    test = {"p_value": verdict.p_value, "fraud_detected": True} if with_test else {}
    assert body == {"request_id": "uuid"} | HEAD | counts | test


@settings(deadline=None)
@given(st.text(), st.integers(0, 2**63 - 1), st.text())
def test_any_identity_arrives_as_it_was(block_hash, node_id, public_key):
    who = Who(block_hash, -1, public_key, node_id)
    given = json.loads(generated(who, (), 2))
    assert (given["block_hash"], given["node_id"], given["public_key"]) == (block_hash, node_id, public_key)


def test_what_is_sent_is_what_a_receiver_reads():
    verdict = judge(sort_claims([11], [], 12), {}, StatTest())
    assert len(read_body("/generated", generated(Who(), ARTIFACTS, 2)).artifacts) == 2
    assert read_body("/generated", generated(Who(), ARTIFACTS, 2, "uuid")).request_id == "uuid"
    assert read_body("/validated", validated(Who(), "uuid", verdict, with_test=True)).n_mismatch == 1
    assert read_body("/validated", validated(Who(), "uuid", verdict, with_test=False)).p_value is None

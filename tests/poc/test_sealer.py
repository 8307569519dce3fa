"""Commitments come from the journal alone: the same before and after a restart, one per sealed run."""

import base64
from dataclasses import replace

import pytest

from ftw.poc import sealer as sealer_module
from ftw.poc.artifact_file import ArtifactFile, verify_file
from ftw.poc.codec import Artifact
from ftw.poc.commitments import Leaf, verify_batch, verify_inclusion
from ftw.poc.journal import Journal
from ftw.poc.records import RoundKey
from ftw.poc.sealer import Sealer, file_round
from ftw.substrate.errors import ConfigError, NotThere
from ftw.substrate.signing import SigningKey

SIGNING = SigningKey.from_seed(b"k" * 32)
NAMES = {"f" * 64: "m"}
KEY = RoundKey("0xabc", 7, "node", 1, 4, 0, 1, "artifact-k12/1", "f" * 64, 8, 2, 4, False, None)


def filled(path):
    """A journal with ten artifacts, eight of them in sealed runs of three, three and two."""
    journal = Journal(path)
    start = journal.open_round(KEY)
    for index in range(start, 10):
        vector = base64.b64encode(bytes([index, 0, 0, 1])).decode()
        journal.append(KEY.round_id, [Artifact(KEY.nonce(index), vector)], index + 1)
        if index == 7:
            journal.seal(KEY.round_id, 3)
    return journal


@pytest.fixture
def journal(tmp_path):
    journal = filled(tmp_path / "poc.sqlite")
    yield journal
    journal.close()


def test_every_sealed_run_has_a_commitment_to_its_artifacts(journal):
    found = Sealer(journal, SIGNING).commitments(KEY.round_id)
    assert [(one.sequence, one.count, one.first_nonce, one.last_nonce) for one in found] == [
        (1, 3, 1, 9), (2, 3, 13, 21), (3, 2, 25, 29),
    ]  # fmt: skip
    for one in found:
        rows = [row for row in journal.artifacts(KEY.round_id) if one.first_nonce <= row.nonce <= one.last_nonce]
        verify_batch(one, [Leaf(row.nonce, row.vector) for row in rows], signer=SIGNING.public)
        assert one.terms.block_hash == "0xabc"
        assert one.terms.node_id == 1


def test_pages_go_on_after_a_sequence(journal):
    sealer = Sealer(journal, SIGNING)
    assert [one.sequence for one in sealer.commitments(KEY.round_id, after=1, limit=1)] == [2]
    assert sealer.commitments(KEY.round_id, after=3) == ()


def test_a_restart_changes_no_byte(journal, tmp_path):
    before = Sealer(journal, SIGNING).commitments(KEY.round_id)
    journal.close()
    again = Journal(tmp_path / "poc.sqlite")
    try:
        assert Sealer(again, SIGNING).commitments(KEY.round_id) == before
    finally:
        again.close()


def pages(sealer, limit):
    """The sequences on each page, following `after` to the end."""
    found, after = [], 0
    while after is not None:
        record, after = sealer.evidence(KEY.round_id, after, limit, NAMES)
        whole = ArtifactFile.read(record, source="a page")
        verify_file(whole, signer=SIGNING.public)
        assert record == whole.record()
        assert (whole.round.node_count, whole.round.rows, whole.round.model) == (4, 4, "m")
        found.append([one.sequence for one in whole.commitments])
    return found


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, [[1], [2], [3]]), (3, [[1], [2], [3]]), (5, [[1], [2, 3]]), (6, [[1, 2], [3]]), (8, [[1, 2, 3]])],
)
def test_pages_of_evidence_hold_whole_batches_and_verify_alone(journal, limit, expected):
    assert pages(Sealer(journal, SIGNING), limit) == expected


def test_behind_the_last_batch_there_is_no_evidence(journal):
    record, after = Sealer(journal, SIGNING).evidence(KEY.round_id, 3, 100, {})
    assert record["round"]["model"] == "a model of fingerprint ffffffffffffffff"
    assert (record["artifacts"], "commitments" in record, after) == ([], False, None)


def test_every_sealed_artifact_has_a_proof(journal):
    sealer = Sealer(journal, SIGNING)
    for index in range(8):
        proof = sealer.proof(KEY.round_id, KEY.nonce(index))
        assert verify_inclusion(proof, signer=sealer.public) == Leaf(KEY.nonce(index), bytes([index, 0, 0, 1]))


def test_few_commitments_are_remembered_and_forgetting_changes_nothing(journal, monkeypatch):
    monkeypatch.setattr(sealer_module, "KEPT", 1)
    sealer = Sealer(journal, SIGNING)
    assert sealer.commitments(KEY.round_id) == sealer.commitments(KEY.round_id)


def test_what_is_not_there_is_told_apart(journal):
    sealer = Sealer(journal, SIGNING)
    with pytest.raises(NotThere, match="the journal has no round 0000"):
        sealer.commitments("0" * 64)
    with pytest.raises(NotThere, match="the journal has no round 0000"):
        sealer.evidence("0" * 64, 0, 1, {})
    with pytest.raises(NotThere, match="the journal has no round"):
        sealer.proof("0" * 64, 1)
    with pytest.raises(NotThere, match="has no artifact of nonce 2"):
        sealer.proof(KEY.round_id, 2)
    with pytest.raises(NotThere, match="nonce 33 is in no sealed batch yet"):
        sealer.proof(KEY.round_id, 33)


def test_a_key_that_no_file_can_hold_is_told():
    with pytest.raises(ConfigError, match="the round: block_height"):
        file_round(replace(KEY, block_height=-1), "m")


def test_a_parcel_is_sealed_as_its_run_is_and_a_request_s_is_not(journal):
    key = replace(KEY, url="http://127.0.0.1:9/pow")
    journal.open_round(key)
    made = [Artifact(key.nonce(index), base64.b64encode(bytes([index, 0, 0, 1])).decode()) for index in range(5)]
    journal.append(key.round_id, made, 5)
    parcel = journal.pending(3)
    found = Sealer(journal, SIGNING).seal(parcel)
    assert found == Sealer(journal, SIGNING).commitments(key.round_id)[0]
    verify_batch(found, [Leaf(row.nonce, row.vector) for row in parcel.rows], signer=SIGNING.public)
    journal.delivered(parcel.parcel_id)
    journal.enqueue("request", "http://127.0.0.1:8/pow", "/validated", b"{}", "k")
    assert Sealer(journal, SIGNING).seal(journal.pending(3, "http://127.0.0.1:8/pow")) is None

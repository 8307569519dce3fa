"""A file of artifacts is read strictly, and its commitments cover every artifact exactly once."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftw.poc.artifact_file import (
    ArtifactFile,
    Claimed,
    CommitmentList,
    Encoding,
    FileRound,
    read_artifacts,
    read_evidence,
    verify_file,
    verify_list,
)
from ftw.poc.commitments import Commitment, Inclusion, leaf_of, prove, seal
from ftw.poc.sets import read_file
from ftw.substrate.errors import ConfigError, FtwError, ProofError
from ftw.substrate.signing import SigningKey

KEY = SigningKey.from_seed(b"k" * 32)
OTHER = SigningKey.from_seed(b"o" * 32)
ROUND = FileRound(
    block_hash="0xabc", block_height=1, public_key="node", node_id=0, node_count=1, group_id=0, n_groups=1,
    profile="artifact-k12/1", model="m", fingerprint="f" * 64, seq_len=8, k_dim=2, stronger_rng=False, rows=4,
)  # fmt: skip
UNIT = ("ADwAAA==", "AAAAPA==")


def artifacts(n):
    return tuple(Claimed(nonce=i, vector_b64=UNIT[i % 2]) for i in range(n))


def sealed(made, per=3, key=KEY):
    groups = [made[at : at + per] for at in range(0, len(made), per)]
    return tuple(
        seal(ROUND.terms, i, [leaf_of(one.nonce, one.vector_b64) for one in group], key)
        for i, group in enumerate(groups, 1)
    )


def whole(n=7):
    return ArtifactFile(
        round=ROUND, encoding=Encoding(k_dim=2), artifacts=artifacts(n), commitments=sealed(artifacts(n))
    )


def written(tmp_path, value):
    file = tmp_path / "a.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return file


def test_what_was_written_is_read(tmp_path):
    found = whole()
    assert read_artifacts(written(tmp_path, found.record())) == found
    assert [(one.sequence, len(leaves)) for one, leaves in verify_file(found, signer=KEY.public)] == [
        (1, 3), (2, 3), (3, 1),
    ]  # fmt: skip


def test_a_file_without_commitments_has_no_such_key(tmp_path):
    bare = whole().model_copy(update={"commitments": ()})
    assert "commitments" not in bare.record()
    assert read_artifacts(written(tmp_path, bare.record())) == bare
    with pytest.raises(ProofError, match="there is no commitment in this file"):
        verify_file(bare)


def test_the_analysis_tools_read_the_same_file(tmp_path):
    (found,) = read_file(written(tmp_path, whole().record()))
    assert (found.k, list(found.nonces)) == (2, list(range(7)))
    assert dict(found.round)["block_hash"] == "0xabc"


def test_single_commitments_lists_and_proofs_are_evidence_too(tmp_path):
    found = whole()
    one = found.commitments[1]
    leaves = verify_file(found)[1][1]
    assert isinstance(read_evidence(written(tmp_path, one.model_dump_json())), Commitment)
    assert isinstance(read_evidence(written(tmp_path, prove(one, leaves, 4).model_dump_json())), Inclusion)
    listed = read_evidence(written(tmp_path, {"commitments": [one.model_dump() for one in found.commitments]}))
    assert isinstance(listed, CommitmentList)
    verify_list(listed.commitments, signer=KEY.public)
    with pytest.raises(ConfigError, match="is a list of commitments: give the artifacts themselves"):
        read_artifacts(written(tmp_path, {"commitments": [one.model_dump()]}))
    with pytest.raises(ConfigError, match=r"is a ftw.poc.commitment/1: give the artifacts"):
        read_artifacts(written(tmp_path, one.model_dump_json()))


CHANGES = [
    ({"extra": 1}, "extra is not a known key"),
    ({"round": {**ROUND.model_dump(), "r_target": 1.3}}, "round.r_target is not a known key"),
    ({"round": {**ROUND.model_dump(), "rows": 5000}}, "round.rows"),
    ({"round": {**ROUND.model_dump(), "k_dim": "2"}}, "round.k_dim"),
    ({"encoding": {"dtype": "f32", "k_dim": 2, "endian": "le"}}, "encoding.dtype"),
    ({"encoding": {"dtype": "f16", "k_dim": 3, "endian": "le"}}, "encoding.k_dim is 3, round.k_dim is 2"),
    ({"artifacts": [{"nonce": 1.0, "vector_b64": ""}]}, "artifacts.0.nonce"),
    ({"artifacts": [{"nonce": -1, "vector_b64": ""}]}, "artifacts.0.nonce"),
    ({"artifacts": [{"nonce": 1, "vector_b64": None}]}, "artifacts.0.vector_b64"),
    ({"artifacts": [{"nonce": 1, "vector_b64": "", "dist": 1}]}, "artifacts.0.dist is not a known key"),
    ({"artifacts": {}}, "artifacts"),
    ({"format": "ftw.poc.artifacts/2"}, "its format is 'ftw.poc.artifacts/2'; known are ftw.poc.artifacts/1"),
    ({"format": None}, "is no object with a `format`"),
    ({"format": ["x"]}, "its format is"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_other_keys_and_types_are_errors_that_name_them(tmp_path, change, why):
    with pytest.raises(ConfigError, match=why):
        read_evidence(written(tmp_path, whole().record() | change))


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"format"', json.dumps(whole().record())[:-40]])
def test_malformed_and_truncated_files_are_errors(tmp_path, text):
    with pytest.raises(ConfigError, match=r"is not JSON, or cut short|is no evidence of a round"):
        read_evidence(written(tmp_path, text))


def test_a_complaint_about_a_file_of_garbage_stays_short(tmp_path):
    garbage = whole().record() | {"artifacts": [{"nonce": "x" * 1000}] * 1000}
    with pytest.raises(ConfigError, match=r"artifacts.0") as caught:
        read_evidence(written(tmp_path, garbage))
    assert len(str(caught.value)) < 500


def changed(**updates):
    return whole().model_copy(update=updates)


def replaced(at, **updates):
    made = list(artifacts(7))
    made[at] = made[at].model_copy(update=updates)
    return changed(artifacts=tuple(made))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (replaced(4, vector_b64=UNIT[1]), r"these are not the artifacts of the commitment of sequence 2"),
        (replaced(4, vector_b64="ADwA"), "nonce 4 has 3 bytes, k = 2 takes 4"),
        (replaced(4, vector_b64="***"), "the vector of nonce 4 is not base64"),
        (replaced(4, nonce=3), "nonce 3 stands twice"),
        (replaced(4, nonce=40), "is over 3 artifacts, nonces 3 to 5; here are 2, nonces 3 to 5"),
        (changed(artifacts=artifacts(8)), "nonce 7 is in no commitment: the last one ends at 6"),
        (changed(artifacts=artifacts(6)), "none of its artifacts is here: the commitment of sequence 3"),
        (changed(commitments=whole().commitments[1:]), "nonce 0 is in no commitment"),
        (changed(commitments=whole().commitments[::-1]), "are not in order, or overlap"),
        (changed(commitments=(*whole().commitments[:1], *whole().commitments)), "are not in order, or overlap"),
        (changed(round=ROUND.model_copy(update={"block_hash": "0xdef"})), "is of another round: its block_hash"),
        (changed(round=ROUND.model_copy(update={"rows": 5})), "is of another round: its rows is 4, expected is 5"),
        (changed(round=ROUND.model_copy(update={"group_id": 1})), "is of another round: its group_id"),
        (changed(round=ROUND.model_copy(update={"fingerprint": "e" * 64})), "is of another round: its fingerprint"),
        (
            changed(commitments=(*whole().commitments[:2], *sealed(artifacts(7), key=OTHER)[2:])),
            "sequence 3 is signed by",
        ),
    ],
)
def test_whatever_is_not_as_committed_is_named(found, why):
    with pytest.raises(ProofError, match=why):
        verify_file(found)


def test_the_order_of_artifacts_in_the_file_does_not_count():
    assert verify_file(changed(artifacts=artifacts(7)[::-1])) == verify_file(whole())


def test_a_list_by_another_key_is_told():
    with pytest.raises(ProofError, match="is signed by"):
        verify_list(whole().commitments, signer=OTHER.public)


SPELLED = json.dumps(whole(5).record())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(SPELLED) - 1), st.characters(min_codepoint=32, max_codepoint=126))
def test_no_changed_character_passes_unless_it_says_the_same(tmp_path, at, character):
    file = tmp_path / "a.json"
    file.write_text(SPELLED[:at] + character + SPELLED[at + 1 :])
    try:
        found = read_artifacts(file)
        verify_file(found, signer=KEY.public)
    except FtwError:
        return
    same = {"model": ROUND.model}  # what no commitment binds
    assert found.model_copy(update={"round": found.round.model_copy(update=same)}) == whole(5)

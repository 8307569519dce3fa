"""A commitment holds for the artifacts that were sealed, under the terms that were signed, and for nothing else."""

import base64
import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.poc.commitments import (
    Commitment,
    Inclusion,
    Leaf,
    Terms,
    leaf_of,
    prove,
    require_terms,
    seal,
    verify_batch,
    verify_commitment,
    verify_inclusion,
)
from ftw.substrate.errors import ConfigError, ProofError
from ftw.substrate.signing import SigningKey, verify

KEY = SigningKey.from_seed(b"k" * 32)
OTHER = SigningKey.from_seed(b"o" * 32)
TERMS = Terms("0xabc", 12, "node", 3, 9, 0, 2, "artifact-k12/1", "f" * 64, 256, 2, 8, False)
CHANGES = {
    "block_hash": "0xabd", "block_height": 13, "public_key": "nodf", "node_id": 4, "node_count": 10, "group_id": 1,
    "n_groups": 3, "profile": "artifact-k12/2", "fingerprint": "e" * 64, "seq_len": 257, "k_dim": 3, "rows": 9,
    "stronger_rng": True, "sequence": 6, "count": 6,
    "first_nonce": 4, "last_nonce": 99, "root": "0" * 64,
}  # fmt: skip


def leaves(n, first=5, step=2):
    return [Leaf(first + step * i, bytes([i % 256, 1, 2, 3])) for i in range(n)]


@pytest.fixture(scope="module")
def sealed():
    return seal(TERMS, 5, leaves(7), KEY)


def test_a_leaf_is_the_nonce_in_eight_bytes_then_the_vector():
    assert Leaf(0x0102, b"vv").data == b"\x02\x01\0\0\0\0\0\0vv"


def test_the_root_and_the_signed_bytes_are_as_written_down(sealed):
    one = seal(TERMS, 1, leaves(1), KEY)
    assert one.root == hashlib.sha256(b"\0" + (5).to_bytes(8, "little") + b"\0\1\2\3").hexdigest()
    assert one.signed_bytes == (
        b'{"block_hash":"0xabc","block_height":12,"count":1,"fingerprint":"' + b"f" * 64 + b'","first_nonce":5,'
        b'"format":"ftw.poc.commitment/1","group_id":0,"k_dim":2,"last_nonce":5,"n_groups":2,"node_count":9,"node_id":3,'
        b'"profile":"artifact-k12/1","public_key":"node","root":"' + one.root.encode() + b'","rows":8,"seq_len":256,'
        b'"sequence":1,"signer":"'
        + KEY.public.encode() + b'","stronger_rng":false}'
    )  # fmt: skip
    assert verify(KEY.public, one.signed_bytes, bytes.fromhex(one.signature))
    assert (sealed.count, sealed.first_nonce, sealed.last_nonce, sealed.terms) == (7, 5, 17, TERMS)


def test_the_same_batch_gives_the_same_bytes_in_any_order(sealed):
    assert seal(TERMS, 5, leaves(7)[::-1], KEY) == sealed


@given(st.integers(1, 40), st.data())
def test_every_artifact_is_proved_and_nothing_else(n, draw):
    batch = leaves(n)
    one = seal(TERMS, 1, batch, KEY)
    verify_batch(one, batch, signer=KEY.public, terms=TERMS)
    at = draw.draw(st.integers(0, n - 1))
    proof = Inclusion.model_validate_json(prove(one, batch, batch[at].nonce).model_dump_json())
    assert verify_inclusion(proof, signer=KEY.public, terms=TERMS) == batch[at]
    text = base64.b64encode(b"evil").decode()
    for change in ({"vector_b64": text}, {"nonce": proof.nonce + 1}, {"index": proof.index + 1}, {"nonce": 10**6}):
        with pytest.raises(ProofError, match=r"does not lead from|cannot be leaf"):
            verify_inclusion(proof.model_copy(update=change))


@pytest.mark.parametrize("name", CHANGES)
def test_no_term_can_be_changed_after_it_was_signed(sealed, name):
    assert set(CHANGES) | {"format", "signer", "signature"} == set(Commitment.model_fields)
    with pytest.raises(ProofError, match=r"the signature of the commitment of sequence . does not hold"):
        verify_commitment(sealed.model_copy(update={name: CHANGES[name]}))


def test_a_signature_by_another_key_does_not_hold(sealed):
    with pytest.raises(ProofError, match="does not hold"):
        verify_commitment(sealed.model_copy(update={"signer": OTHER.public}))
    with pytest.raises(ProofError, match=r"is signed by .* expected is .*: it is not this node's"):
        verify_commitment(sealed, signer=OTHER.public)
    verify_commitment(sealed, signer=KEY.public.upper())


def test_replicas_of_one_node_sign_different_terms(sealed):
    other = seal(dataclasses.replace(TERMS, group_id=1), 5, leaves(7, first=6), KEY)
    assert (other.node_id, other.sequence, other.signer) == (sealed.node_id, sealed.sequence, sealed.signer)
    assert other.terms != sealed.terms


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Terms)])
def test_another_round_is_named(sealed, name):
    other = dataclasses.replace(TERMS, **{name: CHANGES[name]})
    with pytest.raises(ProofError, match=f"is of another round: its {name} is "):
        verify_commitment(sealed, terms=other)


def test_long_names_are_cut_in_messages():
    with pytest.raises(ProofError, match=r"x{39}…") as caught:
        require_terms(TERMS, dataclasses.replace(TERMS, block_hash="x" * 4000), "it")
    assert len(str(caught.value)) < 200


def test_a_tampered_vector_is_not_what_was_committed(sealed):
    batch = leaves(7)
    batch[3] = Leaf(batch[3].nonce, b"evil")
    with pytest.raises(ProofError, match="these are not the artifacts of the commitment of sequence 5"):
        verify_batch(sealed, batch)


def test_swapped_nonces_are_not_what_was_committed(sealed):
    batch = leaves(7)
    batch[2], batch[3] = Leaf(batch[2].nonce, batch[3].vector), Leaf(batch[3].nonce, batch[2].vector)
    with pytest.raises(ProofError, match="A vector or a nonce was changed"):
        verify_batch(sealed, batch)
    with pytest.raises(ProofError, match="A vector or a nonce was changed"):
        prove(sealed, batch, 5)


@pytest.mark.parametrize("batch", [leaves(6), leaves(8), leaves(7, first=4)])
def test_a_missing_or_added_artifact_is_told(sealed, batch):
    with pytest.raises(ProofError, match="is over 7 artifacts, nonces 5 to 17; here are"):
        verify_batch(sealed, batch)


def test_a_nonce_stands_once():
    with pytest.raises(ProofError, match="nonce 5 stands twice in a batch"):
        seal(TERMS, 1, [*leaves(3), Leaf(5, b"eeee")], KEY)


def test_a_batch_of_nothing_is_an_error():
    with pytest.raises(ProofError, match="commits to nothing"):
        seal(TERMS, 1, [], KEY)


@pytest.mark.parametrize("nonce", [-1, 1 << 53])
def test_nonces_out_of_range_are_an_error(nonce):
    with pytest.raises(ProofError, match="nonces lie in 0 to 9007199254740991"):
        seal(TERMS, 1, [Leaf(nonce, b"vvvv")], KEY)


@pytest.mark.parametrize("vector", [b"", b"vvv", b"vvvvv"])
def test_a_vector_of_another_length_is_an_error(sealed, vector):
    with pytest.raises(ProofError, match=f"nonce 9 has {len(vector)} bytes, k = 2 takes 4"):
        seal(TERMS, 1, [Leaf(9, vector)], KEY)
    with pytest.raises(ProofError, match="k = 2 takes 4"):
        verify_batch(sealed, [Leaf(9, vector)])


def test_terms_that_no_commitment_holds_are_an_error():
    with pytest.raises(ConfigError, match="a commitment: sequence"):
        seal(TERMS, 0, leaves(1), KEY)


def test_a_nonce_of_another_batch_has_no_proof(sealed):
    with pytest.raises(ProofError, match="nonce 6 is not among the 7 of this batch"):
        prove(sealed, leaves(7), 6)


def test_a_signed_count_that_does_not_fit_its_nonces_is_refused(sealed):
    draft = sealed.model_copy(update={"last_nonce": sealed.first_nonce + 5})
    lie = draft.model_copy(update={"signature": KEY.sign(draft.signed_bytes).hex()})
    with pytest.raises(ProofError, match="counts 7 nonces from 5 to 10: so many do not fit"):
        verify_commitment(lie)


@pytest.mark.parametrize("text", ["*", "AAA", "é", "AB=="])
def test_a_text_that_is_not_the_one_base64_of_its_bytes_is_an_error(text):
    with pytest.raises(ProofError, match=r"the vector of nonce 3 is not (base64|the one base64 text)"):
        leaf_of(3, text)


@pytest.mark.parametrize(
    "change",
    [{"extra": 1}, {"sequence": "5"}, {"sequence": 5.0}, {"stronger_rng": 0}, {"count": True}, {"root": "F" * 64},
     {"root": "f" * 64 + "\n"}, {"signature": ""}, {"format": "ftw.poc.commitment/2"}, {"first_nonce": -1},
     {"last_nonce": 1 << 53}, {"block_hash": "x" * 5000}, {"block_hash": None}],
)  # fmt: skip
def test_a_record_of_other_keys_or_types_is_refused(sealed, change):
    value = json.loads(sealed.model_dump_json()) | change
    with pytest.raises(ConfigError, match=f"x: {next(iter(change))}"):
        Commitment.read(value, source="x")


def test_a_path_that_is_too_long_is_refused(sealed):
    value = json.loads(prove(sealed, leaves(7), 5).model_dump_json())
    with pytest.raises(ConfigError, match="path"):
        Inclusion.read(value | {"path": ["0" * 64] * 65}, source="x")

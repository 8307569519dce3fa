"""A receiver's books: what came, what came twice, what never came; a wrong delivery is told, not counted."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.poc.commitments import Leaf, Terms, seal
from ftw.poc.receiver import NAMED, Books, Marks, read_body
from ftw.substrate.canonical import canonical_json
from ftw.substrate.errors import UsageError
from ftw.substrate.signing import SigningKey

VECTOR = "ADwAAA=="  # 1, 0


def body(nonces=(), **others):
    found = {
        "block_hash": "b",
        "block_height": 1,
        "public_key": "pk",
        "node_id": 0,
        "artifacts": [{"nonce": nonce, "vector_b64": VECTOR} for nonce in nonces],
        "encoding": {"dtype": "f16", "k_dim": 2, "endian": "le"},
    } | others
    return json.dumps({key: value for key, value in found.items() if value is not ...}).encode()


def headers(sequence, round="r"):
    return {"x-ftw-sequence": str(sequence), "idempotency-key": f"{round}:{sequence}", "x-ftw-round": round}


def books(**more):
    return Books(lambda: 100.0, **more)


def test_deliveries_are_counted():
    it = books()
    first = body(range(3))
    line = it.take("/generated", headers(1), first)
    assert (line.at, line.round, line.sequence, line.n_artifacts, line.is_duplicate) == (100.0, "r", 1, 3, False)
    it.take("/generated", headers(2), body(range(3, 5)))
    stats = it.stats()
    assert (stats["batches"], stats["artifacts"], stats["deliveries"]) == (2, 5, 2)
    assert stats["bytes"] == len(first) + len(body(range(3, 5)))
    assert stats["rounds"]["r"] == {
        "batches": 2, "nonces": 5, "repeated_nonces": 0, "last_sequence": 2, "missing_sequences": 0,
        "first_missing": [], "out_of_order": 0,
    }  # fmt: skip
    assert [one.sequence for one in it.batches()] == [1, 2]
    assert [one.sequence for one in it.batches(after=1)] == [2]


def test_the_same_key_twice_is_acknowledged_and_counted_once():
    it = books()
    for _ in range(3):
        line = it.take("/generated", headers(1), body(range(3)))
    assert line.is_duplicate
    stats = it.stats()
    assert (stats["batches"], stats["artifacts"], stats["duplicates_by_key"]) == (1, 3, 2)
    assert stats["duplicates_by_nonce"] == 0


def test_a_nonce_twice_in_a_round_is_told():
    it = books()
    it.take("/generated", headers(1), body([1, 2, 2]))
    it.take("/generated", headers(2), body([2, 3]))
    it.take("/generated", headers(1, "other"), body([2, 3]))
    assert it.stats()["duplicates_by_nonce"] == 2
    assert [it.stats()["rounds"][name]["repeated_nonces"] for name in ("r", "other")] == [2, 0]


@settings(deadline=None)
@given(st.sets(st.integers(1, 60), min_size=1), st.randoms())
def test_what_never_came_is_named(sequences, rng):
    order = list(sequences)
    rng.shuffle(order)
    it = books()
    for sequence in order:
        it.take("/generated", headers(sequence), body([sequence]))
    missing = sorted(set(range(1, max(sequences))) - sequences)
    its = it.stats()["rounds"]["r"]
    assert (its["missing_sequences"], its["first_missing"]) == (len(missing), missing[:NAMED])
    assert its["out_of_order"] == sum(one < max(order[:i], default=0) for i, one in enumerate(order))


def test_a_gap_of_any_size_is_counted_at_once():
    it = books()
    it.take("/generated", headers(10**17), body([1]))
    assert it.stats()["rounds"]["r"]["missing_sequences"] == 10**17 - 1


def test_a_sender_without_our_headers_is_counted_by_its_identity():
    it = books()
    it.take("/generated", {}, body([1]))
    it.take("/generated", {}, body([1]))
    assert it.stats()["rounds"]["b/pk/0"]["repeated_nonces"] == 1
    assert it.stats()["rounds"]["b/pk/0"]["last_sequence"] is None


def test_a_verdict_is_counted():
    it = books()
    verdict = {"artifacts": ..., "encoding": ..., "request_id": "q", "n_total": 3, "n_mismatch": 1}
    line = it.take("/validated", headers(1), body(**verdict, mismatch_nonces=[7], p_value=0.5, fraud_detected=False))
    assert (line.request_id, it.stats()["validated"], it.stats()["artifacts"]) == ("q", 1, 0)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (b"", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "no JSON object but a list"),
        (body(model="m"), "model is not a known key"),
        (body(request_id=None), "request_id"),
        (body(block_hash=...), "block_hash: Field required"),
        (body(node_id=-1), "node_id"),
        (body(encoding={"dtype": "f32", "k_dim": 2, "endian": "le"}), "dtype"),
        (body(artifacts=[{"nonce": 5, "vector_b64": ""}]), "nonce 5 is empty"),
        (body(artifacts=[{"nonce": 5, "vector_b64": "!"}]), "nonce 5 is undecodable"),
        (body(artifacts=[{"nonce": 5, "vector_b64": "ADw="}]), "nonce 5 is short"),
        (body(artifacts=[{"nonce": 5, "vector_b64": "AAAAAA=="}]), "nonce 5 is non-unit"),
        (body(artifacts=[{"nonce": 5, "vector_b64": "AHwAAA=="}]), "nonce 5 is non-finite"),
        (body(artifacts=[{"nonce": 5}]), "vector_b64"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_told_and_not_counted(given, match):
    it = books()
    with pytest.raises(UsageError, match=match):
        it.take("/generated", headers(1), given)
    assert (it.stats()["malformed"], it.stats()["batches"]) == (1, 0)


@pytest.mark.parametrize("sequence", ["", "-1", "1.5", "²", "9" * 19, "9" * 5000])
def test_a_sequence_that_is_no_number_is_told(sequence):
    with pytest.raises(UsageError, match="must be a number"):
        Marks.of({"x-ftw-sequence": sequence})


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["artifacts", "encoding", "node_id"]), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_breaks_a_receiver(given):
    for path in ("/generated", "/validated"):
        with pytest.raises(UsageError):
            read_body(path, given)


def test_what_is_acknowledged_is_saved_once():
    lines = []
    it = books(save=lines.append)
    for _ in range(2):
        it.take("/generated", headers(1), body([1], block_hash="é"))
    saved = json.loads(lines[0])
    assert len(lines) == 1
    assert (saved["path"], saved["sequence"], saved["key"], saved["received_at"]) == ("/generated", 1, "r:1", 100.0)
    assert saved["body"]["artifacts"] == [{"nonce": 1, "vector_b64": VECTOR}]


def test_what_cannot_be_saved_is_not_acknowledged_and_may_come_again():
    lines = []

    def save(line):
        if not lines:
            lines.append("full")
            raise OSError("no space left on device")
        lines.append(line)

    it = books(save=save)
    with pytest.raises(OSError, match="no space"):
        it.take("/generated", headers(1), body([1]))
    assert it.stats()["batches"] == 0
    assert not it.take("/generated", headers(1), body([1])).is_duplicate
    assert len(lines) == 2


def test_clear_forgets_everything():
    it = books()
    it.take("/generated", headers(1), body([1]))
    it.clear()
    assert it.stats() == books().stats()
    assert it.batches() == ()
    assert not it.take("/generated", headers(1), body([1])).is_duplicate


def test_lines_are_bounded_and_counts_are_not():
    it = books(kept=3)
    for i in range(5):
        it.take("/generated", headers(i + 1), body())
    assert [one.sequence for one in it.batches()] == [3, 4, 5]
    assert it.stats()["batches"] == 5


# --- commitments that come along

TERMS = Terms("b", 1, "pk", 0, 1, 0, 1, "artifact-k12/1", "f" * 64, 8, 2, 8, False)


def committed(*nonces, sequence=1, **changes):
    """Headers with a commitment to these nonces, some of whose keys are changed after it was signed."""
    leaves = [Leaf(nonce, base64.b64decode(VECTOR)) for nonce in nonces]
    made = seal(TERMS, sequence, leaves, SigningKey.from_seed(b"k" * 32)).model_dump() | changes
    return headers(sequence) | {"x-ftw-commitment": base64.b64encode(canonical_json(made)).decode()}


def test_a_commitment_that_holds_is_counted_with_its_signer_and_saved():
    saved = []
    it = books(save=saved.append)
    line = it.take("/generated", committed(1, 2), body([1, 2]))
    it.take("/generated", headers(2), body([3]))
    assert line.signer == SigningKey.from_seed(b"k" * 32).public
    assert (it.stats()["batches"], it.stats()["committed"]) == (2, 1)
    assert [json.loads(one).get("commitment", {}).get("count") for one in saved] == [2, None]


@pytest.mark.parametrize(
    ("given", "nonces", "match"),
    [
        (committed(1, 2), [1, 3], "is over 2 artifacts, nonces 1 to 2; here are 2, nonces 1 to 3"),
        (committed(1, 2), [1, 2, 2], "nonce 2 stands twice"),
        (committed(1, root="0" * 64), [1], "does not hold"),
        (committed(1, node_id=3), [1], "is to another delivery"),
        (committed(1) | {"x-ftw-sequence": "2"}, [1], "is to another delivery"),
        (committed(1, more=1), [1], "is no commitment"),
        (headers(1) | {"x-ftw-commitment": "no base64!"}, [1], "is no commitment"),
        (headers(1) | {"x-ftw-commitment": base64.b64encode(b"[1]").decode()}, [1], "is no commitment"),
    ],
)
def test_a_delivery_that_is_not_what_its_commitment_says_is_refused(given, nonces, match):
    it = books()
    with pytest.raises(UsageError, match=match):
        it.take("/generated", given, body(nonces))
    assert (it.stats()["batches"], it.stats()["malformed"]) == (0, 1)


def test_a_verdict_with_a_commitment_is_refused():
    verdict = body(artifacts=..., encoding=..., n_total=1, n_mismatch=0, mismatch_nonces=[])
    with pytest.raises(UsageError, match="came with a verdict"):
        books().take("/validated", committed(1), verdict)

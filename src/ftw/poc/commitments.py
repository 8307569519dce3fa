"""Commitments: a signed Merkle root over a batch of artifacts, and the proof that one artifact is in it.

A leaf is the nonce as 8 bytes, little-endian and unsigned, then the vector's bytes; leaves stand in ascending order of
their nonces, each nonce once; roots are those of RFC 6962. The signature is Ed25519 over the canonical JSON (RFC 8785)
of the commitment without `signature`. Two JSON objects leave this file, and in both an unknown key is an error:

`ftw.poc.commitment/1`: format, block_hash, block_height, public_key, node_id, node_count, group_id, n_groups, profile,
fingerprint, seq_len, k_dim, rows, stronger_rng, sequence, count, first_nonce, last_nonce, root, signer (the public key,
hex), signature (hex). The replicas of one node differ in group_id: they never sign under the same terms.

`ftw.poc.inclusion/1`: format, commitment (as above), nonce, vector_b64, index, path (hex, from the leaf up).

The rule of the file: a check needs what it is given and nothing else, no model, no journal, no network; where it fails
it says at what.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from ftw.substrate import merkle
from ftw.substrate.canonical import SAFE_INT, canonical_json
from ftw.substrate.config import MOST_FORWARD_ROWS, Strict
from ftw.substrate.errors import ProofError
from ftw.substrate.signing import SigningKey, verify

Name = Annotated[str, Field(max_length=4096)]
Nonce = Annotated[int, Field(ge=0, le=SAFE_INT)]
Whole = Annotated[int, Field(ge=1, le=SAFE_INT)]
Rows = Annotated[int, Field(ge=1, le=MOST_FORWARD_ROWS)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Exact(Strict):
    """A record whose values are of their type already: "1" is no number, and 1 no truth value."""

    model_config = ConfigDict(strict=True)


class Leaf(NamedTuple):
    """What a batch holds of one artifact."""

    nonce: int
    vector: bytes
    """k binary16 numbers, little-endian."""

    @property
    def data(self) -> bytes:
        """The leaf's data, before it is hashed."""
        return self.nonce.to_bytes(8, "little") + self.vector


@dataclass(frozen=True, slots=True)
class Terms:
    """What a commitment binds its artifacts to."""

    block_hash: str
    block_height: int
    public_key: str
    node_id: int
    node_count: int
    group_id: int
    """Which of the node's replicas."""
    n_groups: int
    profile: str
    """The profile's id, version included."""
    fingerprint: str
    """SHA-256 of the model's weights."""
    seq_len: int
    k_dim: int
    rows: int
    """Nonces per forward pass: it decides bits."""
    stronger_rng: bool


class Commitment(Exact):
    """A signed root over one batch of artifacts of one round."""

    format: Literal["ftw.poc.commitment/1"] = "ftw.poc.commitment/1"
    block_hash: Name
    block_height: Annotated[int, Field(ge=-SAFE_INT, le=SAFE_INT)]
    public_key: Name
    """The node's key in its network: it stands in the seeds of every vector. Not the key that signs."""
    node_id: Nonce
    node_count: Whole
    group_id: Nonce
    n_groups: Whole
    profile: Name
    fingerprint: Name
    seq_len: Annotated[int, Field(ge=1, le=1 << 32)]
    k_dim: Annotated[int, Field(ge=1, le=1 << 24)]
    rows: Rows
    stronger_rng: bool
    sequence: Whole
    """Which batch of its round, from 1 on."""
    count: Whole
    first_nonce: Nonce
    last_nonce: Nonce
    root: Digest
    signer: Digest
    """The Ed25519 public key that the signature is checked with."""
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]

    @property
    def terms(self) -> Terms:
        """What the artifacts are bound to."""
        return Terms(**{name: getattr(self, name) for name in Terms.__dataclass_fields__})

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(self.model_dump(exclude={"signature"}))


class Inclusion(Exact):
    """That one artifact is in a batch that was committed to."""

    format: Literal["ftw.poc.inclusion/1"] = "ftw.poc.inclusion/1"
    commitment: Commitment
    nonce: Nonce
    vector_b64: Annotated[str, Field(max_length=1 << 26)]
    index: Nonce
    """The leaf's place among the leaves in ascending order of their nonces, from 0 on."""
    path: Annotated[tuple[Digest, ...], Field(max_length=64, strict=False)]


class Batch:
    """The leaves of one batch in their order, with the tree over them. Raises ProofError where a nonce stands twice."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        if not leaves:
            raise ProofError("a batch without artifacts commits to nothing: seal 1 or more")
        self.leaves = sorted(leaves)
        for one, after in pairwise(self.leaves):
            if one.nonce == after.nonce:
                raise ProofError(f"nonce {one.nonce} stands twice in a batch: each has one vector")
        if not 0 <= self.leaves[0].nonce <= self.leaves[-1].nonce <= SAFE_INT:
            raise ProofError(
                f"nonces lie in 0 to {SAFE_INT}, these in {self.leaves[0].nonce} to {self.leaves[-1].nonce}"
            )
        self._tree = merkle.Tree()
        for leaf in self.leaves:
            self._tree.append(leaf.data)

    @property
    def root(self) -> str:
        """The Merkle root, hex."""
        return self._tree.root().hex()

    def place(self, nonce: int) -> int:
        """The index of a nonce's leaf. Raises ProofError for one that is not in the batch."""
        at = next((i for i, leaf in enumerate(self.leaves) if leaf.nonce == nonce), None)
        if at is None:
            raise ProofError(f"nonce {nonce} is not among the {len(self.leaves)} of this batch")
        return at

    def path(self, index: int) -> tuple[str, ...]:
        """The audit path of a leaf, hex, from the leaf up."""
        return tuple(node.hex() for node in self._tree.inclusion_proof(index))


def seal(terms: Terms, sequence: int, leaves: Sequence[Leaf], key: SigningKey) -> Commitment:
    """The commitment to a batch. The same batch and key always give the same bytes.

    Raises ProofError for no leaves, a nonce that stands twice or is out of range, a vector not of k numbers, and
    ConfigError for terms that no commitment can hold.
    """
    batch = Batch(leaves)
    _require_vectors(batch.leaves, terms.k_dim)
    bound = asdict(terms) | {
        "sequence": sequence,
        "count": len(batch.leaves),
        "first_nonce": batch.leaves[0].nonce,
        "last_nonce": batch.leaves[-1].nonce,
        "root": batch.root,
        "signer": key.public,
    }
    draft = Commitment.read(bound | {"signature": "0" * 128}, source="a commitment")
    return draft.model_copy(update={"signature": key.sign(draft.signed_bytes).hex()})


def prove(commitment: Commitment, leaves: Sequence[Leaf], nonce: int) -> Inclusion:
    """The proof that this nonce's artifact is in the batch. Raises ProofError where leaves and commitment differ."""
    batch = Batch(leaves)
    _require_same(commitment, batch)
    index = batch.place(nonce)
    text = base64.b64encode(batch.leaves[index].vector).decode("ascii")
    return Inclusion(commitment=commitment, nonce=nonce, vector_b64=text, index=index, path=batch.path(index))


def verify_commitment(commitment: Commitment, *, signer: str | None = None, terms: Terms | None = None) -> None:
    """Raises ProofError unless the signature holds, is by `signer`, and is over these terms (where they are given).

    Without `signer` it is only shown that whoever made the commitment holds the key that it names.
    """
    if signer is not None and commitment.signer != signer.lower():
        raise ProofError(
            f"the commitment of sequence {commitment.sequence} is signed by {commitment.signer[:16]}…, expected is "
            f"{signer[:16]}…: it is not this node's"
        )
    if not verify(commitment.signer, commitment.signed_bytes, bytes.fromhex(commitment.signature)):
        raise ProofError(
            f"the signature of the commitment of sequence {commitment.sequence} does not hold: it was changed after "
            "it was signed, or signed by another key"
        )
    if terms is not None:
        require_terms(terms, commitment.terms, f"the commitment of sequence {commitment.sequence}")
    if commitment.last_nonce - commitment.first_nonce < commitment.count - 1:
        raise ProofError(
            f"the commitment of sequence {commitment.sequence} counts {commitment.count} nonces from "
            f"{commitment.first_nonce} to {commitment.last_nonce}: so many do not fit"
        )


def verify_batch(
    commitment: Commitment, leaves: Sequence[Leaf], *, signer: str | None = None, terms: Terms | None = None
) -> None:
    """Raises ProofError unless the commitment holds and these are its artifacts: all of them, and no others."""
    verify_commitment(commitment, signer=signer, terms=terms)
    batch = Batch(leaves)
    _require_vectors(batch.leaves, commitment.k_dim)
    _require_same(commitment, batch)


def verify_inclusion(inclusion: Inclusion, *, signer: str | None = None, terms: Terms | None = None) -> Leaf:
    """The artifact that the proof is about. Raises ProofError unless the commitment holds and the artifact is in it."""
    commitment = inclusion.commitment
    verify_commitment(commitment, signer=signer, terms=terms)
    leaf = leaf_of(inclusion.nonce, inclusion.vector_b64)
    _require_vectors([leaf], commitment.k_dim)
    edges = {0: commitment.first_nonce, commitment.count - 1: commitment.last_nonce}
    fits = commitment.first_nonce + inclusion.index <= leaf.nonce <= commitment.last_nonce
    if not fits or edges.get(inclusion.index, leaf.nonce) != leaf.nonce:
        raise ProofError(
            f"nonce {leaf.nonce} cannot be leaf {inclusion.index} of {commitment.count} from "
            f"{commitment.first_nonce} to {commitment.last_nonce} in ascending order"
        )
    path = [bytes.fromhex(node) for node in inclusion.path]
    root = bytes.fromhex(commitment.root)
    if not merkle.verify_inclusion(leaf.data, inclusion.index, commitment.count, path, root):
        raise ProofError(
            f"the path does not lead from nonce {leaf.nonce} to the committed root {commitment.root[:16]}…: this "
            "vector was not committed to under this nonce"
        )
    return leaf


def require_terms(expected: Terms, found: Terms, what: str) -> None:
    """Raises ProofError that names the first of the terms in which `what` differs, with both sides."""
    theirs = asdict(found)
    for name, value in asdict(expected).items():
        if theirs[name] != value:
            raise ProofError(
                f"{what} is of another round: its {name} is {_short(theirs[name])}, expected is {_short(value)}"
            )


def leaf_of(nonce: int, vector_b64: str) -> Leaf:
    """The leaf of an artifact. Raises ProofError for a text that is not the one base64 text of its bytes."""
    try:
        vector = base64.b64decode(vector_b64.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ProofError(f"the vector of nonce {nonce} is not base64: {error}") from error
    if base64.b64encode(vector).decode("ascii") != vector_b64:
        raise ProofError(f"the vector of nonce {nonce} is not the one base64 text of its bytes: spare bits are set")
    return Leaf(nonce, vector)


def _require_vectors(leaves: Sequence[Leaf], k: int) -> None:
    for leaf in leaves:
        if len(leaf.vector) != 2 * k:
            raise ProofError(f"the vector of nonce {leaf.nonce} has {len(leaf.vector)} bytes, k = {k} takes {2 * k}")


def _require_same(commitment: Commitment, batch: Batch) -> None:
    leaves = batch.leaves
    found = (len(leaves), leaves[0].nonce, leaves[-1].nonce)
    if found != (commitment.count, commitment.first_nonce, commitment.last_nonce):
        raise ProofError(
            f"the commitment of sequence {commitment.sequence} is over {commitment.count} artifacts, nonces "
            f"{commitment.first_nonce} to {commitment.last_nonce}; here are {found[0]}, nonces {found[1]} to {found[2]}"
        )
    if batch.root != commitment.root:
        raise ProofError(
            f"these are not the artifacts of the commitment of sequence {commitment.sequence} (nonces "
            f"{commitment.first_nonce} to {commitment.last_nonce}): their root is {batch.root[:16]}…, committed is "
            f"{commitment.root[:16]}…. A vector or a nonce was changed"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 48 else f"{text[:40]}…"

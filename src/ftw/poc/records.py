"""The records of the journal: a round's key, its artifacts, the runs that were sealed, the parcels to deliver.

The rule of the file: plain values only; whatever two starts must share to be one round stands in `RoundKey`.
"""

import base64
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from ftw.poc.codec import Artifact
from ftw.substrate.manifest import canonical_json, sha256_hex

CallbackPath = Literal["/generated", "/validated"]


@dataclass(frozen=True, slots=True)
class RoundKey:
    """All that makes a round this round. Two starts with the same key go on with the same round."""

    block_hash: str
    block_height: int
    public_key: str
    node_id: int
    node_count: int
    group_id: int
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
    url: str | None
    """Where its callbacks go; None where nobody waits for any."""

    @property
    def round_id(self) -> str:
        """SHA-256 (hex) of the key's canonical JSON."""
        return sha256_hex(canonical_json(asdict(self)))

    def nonce(self, index: int) -> int:
        """The nonce at an index: node_id + group_id * node_count, then steps of n_groups * node_count."""
        return self.node_id + self.group_id * self.node_count + index * self.n_groups * self.node_count


class Row(NamedTuple):
    """One journalled artifact."""

    seq: int
    """1, 2, 3 … within its round, in the order in which they were made."""
    nonce: int
    vector: bytes
    """k binary16 numbers, little-endian."""

    @property
    def artifact(self) -> Artifact:
        """As it travels."""
        return Artifact(self.nonce, base64.b64encode(self.vector).decode("ascii"))


@dataclass(frozen=True, slots=True)
class RoundState:
    """How far a round came."""

    round_id: str
    key: RoundKey
    next_index: int
    """The high-water mark: the index to go on with."""
    count: int
    """Artifacts journalled."""
    created_at: float
    """Seconds since the epoch."""


class Sealed(NamedTuple):
    """A run of artifacts of one round that was closed for good: the unit that is delivered, and committed to."""

    sequence: int
    """1, 2, 3 … within its round."""
    first: int
    """seq of its first artifact."""
    last: int
    """seq of its last artifact."""
    created_at: float
    delivered_at: float | None


@dataclass(frozen=True, slots=True)
class Parcel:
    """One callback to deliver. The same at every try and after every restart."""

    parcel_id: int
    owner: str
    """The round's id, or the request's."""
    url: str
    """The base that `path` is added to."""
    path: CallbackPath
    sequence: int
    """1, 2, 3 … within its owner."""
    idempotency_key: str
    created_at: float
    """Seconds since the epoch."""
    tries: int
    """How often delivery failed so far."""
    key: RoundKey | None = None
    """The round that `rows` are of; None for a request's parcel."""
    rows: tuple[Row, ...] = ()
    body: bytes | None = None
    """The body as it stands, for a request's parcel; None for a round's, whose body is made of `key` and `rows`."""
    artifacts: int = 0
    """How many artifacts it carries."""

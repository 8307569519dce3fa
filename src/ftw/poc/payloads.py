"""The bodies of callbacks, key by key as the artifact API of the network names them.

The rule of the file: a body holds these keys and no others; what we add to a delivery (sequence, idempotency key,
round) travels in headers, so that a receiver that knows nothing of us reads every body.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from ftw.poc.codec import Artifact
from ftw.poc.verify import Verdict


@runtime_checkable
class Identity(Protocol):
    """Whose round it is: what every callback repeats of the request that asked for it."""

    @property
    def block_hash(self) -> str:
        """The block that the round is bound to."""

    @property
    def block_height(self) -> int:
        """Its height."""

    @property
    def public_key(self) -> str:
        """The node's key."""

    @property
    def node_id(self) -> int:
        """The node's number, from 0."""


def generated(who: Identity, artifacts: Iterable[Artifact], k_dim: int, request_id: str | None = None) -> bytes:
    """The body for `/generated`. Only an explicit request has a `request_id`; a continuous round has no such key."""
    return _text(
        _head(who, request_id)
        | {
            "artifacts": [{"nonce": one.nonce, "vector_b64": one.vector_b64} for one in artifacts],
            "encoding": {"dtype": "f16", "k_dim": k_dim, "endian": "le"},
        }
    )


def generated_in_parts(
    who: Identity, artifacts: Sequence[Artifact], k_dim: int, limit: int, request_id: str | None = None
) -> Iterator[bytes]:
    """The bodies for `/generated` of at most `limit` artifacts each, in order. Nothing for no artifacts."""
    rest = iter(artifacts)
    while part := tuple(islice(rest, limit)):
        yield generated(who, part, k_dim, request_id)


def validated(who: Identity, request_id: str, verdict: Verdict, *, with_test: bool) -> bytes:
    """The body for `/validated`. Without a statistical test asked for, it says nothing about fraud."""
    body = _head(who, request_id) | {
        "n_total": verdict.n_total,
        "n_mismatch": verdict.n_mismatch,
        "mismatch_nonces": list(verdict.mismatch_nonces),
    }
    if with_test:
        body |= {"p_value": verdict.p_value, "fraud_detected": verdict.fraud_detected}
    return _text(body)


def _head(who: Identity, request_id: str | None) -> dict[str, Any]:
    head: dict[str, Any] = {} if request_id is None else {"request_id": request_id}
    return head | {
        "block_hash": who.block_hash,
        "block_height": who.block_height,
        "public_key": who.public_key,
        "node_id": who.node_id,
    }


def _text(body: dict[str, Any]) -> bytes:
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()

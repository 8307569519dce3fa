"""A callback receiver's books: what came, what came twice, what never came.

The rule of the file: a delivery is read as strictly as the network's own receiver reads it, and what is acknowledged
has been counted (and saved, where a file is given) before the answer leaves.
"""

import base64
import binascii
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from ftw.poc.codec import read
from ftw.poc.commitments import Commitment, leaf_of, verify_batch
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, ProofError, UsageError

Path = Literal["/generated", "/validated"]
KEPT = 10_000
"""Deliveries of which a line is kept for `/batches`; the counts hold all."""
NAMED = 20
"""How many missing sequence numbers are named."""
FIRST = 1
"""The sequence number of a round's first parcel."""


class GivenArtifact(Strict):
    """One vector as it travels."""

    nonce: int = Field(ge=0)
    vector_b64: str


class GivenEncoding(Strict):
    """How vectors are written."""

    dtype: Literal["f16"]
    k_dim: int = Field(ge=1)
    endian: Literal["le"]


class GivenHead(Strict):
    """What every callback says about its round."""

    request_id: str = ""
    """Empty for a continuous round, which does not send the key."""
    block_hash: str
    block_height: int
    public_key: str
    node_id: int = Field(ge=0)


class Generated(GivenHead):
    """The body of `/generated`."""

    artifacts: tuple[GivenArtifact, ...]
    encoding: GivenEncoding


class Validated(GivenHead):
    """The body of `/validated`. The last two stand only where a statistical test was asked for."""

    n_total: int = Field(ge=0)
    n_mismatch: int = Field(ge=0)
    mismatch_nonces: tuple[int, ...]
    p_value: float | None = Field(default=None, ge=0, le=1)
    fraud_detected: bool | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """What the headers of a delivery say. A sender that is not ours may say nothing."""

    sequence: int | None = None
    key: str = ""
    round: str = ""
    commitment: Commitment | None = None
    """The signed root over the artifacts. That it holds is not checked here."""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Marks":
        """The marks in headers with lower-case names. Raises UsageError for a sequence that is no number, and for a
        commitment that is none."""
        text = headers.get("x-ftw-sequence")
        if text is not None and not (text.isascii() and text.isdigit() and len(text) < 19):
            raise UsageError(f"X-Ftw-Sequence is {text[:40]!r}: it must be a number")
        key, its_round = headers.get("idempotency-key", ""), headers.get("x-ftw-round", "")
        return cls(None if text is None else int(text), key, its_round, _commitment(headers.get("x-ftw-commitment")))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One line of the books."""

    at: float
    """Unix time in seconds."""
    path: Path
    round: str
    """X-Ftw-Round; of a sender without it, the round's block, key and node."""
    request_id: str
    sequence: int | None
    key: str
    n_artifacts: int
    n_bytes: int
    is_duplicate: bool
    """Whether a delivery with this idempotency key came before: it is acknowledged and not counted again."""
    signer: str = ""
    """The key whose signed commitment to these artifacts came with them and holds."""


@dataclass(slots=True)
class _Round:
    nonces: set[int] = field(default_factory=set)
    sequences: set[int] = field(default_factory=set)
    last: int = FIRST - 1
    n_batches: int = 0
    n_repeated: int = 0
    n_late: int = 0


class Books:
    """Counts deliveries. Thread-safe. Memory grows with the nonces received (some 60 bytes each) until `clear`."""

    def __init__(
        self, clock: Callable[[], float], save: Callable[[str], None] | None = None, *, kept: int = KEPT
    ) -> None:
        self._clock = clock
        self._kept = kept
        self._save = save
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget everything but the file."""
        with self._lock:
            self._lines: deque[Delivery] = deque(maxlen=self._kept)
            self._rounds: dict[str, _Round] = {}
            self._keys: set[str] = set()
            self._counts: Counter[str] = Counter()

    def take(self, path: Path, headers: Mapping[str, str], body: bytes) -> Delivery:
        """Enter one delivery. Raises UsageError for a body that the network's receiver would not take, and for one
        that is not what its own commitment says."""
        try:
            marks = Marks.of(headers)
            given = read_body(path, body)
            _require_committed(marks, given)
        except UsageError:
            self.refuse("malformed")
            raise
        with self._lock:
            line = self._line(path, marks, given, len(body))
            if self._save is not None and not line.is_duplicate:
                self._save(
                    _saved(line, marks.commitment, body)
                )  # first: what cannot be saved is neither counted nor acknowledged
            self._lines.append(line)
            self._count(line, given)
        return line

    def refuse(self, why: str) -> None:
        """Count a delivery that was not taken: `malformed`, `failed` (an answer made to fail), `too_large`."""
        with self._lock:
            self._counts[why] += 1

    def batches(self, after: int = 0, limit: int = 100) -> tuple[Delivery, ...]:
        """The kept lines from number `after` on, in the order in which they came."""
        with self._lock:
            return tuple(self._lines)[after : after + limit]

    def stats(self) -> dict[str, Any]:
        """All counts, and per round what is missing: plain values for JSON."""
        with self._lock:
            counts = {name: self._counts[name] for name in (*COUNTS, *REFUSALS)}
            return counts | {"rounds": {name: _summary(one) for name, one in self._rounds.items()}}

    def _line(self, path: Path, marks: Marks, given: Generated | Validated, n_bytes: int) -> Delivery:
        return Delivery(
            at=self._clock(),
            path=path,
            round=marks.round or f"{given.block_hash}/{given.public_key}/{given.node_id}",
            request_id=given.request_id,
            sequence=marks.sequence,
            key=marks.key,
            n_artifacts=len(given.artifacts) if isinstance(given, Generated) else 0,
            n_bytes=n_bytes,
            is_duplicate=bool(marks.key) and marks.key in self._keys,
            signer="" if marks.commitment is None else marks.commitment.signer,
        )

    def _count(self, line: Delivery, given: Generated | Validated) -> None:
        counts = self._counts
        counts["deliveries"] += 1
        counts["bytes"] += line.n_bytes
        counts["duplicates_by_key"] += line.is_duplicate
        if line.is_duplicate:
            return
        self._keys |= {line.key} - {""}
        counts["batches"] += 1
        counts["committed"] += bool(line.signer)
        counts["validated"] += line.path == "/validated"
        counts["artifacts"] += line.n_artifacts
        its = self._rounds.setdefault(line.round, _Round())
        its.n_batches += 1
        if line.sequence is not None:
            its.n_late += line.sequence < its.last
            its.last = max(its.last, line.sequence)
            its.sequences.add(line.sequence)
        for one in given.artifacts if isinstance(given, Generated) else ():
            its.n_repeated += one.nonce in its.nonces
            counts["duplicates_by_nonce"] += one.nonce in its.nonces
            its.nonces.add(one.nonce)


COUNTS = (
    "deliveries", "batches", "committed", "validated", "artifacts", "bytes", "duplicates_by_key", "duplicates_by_nonce"
)  # fmt: skip
REFUSALS = ("malformed", "failed", "too_large")


def read_body(path: Path, body: bytes) -> Generated | Validated:
    """The body, checked against the wire's form. Raises UsageError that names the first problem.

    A key too many, a `request_id` that is null, a vector that is no vector of k numbers: all of these are problems.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body of {path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"the body of {path} is no JSON object but a {type(values).__name__}")
    try:
        given = (Generated if path == "/generated" else Validated).read(values, source=path)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    if isinstance(given, Generated):
        for one in given.artifacts:
            fault = read(one.vector_b64, given.encoding.k_dim)
            if isinstance(fault, str):
                raise UsageError(f"{path}: the vector of nonce {one.nonce} is {fault}")
    return given


def _summary(one: _Round) -> dict[str, Any]:
    missing = (number for number in range(FIRST, one.last) if number not in one.sequences)
    named = [number for _, number in zip(range(NAMED), missing, strict=False)]
    return {
        "batches": one.n_batches,
        "nonces": len(one.nonces),
        "repeated_nonces": one.n_repeated,
        "last_sequence": one.last if one.sequences else None,
        "missing_sequences": one.last - FIRST + 1 - sum(number >= FIRST for number in one.sequences),
        "first_missing": named,
        "out_of_order": one.n_late,
    }


def _commitment(text: str | None) -> Commitment | None:
    if text is None:
        return None
    try:
        return Commitment.read(json.loads(base64.b64decode(text, validate=True)), source="X-Ftw-Commitment")
    except (binascii.Error, ValueError, TypeError, RecursionError, ConfigError) as error:
        raise UsageError(f"X-Ftw-Commitment is no commitment as canonical JSON in base64: {error}") from error


def _require_committed(marks: Marks, given: Generated | Validated) -> None:
    """Raises UsageError unless a commitment that came along is one to this delivery."""
    made = marks.commitment
    if made is None:
        return
    if not isinstance(given, Generated):
        raise UsageError("X-Ftw-Commitment came with a verdict: commitments are to artifacts")
    said = (made.block_hash, made.block_height, made.public_key, made.node_id, made.k_dim, made.sequence)
    head = (given.block_hash, given.block_height, given.public_key, given.node_id, given.encoding.k_dim, marks.sequence)
    if said != head:
        raise UsageError(
            "X-Ftw-Commitment is to another delivery: its round, node, k_dim or sequence is not this one's"
        )
    try:
        verify_batch(made, [leaf_of(one.nonce, one.vector_b64) for one in given.artifacts])
    except ProofError as error:
        raise UsageError(str(error)) from error


def _saved(line: Delivery, commitment: Commitment | None, body: bytes) -> str:
    head = {"received_at": line.at, "path": line.path, "round": line.round, "sequence": line.sequence, "key": line.key}
    made = {} if commitment is None else {"commitment": commitment.model_dump()}
    return json.dumps(head | made | {"body": json.loads(body)}) + "\n"

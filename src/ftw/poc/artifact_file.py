"""The file in which artifacts travel from a prover to a validator, and the check that they are what was committed to.

One JSON object, UTF-8, `ftw.poc.artifacts/1`. An unknown key, a key that stands twice and a value of another type are
errors, at every depth:

    {"format": "ftw.poc.artifacts/1",
     "round": {"block_hash", "block_height", "public_key", "node_id", "node_count", "group_id", "n_groups", "profile",
               "model", "fingerprint", "seq_len", "k_dim", "stronger_rng", "rows"},
     "encoding": {"dtype": "f16", "k_dim": 12, "endian": "le"},
     "artifacts": [{"nonce": 0, "vector_b64": "…"}, …],
     "commitments": [a `ftw.poc.commitment/1`, …]}

`profile` has its version (`artifact-k12/1`); `model` is a name for people, `fingerprint` says which weights; `rows` is
how many nonces share a forward pass, which decides bits. `commitments` may be left out; where there are any, together
they cover every artifact exactly once, in order of sequence and nonce. The rule of the file: reading it proves nothing,
`verify_file` does; neither needs the model.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ftw.poc.commitments import (
    Commitment,
    Exact,
    Inclusion,
    Leaf,
    Name,
    Nonce,
    Rows,
    Terms,
    Whole,
    leaf_of,
    verify_batch,
    verify_commitment,
)
from ftw.substrate.canonical import read_json
from ftw.substrate.errors import ConfigError, ProofError

MOST_BYTES = 256 << 20
"""The largest file that is read: about three million artifacts of 12 numbers."""
LONGEST_COMPLAINT = 400


class FileRound(Exact):
    """The round that all artifacts of a file are of."""

    block_hash: Name
    block_height: Annotated[int, Field(ge=0, le=(1 << 53) - 1)]
    public_key: Name
    node_id: Nonce
    node_count: Whole
    group_id: Nonce
    n_groups: Whole
    profile: Name
    model: Name
    fingerprint: Name
    seq_len: Annotated[int, Field(ge=1, le=1 << 32)]
    k_dim: Annotated[int, Field(ge=2, le=1 << 24)]
    stronger_rng: bool
    rows: Rows

    @property
    def terms(self) -> Terms:
        """What a commitment binds of it: all but the model's name."""
        return Terms(**{name: getattr(self, name) for name in Terms.__dataclass_fields__})


class Encoding(Exact):
    """How vectors are written."""

    dtype: Literal["f16"] = "f16"
    k_dim: Annotated[int, Field(ge=2, le=1 << 24)]
    endian: Literal["le"] = "le"


class Claimed(Exact):
    """An artifact as its prover states it. Any text may stand for a vector: judging it is the validator's work."""

    nonce: Nonce
    vector_b64: str


class ArtifactFile(Exact):
    """Artifacts of one round, with the commitments to them."""

    format: Literal["ftw.poc.artifacts/1"] = "ftw.poc.artifacts/1"
    round: FileRound
    encoding: Encoding
    artifacts: Annotated[tuple[Claimed, ...], Field(strict=False)]
    commitments: Annotated[tuple[Commitment, ...], Field(strict=False)] = ()

    def record(self) -> dict[str, Any]:
        """The JSON object; without `commitments` where there are none."""
        return self.model_dump(mode="json", exclude=None if self.commitments else {"commitments"})


class CommitmentList(Exact):
    """Commitments of one round as a server lists them: `{"commitments": […]}` and nothing else."""

    commitments: Annotated[tuple[Commitment, ...], Field(strict=False, min_length=1)]


Evidence = ArtifactFile | CommitmentList | Commitment | Inclusion
KINDS: dict[str, type[ArtifactFile] | type[Commitment] | type[Inclusion]] = {
    "ftw.poc.artifacts/1": ArtifactFile,
    "ftw.poc.commitment/1": Commitment,
    "ftw.poc.inclusion/1": Inclusion,
}


def read_evidence(file: Path) -> Evidence:
    """What a file holds, by its `format`. Raises ConfigError that names the file, the key and what would be good."""
    value = read_json(file, MOST_BYTES)
    said = value.get("format") if isinstance(value, dict) else None
    kind: type[Evidence] | None = KINDS.get(said) if isinstance(said, str) else None
    if isinstance(value, dict) and set(value) == {"commitments"}:
        kind = CommitmentList
    if kind is None:
        told = f"its format is {str(said)[:40]!r}" if said is not None else "it is no object with a `format`"
        raise ConfigError(f"{file} is no evidence of a round: {told}; known are {', '.join(KINDS)}")
    try:
        found = kind.read(value, source=str(file))
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if len(text) <= LONGEST_COMPLAINT else f"{text[:LONGEST_COMPLAINT]}…") from None
    if isinstance(found, ArtifactFile) and found.encoding.k_dim != found.round.k_dim:
        raise ConfigError(
            f"{file}: encoding.k_dim is {found.encoding.k_dim}, round.k_dim is {found.round.k_dim}: they must agree"
        )
    return found


def read_artifacts(file: Path) -> ArtifactFile:
    """The artifacts in a file. Raises like `read_evidence`, and ConfigError for evidence of another kind."""
    found = read_evidence(file)
    if not isinstance(found, ArtifactFile):
        kind = "list of commitments" if isinstance(found, CommitmentList) else found.format
        raise ConfigError(f"{file} is a {kind}: give the artifacts themselves, as `ftw poc generate` writes them")
    return found


def verify_file(found: ArtifactFile, *, signer: str | None = None) -> tuple[tuple[Commitment, tuple[Leaf, ...]], ...]:
    """Every commitment with its artifacts in ascending order, all of them checked.

    Raises ProofError where there is no commitment, one does not hold, is by another key than `signer` or than the
    others, is of another round than the file says, or where an artifact is in none of them or not as committed.
    """
    commitments = found.commitments
    if not commitments:
        raise ProofError("there is no commitment in this file: make it with `ftw poc generate --key FILE`")
    leaves = sorted(leaf_of(one.nonce, one.vector_b64) for one in found.artifacts)
    for leaf, after in pairwise(leaves):
        if leaf.nonce == after.nonce:
            raise ProofError(f"nonce {leaf.nonce} stands twice: each has one vector")
    _require_order(commitments)
    batches = []
    at = 0
    for one in commitments:
        mine: list[Leaf] = []
        while at < len(leaves) and leaves[at].nonce <= one.last_nonce:
            mine.append(leaves[at])
            at += 1
        if not mine or mine[0].nonce < one.first_nonce:
            what = f"nonce {mine[0].nonce} is in no commitment" if mine else "none of its artifacts is here"
            raise ProofError(
                f"{what}: the commitment of sequence {one.sequence} is over nonces {one.first_nonce} to "
                f"{one.last_nonce}"
            )
        verify_batch(one, mine, signer=signer or commitments[0].signer, terms=found.round.terms)
        batches.append((one, tuple(mine)))
    if at < len(leaves):
        raise ProofError(f"nonce {leaves[at].nonce} is in no commitment: the last one ends at {one.last_nonce}")
    return tuple(batches)


def verify_list(commitments: Sequence[Commitment], *, signer: str | None = None) -> None:
    """Raises ProofError unless all hold, are of one round, by one key (`signer` if given), in order and disjoint."""
    _require_order(commitments)
    for one in commitments:
        verify_commitment(one, signer=signer or commitments[0].signer, terms=commitments[0].terms)


def _require_order(commitments: Sequence[Commitment]) -> None:
    for earlier, later in pairwise(commitments):
        if later.sequence <= earlier.sequence or later.first_nonce <= earlier.last_nonce:
            raise ProofError(
                f"the commitments of sequence {earlier.sequence} (to nonce {earlier.last_nonce}) and "
                f"{later.sequence} (from nonce {later.first_nonce}) are not in order, or overlap"
            )

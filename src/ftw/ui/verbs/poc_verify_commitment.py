"""Poc verify-commitment: whether artifacts are those that a node signed for. Needs no model, no network, no torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from ftw.poc.artifact_file import ArtifactFile, CommitmentList, Evidence, read_evidence, verify_file, verify_list
from ftw.poc.commitments import Commitment, Inclusion, Terms, verify_commitment, verify_inclusion
from ftw.substrate.errors import ConfigError, ProofError
from ftw.substrate.signing import PUBLIC_HEX
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, figure

SHOWN = 10
"""Commitments that are printed; the JSON document has them all."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the verifier knows already. None takes what the file says."""

    signer: str | None = None
    """The node's Ed25519 public key, 64 hex digits."""
    block_hash: str | None = None
    public_key: str | None = None

    def __post_init__(self) -> None:
        text = self.signer
        if text is not None and (len(text) != PUBLIC_HEX or set(text.lower()) - set("0123456789abcdef")):
            raise ConfigError(f"--signer is {text[:80]!r}: an Ed25519 public key has {PUBLIC_HEX} hex digits")


@dataclass(frozen=True, slots=True)
class Verified:
    """What holds."""

    what: str
    """The claim in words."""
    commitments: tuple[Commitment, ...]
    artifacts: int
    """How many are shown to be in them; 0 where the file holds a commitment alone."""


def run(out: Out, *, file: Path, expected: Expected) -> None:
    """Check, draw, give the document. Raises ProofError that names what does not hold."""
    found = read_evidence(file)
    verified = verify(found, expected, str(file))
    draw(out, verified, expected)
    out.document(
        {
            "command": "poc verify-commitment",
            "ok": True,
            "file": str(file),
            "format": None if isinstance(found, CommitmentList) else found.format,
            "signer": verified.commitments[0].signer,
            "signer_was_expected": expected.signer is not None,
            "artifacts_included": verified.artifacts,
            **asdict(verified.commitments[0].terms),
            "commitments": [_record(one) for one in verified.commitments],
        }
    )


def verify(found: Evidence, expected: Expected, source: str) -> Verified:
    """What holds of this evidence: signature, root, and each artifact in it. Raises ProofError."""
    if isinstance(found, ArtifactFile):
        require_round(found.round.terms, expected, source)
        batches = verify_file(found, signer=expected.signer)
        n = sum(len(leaves) for _, leaves in batches)
        roots = count(len(batches), "signed root")
        return Verified(f"{count(n, 'artifact')}, all as committed to by {roots}", found.commitments, n)
    if isinstance(found, CommitmentList):
        require_round(found.commitments[0].terms, expected, source)
        verify_list(found.commitments, signer=expected.signer)
        n = sum(one.count for one in found.commitments)
        roots = count(len(found.commitments), "signed root")
        return Verified(f"{roots} over {count(n, 'artifact')}, none of them here", found.commitments, 0)
    commitment = found.commitment if isinstance(found, Inclusion) else found
    require_round(commitment.terms, expected, source)
    if isinstance(found, Inclusion):
        verify_inclusion(found, signer=expected.signer)
        place = f"artifact {found.index + 1} of {commitment.count}"
        return Verified(f"nonce {found.nonce} is {place} under a signed root", (commitment,), 1)
    verify_commitment(commitment, signer=expected.signer)
    return Verified(f"a signed root over {count(commitment.count, 'artifact')}, none of them here", (commitment,), 0)


def require_round(terms: Terms, expected: Expected, source: str) -> None:
    """Raises ProofError where a file is of another block or node than the one that is expected."""
    for name, wanted in (("block_hash", expected.block_hash), ("public_key", expected.public_key)):
        said = getattr(terms, name)
        if wanted is not None and said != wanted:
            raise ProofError(f"{source} is of another round: its {name} is {said[:48]!r}, expected is {wanted[:48]!r}")


def draw(out: Out, verified: Verified, expected: Expected) -> None:
    """The claim, the commitments, and whose word it is."""
    first = verified.commitments[0]
    rows = [
        Text(
            f"sequence {one.sequence}: root {one.root[:16]}…, nonces {one.first_nonce} to {one.last_nonce}",
            no_wrap=True,
        )
        for one in verified.commitments[:SHOWN]
    ]
    if len(verified.commitments) > SHOWN:
        rows.append(Text("…"))
    whose = "as expected" if expected.signer else "by the file's own word: name the node's key with --signer"
    out.show(
        figure(
            verified.what,
            rows,
            f"signed by {first.signer}, {whose}",
            f"model {first.fingerprint[:8]}, profile {first.profile}, {first.seq_len} positions, k = {first.k_dim}",
            f"block {first.block_hash[:16]}, height {first.block_height}, key {first.public_key[:24]}",
            out.command,
        )
    )


def _record(one: Commitment) -> dict[str, Any]:
    names = {"sequence", "count", "first_nonce", "last_nonce", "root"}
    return one.model_dump(include=names)

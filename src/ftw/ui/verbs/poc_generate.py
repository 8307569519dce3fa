"""Poc generate: the artifacts of a range of nonces, in a file for a validator, committed to where a key is given.

The rule of the file: what is written is whole, or not there.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.text import Text

from ftw.poc.artifact_file import ArtifactFile, Claimed, Encoding, FileRound
from ftw.poc.codec import Artifact, decode
from ftw.poc.commitments import Commitment, leaf_of, seal
from ftw.poc.forward import Prover, Round
from ftw.poc.profiles import profile
from ftw.substrate.errors import ConfigError
from ftw.substrate.manifest import write_atomically
from ftw.substrate.model import Model
from ftw.substrate.signing import SigningKey
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, figure
from ftw.ui.visualization.palette import HUES, grey

SEQ_LEN = 256
SHOWN = 5
"""Vectors, and coordinates of each, that are printed."""
MOST = 1_000_000
"""Nonces of one call: what a file of artifacts takes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which artifacts, and where they go."""

    first: int
    n: int
    step: int
    block_hash: str | None
    """None draws a random one."""
    block_height: int
    public_key: str
    node_id: int
    node_count: int
    group_id: int
    n_groups: int
    profile: str
    seq_len: int | None
    """None: 256, or the model's context if that is less."""
    k_dim: int
    """0 stands for the profile's."""
    rows: int
    stronger_rng: bool
    key: Path | None
    per_commitment: int
    file: Path | None

    def __post_init__(self) -> None:
        if self.first < 0 or self.first + self.n * self.step > 1 << 53:
            raise ConfigError(f"nonces from {self.first} in {self.n} steps of {self.step} leave the range 0 to 2^53")
        if self.n > MOST:
            raise ConfigError(f"-n is {self.n}: one file takes {MOST} artifacts, so make several with --first")
        for one, number, of, n in (
            ("--node-id", self.node_id, "--node-count", self.node_count),
            ("--group-id", self.group_id, "--n-groups", self.n_groups),
        ):
            if not 0 <= number < n:
                raise ConfigError(f"{one} is {number} and {of} {n}: they count from 0, so give a larger {of}")

    @property
    def nonces(self) -> range:
        """The nonces to compute, ascending."""
        return range(self.first, self.first + self.n * self.step, self.step)


def run(out: Out, *, model: str | None, asked: Asked) -> None:
    """Compute, commit, write, draw; with --json the document is the file itself."""
    key = None if asked.key is None else SigningKey.load_or_create(asked.key)
    opened = open_model(model, out)
    found = make(out, opened, asked, key)
    record = found.record()
    if asked.file is not None:
        write_atomically(asked.file, json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        out.tell(f"wrote {count(len(found.artifacts), 'artifact')} to {asked.file}")
    draw(out, found)
    out.document(record)


def make(out: Out, model: Model, asked: Asked, key: SigningKey | None) -> ArtifactFile:
    """The artifacts and the commitments to them, with a bar on stderr. Raises like `Prover`, and like `seal`."""
    chosen = profile(asked.profile)
    block_hash = secrets.token_hex(32) if asked.block_hash is None else asked.block_hash
    length = min(SEQ_LEN, model.context) if asked.seq_len is None else asked.seq_len
    round_ = Round(
        block_hash, asked.public_key, chosen, length, asked.k_dim, asked.stronger_rng, fingerprint=model.fingerprint
    )
    told = FileRound.read(
        {
            "block_hash": block_hash,
            "block_height": asked.block_height,
            "public_key": asked.public_key,
            "node_id": asked.node_id,
            "node_count": asked.node_count,
            "group_id": asked.group_id,
            "n_groups": asked.n_groups,
            "profile": chosen.id,
            "model": model.name,
            "fingerprint": model.fingerprint,
            "seq_len": length,
            "k_dim": round_.k_dim,
            "stronger_rng": asked.stronger_rng,
            "rows": asked.rows,
        },
        source="the round",
    )
    made = compute(out, Prover(model, round_, asked.rows), asked.nonces, "Proving")
    return ArtifactFile(
        round=told,
        encoding=Encoding(k_dim=round_.k_dim),
        artifacts=tuple(Claimed(nonce=one.nonce, vector_b64=one.vector_b64) for one in made),
        commitments=() if key is None else commit(told, made, asked.per_commitment, key),
    )


def compute(out: Out, prover: Prover, nonces: Sequence[int], what: str) -> list[Artifact]:
    """The artifacts of these nonces, one forward pass after the other, with a bar on stderr."""
    groups = [nonces[at : at + prover.rows] for at in range(0, len(nonces), prover.rows)]
    made: list[Artifact] = []
    with out.bar(what) as bar:
        for group, then in pairwise([*groups, ()]):
            made.extend(prover.batch(group, then).artifacts)
            bar(what, len(made), len(nonces))
    return made


def commit(told: FileRound, made: Sequence[Artifact], per_commitment: int, key: SigningKey) -> tuple[Commitment, ...]:
    """One commitment per so many artifacts, in sequence from 1 on."""
    leaves = [leaf_of(one.nonce, one.vector_b64) for one in made]
    groups = [leaves[at : at + per_commitment] for at in range(0, len(leaves), per_commitment)]
    return tuple(seal(told.terms, sequence, group, key) for sequence, group in enumerate(groups, 1))


def draw(out: Out, found: ArtifactFile) -> None:
    """The first vectors, and what they were committed to."""
    told, commitments = found.round, found.commitments
    rows = [Text(f"   nonce  first of {told.k_dim} coordinates", grey(), no_wrap=True)]
    for one in found.artifacts[:SHOWN]:
        row = Text(f"{one.nonce:>8}  ", no_wrap=True)
        row.append(
            "".join(f"{float(x):>8.4f}" for x in decode(one.vector_b64, told.k_dim)[:SHOWN]) + " …",
            HUES[0] if out.has_colour else "",
        )
        rows.append(row)
    if len(found.artifacts) > SHOWN:
        rows.append(Text(f"{'…':>8}", grey()))
    rows.extend(
        Text(f"root {one.root[:16]}… over nonces {one.first_nonce} to {one.last_nonce}", no_wrap=True)
        for one in commitments[:SHOWN]
    )
    out.show(
        figure(
            reading(found),
            rows,
            f"signed by {commitments[0].signer}" if commitments else "not committed to: give --key",
            f"{told.model} {told.fingerprint[:8]}",
            f"profile {told.profile}, {told.seq_len} positions, {told.rows} nonces per forward pass",
            f"block {told.block_hash[:16]}, key {told.public_key[:24]}",
            out.command,
        )
    )


def reading(found: ArtifactFile) -> str:
    """The claim: how many, and whether they are bound."""
    made = count(len(found.artifacts), "artifact")
    if not found.commitments:
        return made
    return f"{made}, committed to by {count(len(found.commitments), 'signed root')}"

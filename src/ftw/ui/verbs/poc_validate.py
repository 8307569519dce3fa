"""Poc validate: recomputes the artifacts in a file, or a sample drawn after they were committed to, and judges.

The rule of the file: everything that can be checked without the model is checked first, and nothing is judged under
other terms than those the file states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from ftw.poc.artifact_file import ArtifactFile, read_artifacts, verify_file
from ftw.poc.codec import Artifact, decode
from ftw.poc.forward import Prover, Round
from ftw.poc.profiles import profile
from ftw.poc.sampling import sample, seed_of, stratified
from ftw.poc.verify import StatTest, Verdict, judge, sort_claims
from ftw.substrate.errors import ConfigError, FingerprintMismatch, ProofError
from ftw.substrate.model import Model
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.verbs.poc_generate import compute
from ftw.ui.verbs.poc_verify_commitment import Expected, require_round
from ftw.ui.visualization.figure import count, figure
from ftw.ui.visualization.palette import grey

SHOWN = 10
"""Mismatches that are printed; the JSON document has them all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is judged, and by which rule."""

    file: Path
    expected: Expected
    sample: int | None
    """How many artifacts to draw; None judges all."""
    seed: str | None
    """Hex digits that nobody knew when the artifacts were committed to."""
    validator: str
    """Whose sample it is: others draw others from the same seed."""
    test: StatTest

    def __post_init__(self) -> None:
        if (self.sample is None) != (self.seed is None):
            raise ConfigError(
                "--sample and --seed go together: give the number of artifacts, and hex digits that came after the "
                "commitment, for example a later block's hash"
            )
        if self.sample is not None and self.sample < 1:
            raise ConfigError(f"--sample is {self.sample}: a verdict needs 1 artifact or more")
        _ = self.randomness

    @property
    def randomness(self) -> bytes:
        """The bytes of the seed. Raises ConfigError for what is no hex."""
        text = (self.seed or "").removeprefix("0x")
        try:
            found = bytes.fromhex(text)
        except ValueError as error:
            raise ConfigError(f"--seed is {text[:40]!r}: give hex digits, two for each byte") from error
        if self.seed is not None and not found:
            raise ConfigError("--seed is empty: give hex digits, for example a later block's hash")
        return found


@dataclass(frozen=True, slots=True)
class Judged:
    """What a validation of a file found."""

    verdict: Verdict
    of: int
    """Different nonces in the file: what was judged is all of them, or a sample."""
    signer: str | None
    """Who committed to the artifacts; None where nobody did."""


def run(out: Out, *, model: str | None, asked: Asked) -> None:
    """Check, recompute, draw, give the document. Raises ProofError for fraud, and for a commitment that fails."""
    found = read_artifacts(asked.file)
    require_round(found.round.terms, asked.expected, str(asked.file))
    nonces, signer = drawn(found, asked)
    of = len({one.nonce for one in found.artifacts})
    opened = open_model(model, out)
    judged = Judged(recompute(out, opened, found, nonces, asked.test), of, signer)
    draw(out, found, judged)
    out.document({"command": "poc validate", **record(found, judged, asked)})
    if judged.verdict.fraud_detected:
        raise ProofError(f"fraud: {reading(judged)}. An honest node shows this with p = {judged.verdict.p_value:.2g}")


def drawn(found: ArtifactFile, asked: Asked) -> tuple[list[int], str | None]:
    """The nonces to judge, ascending, and who committed to them. Raises ProofError where a commitment fails."""
    signer = asked.expected.signer
    if not found.commitments and signer is None:
        unique = sorted({one.nonce for one in found.artifacts})
        if not unique:
            raise ConfigError(f"{asked.file} holds no artifacts: there is nothing to judge")
        if asked.sample is None:
            return unique, None
        picks = sample(seed_of(asked.randomness, (), asked.validator), len(unique), asked.sample)
        return sorted(unique[at] for at in picks), None
    batches = verify_file(found, signer=signer)
    if asked.sample is None:
        nonces = [leaf.nonce for _, leaves in batches for leaf in leaves]
    else:
        seed = seed_of(asked.randomness, [bytes.fromhex(one.root) for one, _ in batches], asked.validator)
        chosen = stratified(seed, [len(leaves) for _, leaves in batches], asked.sample)
        nonces = [batches[pick.batch][1][pick.leaf].nonce for pick in chosen]
    return sorted(nonces), found.commitments[0].signer


def recompute(out: Out, model: Model, found: ArtifactFile, nonces: Sequence[int], test: StatTest) -> Verdict:
    """The verdict on these nonces. Raises FingerprintMismatch for artifacts of another model, else like `Prover`."""
    told = found.round
    if told.fingerprint != model.fingerprint:
        raise FingerprintMismatch(
            f"the file is of the model {told.model} with fingerprint {told.fingerprint[:16]}…, {model.name} has "
            f"{model.fingerprint[:16]}…: open the model that the round is about with --model"
        )
    wanted = set(nonces)
    claimed = [Artifact(one.nonce, one.vector_b64) for one in found.artifacts if one.nonce in wanted]
    claims = sort_claims(nonces, claimed, told.k_dim)
    round_ = Round(
        told.block_hash,
        told.public_key,
        profile(told.profile),
        told.seq_len,
        told.k_dim,
        told.stronger_rng,
        fingerprint=model.fingerprint,
    )
    prover = Prover(model, round_, told.rows)
    made = compute(out, prover, list(claims.vectors), "Recomputing")
    return judge(claims, {one.nonce: decode(one.vector_b64, told.k_dim) for one in made}, test)


def draw(out: Out, found: ArtifactFile, judged: Judged) -> None:
    """The verdict, its mismatches with their reasons, its parameters."""
    verdict, told = judged.verdict, found.round
    rows = [Text("   nonce  why                  distance", grey(), no_wrap=True)] if verdict.mismatches else []
    for one in verdict.mismatches[:SHOWN]:
        far = "-" if one.distance is None else f"{one.distance:.4f}"
        rows.append(Text(f"{one.nonce:>8}  {one.reason:<21}{far}", no_wrap=True))
    if len(verdict.mismatches) > SHOWN:
        rows.append(Text(f"{'…':>8}", grey()))
    rows.append(Text(f"largest distance of what was compared: {_largest(verdict)}"))
    test = verdict.test
    out.show(
        figure(
            reading(judged),
            rows,
            f"p = {verdict.p_value:.3g}, fraud below {test.fraud_threshold:g}",
            f"mismatch above L2 distance {test.dist_threshold:g}, expected of honest nodes {test.p_mismatch:g}",
            f"committed by {judged.signer}" if judged.signer else "not committed to: the prover could choose",
            f"{told.model} {told.fingerprint[:8]}",
            f"profile {told.profile}, {told.seq_len} positions",
            f"block {told.block_hash[:16]}, key {told.public_key[:24]}",
            out.command,
        )
    )


def reading(judged: Judged) -> str:
    """The claim: how many differ, of how many, and what that says."""
    verdict = judged.verdict
    which = (
        count(judged.of, "artifact") if verdict.n_total == judged.of else f"{verdict.n_total} of {judged.of} sampled"
    )
    missed = "none differs" if not verdict.n_mismatch else f"{verdict.n_mismatch} of {verdict.n_total} differ"
    return f"{which}, {missed}: {'fraud' if verdict.fraud_detected else 'consistent with this model'}"


def record(found: ArtifactFile, judged: Judged, asked: Asked) -> dict[str, Any]:
    """The whole verdict as plain JSON values, with the parameters that it was judged by."""
    verdict, test = judged.verdict, judged.verdict.test
    return {
        "file": str(asked.file),
        "round": found.round.model_dump(),
        "signer": judged.signer,
        "signer_was_expected": asked.expected.signer is not None,
        "n_artifacts": judged.of,
        "sample": asked.sample,
        "seed": asked.seed,
        "validator": asked.validator,
        "n_total": verdict.n_total,
        "n_mismatch": verdict.n_mismatch,
        "mismatch_nonces": list(verdict.mismatch_nonces),
        "mismatches": [{"nonce": m.nonce, "reason": m.reason, "distance_l2": m.distance} for m in verdict.mismatches],
        "distances_l2": [{"nonce": nonce, "distance_l2": far} for nonce, far in verdict.distances.items()],
        "p_value": verdict.p_value,
        "log_p_value_nats": verdict.log_p_value,
        "fraud_detected": verdict.fraud_detected,
        "dist_threshold_l2": test.dist_threshold,
        "p_mismatch": test.p_mismatch,
        "fraud_threshold": test.fraud_threshold,
    }


def _largest(verdict: Verdict) -> str:
    far = max(verdict.distances.values(), default=None)
    return "-" if far is None else "0" if far == 0 else f"{far:.4f}"

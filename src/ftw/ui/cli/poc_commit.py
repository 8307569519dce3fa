"""`ftw poc generate`, `validate`, `verify-commitment`: make artifacts, commit to them, judge them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ftw.ui.cli.options import Json, ModelName, at_least, verb
from ftw.ui.cli.output import Out, repeat

SIGNER = typer.Option("--signer", metavar="HEX", help="The key that must have signed.", show_default=False)
BLOCK = typer.Option("--block-hash", metavar="TEXT", help="The block that it must be about.", show_default=False)
NODE = typer.Option("--public-key", metavar="TEXT", help="The node that it must be about.", show_default=False)
Signer = Annotated[str | None, SIGNER]
OfBlock = Annotated[str | None, BLOCK]
OfNode = Annotated[str | None, NODE]


def generate(
    model: ModelName = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Nonces to compute.")] = 8,
    first: Annotated[int, typer.Option("--first", metavar="NONCE", help="The first of them.")] = 0,
    step: Annotated[int, typer.Option("--step", metavar="N", help="From one nonce to the next.")] = 1,
    block_hash: Annotated[
        str | None,
        typer.Option("--block-hash", metavar="TEXT", help="The round's block; drawn if not given.", show_default=False),
    ] = None,
    block_height: Annotated[int, typer.Option("--block-height", metavar="N", help="Its height.")] = 0,
    public_key: Annotated[
        str, typer.Option("--public-key", metavar="TEXT", help="The node's key in its network.")
    ] = "local",
    node_id: Annotated[int, typer.Option("--node-id", metavar="N", help="The node's number.")] = 0,
    node_count: Annotated[int, typer.Option("--node-count", metavar="N", help="Nodes in its network.")] = 1,
    group_id: Annotated[int, typer.Option("--group-id", metavar="N", help="The replica's number.")] = 0,
    n_groups: Annotated[int, typer.Option("--n-groups", metavar="N", help="Replicas of the node.")] = 1,
    profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="Protocol profile.")] = "artifact-k12",
    seq_len: Annotated[
        int | None,
        typer.Option("--seq-len", metavar="N", help="Positions; 256 or the model's context.", show_default=False),
    ] = None,
    k_dim: Annotated[int, typer.Option("--k", metavar="K", help="Dimensions; 0 is the profile's.")] = 0,
    rows: Annotated[int, typer.Option("--rows", metavar="N", help="Nonces per forward pass; it decides bits.")] = 8,
    stronger_rng: Annotated[
        bool, typer.Option("--stronger-rng", help="Inputs from 256 bits: poc_stronger_rng.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Commit with this key; made if not there.", show_default=False),
    ] = None,
    per_commitment: Annotated[
        int, typer.Option("--per-commitment", metavar="N", help="Artifacts under one root.")
    ] = 1000,
    file: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the artifacts go.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Compute the artifacts of a range of nonces, commit to them, and write them to a file.

    With --json the document on stdout is the file itself.
    """
    for name, value in (("-n", n), ("--step", step), ("--rows", rows), ("--per-commitment", per_commitment)):
        at_least(name, value, 1)
    from ftw.ui.verbs.poc_generate import Asked, run

    where = (first, n, step, block_hash, block_height, public_key, node_id, node_count, group_id, n_groups)
    how = (profile, seq_len, k_dim, rows, stronger_rng)
    run(Out(json=json, command=repeat()), model=model, asked=Asked(*where, *how, key, per_commitment, file))


def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Artifacts, as `ftw poc generate` writes them.")],
    model: ModelName = None,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", help="Judge only so many.", show_default=False)
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            "--seed", metavar="HEX", help="What the sample is drawn by: newer than the commitment.", show_default=False
        ),
    ] = None,
    validator: Annotated[
        str,
        typer.Option("--validator", metavar="NAME", help="Whose sample: each name draws another.", show_default=False),
    ] = "",
    dist_threshold: Annotated[
        float, typer.Option("--dist-threshold", metavar="D", help="L2 distance above which a vector differs.")
    ] = 0.02,
    p_mismatch: Annotated[
        float, typer.Option("--p-mismatch", metavar="P", help="How often honest vectors differ so much.")
    ] = 0.001,
    fraud_threshold: Annotated[
        float, typer.Option("--fraud-threshold", metavar="P", help="Fraud below this p-value.")
    ] = 0.01,
    signer: Signer = None,
    block_hash: OfBlock = None,
    public_key: OfNode = None,
    json: Json = False,
) -> None:
    """Recompute artifacts with this model and judge them. Exit code 1 for fraud or a commitment that fails."""
    from ftw.poc.verify import StatTest
    from ftw.ui.verbs.poc_validate import Asked, run
    from ftw.ui.verbs.poc_verify_commitment import Expected

    test = StatTest(dist_threshold, p_mismatch, fraud_threshold)
    asked = Asked(file, Expected(signer, block_hash, public_key), sample, seed, validator, test)
    run(Out(json=json, command=repeat()), model=model, asked=asked)


def verify_commitment(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Artifacts, commitments, or an inclusion proof.")],
    signer: Signer = None,
    block_hash: OfBlock = None,
    public_key: OfNode = None,
    json: Json = False,
) -> None:
    """Check signature, root and inclusion of every artifact, without a model."""
    from ftw.ui.verbs.poc_verify_commitment import Expected, run

    run(Out(json=json, command=repeat()), file=file, expected=Expected(signer, block_hash, public_key))


COMMANDS: tuple[tuple[dict[str, Any], Any], ...] = (
    (
        verb(
            "generate",
            "ftw poc generate -n 4 --block-hash 0xabc",
            "ftw poc generate -n 16 --block-hash 0xabc --key node.pem --out artifacts.json",
        ),
        generate,
    ),
    (
        verb("validate", "ftw poc validate artifacts.json", "ftw poc validate artifacts.json --sample 4 --seed 0xf00d"),
        validate,
    ),
    (verb("verify-commitment", "ftw poc verify-commitment artifacts.json --block-hash 0xabc"), verify_commitment),
)

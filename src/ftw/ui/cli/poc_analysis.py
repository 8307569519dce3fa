"""`ftw poc radius`, `calibrate`, `simulate`, `distribution`: what a threshold, a radius or a vote is worth."""

from pathlib import Path
from typing import Annotated

import typer

from ftw.ui.cli.options import Json, Seed, at_least, names, verb
from ftw.ui.cli.output import Out, repeat

DATA = "tests/data/poc/poc_gpu_artifacts.npz"
"""Artifacts from real GPUs in the repository, for the examples."""
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write a report to FILE (.html).", show_default=False),
]
Patterns = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Parts of the names of these sets; * and ? as in a shell.", show_default=False),
]
Checked = Annotated[int, typer.Option("-n", metavar="N", help="Nonces that a validator checks.")]
Cutoff = Annotated[float, typer.Option("--cutoff", metavar="P", help="A verdict is fraud below this p-value.")]
Files = Annotated[list[Path], typer.Argument(metavar="SETS…", help="Artifact sets: .json or .npz.")]


def radius(
    k: Annotated[int, typer.Option("--k", metavar="K", help="Dimensions of a vector.")] = 64,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="P", help="Share of vectors to let pass, 0.10 for 10 %.", show_default=False),
    ] = None,
    radius: Annotated[
        float | None, typer.Option("--radius", metavar="R", help="Chord distance, 0 to 2.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Find the radius of a rate, or the rate of a radius, for uniform directions. Exact."""
    at_least("--k", k, 2)
    from ftw.ui.verbs.poc_radius import run

    run(Out(json=json, command=repeat()), k=k, rate=rate, radius=radius)


def calibrate(
    files: Files,
    honest: Patterns = None,
    cheat: Patterns = None,
    quantile: Annotated[
        float, typer.Option("--quantile", metavar="Q", help="Share of honest nonces below the threshold.")
    ] = 0.98,
    n: Checked = 200,
    cutoff: Cutoff = 0.05,
    seed: Seed = 0,
    json: Json = False,
    report: ReportFile = None,
) -> None:
    """Compare machines on the same nonces: distances, AUC, a threshold, and what a test with it catches.

    Sets that match --cheat come from a cheaper model; without --honest all others are honest.
    """
    at_least("-n", n, 1)
    good, bad = names(honest), names(cheat)
    from ftw.ui.verbs.poc_calibrate import run

    out = Out(json=json, command=repeat())
    run(out, files, honest=good, cheat=bad, quantile=quantile, n=n, cutoff=cutoff, seed=seed, report=report)


def simulate(
    validators: Annotated[int, typer.Option("--validators", metavar="N", help="How many vote.")] = 377,
    effective: Annotated[
        float | None,
        typer.Option(
            "--effective",
            metavar="M",
            help="Spread the weight so that they vote like M equal ones.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="One weight for each validator.", show_default=False),
    ] = None,
    honest_rate: Annotated[
        float, typer.Option("--honest-rate", metavar="P", help="How often an honest node mismatches.")
    ] = 0.02,
    cheat_rate: Annotated[
        float, typer.Option("--cheat-rate", metavar="P", help="How often the cheating node mismatches.")
    ] = 0.04,
    sets: Annotated[
        list[Path] | None,
        typer.Option("--sets", metavar="FILE", help="Take both rates from artifact sets instead.", show_default=False),
    ] = None,
    honest: Patterns = None,
    cheat: Patterns = None,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="D", help="The dist_threshold, where rates come from sets.")
    ] = 0.02,
    n: Checked = 200,
    p_mismatch: Annotated[
        float, typer.Option("--p-mismatch", metavar="P", help="The rate that the test takes for honest.")
    ] = 0.02,
    cutoff: Cutoff = 0.05,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="Rounds to simulate.")] = 20_000,
    seed: Seed = 0,
    json: Json = False,
    report: ReportFile = None,
) -> None:
    """Let a network of weighted validators vote on an honest and on a cheating node, round after round."""
    from ftw.ui.verbs.poc_simulate import Ask, rates_from, run, weights_from

    good: tuple[float, ...] = (honest_rate,)
    bad: tuple[float, ...] = (cheat_rate,)
    if sets:
        good, bad = rates_from(sets, names(honest), names(cheat), threshold)
    ask = Ask(n=n, p_mismatch=p_mismatch, cutoff=cutoff, rounds=rounds, seed=seed, honest=good, cheat=bad)
    found = weights_from(weights, validators, effective)
    used = [*(sets or ()), *([weights] if weights else ())]
    run(Out(json=json, command=repeat()), ask, found, files=used, report=report)


def distribution(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An artifact set: .json or .npz.")],
    one: Annotated[
        str | None,
        typer.Option("--set", metavar="NAME", help="Which set, where the file holds several.", show_default=False),
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", metavar="P", help="Share of the sphere around each random target.")
    ] = 0.1,
    targets: Annotated[int, typer.Option("--targets", metavar="N", help="Random targets.")] = 2000,
    seed: Seed = 0,
    json: Json = False,
    report: ReportFile = None,
) -> None:
    """Test whether vectors lie evenly on the sphere: mean, covariance, coordinates, rates at random targets."""
    from ftw.ui.verbs.poc_distribution import run

    out = Out(json=json, command=repeat())
    run(out, file, pattern=one, rate=rate, targets=targets, seed=seed, report=report)


COMMANDS = (
    (verb("radius", "ftw poc radius --k 64 --rate 0.10", "ftw poc radius --k 64 --radius 1.30 --json"), radius),
    (
        verb(
            "calibrate",
            f"ftw poc calibrate {DATA} --honest minimax --cheat awq",
            f"ftw poc calibrate {DATA} --honest qwen --json",
        ),
        calibrate,
    ),
    (
        verb(
            "simulate",
            "ftw poc simulate --validators 377 --effective 47 --rounds 2000",
            f"ftw poc simulate --sets {DATA} --honest minimax --cheat awq --threshold 0.65 --rounds 2000",
        ),
        simulate,
    ),
    (verb("distribution", f"ftw poc distribution {DATA} --set qwen235b-fp8-2xb200"), distribution),
)
"""Each verb with the way it is registered."""

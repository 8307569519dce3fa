"""Poc simulate: what a network of weighted validators says of an honest node and of a cheating one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.text import Text

from ftw.poc.calibrate import compare
from ftw.poc.simulate import MAJORITIES, Network, Vote, Weights, normal_share, shares, spread, vote
from ftw.substrate.errors import ConfigError
from ftw.ui.cli.output import Out
from ftw.ui.verbs.poc_sets import Clock, labelled, provenance, share, utc_now
from ftw.ui.visualization.charts import bar, percent
from ftw.ui.visualization.figure import figure
from ftw.ui.visualization.palette import HUES, grey
from ftw.ui.visualization.plots import Axis, Bars, Cell, Chart, Rule
from ftw.ui.visualization.report import Figure, Report, Table, check_target

BINS = 20
"""Rows of the histogram in a terminal: five percent of the weight each."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is simulated: the test, the rounds, and the two nodes that are voted on."""

    n: int
    p_mismatch: float
    cutoff: float
    rounds: int
    seed: int
    honest: tuple[float, ...]
    """Mismatch rates of the honest node, one for each kind of validator."""
    cheat: tuple[float, ...]


def run(
    out: Out, ask: Ask, weights: Weights, *, files: Sequence[Path] = (), report: Path | None, clock: Clock = utc_now
) -> None:
    """Simulate both votes, draw, give the document, write the report."""
    if report is not None:
        check_target(report)
    network = Network(weights, ask.n, ask.p_mismatch, ask.cutoff)
    rng = np.random.default_rng(ask.seed)
    with out.busy("Voting"):
        votes = {
            "honest": vote(network, ask.honest, rounds=ask.rounds, rng=rng),
            "cheat": vote(network, ask.cheat, rounds=ask.rounds, rng=rng),
        }
    draw(out, network, votes, ask)
    out.document({"command": "poc simulate", **document(network, votes, ask)})
    if report is not None:
        facts = provenance(files, clock, Seed=str(ask.seed), Rounds=f"{ask.rounds}")
        build(network, votes, ask, facts, out.command).write(report)
        out.tell(f"report written to {report}")


def weights_from(file: Path | None, validators: int, effective: float | None) -> Weights:
    """Each validator's share: from a file of numbers (a JSON list, or one on each line), or drawn up by two numbers.

    Raises ConfigError.
    """
    if file is None:
        return spread(validators, effective)
    if effective is not None:
        raise ConfigError("--weights already says how weight is spread: leave --effective out")
    if not file.is_file():
        raise ConfigError(f"there is no file {file}: give a JSON list of weights, or one weight on each line")
    text = file.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else text.split()
        return shares([float(one) for one in found])
    except (ValueError, TypeError):
        raise ConfigError(f"{file} does not hold numbers only: give a JSON list, or one weight on each line") from None


def rates_from(
    files: Sequence[Path], honest: Sequence[str] | None, cheat: Sequence[str] | None, threshold: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mismatch rates at a threshold from artifact sets: one of each honest pair, one of each cheat pair."""
    if not cheat:
        raise ConfigError("--sets needs --cheat PATTERN: which of the sets come from the cheaper model")
    pairs = [pair for pair in compare(*labelled(files, honest, cheat)) if pair.pooled]
    rates = [tuple(pair.above(threshold) for pair in pairs if pair.kind == kind) for kind in ("honest", "cheat")]
    if not rates[0]:
        raise ConfigError("the sets hold no two honest machines that differ: give --honest-rate instead of --sets")
    return rates[0], rates[1]


def reading(votes: dict[str, Vote]) -> str:
    """The claim: what happens to either node."""
    honest, cheat = (votes[name].decided(1 / 2) for name in ("honest", "cheat"))
    return (
        f"More than half of the weight calls the honest node a cheat in {share(honest)} of rounds, "
        f"the cheating one in {share(cheat)}"
    )


def draw(out: Out, network: Network, votes: dict[str, Vote], ask: Ask) -> None:
    """A table of both votes and their histograms."""
    rows = [Text(f"{'weight that says cheat':<26}{'honest node':>14}{'cheating node':>16}", grey(), no_wrap=True)]
    for name, values in _figures(network, votes):
        rows.append(Text(f"{name:<26}{values[0]:>14}{values[1]:>16}", no_wrap=True))
    rows += [Text(), *_histogram(out, votes)]
    out.show(
        figure(
            reading(votes),
            rows,
            f"{len(network.weights)} validators who vote like {network.effective:.0f} equal ones",
            f"each checks {ask.n} nonces and says cheat from {network.reject_from} mismatches "
            f"(p < {ask.cutoff:g} at p_mismatch {ask.p_mismatch:g})",
            f"mismatch rates {votes['honest'].rate:.3g} and {votes['cheat'].rate:.3g}",
            f"{ask.rounds} rounds, seed {ask.seed}",
            out.command,
        )
    )


def _figures(network: Network, votes: dict[str, Vote]) -> list[tuple[str, list[str]]]:
    both = [votes["honest"], votes["cheat"]]
    found = [
        ("expected", [f"{100 * one.p_vote:.2f} %" for one in both]),
        ("median", [f"{100 * one.quantile(0.5):.2f} %" for one in both]),
        ("5 % of rounds below", [f"{100 * one.quantile(0.05):.2f} %" for one in both]),
        ("5 % of rounds above", [f"{100 * one.quantile(0.95):.2f} %" for one in both]),
        ("most", [f"{100 * one.most:.2f} %" for one in both]),
    ]
    for majority, name in zip(MAJORITIES, ("P(more than 1/2)", "P(more than 2/3)"), strict=True):
        found.append((name, [f"{100 * one.decided(majority):.3f} %" for one in both]))
        normal = [f"{100 * normal_share(network, one.p_vote, majority):.3f} %" for one in both]
        found.append(("  if the sum were normal", normal))
    return found


def _histogram(out: Out, votes: dict[str, Vote]) -> list[Text]:
    edges = np.linspace(0.0, 1.0, BINS + 1)
    counts = [np.histogram(votes[name].weights, bins=edges)[0] for name in ("honest", "cheat")]
    rows = [Text(f"{'weight':<8}{'honest node':<33}cheating node", grey(), no_wrap=True)]
    last = max(int(np.flatnonzero(each)[-1]) for each in counts)
    for i in range(last + 1):
        row = Text(f"{100 * edges[i]:>4.0f} %  ", no_wrap=True)
        for place, each in enumerate(counts):
            found = float(each[i] / each.sum())
            row.append(f"{percent(found) if found else '':>5} ")
            row.append(bar(found, 26) + " ", HUES[place] if out.has_colour else "")
        rows.append(row)
    return rows


def document(network: Network, votes: dict[str, Vote], ask: Ask) -> dict[str, object]:
    """What `--json` gives."""
    return {
        "validators": len(network.weights),
        "effective_validators": network.effective,
        "largest_share": float(network.weights.max()),
        "test": {
            "n": ask.n,
            "p_mismatch": ask.p_mismatch,
            "fraud_threshold": ask.cutoff,
            "reject_from": network.reject_from,
        },
        "rounds": ask.rounds,
        "seed": ask.seed,
        "votes": {
            name: {
                "mismatch_rate": one.rate,
                "expected_weight": one.p_vote,
                "weight_quantiles": {f"{q:g}": one.quantile(q) for q in (0.05, 0.5, 0.95)},
                "weight_max": one.most,
                "p_more_than_half": one.decided(1 / 2),
                "p_more_than_two_thirds": one.decided(2 / 3),
            }
            for name, one in votes.items()
        },
    }


def build(network: Network, votes: dict[str, Vote], ask: Ask, facts: dict[str, str], command: str) -> Report:
    """The report of both votes."""
    edges = np.linspace(0.0, 1.0, 51)
    marks = tuple(
        Bars(f"{name} node", edges.tolist(), (np.histogram(votes[key].weights, edges)[0] / ask.rounds).tolist())
        for key, name in (("honest", "honest"), ("cheat", "cheating"))
    )
    rules = (Rule(1 / 2, "half of the weight"), Rule(2 / 3, "two thirds"))
    chart = Chart(
        Axis("weight that says cheat", percent=True, low=0.0, high=1.0), Axis("rounds", percent=True), marks, rules
    )
    rows: list[tuple[Cell, ...]] = [(name, *values) for name, values in _figures(network, votes)]
    equal = f"{len(network.weights)} validators vote like {network.effective:.0f} equal ones."
    half = f"{reading(votes)}."
    thirds = [share(votes[name].decided(2 / 3)) for name in ("honest", "cheat")]
    return Report(
        title=reading(votes),
        asked=f"What does a network say of a node whose nonces mismatch at {votes['honest'].rate:.3g} (honest) or "
        f"{votes['cheat'].rate:.3g} (cheating), where each validator checks {ask.n} nonces?",
        answer=(half, f"More than two thirds do so in {thirds[0]} and {thirds[1]} of rounds.", equal),
        figures=[Figure(reading(votes), chart, f"{ask.rounds} rounds, seed {ask.seed}, bins of 2 % of the weight")],
        tables=[Table("Weight that says cheat", ("", "honest node", "cheating node"), tuple(rows))],
        methods=(
            f"A validator says cheat from {network.reject_from} mismatches of {ask.n}: there the binomial p-value at "
            f"p_mismatch {ask.p_mismatch:g} falls below {ask.cutoff:g}. The chance of that is exact; each round draws "
            "every validator's vote and adds the weights.",
            "Validators draw their samples independently, and nobody votes against what the test says. Rows “if the "
            "sum were normal” are a check by the central limit theorem, coarse where few heavy validators decide.",
        ),
        provenance=facts,
        command=command,
    )

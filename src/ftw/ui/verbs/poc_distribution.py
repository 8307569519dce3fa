"""Poc distribution: whether a round's vectors lie evenly on the sphere, statistic by statistic."""

from pathlib import Path

import numpy as np
from rich.text import Text

from ftw.poc.distribution import Against, Distribution, distribution
from ftw.poc.radius import density
from ftw.ui.cli.output import Out
from ftw.ui.verbs.poc_sets import Clock, provenance, single, utc_now
from ftw.ui.visualization.charts import spark
from ftw.ui.visualization.figure import figure
from ftw.ui.visualization.palette import HUES, grey
from ftw.ui.visualization.plots import Axis, Bars, Cell, Chart, Line, Points, Rule
from ftw.ui.visualization.report import Figure, Report, Table, check_target


def run(
    out: Out,
    file: Path,
    *,
    pattern: str | None,
    rate: float,
    targets: int,
    seed: int,
    report: Path | None,
    clock: Clock = utc_now,
) -> None:
    """Analyse one set, draw, give the document, write the report."""
    if report is not None:
        check_target(report)
    one = single(file, pattern)
    with out.busy("Comparing with uniform vectors"):
        found = distribution(one.vectors, rate=rate, targets=targets, seed=seed)
    draw(out, found, one.name)
    out.document({"command": "poc distribution", "set": one.name, **document(found)})
    if report is not None:
        facts = provenance([file], clock, Set=one.name, Seed=str(seed))
        build(found, one.name, facts, out.command).write(report)
        out.tell(f"report written to {report}")


def reading(found: Distribution) -> str:
    """The claim: even or not, and where not."""
    if found.uneven:
        return f"{found.n} vectors do not lie evenly on the sphere: {', '.join(found.uneven)}"
    return f"{found.n} vectors lie on the sphere as evenly as {found.n} uniform ones"


def _statistics(found: Distribution) -> list[tuple[str, Against]]:
    return [
        ("length of the mean vector", found.mean_norm),
        ("largest eigenvalue × k", found.largest),
        ("smallest eigenvalue × k", found.smallest),
        ("mean rate at targets", found.bubble_mean),
        ("sd of the rate at targets", found.bubble_sd),
    ]


def draw(out: Out, found: Distribution, name: str) -> None:
    """Statistics beside their ideals, the spectrum and the rates as sparks."""
    head = f"{'statistic':<28}{'found':>9}{'uniform':>10}{'95 % of uniform':>22}{'p':>8}"
    rows = [Text(head, grey(), no_wrap=True)]
    for label, one in _statistics(found):
        span = f"{one.low:.4f} to {one.high:.4f}"
        rows.append(Text(f"{label:<28}{one.value:>9.4f}{one.ideal:>10.4f}{span:>22}{one.p:>8.2g}", no_wrap=True))
    gap = f"{float(found.ks.max()):.4f}"
    rows.append(Text(f"{'worst coordinate (KS)':<28}{gap:>9}{'':>32}{found.ks_worst_p:>8.2g}", no_wrap=True))
    counts = found.distances.reshape(50, 2).sum(axis=1)
    hue = HUES[0] if out.has_colour else ""
    rows += [
        Text(),
        Text("distances to targets, 0 to 2 (below: theory)", grey()),
        Text(spark(np.where(counts < 0.01 * counts.max(), 0.0, counts / counts.max()).tolist(), 60), hue),
        Text(spark(_theory(found, 50), 60), grey()),
    ]
    out.show(
        figure(
            reading(found),
            rows,
            f"{name}, k {found.k}",
            f"{len(found.rates)} random targets, radius {found.radius:.4f} for a rate of {found.rate:g}",
            "p: how often uniform vectors are this far out; of coordinates corrected for their number",
            f"seed {found.seed}",
            out.command,
        )
    )


def _theory(found: Distribution, bins: int) -> list[float]:
    middles = (np.arange(bins) + 0.5) * (2.0 / bins)
    expected = density(middles, found.k)
    shares = expected / expected.max()
    return [float(value) for value in np.where(shares < 0.01, 0.0, shares)]


def document(found: Distribution) -> dict[str, object]:
    """What `--json` gives."""
    return {
        "n": found.n,
        "k": found.k,
        "even": not found.uneven,
        "uneven": found.uneven,
        "mean_norm": found.mean_norm,
        "eigenvalues_times_k": found.spectrum.tolist(),
        "largest_eigenvalue_times_k": found.largest,
        "smallest_eigenvalue_times_k": found.smallest,
        "coordinates": {"ks": found.ks.tolist(), "p": found.ks_p.tolist(), "worst_p_corrected": found.ks_worst_p},
        "targets": {
            "n": len(found.rates),
            "radius": found.radius,
            "rate": found.rate,
            "mean_rate": found.bubble_mean,
            "sd_rate": found.bubble_sd,
        },
        "seed": found.seed,
    }


def build(found: Distribution, name: str, facts: dict[str, str], command: str) -> Report:
    """The report with spectrum, distances, rates and coordinates."""
    rows: list[tuple[Cell, ...]] = [
        (label, one.value, one.ideal, one.low, one.high, one.p) for label, one in _statistics(found)
    ]
    rows.append(("worst coordinate, KS distance", float(found.ks.max()), None, None, None, found.ks_worst_p))
    norm, sd = found.mean_norm, found.bubble_sd
    return Report(
        title=reading(found),
        asked=f"Do the {found.n} vectors of {name} point in every direction alike, as a filter by targets assumes?",
        answer=(
            f"{reading(found)}, at 1 % for all statistics together.",
            f"The mean vector is {norm.value:.3f} long, where 95 % of uniform samples give {norm.low:.3f} to "
            f"{norm.high:.3f}.",
            f"At {len(found.rates)} random targets the rate varies by {sd.value:.4f}, where the binomial says "
            f"{sd.ideal:.4f} and uniform samples give {sd.low:.4f} to {sd.high:.4f}.",
        ),
        figures=[_spectrum(found), _distances(found), _rates(found), _coordinates(found)],
        tables=[Table("Statistics", ("statistic", "found", "uniform", "low", "high", "p"), tuple(rows), _NOTE)],
        methods=(
            "Ranges come from uniform samples of the same number and width; the mean rate's from the targets drawn. "
            "The spread of rates is compared with samples of at most 1000 vectors, scaled by the binomial's sd.",
            "A coordinate is compared with the exact distribution of one coordinate of a uniform unit vector "
            "(Kolmogorov-Smirnov); the p of the worst is multiplied by the number of coordinates.",
            "An even cloud says that a filter by targets is a fair lottery. It is no evidence that anything was "
            "computed: only recomputed vectors are.",
        ),
        provenance=facts,
        command=command,
    )


_NOTE = "Low and high hold 95 % of uniform samples. p: how often uniform vectors are at least this far out."


def _spectrum(found: Distribution) -> Figure:
    x = [float(i + 1) for i in range(found.k)]
    middle = ((found.spectrum_low + found.spectrum_high) / 2.0).tolist()
    uniform = Line("uniform, 95 % range", x, middle, found.spectrum_low.tolist(), found.spectrum_high.tolist(), True)
    inside = int(((found.spectrum >= found.spectrum_low) & (found.spectrum <= found.spectrum_high)).sum())
    return Figure(
        f"{inside} of {found.k} eigenvalues lie where those of uniform vectors do",
        Chart(
            Axis("eigenvalue, from the largest", low=0.5, high=found.k + 0.5),
            Axis("eigenvalue × k"),
            (Points("found", x, found.spectrum.tolist()), uniform),
            (Rule(1.0, "perfect balance", across=True),),
        ),
        f"second moment of {found.n} vectors in {found.k} dimensions",
    )


def _distances(found: Distribution) -> Figure:
    edges = np.linspace(0.0, 2.0, len(found.distances) + 1)
    middles = (edges[:-1] + edges[1:]) / 2.0
    bins = density(middles, found.k) * (edges[1] - edges[0])
    gap = float(np.abs(np.cumsum(found.distances) - np.cumsum(bins)).max())
    return Figure(
        f"Distances to random targets follow theory to within {100 * gap:.2g} percentage points",
        Chart(
            Axis("chord distance to a target", low=0.0, high=2.0),
            Axis("share", percent=True),
            (
                Bars("found", edges.tolist(), found.distances.tolist()),
                Line("theory", middles.tolist(), bins.tolist(), dashed=True),
            ),
            (Rule(found.radius, f"radius {found.radius:.4f}, rate {100 * found.rate:g} %"),),
        ),
        f"{found.n} vectors × {len(found.rates)} targets, bins of {edges[1]:.2f}",
    )


def _rates(found: Distribution) -> Figure:
    sd = found.bubble_sd.ideal
    reach = max(4.0 * sd, float(np.abs(found.rates - found.rate).max()) * 1.02)
    # a rate is a whole number of vectors: bins of whole numbers, else some would hold more values than others
    step = max(1, round(2.0 * reach * found.n / 40))
    least, most = (int(end * found.n) for end in (max(0.0, found.rate - reach), found.rate + reach))
    edges = (np.arange(least, most + step + 1, step) - 0.5) / found.n
    middles = (edges[:-1] + edges[1:]) / 2.0
    normal = np.exp(-0.5 * ((middles - found.rate) / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi)) * (edges[1] - edges[0])
    share = (np.histogram(found.rates, edges)[0] / len(found.rates)).tolist()
    return Figure(
        f"The rate at a target varies {found.bubble_sd.value / sd:.2f} times as much as the binomial says",
        Chart(
            Axis("share of vectors near the target", percent=True),
            Axis("targets", percent=True),
            (
                Bars("found", edges.tolist(), share),
                Line("binomial", middles.tolist(), normal.tolist(), dashed=True),
            ),
            (Rule(found.rate, f"theory {100 * found.rate:g} %"),),
        ),
        f"{len(found.rates)} random targets, radius {found.radius:.4f}, seed {found.seed}",
    )


def _coordinates(found: Distribution) -> Figure:
    bound = 1.63 / float(np.sqrt(found.n))
    over = int((found.ks > bound).sum())
    x = [float(i) for i in range(found.k)]
    return Figure(
        f"{over} of {found.k} coordinates leave the range that a coordinate of uniform vectors keeps in 99 % of cases",
        Chart(
            Axis("coordinate", low=-0.5, high=found.k - 0.5),
            Axis("greatest gap to the exact distribution", low=0.0),
            (Points("coordinate", x, found.ks.tolist()),),
            (Rule(bound, "1 % level of one coordinate", across=True),),
        ),
        f"Kolmogorov-Smirnov distance, {found.n} vectors",
    )

"""The report of a calibration: histograms, power, a map of machines, every pair and every test."""

from collections.abc import Mapping

import numpy as np

from ftw.poc.calibrate import Calibration
from ftw.ui.verbs.poc_sets import share, short_names
from ftw.ui.visualization.charts import percent
from ftw.ui.visualization.plots import Axis, Bars, Cell, Chart, Heat, Line, Rule
from ftw.ui.visualization.report import Figure, Report, Table

WIDTH = 0.05
"""Width of a bin of distances."""


def build(found: Calibration, reading: str, provenance: Mapping[str, str], command: str) -> Report:
    """The report. `reading` is its title."""
    return Report(
        title=reading,
        asked="How far apart are vectors that honest machines compute for the same nonces, and which dist_threshold, "
        "p_mismatch and p cutoff tell a cheaper model from them?",
        answer=_answer(found),
        figures=[_histogram(found), _machines(found), *_power(found)],
        tables=[_tests(found), _pairs(found)],
        methods=_methods(found),
        provenance=provenance,
        command=command,
    )


def _answer(found: Calibration) -> tuple[str, ...]:
    best, pooled = found.tests[:2]
    at = found.threshold
    first = (
        f"Honest pairs differ by {found.pool('honest').mean():.3f} on average; {100 * found.quantile:g} % of their "
        f"nonces stay below {at.value:.3f} (95 % interval {at.low:.3f} to {at.high:.3f})."
    )
    second = (
        f"With dist_threshold {at.value:.3f} and p_mismatch {best.p_mismatch:.3g}, fraud from {best.reject_from} "
        f"mismatches of {found.n}, an honest node is flagged in {share(best.false_alarm)} of tests, one like the worst "
        f"pair in {share(best.false_alarm_worst)} (with the pooled p_mismatch {pooled.p_mismatch:.3g} in "
        f"{share(pooled.false_alarm_worst)})."
    )
    if found.auc is None:
        return first, second
    third = (
        f"A node that computes everything with the cheaper model is caught in {share(best.power or 0.0)} of tests; the "
        f"AUC of a single nonce is {found.auc.value:.3f} ({found.auc.low:.3f} to {found.auc.high:.3f})."
    )
    return first, second, third


def _histogram(found: Calibration) -> Figure:
    pools = {name: found.pool(name) for name in ("honest", "cheat")}
    top = max(float(pool.max()) for pool in pools.values() if len(pool))
    edges = np.arange(0.0, top + WIDTH, WIDTH).tolist()
    marks = tuple(
        Bars(f"{name} pairs, {len(pool)} distances", edges, (np.histogram(pool, edges)[0] / len(pool)).tolist())
        for name, pool in pools.items()
        if len(pool)
    )
    at = found.threshold.value
    reading = f"{100 * found.quantile:g} % of honest distances lie below {at:.3f}"
    if len(pools["cheat"]):
        reading += f", {percent(float((pools['cheat'] > at).mean()))} of the cheaper model's above"
    return Figure(
        reading,
        Chart(
            Axis("L2 distance of two machines' vectors", low=0.0),
            Axis("share of nonces", percent=True),
            marks,
            (Rule(at, f"dist_threshold {at:.3f}"), Rule(0.02, "wire default 0.02")),
        ),
        f"L2 between unit vectors in fp32, k {found.k}, bins of {WIDTH}; each distinct set counts once",
    )


def _machines(found: Calibration) -> Figure:
    names = _names(found)
    means = {frozenset((pair.a, pair.b)): float(pair.distances.mean()) for pair in found.pairs}
    short = short_names(names)
    values = tuple(tuple(0.0 if a == b else means[frozenset((a, b))] for b in names) for a in names)
    honest, cheat = (
        [float(pair.distances.mean()) for pair in found.pairs if pair.kind == kind] for kind in ("honest", "cheat")
    )
    reading = f"Honest machines differ by at most {max(honest):.3f} on average"
    if cheat:
        reading += f", the cheaper model by at least {min(cheat):.3f}"
    columns = tuple(str(i + 1) for i in range(len(names)))
    rows = tuple(f"{i + 1} {name}" for i, name in enumerate(short))
    return Figure(
        reading,
        Heat(columns, rows, values, "set", "set", "mean L2 distance", low=0.0),
        f"mean over common nonces, {min(len(pair.nonces) for pair in found.pairs)} or more for each pair",
    )


def _names(found: Calibration) -> list[str]:
    """Every set, in the order of its number."""
    return list(dict.fromkeys(name for pair in found.pairs for name in (pair.a, pair.b)))


def _power(found: Calibration) -> list[Figure]:
    if not found.power_by_share:
        return []
    x, y = (list(column) for column in zip(*found.power_by_share, strict=True))
    sure = next((part for part, power in found.power_by_share if power >= 0.95), None)
    reading = "No share tried here is caught in 95 % of tests"
    if sure is not None:
        reading = f"A node that fakes {percent(sure)} of its nonces is caught in at least 95 % of tests"
    false_alarm = found.tests[0].false_alarm
    return [
        Figure(
            reading,
            Chart(
                Axis("share of nonces from the cheaper model", percent=True, low=0.0, high=1.0),
                Axis("P(fraud)", percent=True, low=0.0, high=1.0),
                (Line("caught", [0.0, *x], [false_alarm, *y]),),
                (Rule(false_alarm, f"false alarm {share(false_alarm)}", across=True),),
            ),
            f"exact binomial, {found.n} nonces, fraud from {found.tests[0].reject_from} mismatches",
        )
    ]


def _tests(found: Calibration) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            test.what,
            test.dist_threshold,
            test.p_mismatch,
            test.reject_from,
            share(test.false_alarm),
            share(test.false_alarm_worst),
            None if test.power is None else share(test.power),
        )
        for test in found.tests
    ]
    heads = ("test", "dist_threshold", "p_mismatch", "fraud from", "false alarm", "worst pair", "power")
    note = (
        f"Fraud where the p-value of {found.n} nonces is below {found.cutoff:g}. False alarm: an honest node that "
        "mismatches as the honest pool does; worst pair: one like the honest pair that mismatches most."
    )
    return Table("What each test would do on these sets", heads, tuple(rows), note)


def _pairs(found: Calibration) -> Table:
    number = {name: place for place, name in enumerate(_names(found), 1)}
    rows: list[tuple[Cell, ...]] = []
    for pair in found.pairs:
        d = pair.distances
        quantiles = [pair.quantile(q) for q in (0.5, 0.98)]
        shares = [percent(pair.above(found.threshold.value)), percent(pair.above(0.02))]
        figures: tuple[Cell, ...] = (float(d.mean()), float(d.std()), *quantiles, float(d.max()), *shares)
        rows.append((pair.kind, f"{number[pair.a]} – {number[pair.b]}", len(d), *figures))
    heads = ("pair", "sets", "n", "mean", "sd", "median", "98 %", "max", "> threshold", "> 0.02")
    note = (
        "Numbers are those of the map above. A pair with a set that repeats another one to the last bit is listed here "
        "and left out of the pools."
    )
    return Table("Every pair of sets", heads, tuple(rows), note)


def _methods(found: Calibration) -> tuple[str, ...]:
    return (
        "Two sets are compared on the nonces that both hold: the L2 distance of the binary16 vectors, computed in fp32 "
        "as a verdict does. Honest pairs join two sets labelled honest; cheat pairs join an honest and a cheat set.",
        f"The threshold is the {100 * found.quantile:g} % quantile of all honest distances. The recommended p_mismatch "
        "is the share above it in the honest pair that mismatches most, so that none of these pairs is flagged more "
        "often than the cutoff allows; the pooled one is the share in all honest pairs. Error rates are exact tails of "
        f"the binomial for {found.n} nonces that mismatch independently.",
        f"Intervals hold 95 % of {found.resamples} resamples of the nonces. They say nothing about machines, drivers "
        "or models that are not among the sets: labels are those of whoever collected them.",
    )

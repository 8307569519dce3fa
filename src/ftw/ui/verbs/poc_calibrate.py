"""Poc calibrate: what honest machines differ by, and which threshold tells a cheaper model from them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.style import Style
from rich.text import Text

from ftw.poc.calibrate import Calibration, Interval, Pair, TestAt, calibrate
from ftw.ui.cli.output import Out
from ftw.ui.verbs.poc_calibrate_report import build
from ftw.ui.verbs.poc_sets import Clock, labelled, provenance, share, short_names, utc_now
from ftw.ui.visualization.charts import bar, cut, percent
from ftw.ui.visualization.figure import figure
from ftw.ui.visualization.palette import HUES, grey
from ftw.ui.visualization.report import check_target

BINS = 14
"""Rows of the histogram."""
BAR = 22
"""Columns of a bar."""


def run(
    out: Out,
    files: Sequence[Path],
    *,
    honest: Sequence[str] | None,
    cheat: Sequence[str] | None,
    quantile: float,
    n: int,
    cutoff: float,
    seed: int,
    report: Path | None,
    clock: Clock = utc_now,
) -> None:
    """Compare, draw, give the document, write the report. Raises what `poc.sets` and `poc.calibrate` raise."""
    if report is not None:
        check_target(report)
    good, frauds = labelled(files, honest, cheat)
    with out.busy("Comparing sets"):
        found = calibrate(good, frauds, quantile=quantile, n=n, cutoff=cutoff, seed=seed)
    draw(out, found)
    out.document({"command": "poc calibrate", **document(found)})
    if report is not None:
        facts = provenance(files, clock, Seed=f"{seed}, {found.resamples} resamples of the nonces")
        build(found, reading(found), facts, out.command).write(report)
        out.tell(f"report written to {report}")


def reading(found: Calibration) -> str:
    """The claim: what tells honest from cheat, or where honest ends."""
    at = f"{found.threshold.value:.3f}"
    if found.auc is None:
        return f"{percent(found.quantile)} of honest nonces differ by at most {at} between machines"
    test = found.tests[0]
    caught = share(test.power or 0.0)
    return (
        f"At dist_threshold {at} a test of {found.n} nonces catches the cheaper model in {caught} of cases, "
        f"AUC {found.auc.value:.3f}"
    )


def draw(out: Out, found: Calibration) -> None:
    """Pairs, histogram, tests."""
    rows = [*_pairs(found.pairs), Text(), *_histogram(out, found), Text(), *_tests(found.tests)]
    auc = "" if found.auc is None else f"AUC {_between(found.auc)}"
    out.show(
        figure(
            reading(found),
            rows,
            f"L2 between unit vectors, k {found.k}",
            f"dist_threshold {_between(found.threshold)}: the {100 * found.quantile:g} % quantile of honest pairs",
            auc,
            f"intervals 95 %, {found.resamples} resamples of the nonces, seed {found.seed}",
            f"fraud where p < {found.cutoff:g} of {found.n} nonces",
            out.command,
        )
    )


def _between(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _pairs(pairs: Sequence[Pair]) -> list[Text]:
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))
    number = {name: place for place, name in enumerate(names, 1)}
    rows = [Text(f"{place:>3}  {cut(short, 72).rstrip()}") for place, short in enumerate(short_names(names), 1)]
    head = f"{'pair':<10}{'sets':<9}{'n':>6}{'mean':>8}{'sd':>8}{'50 %':>8}{'98 %':>8}{'max':>8}{'> 0.02':>9}"
    rows += [Text(), Text(head, grey(), no_wrap=True)]
    for pair in pairs:
        d = pair.distances
        name = f"{pair.kind:<10}{number[pair.a]:>2} {number[pair.b]:>2}    {len(d):>6}"
        if pair.identical:
            rows.append(Text(f"{name}  equal to the last bit", no_wrap=True))
            continue
        figures = f"{d.mean():>8.3f}{d.std():>8.3f}{pair.quantile(0.5):>8.3f}{pair.quantile(0.98):>8.3f}{d.max():>8.3f}"
        style = Style() if pair.pooled else grey()
        rows.append(Text(f"{name}{figures}{100 * pair.above(0.02):>7.1f} %", style, no_wrap=True))
    if any(not pair.pooled for pair in pairs):
        rows.append(Text("a set that repeats another to the last bit does not count twice below", grey()))
    return rows


def _histogram(out: Out, found: Calibration) -> list[Text]:
    """Shares of the distances in equal bins, honest beside cheat, with the threshold marked."""
    honest, cheat = found.pool("honest"), found.pool("cheat")
    top = float(np.ceil(max(honest.max(), cheat.max() if len(cheat) else 0.0) * 10.0) / 10.0)
    edges = np.linspace(0.0, top, BINS + 1)
    shares = [np.histogram(pool, bins=edges)[0] / len(pool) for pool in (honest, cheat) if len(pool)]
    most = max(float(each.max()) for each in shares)
    names = "".join(name.ljust(BAR + 7) for name in ("honest", "cheat")[: len(shares)])
    rows = [Text(f"distance  {names}".rstrip(), grey(), no_wrap=True)]
    for i in range(BINS):
        row = Text(f"{edges[i]:>7.2f}   ", no_wrap=True)
        for place, each in enumerate(shares):
            value = float(each[i])
            row.append(f"{percent(value):>5} " if value else "      ")
            row.append(bar(value / most, BAR) + " ", HUES[place] if out.has_colour else "")
        if edges[i] <= found.threshold.value < edges[i + 1]:
            row.append("◂ threshold")
        rows.append(row)
    return rows


def _tests(tests: Sequence[TestAt]) -> list[Text]:
    heads = f"{'threshold':>9}{'p_mismatch':>12}{'fraud from':>12}{'false alarm':>13}{'worst pair':>12}{'power':>9}"
    rows = [Text(f"{'test':<12}{heads}", grey(), no_wrap=True)]
    for test in tests:
        power = "-" if test.power is None else share(test.power)
        figures = f"{test.dist_threshold:>9.3f}{test.p_mismatch:>12.3g}{test.reject_from:>12}"
        alarms = f"{share(test.false_alarm):>13}{share(test.false_alarm_worst):>12}{power:>9}"
        rows.append(Text(f"{test.what:<12}{figures}{alarms}", no_wrap=True))
    return rows


def document(found: Calibration) -> dict[str, object]:
    """What `--json` gives. The distances themselves stay out of it."""
    test = found.tests[0]
    return {
        "k": found.k,
        "recommended": {
            "dist_threshold": found.threshold,
            "p_mismatch": test.p_mismatch,
            "fraud_threshold": found.cutoff,
        },
        "p_mismatch_pooled": found.tests[1].p_mismatch,
        "auc": found.auc,
        "n": found.n,
        "tests": found.tests,
        "power_by_faked_share": [{"share": share, "power": power} for share, power in found.power_by_share],
        "pairs": [_record(pair, found.threshold.value) for pair in found.pairs],
        "quantile": found.quantile,
        "resamples": found.resamples,
        "seed": found.seed,
    }


def _record(pair: Pair, threshold: float) -> dict[str, object]:
    return {
        "a": pair.a,
        "b": pair.b,
        "kind": pair.kind,
        "n": len(pair.distances),
        "mean": float(pair.distances.mean()),
        "sd": float(pair.distances.std()),
        "quantiles": {f"{q:g}": pair.quantile(q) for q in (0.5, 0.9, 0.98, 0.99)},
        "max": float(pair.distances.max()),
        "identical": pair.identical,
        "pooled": pair.pooled,
        "share_above_threshold": pair.above(threshold),
        "share_above_0.02": pair.above(0.02),
    }

"""The page of a compliance report: five properties, calibration, every lens, confusions, steering.

The rule of the file: everything here is read from the report's records. No model and no pack is needed to draw.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ftw.map.training.compliance.records import ComplianceReport
from ftw.map.training.compliance.records import Figure as Measured
from ftw.ui.visualization.plots import Axis, Bars, Cell, Chart, Line, Points, Rule, shown
from ftw.ui.visualization.report import Figure, Report, Table

NAMES = {
    "locality": "Locality",
    "transduction": "Transduction",
    "calibration": "Calibration",
    "efficiency": "Efficiency",
    "control_authority": "Control authority",
}
WEAKEST = 30
"""Lenses drawn with their intervals."""
MOST_ROWS = 400
"""Lenses in the table: the others stand in the JSON."""
BINS = 25
BASELINES = {
    "baseline_lenses": "lenses",
    "baseline_linear": "linear",
    "baseline_centroid": "centroid",
    "baseline_random_twin": "random twin",
    "baseline_tfidf": "text alone",
}


def report_of(report: ComplianceReport, training: Mapping[str, Any] | None, command: str) -> Report:
    """The page."""
    drawn = [calibration(report), baselines(report), aurocs(report), weakest(report), alarms(report), steering(report)]
    return Report(
        title=reading_of(report),
        asked=f"Do the {report.lenses_n} lenses of {report.lens_pack.name} {report.lens_pack.version} tell what "
        f"{report.model.name} represents: locally, with meaning, calibrated, at a known cost, and can it be steered?",
        answer=_answer(report),
        figures=[figure for figure in drawn if figure is not None],
        tables=[*_properties(report), *_levels(report), *_confusions(report), *_lenses(report)],
        methods=_methods(report, training),
        provenance=_provenance(report),
        command=command or f"ftw lens report --pack {report.lens_pack.name} --measure",
    )


def reading_of(report: ComplianceReport) -> str:
    """How many of the properties hold, and which do not."""
    met = [one for one in report.properties if one.verdict == "met"]
    rest = [f"{NAMES[one.name].lower()} {one.verdict}" for one in report.properties if one.verdict != "met"]
    said = f"{len(met)} of {len(report.properties)} properties hold for {report.lens_pack.name} on {report.model.name}"
    return f"{said}: {', '.join(rest)}" if rest else said


def value_of(figure: Measured) -> str:
    """A figure as a person reads it, without its unit where that is a share."""
    if figure.value is None:
        return "–"
    if figure.unit.startswith("share"):
        return shown(figure.value, percent=True)
    if figure.unit == "bytes":
        return f"{figure.value / 1e6:.1f} MB"
    return f"{shown(figure.value)} ms" if figure.unit == "ms" else shown(figure.value)


def bound_of(figure: Measured) -> str:
    """What a figure is held against, and whether it keeps it."""
    parts = [(sign, bound) for sign, bound in (("≤", figure.at_most), ("≥", figure.at_least)) if bound is not None]
    if not parts:
        return ""
    percent = figure.unit.startswith("share")
    said = ", ".join(f"{sign} {shown(bound, percent=percent)}" for sign, bound in parts)
    return f"{said}  not met" if figure.is_met is False else said


def calibration(report: ComplianceReport) -> Figure:
    """Probability against frequency, before and after."""
    error = report.property("calibration").figure("ece_after").value
    marks = (
        Line("expected", (0.0, 1.0), (0.0, 1.0), dashed=True),
        Line("sigmoid of the logit", report.before.said, report.before.true),
        Line("the pack's maps", report.after.said, report.after.true),
    )
    said = "Calibration could not be measured" if error is None else f"Calibrated probabilities are off by {error:.3f}"
    chart = Chart(
        Axis("what a lens says", low=0.0, high=1.0, percent=True),
        Axis("how often it is true", low=0.0, high=1.0, percent=True),
        marks,
    )
    return Figure(f"{said} on average", chart, _foot(report, f"{sum(report.after.n)} readings, 15 bins of equal width"))


def baselines(report: ComplianceReport) -> Figure | None:
    """The lenses beside what is simpler."""
    found = report.property("transduction")
    known = [(label, found.figure(name).value) for name, label in BASELINES.items()]
    values = [(label, value) for label, value in known if value is not None]
    if not values or values[0][0] != "lenses":
        return None
    others = [(value, label) for label, value in values[1:]]
    best = max(others, default=None)
    said = f"Words never trained on are read at AUROC {values[0][1]:.3f}"
    reading = f"{said}; the best baseline, {best[1]}, gives {best[0]:.3f}" if best else said
    edges = tuple(at - 0.5 for at in range(len(values) + 1))
    chart = Chart(
        Axis("what reads"),
        Axis("macro AUROC", low=0.0, high=1.0),
        (Bars("macro AUROC", edges, tuple(value for _, value in values)),),
        rules=(Rule(0.5, "chance", across=True),),
        names=tuple(label for label, _ in values),
    )
    return Figure(reading, chart, _foot(report, "templates and synsets held out, as training measured it"))


def aurocs(report: ComplianceReport) -> Figure | None:
    """How the lenses are spread."""
    now = [one.auroc for one in report.lenses if one.auroc is not None]
    words = [one.auroc_words for one in report.lenses if one.auroc_words is not None]
    if not now and not words:
        return None
    low = min(math.floor(20 * min(part)) / 20 for part in (now, words) if part)
    low = min(low, 0.95)
    edges = tuple(low + (1 - low) * at / BINS for at in range(BINS + 1))
    parts = (("templates held out", now), ("synsets held out too (training)", words))
    marks = tuple(Bars(name, edges, _histogram(values, edges)) for name, values in parts if values)
    best = words or now
    share = sum(value >= 0.9 for value in best) / len(best)
    rules = (Rule(0.5, "chance"),) if low <= 0.5 else ()
    chart = Chart(Axis("AUROC of a lens", low=low, high=1.0), Axis("lenses"), marks, rules=rules)
    return Figure(
        f"{shown(share, percent=True)} of the lenses have an AUROC of 0.9 or more", chart, _foot(report, "one per lens")
    )


def weakest(report: ComplianceReport) -> Figure | None:
    """The weakest lenses with their intervals."""
    known = [(one.auroc, one.low, one.high, one.term) for one in report.lenses if one.auroc is not None]
    some = sorted(known, key=lambda each: each[0] or 0)[:WEAKEST]
    if len(some) < 2:
        return None
    marks = Points(
        "AUROC",
        tuple(range(len(some))),
        tuple(float(each[0] or 0) for each in some),
        tuple(float(each[0] if each[1] is None else each[1]) for each in some),
        tuple(float(each[0] if each[2] is None else each[2]) for each in some),
    )
    chart = Chart(
        Axis("concept"), Axis("AUROC, templates held out", high=1.0), (marks,), names=tuple(each[3] for each in some)
    )
    return Figure(
        f"The weakest lens is that of {some[0][3]}, at AUROC {some[0][0]:.2f}",
        chart,
        _foot(report, "95 % intervals over synsets"),
    )


def alarms(report: ComplianceReport) -> Figure:
    """False alarms of the lenses on neutral text."""
    found = report.property("calibration")
    values = [one.false_alarms for one in report.lenses]
    bound = found.figure("false_alarms").at_most or 0.0
    top = max(*values, bound) * 1.05 or 0.01
    edges = tuple(top * at / BINS for at in range(BINS + 1))
    mean = found.figure("false_alarms").value or 0.0
    chart = Chart(
        Axis("share of neutral text at or above the threshold", low=0.0, percent=True),
        Axis("lenses"),
        (Bars("lenses", edges, _histogram(values, edges)),),
        rules=(Rule(bound, "bound on the mean"), Rule(mean, "mean")),
    )
    return Figure(
        f"On neutral text a lens reads at {shown(mean, percent=True)} of tokens on average",
        chart,
        _foot(report, f"{report.setting.neutral_states} states of text that set no threshold"),
    )


def steering(report: ComplianceReport) -> Figure | None:
    """What steering moves."""
    lines = sorted(report.control, key=lambda one: -one.logit_change)
    if len(lines) < 2:
        return None
    up = sum(one.logit_change > 0 for one in lines)
    chart = Chart(
        Axis("concept steered"),
        Axis("change of its own lens, logits"),
        (Points("logit change", tuple(range(len(lines))), tuple(one.logit_change for one in lines)),),
        rules=(Rule(0.0, "no change", across=True),),
        names=tuple(one.term for one in lines),
    )
    damage = sorted(one.damage_nats for one in lines)[len(lines) // 2]
    return Figure(
        f"Steering raises the concept's own lens in {up} of {len(lines)} concepts, at {damage:.2f} nats per token",
        chart,
        _foot(report, "default strength, neutral text; damage is the median"),
    )


def _answer(report: ComplianceReport) -> tuple[str, ...]:
    parts = {one.name: one for one in report.properties}
    tells, ece = parts["transduction"].figure("auroc_words"), parts["calibration"].figure("ece_after")
    now, alarm = parts["transduction"].figure("auroc_templates"), parts["calibration"].figure("false_alarms")
    leads = parts["calibration"].figure("ece_leading")
    cost, over = parts["efficiency"].figure("ms_per_token"), parts["efficiency"].figure("overhead")
    where = "in words and templates never trained on" if tells.value is not None else "in templates never trained on"
    best = tells if tells.value is not None else now
    return (
        f"The lenses read {where} at a macro AUROC of {value_of(best)}.",
        f"Their probabilities are off by {value_of(ece)} on average over all pairs of prompt and lens, nearly all of "
        f"which are rightly near 0; that of the reading that leads a prompt by {value_of(leads)}. In neutral text "
        f"a lens reads at {value_of(alarm)} of tokens.",
        f"All of them together take {value_of(cost)} per token, as served {value_of(over)} of the model's own time.",
    )


def _properties(report: ComplianceReport) -> list[Table]:
    columns = ("figure", "value", "95 % interval", "unit", "n", "bound", "verdict")
    tables = []
    for one in report.properties:
        rows: list[tuple[Cell, ...]] = []
        for each in one.figures:
            ends = "" if each.low is None or each.high is None else f"{shown(each.low)} to {shown(each.high)}"
            bound = " ".join(part for part in (_side("≤", each.at_most), _side("≥", each.at_least)) if part)
            said = {True: "met", False: "not met", None: each.reason or ""}[each.is_met]
            rows.append((each.label, each.value, ends, each.unit, each.n, bound, said))
        tables.append(
            Table(f"{NAMES[one.name]}: {one.verdict}", columns, tuple(rows), " ".join((one.says, *one.notes)))
        )
    return tables


def _levels(report: ComplianceReport) -> list[Table]:
    """Means by depth in the tree, where there are several."""
    levels = sorted({one.level for one in report.lenses if one.level is not None})
    rows: list[tuple[Cell, ...]] = []
    for level in levels:
        some = [one for one in report.lenses if one.level == level]
        area = _mean([one.auroc for one in some])
        words, quiet = _mean([one.auroc_words for one in some]), _mean([one.false_alarms for one in some])
        rows.append((level, len(some), area, words, quiet))
    columns = ("level", "lenses", "mean AUROC", "mean AUROC, synsets held out", "mean false alarms")
    return [Table("By level, 0 the roots", columns, tuple(rows))] if len(levels) > 1 else []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _confusions(report: ComplianceReport) -> list[Table]:
    rows = tuple((one.term, one.sibling, one.share, one.n) for one in report.confusions)
    note = "Share of the prompts about a concept in which a sibling's lens reads higher than its own."
    columns = ("concept", "sibling that reads higher", "share", "prompts")
    return [Table("Siblings that are taken for one another", columns, rows, note)] if rows else []


def _lenses(report: ComplianceReport) -> list[Table]:
    ordered = sorted(report.lenses, key=lambda one: (one.auroc is None, one.auroc or 0.0, one.term))
    rows = tuple(
        (
            one.term,
            one.block,
            one.auroc,
            one.low,
            one.high,
            one.auroc_words,
            one.false_alarms,
            one.self_mean,
            one.cross_mean,
        )
        for one in ordered[:MOST_ROWS]
    )
    columns = ("lens", "block", "AUROC", "low", "high", "AUROC, synsets held out", "false alarms", "own", "others")
    note = "The weakest first. `own` and `others`: mean probability in prompts about the concept, and in all others."
    if len(ordered) > MOST_ROWS:
        note += f" {len(ordered) - MOST_ROWS} more stand in compliance.json."
    return [Table("Every lens", columns, rows, note)]


def _methods(report: ComplianceReport, training: Mapping[str, Any] | None) -> tuple[str, ...]:
    paragraphs = [
        "Every word of the concept pack was said in templates that training holds out, and read at its last token by "
        "the bank that serves. A word of a concept is a positive for it and for every concept above it, and a negative "
        "for all others except those below it.",
        "Intervals hold 95 % of 500 drawings of the synsets with replacement. Synsets that were not held out from "
        "these lenses are so only in the figures marked (training), which come from fits that left them out.",
        "Neutral text is put together from fragments about nothing in particular. The part that thresholds were set "
        "on and the part that false alarms are measured on share none.",
        "Bounds are those of this program, stated beside each figure; a property holds where every bounded figure that "
        "was measured keeps its bound.",
    ]
    if training is None:
        paragraphs.append("The pack came without the report of its training: what only that can say is left out.")
    return tuple(paragraphs)


def _provenance(report: ComplianceReport) -> dict[str, str]:
    setting, concepts = report.setting, report.concept_pack
    return {
        "model": f"{report.model.name} {report.model.fingerprint[:8]}, {report.model.n_layers} blocks of width "
        f"{report.model.d_model}",
        "lens pack": f"{report.lens_pack.name} {report.lens_pack.version}, {report.lens_pack.sha256[:8]}",
        "concept pack": f"{concepts.name} {concepts.version}",
        "measured": f"{setting.date}, {setting.seconds:.0f} s, seed {setting.seed}",
        "on": f"{setting.device}, {setting.threads} threads, {setting.dtype}",
        "with": f"ftw {setting.ftw}, torch {setting.torch}",
        "read": f"{setting.prompts} prompts, {setting.neutral_states} states of neutral text",
    }


def _foot(report: ComplianceReport, *parts: str) -> str:
    whose = f"{report.model.name} {report.model.fingerprint[:8]}"
    return " · ".join((*parts, whose, f"{report.lens_pack.name} {report.lens_pack.version}"))


def _side(sign: str, bound: float | None) -> str:
    return "" if bound is None else f"{sign} {shown(bound)}"


def _histogram(values: Sequence[float], edges: Sequence[float]) -> tuple[float, ...]:
    counts = [sum(low <= value < high for value in values) for low, high in pairwise(edges)]
    counts[-1] += sum(value >= edges[-1] for value in values)
    return tuple(map(float, counts))

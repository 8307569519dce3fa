"""Lens report: how good the lenses of a pack are, against what, and which of the five properties hold on its model."""

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ftw.hat.classifiers.index import PackInfo, read_index, read_info, read_json
from ftw.map.training.compliance import (
    COMPLIANCE,
    ComplianceReport,
    measure_compliance,
    read_compliance,
    write_compliance,
)
from ftw.substrate.errors import PackError, StorageError, UsageError
from ftw.ui.app import lens_folder, open_concepts, open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.charts import bar
from ftw.ui.visualization.figure import foot, title
from ftw.ui.visualization.lens_report import NAMES, bound_of, reading_of, report_of, value_of
from ftw.ui.visualization.palette import HUES, grey
from ftw.ui.visualization.report import check_target

TRAINING = "report.json"
"""What training left."""
WEAKEST = 8
"""Lenses that are named at the end."""
CHANCE = 0.5
"""The AUROC of a lens that knows nothing."""
LABEL, VALUE = 54, 9
"""Columns of a figure's name and of its value."""


def run_report(
    out: Out,
    *,
    pack: str | None,
    measure: bool = False,
    model: str | None = None,
    concepts: str | None = None,
    html: Path | None = None,
    prompts: int | None = None,
    seed: int = 0,
) -> None:
    """Draw what is known of a pack: the report of its training, and the compliance report if it was ever measured.

    With `measure` it is measured now, on this machine, and kept beside the pack where that can be written. Raises
    PackError for a pack without any report, StorageError where a page is asked of a pack that was not measured.
    """
    folder = lens_folder(pack)
    if html is not None:
        check_target(html)
    if not measure and (model or concepts or prompts):
        raise UsageError("--model, --concepts and --prompts say what to measure on: give --measure too")
    if not measure and not any((folder / name).is_file() for name in (TRAINING, COMPLIANCE)):
        raise PackError(
            f"{folder} holds no {TRAINING} and no {COMPLIANCE}: measure it with `ftw lens report --measure`, or train "
            "the pack again with `ftw lens train`"
        )
    info = read_info(folder)
    report = _measured(out, folder, info, model, concepts, prompts, seed) if measure else _kept(folder)
    training = read_json(folder / TRAINING) if (folder / TRAINING).is_file() else None
    if training is not None:
        draw(out, info, training, [(row.term, row.auroc) for row in read_index(folder) if row.primary])
    if report is not None:
        draw_compliance(out, report)
    elif html is None:
        out.show(Text(), foot("to measure it on this machine: ftw lens report --measure"), sep="\n")
    if html is not None:
        if report is None:
            raise StorageError(f"{folder} holds no {COMPLIANCE} to draw: measure it with --measure")
        report_of(report, training, out.command).write(html)
        out.show(Text(), foot(f"report: {html}"), sep="\n")
    out.document(
        {
            "command": "lens report",
            "pack": {"name": info.name, "version": info.version},
            **(training or {}),
            "compliance": report.as_json() if report is not None else None,
        }
    )


def draw(out: Out, info: PackInfo, report: dict[str, Any], lenses: list[tuple[str, float | None]]) -> None:
    """The training's claim, what it is measured against, the weakest lenses."""
    strict, where = report["words_held"], "words"
    if strict["lenses"] is None:  # no concept has words that could be left out
        strict, where = report["templates"], "templates"
    reading = (
        f"{report['concepts']} concepts are read in {where} never trained on at AUROC {figure_of(strict['lenses'])}"
    )
    if strict["random_twin"] is not None:
        reading += f"; a model with random weights gives {figure_of(strict['random_twin'])}"
    table = Table.grid(padding=(0, 2, 0, 0))
    columns = {
        "lenses": "lenses",
        "linear": "linear",
        "centroid": "centroid",
        "random_twin": "random twin",
        "tfidf": "text alone",
    }
    table.add_row(Text("macro AUROC", grey()), *(Text(name, grey()) for name in columns.values()))
    for held, key in (("templates held out", "templates"), ("templates, words held out", "words_held")):
        table.add_row(held, *(figure_of(report[key].get(name)) for name in columns))
    out.show(title(reading), Text(), table, Text(), *_weakest(out, lenses), sep="\n")
    said = report.get("calibration") or {}
    out.show(
        Text(),
        foot(
            f"chance {CHANCE:g}",
            f"ECE {figure_of(said.get('ece_before'))} before, {figure_of(said.get('ece_after'))} after calibration; "
            f"{figure_of(said.get('ece_shown'))} above threshold, {figure_of(said.get('ece_leading'))} of the reading "
            "that leads",
            f"false alarms {share_of(said.get('false_alarms'))} of neutral states",
            f"{info.model.name} {info.model.fingerprint[:8]}",
            f"pack {info.name} {info.version}, {info.concept_pack.name} {info.concept_pack.version}",
            f"seed {report['seed']}",
            out.command,
        ),
        sep="\n",
    )


def draw_compliance(out: Out, report: ComplianceReport) -> None:
    """The five properties: their bounded figures and what they are held against."""
    rows: list[Text] = []
    for one in report.properties:
        head = Text(f"{NAMES[one.name]}: {one.verdict}")
        head.stylize("bold")
        rows += [Text(), head]
        shown = [each for each in one.figures if each.at_most is not None or each.at_least is not None] or one.figures
        for each in shown:
            row = Text("  " + each.label[: LABEL - 2].ljust(LABEL), no_wrap=True)
            row.append(f"{value_of(each):>{VALUE}}")
            row.append(f"  {bound_of(each)}", grey())
            rows.append(row)
    out.show(Text(), title(reading_of(report)), *rows, sep="\n")
    setting = report.setting
    out.show(
        Text(),
        foot(
            f"measured {setting.date[:10]} on {setting.device}, {setting.threads} threads, {setting.dtype}",
            f"{setting.prompts} prompts, {setting.neutral_states} neutral states",
            f"{report.model.name} {report.model.fingerprint[:8]}",
            f"pack {report.lens_pack.sha256[:8]}",
        ),
        sep="\n",
    )


def figure_of(value: float | None) -> str:
    """An AUROC as it stands in a table; what was not measured is a dash."""
    return "-" if value is None else f"{value:.3f}"


def share_of(value: float | None) -> str:
    """A small share in percent."""
    return "-" if value is None else f"{100 * value:.2g} %"


def _kept(folder: Path) -> ComplianceReport | None:
    return read_compliance(folder) if (folder / COMPLIANCE).is_file() else None


def _measured(
    out: Out,
    folder: Path,
    info: PackInfo,
    model: str | None,
    concepts: str | None,
    prompts: int | None,
    seed: int,
) -> ComplianceReport:
    """Measure now. A pack that ships, or that cannot be written to, is left as it is."""
    known = open_concepts(concepts or info.concept_pack.name)
    opened = open_model(model, out)
    with out.bar("Measuring") as progress:
        report = measure_compliance(
            opened,
            folder,
            known,
            now=lambda: datetime.now(UTC),
            clock=time.monotonic,
            prompts=prompts,
            seed=seed,
            progress=progress,
        )
    try:
        write_compliance(report, folder)
    except StorageError as error:
        out.tell(f"not kept: {error}")
    return report


def _weakest(out: Out, lenses: list[tuple[str, float | None]]) -> list[Text]:
    known = sorted((score, term) for term, score in lenses if score is not None and not math.isnan(score))
    rows = [Text(f"{'weakest lenses':<24}AUROC, from chance to 1", grey())]
    for score, term in known[:WEAKEST]:
        row = Text(f"{term:<24}{score:>5.2f}  ", no_wrap=True)
        row.append(bar((score - CHANCE) / (1 - CHANCE), 30).rstrip(), HUES[0] if out.has_colour else "")
        rows.append(row)
    return rows

"""Lens train and lens report: make the lenses of a model, and see how good they are and against what."""

import math
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ftw.hat.classifiers.index import PackInfo, read_index, read_info, read_json
from ftw.map.training.train import train
from ftw.substrate.errors import PackError, StorageError
from ftw.ui.app import lens_folder, open_concepts, open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.charts import bar
from ftw.ui.visualization.figure import foot, title
from ftw.ui.visualization.palette import HUES, grey

WEAKEST = 8
"""Lenses that are named at the end."""
CHANCE = 0.5
"""The AUROC of a lens that knows nothing."""


def run_train(out: Out, *, model: str | None, pack: str, folder: Path, seed: int) -> None:
    """Train, save, show the report. Raises StorageError before any work where the folder cannot be written."""
    ready(folder)
    concepts = open_concepts(pack)
    opened = open_model(model, out)
    with out.bar("Training lenses") as bar:
        train(opened, concepts, folder, seed=seed, progress=bar)
    run_report(out, pack=str(folder))


def ready(folder: Path) -> None:
    """Raises StorageError unless `folder` is new or empty and can be written, so that no training is lost."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is not an empty folder: name a new one with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".ftw-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; name another folder with --out") from error


def run_report(out: Out, *, pack: str | None) -> None:
    """Draw the report of a lens pack, or give its document. Raises PackError for a pack without one."""
    folder = lens_folder(pack)
    file = folder / "report.json"
    if not file.is_file():
        raise PackError(f"{folder} holds no report.json: train the pack again with `ftw lens train` to get one")
    info, report = read_info(folder), read_json(file)
    draw(out, info, report, [(row.term, row.auroc) for row in read_index(folder)])
    out.document({"command": "lens report", "pack": {"name": info.name, "version": info.version}, **report})


def draw(out: Out, info: PackInfo, report: dict[str, Any], lenses: list[tuple[str, float | None]]) -> None:
    """The claim, what it is measured against, the weakest lenses."""
    strict = report["words_held"]
    reading = f"{report['concepts']} concepts are read in words never trained on at AUROC {figure_of(strict['lenses'])}"
    if strict["random_twin"] is not None:
        reading += f"; a model with random weights gives {figure_of(strict['random_twin'])}"
    table = Table.grid(padding=(0, 3, 0, 0))
    names = ("lenses", "linear", "random twin", "text alone")
    table.add_row(Text("macro AUROC", grey()), *(Text(name, grey()) for name in names))
    for held, key in (("templates held out", "templates"), ("templates and words held out", "words_held")):
        values = (report[key][name] for name in ("lenses", "linear", "random_twin", "tfidf"))
        table.add_row(held, *(figure_of(value) for value in values))
    out.show(title(reading), Text(), table, Text(), *_weakest(out, lenses), sep="\n")
    out.show(
        Text(),
        foot(
            f"chance {CHANCE:g}",
            f"false alarms {100 * report['false_alarm_rate']:.1f} % of neutral states",
            f"screen recall {report['screen_recall']:.3f}",
            f"{info.model.name} {info.model.fingerprint[:8]}",
            f"pack {info.name} {info.version}, {info.concept_pack.name} {info.concept_pack.version}",
            f"block {report['block']}, seed {report['seed']}",
            out.command,
        ),
        sep="\n",
    )


def figure_of(value: float | None) -> str:
    """An AUROC as it stands in a table; what was not measured is a dash."""
    return "-" if value is None else f"{value:.3f}"


def _weakest(out: Out, lenses: list[tuple[str, float | None]]) -> list[Text]:
    known = sorted((score, term) for term, score in lenses if score is not None and not math.isnan(score))
    rows = [Text(f"{'weakest lenses':<24}AUROC, from chance to 1", grey())]
    for score, term in known[:WEAKEST]:
        row = Text(f"{term:<24}{score:>5.2f}  ", no_wrap=True)
        row.append(bar((score - CHANCE) / (1 - CHANCE), 30).rstrip(), HUES[0] if out.has_colour else "")
        rows.append(row)
    return rows

"""Sweep report: a finished run's report made again from its rows and its document, without the model."""

from pathlib import Path

from rich.text import Text

from ftw.substrate.errors import ConfigError, StorageError
from ftw.sweep.files.finished import read_finished, require_ok
from ftw.sweep.files.parquet import ROWS
from ftw.sweep.files.rundir import DOCUMENT, LATEST, read_document
from ftw.ui.cli.output import WIDTH, Out
from ftw.ui.verbs.sweep import REPORT
from ftw.ui.visualization.figure import foot
from ftw.ui.visualization.report import check_target
from ftw.ui.visualization.sweep_figure import sweep_figure
from ftw.ui.visualization.sweep_numbers import Run
from ftw.ui.visualization.sweep_report import report


def run(out: Out, folder: Path, *, to: Path | None = None) -> None:
    """Write the report of a run (of each model, where there are several), draw its figure, or give where it lies.

    `folder` is a run's folder, one with `run-latest` in it, or one model's folder of a run of many. `to` is the file
    for the report of a single run; else it lies beside the rows. Raises ConfigError and StorageError.
    """
    found = finished(folder.expanduser())
    if to is not None:
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise ConfigError(f"{folder} holds the runs of {len(found)} models ({names}): name one of these folders")
        check_target(to)
    written = []
    for each in found:
        target = to or each / REPORT
        with out.busy(f"Reading {each}"):
            document, table = read_finished(each)
            drawn = sweep_figure(Run(document, table), width=min(out.width, WIDTH), colour=out.has_colour)
            report(document, table).write(target)
        out.show(drawn, Text(), foot(f"report: {target}"), sep="\n")
        written.append({"folder": str(each), "report": str(target), "model": document["model"]["name"]})
    out.document({"command": "sweep report", "reports": written})


def finished(folder: Path) -> list[Path]:
    """The folders of finished sweeps in a run: itself, or one for each model. Raises StorageError and ConfigError."""
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}: give a run's folder, for example sweeps/{LATEST}")
    if not (folder / DOCUMENT).is_file() and (folder / LATEST).is_dir():
        folder = folder / LATEST
    if (folder / ROWS).is_file():
        require_ok(read_document(folder), folder)
        return [folder]
    several = [each for each in sorted(folder.iterdir()) if (each / ROWS).is_file() and (each / DOCUMENT).is_file()]
    found = [each for each in several if read_document(each)["status"] == "ok"]
    if found:
        return found
    if (folder / DOCUMENT).is_file():
        require_ok(read_document(folder), folder)
    raise ConfigError(f"{folder} holds no finished sweep: a run's folder has {DOCUMENT} and {ROWS}")

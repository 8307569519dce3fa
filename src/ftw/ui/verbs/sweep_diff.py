"""Sweep diff: what differs between two finished runs, in their making, their numbers and their milestones."""

from pathlib import Path

from rich.text import Text

from ftw.substrate.errors import StorageError
from ftw.sweep.files.diff import Diff, Tolerance, diff, pairs
from ftw.sweep.files.rundir import DOCUMENT, LATEST
from ftw.ui.cli.output import WIDTH, Out
from ftw.ui.visualization.figure import foot, title


def run(out: Out, run_a: Path, run_b: Path, *, tolerance: Tolerance, most: int) -> bool:
    """Draw the difference, model by model, or give its document. True where all are alike within the tolerance."""
    with out.busy("Comparing"):
        found = [diff(a, b, tolerance=tolerance) for a, b in pairs(latest(run_a), latest(run_b))]
    for each in found:
        first, *rest = each.lines(width=min(out.width, WIDTH), most=most)
        out.show(title(first), *(Text(line) for line in rest), Text(), sep="\n")
    out.show(foot(_tolerance(tolerance), out.command))
    out.document({"command": "sweep diff", "runs": [each.document() for each in found]})
    return all(_is_alike(each) for each in found)


def latest(folder: Path) -> Path:
    """A run's folder: itself, or the `run-latest` in it. Raises StorageError where there is none."""
    folder = folder.expanduser()
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}: give a run's folder, for example sweeps/{LATEST}")
    if not (folder / DOCUMENT).is_file() and (folder / LATEST).is_dir():
        return folder / LATEST
    return folder


def _is_alike(found: Diff) -> bool:
    return found.verdict != "different"


def _tolerance(of: Tolerance) -> str:
    return f"tolerance {of.absolute:g} + {of.relative:g} of the number, {100 * of.ranks:g} % of a rank"

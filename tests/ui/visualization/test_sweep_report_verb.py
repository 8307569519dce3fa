"""`ftw sweep report`: a report made again from a run's folder, one or several models, and what is refused."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ftw.substrate.errors import ConfigError, StorageError
from ftw.sweep.files.parquet import ROWS, write_rows
from ftw.sweep.files.rundir import write_document
from ftw.ui.cli.output import Out
from ftw.ui.verbs.sweep_report import finished, run
from ftw.ui.visualization.sweep_report import report
from tests.ui.visualization.conftest import Finished


class Told(Out):
    """An output that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(command="ftw sweep report RUN")
        self.text = io.StringIO()
        self.stdout = Console(file=self.text, width=80)  # type: ignore[assignment]
        self.documents: list[Any] = []

    def document(self, value: Any) -> None:
        self.documents.append(value)


def write(folder: Path, one: Finished) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, one.table, {})
    write_document(folder, one.document)
    return folder


@pytest.fixture
def folder(tmp_path: Path, everywhere: Finished) -> Path:
    return write(tmp_path / "run-latest", everywhere)


def test_the_report_lies_beside_the_rows_and_the_figure_is_drawn(folder: Path, everywhere: Finished) -> None:
    out = Told()
    run(out, folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == report(*everywhere).html()
    assert report(*everywhere).title[:60] in out.text.getvalue()
    (document,) = out.documents
    assert document["reports"] == [
        {"folder": str(folder), "report": str(folder / "report.html"), "model": "reference"},
    ]


def test_the_folder_above_means_its_latest_run(folder: Path) -> None:
    assert finished(folder.parent) == [folder]


def test_a_file_can_be_named(folder: Path, tmp_path: Path) -> None:
    run(Told(), folder, to=tmp_path / "mine.html")
    assert (tmp_path / "mine.html").is_file()
    assert not (folder / "report.html").exists()
    with pytest.raises(ConfigError, match=r"a report is \.html"):
        run(Told(), folder, to=tmp_path / "mine.pdf")


def test_each_model_of_a_run_of_many_gets_its_own(tmp_path: Path, everywhere: Finished) -> None:
    base = tmp_path / "run-latest"
    write_document(write(base / "a", everywhere).parent, {"schema": 1, "status": "partial", "error": None})
    write(base / "b", everywhere)
    write_document(write(base / "bad", everywhere), {"schema": 1, "status": "failed", "error": None})
    run(Told(), base)
    assert sorted(each.parent.name for each in base.glob("*/report.html")) == ["a", "b"]
    with pytest.raises(ConfigError, match=r"holds the runs of 2 models \(a, b\): name one"):
        run(Told(), base, to=tmp_path / "one.html")


def test_a_run_that_failed_says_why_instead_of_a_report(folder: Path) -> None:
    error = {"type": "Refused", "message": "its blocks cannot be decoded"}
    write_document(folder, {"schema": 1, "status": "failed", "error": error})
    with pytest.raises(ConfigError, match="is failed: Refused: its blocks cannot be decoded"):
        run(Told(), folder)
    (folder / ROWS).unlink()
    with pytest.raises(ConfigError, match="is failed: Refused"):
        run(Told(), folder)


def test_a_folder_without_a_run_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        run(Told(), tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no finished sweep"):
        run(Told(), tmp_path / "empty")
    shutil.rmtree(folder)

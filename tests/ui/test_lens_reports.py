"""Lens report and compare: what they say, on a terminal, as JSON and as a page; what cannot be asked is named."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftw.map.training.compliance import ComplianceReport
from ftw.substrate.model import load
from ftw.ui.visualization.lens_report import bound_of, reading_of, report_of, value_of
from tests.map.training.small_packs import concepts, lens_pack
from tests.ui.browser import browse
from tests.ui.conftest import Ftw


@pytest.fixture(scope="module", autouse=True)
def little_text() -> Iterator[None]:
    """A few steered words are enough to see where they are shown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftw.map.training.compliance.control.REPEATS", 1)
        patch.setattr("ftw.map.training.compliance.control.PLAIN_REPEATS", 1)
        patch.setattr("ftw.map.training.compliance.reading.NEUTRAL", 12)
        patch.setattr("ftw.map.training.compliance.efficiency.RUNS", 4)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A lens pack for the tiny model, and its concept pack."""
    home = tmp_path_factory.mktemp("lens-reports")
    model = load("tiny")
    concepts().save(home / "four")
    return lens_pack(home / "tiny_four", model), home / "four"


@pytest.fixture(scope="module")
def measured(folders: tuple[Path, Path]) -> ComplianceReport:
    """The report of the small pack, kept beside it."""
    import time
    from datetime import UTC, datetime

    from ftw.map.training.compliance import measure_compliance, write_compliance

    report = measure_compliance(
        load("tiny"), folders[0], concepts(), now=lambda: datetime(2026, 1, 1, tzinfo=UTC), clock=time.monotonic
    )
    write_compliance(report, folders[0])
    return report


def test_measuring_shows_the_properties_and_keeps_the_report(ftw: Ftw, folders: tuple[Path, Path]) -> None:
    pack, tree = folders
    ran = ftw("lens", "report", str(pack), "--measure", "--model", "tiny", "--concepts", str(tree))
    assert ran.code == 0, ran.err
    assert "properties hold for tiny_four on tiny" in ran.out
    assert "Transduction: not met" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert (pack / "compliance.json").is_file()


def test_a_kept_report_is_shown_without_the_model(
    ftw: Ftw, folders: tuple[Path, Path], measured: ComplianceReport
) -> None:
    ran = ftw("lens", "report", str(folders[0]), "--json")
    assert ran.document["compliance"]["lens_pack"]["sha256"] == measured.lens_pack.sha256
    verdicts = {one["name"]: one["verdict"] for one in ran.document["compliance"]["properties"]}
    assert verdicts["transduction"] == "not met"


def test_the_page_says_what_the_terminal_says(
    ftw: Ftw, folders: tuple[Path, Path], measured: ComplianceReport, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    assert f"report: {page}" in ftw("lens", "report", str(folders[0]), "--html", str(page)).out.replace("\n", "")
    html = page.read_text(encoding="utf-8")
    assert reading_of(measured) in html
    assert "that of the reading that leads a prompt by" in html
    for name in ("Locality", "Transduction", "Calibration", "Efficiency", "Control authority"):
        assert f"<h3>{name}: " in html
    assert "the pack has no directions.safetensors" in html


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (400, True)])
def test_the_page_is_drawn_wide_and_narrow_in_both_themes(
    measured: ComplianceReport, tmp_path: Path, width: int, dark: bool
) -> None:
    found = browse(report_of(measured, None, "ftw lens report").html(), tmp_path, width, dark=dark)
    assert found["page"] == found["theme"]
    assert found["overflow"] is False
    assert found["narrow"]["overflow"] is False
    assert len(found["figures"]) >= 4
    assert all(sum(figure["drawn"].values()) > 0 for figure in found["figures"])


def test_a_figure_is_said_in_its_unit_and_beside_its_bound(measured: ComplianceReport) -> None:
    cost = measured.property("efficiency")
    assert value_of(cost.figure("stored_bytes")).endswith(" MB")
    assert value_of(cost.figure("ms_per_token")).endswith(" ms")
    assert value_of(cost.figure("overhead")).endswith(" %")
    assert bound_of(cost.figure("overhead")).startswith("≤ 50 %")
    assert bound_of(measured.property("transduction").figure("auroc_templates")).endswith("not met")
    assert value_of(measured.property("transduction").figure("baseline_linear")) == "–"


def test_a_pack_that_was_neither_trained_here_nor_measured_says_how(ftw: Ftw, tmp_path: Path) -> None:
    pack = lens_pack(tmp_path / "p", load("tiny"))
    said = ftw("lens", "report", str(pack)).failed(1)
    assert "holds no report.json and no compliance.json" in said
    assert "--measure" in said


def test_a_page_of_a_pack_that_was_not_measured_is_refused(ftw: Ftw, tmp_path: Path) -> None:
    pack = lens_pack(tmp_path / "p", load("tiny"))
    training = {
        "words_held": {"lenses": 0.9, "random_twin": None},
        "templates": {"lenses": 0.9},
        "concepts": 4,
        "seed": 0,
    }
    (pack / "report.json").write_text(json.dumps(training))
    said = ftw("lens", "report", str(pack), "--html", str(tmp_path / "r.html")).failed(1)
    assert "measure it with --measure" in said


def test_a_page_must_be_html_and_its_folder_there(ftw: Ftw, folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert "a report is .html" in ftw("lens", "report", str(folders[0]), "--html", "r.pdf").failed(2)
    missing = str(tmp_path / "no" / "r.html")
    assert "there is no folder" in ftw("lens", "report", str(folders[0]), "--html", missing).failed(1)


def test_what_to_measure_on_is_said_only_where_it_is_measured(ftw: Ftw, folders: tuple[Path, Path]) -> None:
    assert "give --measure too" in ftw("lens", "report", str(folders[0]), "--model", "tiny").failed(2)


def test_a_pack_named_twice_is_an_error(ftw: Ftw, folders: tuple[Path, Path]) -> None:
    assert "given twice" in ftw("lens", "report", str(folders[0]), "--pack", "other").failed(2)


def test_two_packs_are_compared_on_the_terminal_as_json_and_as_a_page(
    ftw: Ftw, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pack, tree = folders
    small = lens_pack(tmp_path / "small", load("tiny"), storage="int8")
    argv = ("lens", "compare", str(pack), str(small), "--model", "tiny", "--concepts", str(tree))
    ran = ftw(*argv, "--html", str(tmp_path / "c.html"))
    assert ran.code == 0, ran.err
    assert "read alike" in ran.out
    assert "same ten highest" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    told = ftw(*argv, "--json").document
    assert told["a"]["megabytes"] > told["b"]["megabytes"]
    assert {one["term"] for one in told["lenses"]} == {"Animal", "Food", "Bird", "Dog"}
    assert "Both packs" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_a_training_that_could_hold_out_no_word_says_what_it_held_out(ftw: Ftw, tmp_path: Path) -> None:
    pack = lens_pack(tmp_path / "p", load("tiny"))
    known, none = {"lenses": 0.9, "random_twin": 0.6}, {"lenses": None, "random_twin": None}
    said = {"ece_before": 0.2, "ece_after": 0.01, "ece_shown": 0.03, "ece_leading": 0.07}
    told = {"concepts": 4, "seed": 0, "templates": known, "words_held": none, "calibration": said}
    (pack / "report.json").write_text(json.dumps(told))
    ran = " ".join(ftw("lens", "report", str(pack)).out.split())
    assert "4 concepts are read in templates never trained on at AUROC 0.900; a model with random weights" in ran
    assert "ECE 0.200 before, 0.010 after calibration; 0.030 above threshold, 0.070 of the reading that leads" in ran

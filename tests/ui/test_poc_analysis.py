"""The verbs on radii, thresholds, votes and directions: figures, documents, reports, and what they refuse."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ftw.ui.cli.output import Out
from ftw.ui.verbs import poc_calibrate
from ftw.ui.verbs.poc_sets import share, short_names
from tests.ui.conftest import Ftw

DATA = str(Path(__file__).parents[1] / "data/poc/poc_gpu_artifacts.npz")
QUICK = ("--rounds", "500")


def test_the_radius_of_ten_percent_in_64_dimensions(ftw: Ftw) -> None:
    ran = ftw("poc", "radius", "--k", "64", "--rate", "0.10")
    assert ran.out.splitlines()[0] == "A radius of 1.2953 lets 10 % of all directions in 64 dimensions pass"


def test_the_rate_of_a_radius(ftw: Ftw) -> None:
    document = ftw("poc", "radius", "--k", "64", "--radius", "1.30", "--json").document
    assert document["rate"] == pytest.approx(0.1088, abs=5e-5)
    assert document["distance"]["mean"] == pytest.approx(1.41141, abs=6e-6)


@pytest.mark.parametrize("given", [(), ("--rate", "0.1", "--radius", "1.3")])
def test_one_of_rate_and_radius_must_be_given(ftw: Ftw, given: tuple[str, ...]) -> None:
    assert "give one of --rate and --radius" in ftw("poc", "radius", *given).failed(2)


def test_a_calibration_fits_80_columns_and_says_every_pair(ftw: Ftw) -> None:
    ran = ftw("poc", "calibrate", DATA, "--honest", "minimax", "--cheat", "awq")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("honest ") for line in lines) == 6
    assert sum("equal to the last bit" in line for line in lines) == 1
    assert "AUC 0.962" in " ".join(lines[:2])
    assert sum("◂ threshold" in line for line in lines) == 1


def test_a_calibration_without_a_cheat_says_where_honest_ends(ftw: Ftw) -> None:
    document = ftw("poc", "calibrate", DATA, "--honest", "qwen", "--json").document
    (pair,) = document["pairs"]
    assert pair["mean"] == pytest.approx(0.0897, abs=1e-4)
    assert document["auc"] is None
    assert document["recommended"]["dist_threshold"]["value"] == pytest.approx(pair["quantiles"]["0.98"])
    assert ftw("poc", "calibrate", DATA, "--honest", "qwen").out.startswith("98 % of honest nonces differ by at most")


def test_the_recommended_test_does_not_flag_known_pairs_beyond_the_cutoff(ftw: Ftw) -> None:
    document = ftw("poc", "calibrate", DATA, "--honest", "minimax", "--cheat", "awq", "--json").document
    recommended, pooled = document["tests"][:2]
    assert recommended["false_alarm_worst"] < 0.05 < pooled["false_alarm_worst"]
    assert recommended["p_mismatch"] == document["recommended"]["p_mismatch"]
    assert recommended["power"] == pytest.approx(1.0)


def test_a_simulation_reproduces_the_published_vote(ftw: Ftw) -> None:
    ran = ftw("poc", "simulate", "--validators", "377", "--effective", "47", "--rounds", "4000", "--json")
    votes = ran.document["votes"]
    assert votes["honest"]["weight_quantiles"]["0.5"] == pytest.approx(0.0413, abs=0.004)
    assert votes["cheat"]["weight_quantiles"]["0.5"] == pytest.approx(0.5511, abs=0.006)
    assert votes["cheat"]["p_more_than_half"] == pytest.approx(0.73563, abs=0.03)
    assert ran.document["test"]["reject_from"] == 8


def test_a_simulation_takes_weights_and_rates_from_files(ftw: Ftw, tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text("[5, 3, 2]")
    (tmp_path / "w.txt").write_text("5\n3\n2\n")
    sets = ("--sets", DATA, "--honest", "minimax", "--cheat", "awq", "--threshold", "0.65", *QUICK, "--json")
    documents = [
        ftw("poc", "simulate", "--weights", str(tmp_path / name), *sets).document for name in ("w.json", "w.txt")
    ]
    assert documents[0] == documents[1]
    assert documents[0]["validators"] == 3
    assert documents[0]["votes"]["cheat"]["mismatch_rate"] > 0.6
    assert documents[0]["votes"]["cheat"]["p_more_than_two_thirds"] == 1.0


def test_a_simulation_fits_80_columns(ftw: Ftw) -> None:
    lines = ftw("poc", "simulate", *QUICK).out.splitlines()
    assert max(map(len, lines)) <= 80


def test_directions_are_judged_against_uniform_ones(ftw: Ftw) -> None:
    command = ("poc", "distribution", DATA, "--set", "qwen235b-fp8-2xb200", "--targets", "300")
    ran = ftw(*command)
    assert ran.out.startswith("1000 vectors lie on the sphere as evenly as 1000 uniform ones")
    assert max(map(len, ran.out.splitlines())) <= 80
    document = ftw(*command, "--json").document
    assert document["even"] is True
    assert len(document["eigenvalues_times_k"]) == 12


@pytest.mark.parametrize(
    "command",
    [
        ("calibrate", DATA, "--honest", "minimax", "--cheat", "awq"),
        ("calibrate", DATA, "--honest", "qwen"),
        ("simulate", *QUICK),
        ("distribution", DATA, "--set", "qwen235b-fp8-2xb200", "--targets", "300"),
    ],
    ids=lambda one: one[0],
)
def test_a_report_says_how_to_repeat_it(ftw: Ftw, tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "r.html"
    ran = ftw("poc", *command, "--report", str(file))
    assert ran.code == 0, ran.err
    assert "report written to" in ran.err
    html = file.read_text(encoding="utf-8")
    assert len(html.encode()) < 2_000_000
    assert f"ftw poc {command[0]}" in html
    assert re.search(r"numpy [\d.]+", html)
    assert html.count("<figure>") == html.count('<script type="application/json">') >= 1


def test_a_report_has_its_date_from_the_clock(tmp_path: Path) -> None:
    poc_calibrate.run(
        Out(json=True),
        [Path(DATA)],
        honest=["qwen"],
        cheat=None,
        quantile=0.98,
        n=200,
        cutoff=0.05,
        seed=0,
        report=tmp_path / "r.html",
        clock=lambda: datetime(2031, 2, 3, 4, 5, tzinfo=UTC),
    )
    assert "2031-02-03 04:05 UTC" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command", [("calibrate", DATA), ("simulate",), ("distribution", DATA)], ids=lambda one: one[0]
)
def test_a_report_that_cannot_be_written_is_refused_before_any_work(ftw: Ftw, command: tuple[str, ...]) -> None:
    assert "a report is .html" in ftw("poc", *command, "--report", "r.pdf").failed(2)


def test_several_sets_are_listed_where_one_is_meant(ftw: Ftw) -> None:
    assert "name one with --set, from" in ftw("poc", "distribution", DATA).failed(2)


def test_sets_need_a_label_for_the_cheat(ftw: Ftw) -> None:
    assert "--sets needs --cheat" in ftw("poc", "simulate", "--sets", DATA).failed(2)


def test_rates_need_two_honest_machines_that_differ(ftw: Ftw) -> None:
    sets = ("--sets", DATA, "--honest", "qwen235b-fp8-2xb200", "--cheat", "qwen235b-fp8-4xh100")
    assert "give --honest-rate instead" in ftw("poc", "simulate", *sets).failed(2)


@pytest.mark.parametrize("text", ["a b", '[1, "x", {}]', "[1,"])
def test_weights_that_are_no_numbers_are_refused(ftw: Ftw, tmp_path: Path, text: str) -> None:
    (tmp_path / "w").write_text(text)
    assert "does not hold numbers only" in ftw("poc", "simulate", "--weights", str(tmp_path / "w")).failed(2)


def test_weights_that_are_not_there_are_named(ftw: Ftw, tmp_path: Path) -> None:
    assert "there is no file" in ftw("poc", "simulate", "--weights", str(tmp_path / "w")).failed(2)


def test_weights_and_a_spread_contradict(ftw: Ftw, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("1 2")
    ran = ftw("poc", "simulate", "--weights", str(tmp_path / "w"), "--effective", "2")
    assert "leave --effective out" in ran.failed(2)


def test_a_set_is_not_compared_with_itself_under_two_labels(ftw: Ftw) -> None:
    document = ftw("poc", "calibrate", DATA, "--honest", "minimax", "--cheat", "awq", "--json").document
    assert {pair["kind"] for pair in document["pairs"]} == {"honest", "cheat", "other"}
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.0, "0 %"),
        (1e-7, "<0.001 %"),
        (0.0075, "0.75 %"),
        (0.35, "35 %"),
        (0.995, "99.5 %"),
        (0.9999, ">99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_rounds_nothing_away(p: float, said: str) -> None:
    assert share(p) == said


def test_short_names_drop_what_is_common() -> None:
    assert short_names(["a-b-c", "a-b-d"]) == ["c", "d"]
    assert short_names(["x-one__1000", "x-two_3__1000"]) == ["one", "two_3"]
    assert short_names(["abc"]) == ["abc"]
    assert short_names(["same", "same"]) == ["same", "same"]

"""The harness: both sides in turn, goals, and rows that join the table that is there."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.harness import HEADER, Context, Figure, Timing, append, at_least, at_most, interleave, table


def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    timing = interleave({"a": lambda: side("a"), "b": lambda: side("b")}, Context(), rounds=2, warmup=1)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert timing.seconds == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert timing.rounds == 2


def test_ratios_and_differences_are_taken_within_a_round() -> None:
    timing = Timing({"ours": [1.0, 10.0, 100.0], "theirs": [2.0, 20.0, 400.0]})
    assert timing.ratio("theirs", "ours") == 2.0
    assert timing.extra("theirs", "ours") == 10.0
    assert timing.shown(50, "tokens/s") == {"ours": "5 tokens/s", "theirs": "2.5 tokens/s"}
    assert timing.shown() == {"ours": "1e+04 ms", "theirs": "2e+04 ms"}


def test_a_goal_is_met_at_its_bound() -> None:
    assert Figure("b", "c", 1.0, "x", at_least(1.0)).is_met is True
    assert Figure("b", "c", 0.11, "ms", at_most(0.1)).is_met is False
    assert Figure("b", "c", None, "x", at_least(1.0), note="no device").is_met is None


def test_rows_are_added_at_the_end_of_the_table_and_nothing_else_changes(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks").mkdir()
    page = tmp_path / "docs" / "benchmarks.md"
    page.write_text("# Benchmarks\n\nBefore.\n", encoding="utf-8")
    figure = Figure("taps", "reads | all", 0.05, "ms", at_most(0.1), {"ours": "1 ms"}, rounds=3)
    append([figure], Context(), tmp_path)
    page.write_text(page.read_text(encoding="utf-8") + "\nAfter.\n", encoding="utf-8")
    append([figure, figure], Context(), tmp_path)
    lines = page.read_text(encoding="utf-8").splitlines()
    at = lines.index(HEADER)
    assert lines[:3] == ["# Benchmarks", "", "Before."]
    assert lines[-1] == "After."
    assert [line.count("|") for line in lines[at : at + 5]] == [12] * 5
    assert "reads / all | 0.05 ms | <= 0.1 | yes | ours 1 ms" in lines[at + 2]
    (log,) = (tmp_path / "benchmarks" / "results").glob("*.jsonl")
    kept = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [one["value"] for one in kept] == [0.05] * 3
    assert kept[0]["met"] is True


def test_what_could_not_be_measured_says_why() -> None:
    assert "not measured: no such device" in table([Figure("b", "c", None, "x", note="no such device")], Context())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no benchmark nothing: there are"),
        (["taps", "--rounds", "0"], "--rounds is at least 1"),
        (["taps", "--device", "cuda:99"], "there is no CUDA device"),
    ],
)
def test_a_wrong_call_is_refused_with_the_way_out(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err

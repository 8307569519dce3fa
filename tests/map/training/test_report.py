"""The report: a figure that could not be measured stays visible as such."""

import json
from pathlib import Path

from ftw.map.training.bootstrap import Interval
from ftw.map.training.calibrate import CalibrationFigures
from ftw.map.training.evaluate import Curve
from ftw.map.training.report import (
    BlockFigures,
    Contrast,
    LensFigures,
    Report,
    SizeFigures,
    SteeringFigures,
    write_report,
)

NAN = float("nan")


CURVE = Curve((0.1, 0.9), (0.12, 0.88), (90, 10))
CALIBRATION = CalibrationFigures(
    prompts=72,
    synsets=8,
    auroc=Interval(0.91, 0.87, 0.94),
    f1=0.6,
    recall=0.8,
    ece_before=0.1,
    ece_after=0.01,
    ece_adaptive_before=0.1,
    ece_adaptive_after=0.01,
    ece_leading=0.03,
    ece_shown=0.02,
    brier_before=0.04,
    brier_after=0.02,
    before=CURVE,
    after=CURVE,
    shown=CURVE,
    false_alarms_chosen=0.01,
    false_alarms=0.002,
    false_alarms_worst=0.03,
    neutral_states=(30, 29),
)


def report() -> Report:
    return Report(
        model="m (12345678)",
        concept_pack="p 1.0.0",
        block=2,
        concepts=2,
        words=9,
        synsets=8,
        prompts=72,
        plain_states=30,
        folds=3,
        seed=0,
        templates=Contrast(0.97, 0.96, 0.8, 0.6, 1.0),
        words_held=Contrast(0.91, 0.9, 0.75, 0.5, NAN),
        words_apart=Contrast(0.9, 0.89, 0.7, 0.5, 0.5),
        strict_words=0.9,
        sibling_top1=Interval(NAN, NAN, NAN),
        calibration=CALIBRATION,
        screen_recall=0.99,
        screen_pass_rate=0.02,
        one_block_per_lens=0.905,
        blocks=[BlockFigures(1, 0.88, 0.95), BlockFigures(2, 0.9, 0.96)],
        sizes=[SizeFigures("one first layer for all, fp32 (shipped)", 0.4, 0.91)],
        lenses=[LensFigures("A", 0.97, 0.91, 0.01, 9), LensFigures("B", 0.9, None, 0.0, 1)],
        steering=[
            SteeringFigures("A", 0.03, 0.003, 10.0, 1.2, True),
            SteeringFigures("B", 0.03, 0.005, 6.0, 1.9, False),
            SteeringFigures("C", 0.01, 0.005, 2.0, 1.1, False),
        ],
        steering_texts=32,
        seconds=61.0,
    )


def test_what_was_not_measured_is_null_in_json_and_a_dash_in_text(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["words_held"]["tfidf"] is None
    text = (tmp_path / "report.md").read_text()
    assert "| carriers and words held out | 0.910 | 0.900 | 0.750 | 0.500 | - |" in text
    assert "1 without a figure" in text
    assert "reads highest in - (- to -) of readings" in text


def test_calibration_is_told_with_what_was_chosen_and_on_what_it_was_measured() -> None:
    text = report().as_markdown()
    assert "0.910 (0.870 to 0.940)" in text
    assert "0.0020 of 29 states of text that set no threshold; at most 0.01 was chosen" in text


def test_the_chosen_block_is_marked() -> None:
    assert "| 2 (chosen) | 0.900 | 0.960 |" in report().as_markdown()


def test_what_steering_does_is_told_with_what_it_costs() -> None:
    text = report().as_markdown()
    assert "2 come at least 5 times as often, 1 of them at 1.6 times the perplexity" in text
    assert "Medians: 6.0 times as often, at 1.20 times the perplexity" in text

import pytest
import torch

from ftw.hat.classifiers import fit_screen_thresholds, measure_screen
from ftw.substrate.errors import NumericError, UsageError


def sample(rows: int = 4000, lenses: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(rows, lenses) - 1.5
    screens = 2 * logits + torch.randn(rows, lenses)
    return screens, logits, torch.zeros(lenses)


def test_the_recall_asked_for_is_kept_and_little_else_passes() -> None:
    screens, logits, threshold = sample()
    fit = fit_screen_thresholds(screens, logits, threshold, recall=0.99)
    assert fit.report.recall >= 0.99
    strict = fit_screen_thresholds(screens, logits, threshold, recall=1.0)
    assert strict.report.recall == 1
    assert fit.report.pass_rate < strict.report.pass_rate < 0.5
    assert fit.report.readings == int((logits >= 0).sum())


def test_no_lens_gives_up_more_than_a_twentieth_of_its_readings() -> None:
    screens, logits, threshold = sample(lenses=10)
    fit = fit_screen_thresholds(screens, logits, threshold, recall=0.96)
    wanted = logits >= 0
    recall = ((screens >= fit.thresholds) & wanted).sum(0) / wanted.sum(0)
    assert float(recall.min()) >= 0.95


def test_thresholds_hold_on_states_that_were_not_seen() -> None:
    screens, logits, threshold = sample(8000)
    fit = fit_screen_thresholds(screens[:4000], logits[:4000], threshold)
    assert measure_screen(screens[4000:] >= fit.thresholds, logits[4000:] >= 0).recall >= 0.99


def test_a_lens_without_a_reading_lets_hardly_anything_pass() -> None:
    screens, logits, threshold = sample(lenses=3)
    threshold[1] = 100
    fit = fit_screen_thresholds(screens, logits, threshold)
    assert float((screens[:, 1] >= fit.thresholds[1]).float().mean()) < 0.01


def test_nothing_to_find_is_a_recall_of_1() -> None:
    assert measure_screen(torch.zeros(3, 2, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)).recall == 1


def test_bad_values_are_refused() -> None:
    screens, logits, threshold = sample(50, 2)
    with pytest.raises(UsageError, match=r"recall is 0\.0"):
        fit_screen_thresholds(screens, logits, threshold, recall=0.0)
    with pytest.raises(UsageError, match="no rows"):
        fit_screen_thresholds(screens[:0], logits[:0], threshold)
    screens[0, 0] = float("nan")
    with pytest.raises(NumericError, match="fitted on"):
        fit_screen_thresholds(screens, logits, threshold)

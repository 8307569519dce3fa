import pytest
import torch

from ftw.hat.classifiers import fit_screen_thresholds, fit_screens, measure_screen
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
    assert fit.report.pass_rate < strict.report.pass_rate < 0.7
    assert fit.report.readings == int((logits >= 0).sum())


def test_no_lens_gives_up_more_than_a_twentieth_of_its_readings() -> None:
    screens, logits, threshold = sample(lenses=10)
    screens[:, 0] = torch.randn(4000)  # one that knows nothing
    fit = fit_screen_thresholds(screens, logits, threshold, recall=0.96)
    wanted = logits >= 0
    recall = ((screens >= fit.thresholds) & wanted).sum(0) / wanted.sum(0)
    assert float(recall.min()) >= 0.95


def test_thresholds_hold_on_states_that_were_not_seen_even_from_a_few_readings_per_lens() -> None:
    screens, logits, threshold = sample(8300, 100)
    fit = fit_screen_thresholds(screens[:300], logits[:300], threshold + 0.5)
    assert fit.report.readings < 10 * 100
    assert measure_screen(screens[300:] >= fit.thresholds, logits[300:] >= 0.5).recall >= 0.985


def test_a_lens_without_a_reading_lets_hardly_anything_pass() -> None:
    screens, logits, threshold = sample(lenses=3)
    threshold[1] = 100
    fit = fit_screen_thresholds(screens, logits, threshold)
    assert float((screens[:, 1] >= fit.thresholds[1]).float().mean()) < 0.01


def test_a_lens_that_never_stirs_keeps_a_finite_threshold() -> None:
    screens, logits, threshold = sample(lenses=3)
    screens[:, 1], logits[:, 1] = 0.25, -4.0
    assert bool(fit_screen_thresholds(screens, logits, threshold).thresholds.isfinite().all())


def test_without_any_reading_nothing_has_to_pass() -> None:
    screens, logits, threshold = sample(lenses=3)
    fit = fit_screen_thresholds(screens, logits, threshold + 100)
    assert fit.report.recall == 1
    assert fit.report.readings == 0


def test_nothing_to_find_is_a_recall_of_1() -> None:
    assert measure_screen(torch.zeros(3, 2, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)).recall == 1


def test_screens_find_the_line_that_a_logit_follows() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3000, 8), torch.randn(5, 8)
    screens = fit_screens(x, x @ weight.T - 2 + 0.1 * torch.randn(3000, 5), ridge=1e-6)
    assert torch.allclose(screens.weight, weight, atol=0.02)
    assert torch.allclose(screens(x), x @ weight.T - 2, atol=0.1)


def test_bad_values_are_refused() -> None:
    screens, logits, threshold = sample(50, 2)
    with pytest.raises(UsageError, match=r"recall is 0\.0"):
        fit_screen_thresholds(screens, logits, threshold, recall=0.0)
    with pytest.raises(UsageError, match="no rows"):
        fit_screen_thresholds(screens[:0], logits[:0], threshold)
    with pytest.raises(UsageError, match=r"0 states and a ridge of 0\.01"):
        fit_screens(screens[:0], logits[:0])
    screens[0, 0] = float("nan")
    with pytest.raises(NumericError, match="fitted on"):
        fit_screen_thresholds(screens, logits, threshold)
    with pytest.raises(NumericError, match="fitted on"):
        fit_screens(screens, logits)

"""Calibration: maps agree with logistic regression, thresholds keep their promise."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ftw.map.training.calibrate import false_alarm_rate, fit_platt, thresholds
from ftw.map.training.targets import UNSAID


def sample(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(n, 3, generator=rng) + 10
    p = torch.sigmoid((logits - 10) * torch.tensor([0.1, 0.3, 0.6]) - 1)
    return logits, (torch.rand(n, 3, generator=rng) < p).to(torch.int8)


def test_maps_agree_with_logistic_regression() -> None:
    logits, labels = sample()
    found = fit_platt(logits, labels)
    for lens in range(3):
        wanted = LogisticRegression(C=1e6).fit(logits[:, lens : lens + 1].numpy(), labels[:, lens].numpy())
        assert float(found.slope[lens]) == pytest.approx(float(wanted.coef_[0, 0]), rel=0.05)
        assert float(found.offset[lens]) == pytest.approx(float(wanted.intercept_[0]), rel=0.05)


def test_unsaid_states_do_not_move_a_map() -> None:
    logits, labels = sample()
    more = torch.cat([logits, torch.full((500, 3), 60.0)])
    unsaid = torch.full((500, 3), UNSAID, dtype=torch.int8)
    found, wanted = fit_platt(more, torch.cat([labels, unsaid])), fit_platt(logits, labels)
    assert torch.allclose(found(logits), wanted(logits), atol=1e-3)


def test_a_slope_is_never_negative() -> None:
    logits, labels = sample()
    assert bool((fit_platt(-logits, labels).slope > 0).all())


def test_perfect_separation_does_not_give_certainty() -> None:
    logits = torch.tensor([[9.0], [8.0], [-8.0], [-9.0]])
    p = fit_platt(logits, torch.tensor([[1], [1], [0], [0]], dtype=torch.int8))(logits)
    assert float(p.max()) < 0.95


def test_few_plain_states_reach_the_threshold() -> None:
    rng = torch.Generator().manual_seed(1)
    plain, words = torch.randn(500, 4, generator=rng), torch.randn(500, 4, generator=rng) - 3
    marks = thresholds(plain, words, alarms=0.02)
    rate = false_alarm_rate(plain, marks)
    assert bool((rate <= 0.02).all())
    assert bool((rate >= 0.01).all())


def test_words_of_other_concepts_raise_the_threshold_and_masked_ones_do_not() -> None:
    plain = torch.zeros(200, 1)
    words = torch.full((200, 1), 5.0)
    assert float(thresholds(plain, words, alarms=0.01)) > 5
    assert float(thresholds(plain, torch.full((200, 1), float("-inf")), alarms=0.01)) == pytest.approx(0, abs=1e-3)

"""Calibration: maps agree with logistic regression, thresholds keep their promise on other text, figures are honest."""

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ftw.map.training.calibrate import calibrate, cross_fitted, false_alarm_rate, fit_platt, thresholds
from ftw.map.training.targets import NEGATIVE, UNSAID
from ftw.substrate.errors import NumericError, UsageError
from tests.map.training.matrices import matrix


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


def test_a_weight_of_plain_text_is_as_many_states_of_it() -> None:
    logits, labels = sample(1000)
    plain = torch.randn(50, 3) + 2
    thrice = torch.full((150, 3), NEGATIVE, dtype=torch.int8)
    found = fit_platt(logits, labels, plain, 3.0)
    wanted = fit_platt(torch.cat([logits, plain.repeat(3, 1)]), torch.cat([labels, thrice]))
    assert torch.allclose(found(logits), wanted(logits), atol=1e-3)


def test_maps_of_many_lenses_are_those_of_each_by_itself() -> None:
    rng = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(300, 40, generator=rng), torch.randint(0, 2, (300, 40), generator=rng).to(torch.int8)
    together, alone = fit_platt(logits, labels), fit_platt(logits[:, 33:34], labels[:, 33:34])
    assert float(together.slope[33]) == pytest.approx(float(alone.slope[0]), rel=1e-4)


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


def test_a_threshold_below_zero_is_kept_where_no_other_words_were_read() -> None:
    plain = torch.linspace(-9, -5, 400)[:, None]
    assert -5.1 < float(thresholds(plain, torch.full((1, 1), float("-inf")), alarms=0.01)) < -5


@pytest.mark.parametrize("chosen", [0.01, 0.05])
def test_false_alarms_on_other_text_stay_near_the_rate_chosen(chosen: float) -> None:
    given = matrix(states=8000, lenses=12)
    quiet = replace(given, logits=given.logits - 30)  # words of other concepts set no threshold here
    found = calibrate(quiet, false_alarms=chosen)
    assert 0.5 * chosen <= found.figures.false_alarms <= 1.5 * chosen
    assert found.figures.neutral_states == (4000, 4000)


def test_a_rate_is_measured_on_the_text_that_set_no_threshold() -> None:
    given = matrix()
    odd = given.neutral_text % 2 == 1
    noisy = replace(given, neutral=torch.where(odd[:, None], torch.full_like(given.neutral, 50.0), given.neutral))
    assert calibrate(noisy).figures.false_alarms == 1.0


def test_calibrated_probabilities_come_true_on_synsets_that_no_map_saw() -> None:
    found = calibrate(matrix(3000, synsets=700)).figures
    assert found.ece_before > 0.1
    assert found.ece_after < 0.05
    assert found.ece_adaptive_after < 0.05
    assert found.brier_after < found.brier_before
    assert sum(found.after.n) == 4 * 3000


def test_no_prompt_is_read_by_a_map_that_saw_its_synset() -> None:
    given = matrix(200, 1, synsets=20)
    before = cross_fitted(given)
    rows = given.group == given.group[0]
    turned = given.labels.clone()
    turned[rows] = 1 - turned[rows]
    after = cross_fitted(replace(given, labels=turned))
    assert torch.allclose(before[rows], after[rows], atol=1e-5)
    assert not torch.allclose(before[~rows], after[~rows], atol=1e-5)


def test_what_other_prompts_read_is_the_mean_over_all_of_them_not_only_those_that_fire() -> None:
    given = matrix()
    p, found = cross_fitted(given), calibrate(given)
    negative = given.labels[:, 0] == NEGATIVE
    assert found.metrics[0]["cross_mean"] == pytest.approx(float(p[negative, 0].mean()), abs=1e-5)
    fired = given.logits[:, 0] >= found.threshold_logit[0]
    assert found.metrics[0]["cross_fire_rate"] == pytest.approx(float(fired[negative].float().mean()), abs=1e-6)


def test_every_lens_has_an_interval_around_its_area() -> None:
    found = calibrate(matrix())
    for at, one in enumerate(found.reliability):
        assert one is not None
        assert one.low < one.auroc < one.high
        assert one.auroc == pytest.approx(float(found.auroc_words[at]), abs=1e-6)
    assert bool(found.auroc_templates.isnan().all())
    assert found.figures.auroc.low < found.figures.auroc.value < found.figures.auroc.high


def test_the_lenses_that_ship_give_the_figure_for_templates_and_the_thresholds() -> None:
    given = matrix()
    shipped = replace(given, shipped=given.logits + 2 * given.labels)
    found = calibrate(shipped)
    assert bool((found.auroc_templates > found.auroc_words).all())


def test_the_same_seed_gives_the_same_calibration() -> None:
    one, other = calibrate(matrix(), seed=5), calibrate(matrix(), seed=5)
    assert one.figures == other.figures
    assert one.reliability == other.reliability


@pytest.mark.parametrize("rate", [0.0, 0.7])
def test_a_rate_that_is_no_small_share_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="a share of readings above 0"):
        calibrate(matrix(), false_alarms=rate)


def test_a_matrix_whose_parts_do_not_fit_is_refused() -> None:
    given = matrix()
    with pytest.raises(UsageError, match="parts of other sizes"):
        replace(given, kind=("carrier",))
    with pytest.raises(UsageError, match="neutral text gives"):
        replace(given, neutral_text=given.neutral_text[:-1])
    with pytest.raises(UsageError, match="one to measure"):
        replace(given, neutral_text=2 * given.neutral_text)


def test_a_logit_that_is_not_a_number_is_refused() -> None:
    given = matrix()
    with pytest.raises(NumericError, match="held-out logit is not finite"):
        replace(given, logits=given.logits.clone().fill_(float("nan")))


def test_a_lens_with_nothing_to_hold_out_is_mapped_by_what_the_shipped_one_reads_and_has_no_word_figure() -> None:
    whole = matrix(lenses=3)
    labels = whole.labels.clone()
    labels[:, 1] = UNSAID
    other = torch.randn(whole.logits.shape, generator=torch.Generator().manual_seed(9))
    found = calibrate(replace(whole, logits=other, labels=labels, shipped=whole.logits, seen=whole.labels))
    wanted = calibrate(replace(whole, shipped=whole.logits))
    assert torch.equal(found.platt.slope[1], wanted.platt.slope[1])
    assert torch.equal(found.threshold_logit[1], wanted.threshold_logit[1])
    assert torch.equal(found.auroc_templates, wanted.auroc_templates)
    assert found.auroc_words.isnan().tolist() == [False, True, False]
    assert [each is None for each in found.reliability] == [False, True, False]
    assert "self_mean" not in found.metrics[1]

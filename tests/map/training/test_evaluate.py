"""Figures: areas under the curve agree with their definition, and what cannot be measured is NaN."""

import math

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from ftw.map.training.evaluate import (
    auroc,
    brier,
    calibration_curve,
    expected_calibration_error,
    f1_at,
    leading,
    macro,
    sibling_top1,
    tfidf_scores,
)
from ftw.map.training.targets import NEGATIVE, POSITIVE, UNSAID
from ftw.substrate.errors import NumericError


def test_areas_agree_with_scikit_learn_ties_included() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (80, 5), generator=rng).float()
    labels = torch.randint(0, 2, (80, 5), generator=rng).to(torch.int8)
    wanted = [roc_auc_score(labels[:, i], scores[:, i]) for i in range(5)]
    assert auroc(scores, labels).tolist() == pytest.approx(wanted)


def test_unsaid_states_count_neither_way() -> None:
    scores = torch.tensor([[3.0], [2.0], [1.0], [0.0], [99.0]])
    labels = torch.tensor([[POSITIVE], [POSITIVE], [NEGATIVE], [NEGATIVE], [UNSAID]], dtype=torch.int8)
    assert auroc(scores, labels).tolist() == [1.0]


def test_a_lens_with_one_positive_has_no_figure_and_macro_leaves_it_out() -> None:
    scores = torch.tensor([[1.0, 5.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([[1, 1], [0, 1], [0, 0], [0, 0]], dtype=torch.int8)
    areas = auroc(scores, labels)
    assert math.isnan(areas[0])
    assert macro(areas) == 1.0


def test_a_score_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(NumericError, match="not a number"):
        auroc(torch.tensor([[float("nan")]]), torch.zeros(1, 1, dtype=torch.int8))


def test_calibration_error_is_the_gap_between_probability_and_frequency() -> None:
    p = torch.full((10, 1), 0.8)
    labels = torch.tensor([[1]] * 6 + [[0]] * 4, dtype=torch.int8)
    assert expected_calibration_error(p, labels) == pytest.approx(0.2, abs=1e-6)


def test_calibration_error_leaves_out_what_is_unsaid() -> None:
    p = torch.tensor([[1.0], [0.0]])
    assert expected_calibration_error(p, torch.tensor([[1], [-1]], dtype=torch.int8)) == 0.0


def test_sibling_top1_is_counted_among_siblings_only() -> None:
    scores = torch.tensor([[9.0, 2.0, 1.0], [9.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
    home = torch.tensor([1, 1, 0])
    assert sibling_top1(scores, home, [[1, 2]]) == 0.5
    assert math.isnan(sibling_top1(scores, home, [[0]]))


def test_tfidf_tells_seen_tokens_apart_and_knows_nothing_of_new_ones() -> None:
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.int8)
    read = tfidf_scores([[1, 2], [1, 3], [1, 4], [1, 4]], labels, [[1, 4], [1, 9]], vocab_size=10)
    assert read[0, 1] > read[0, 0]
    assert read[1].abs().max() < 0.1


def test_bins_of_equal_mass_hold_about_as_many_readings_each() -> None:
    rng = torch.Generator().manual_seed(0)
    p = torch.rand(3000, 2, generator=rng) ** 3
    labels = (torch.rand(3000, 2, generator=rng) < p).to(torch.int8)
    found = calibration_curve(p, labels, 10, adaptive=True)
    assert len(found.n) == 10
    assert max(found.n) - min(found.n) <= 2
    assert found.error < 0.03


def test_a_curve_of_nothing_has_no_error() -> None:
    unsaid = torch.full((3, 1), UNSAID, dtype=torch.int8)
    assert math.isnan(calibration_curve(torch.rand(3, 1), unsaid, adaptive=True).error)
    assert calibration_curve(torch.rand(3, 1), unsaid).n == ()


def test_brier_is_the_mean_squared_distance_to_the_truth() -> None:
    p = torch.tensor([[0.8, 0.5], [0.1, 0.5], [0.9, 0.5]])
    labels = torch.tensor([[1, -1], [0, -1], [-1, -1]], dtype=torch.int8)
    found = brier(p, labels)
    assert float(found[0]) == pytest.approx((0.04 + 0.01) / 2, abs=1e-6)
    assert math.isnan(found[1])


def test_f1_agrees_with_scikit_learn_and_leaves_out_lenses_without_positives() -> None:
    rng = torch.Generator().manual_seed(0)
    p, labels = torch.rand(60, 2, generator=rng), torch.randint(0, 2, (60, 2), generator=rng).to(torch.int8)
    labels[:, 1] = 0
    found = f1_at(p, labels)
    assert float(found[0]) == pytest.approx(f1_score(labels[:, 0], p[:, 0] >= 0.5))
    assert math.isnan(found[1])


def test_the_reading_that_leads_is_one_whose_label_is_said() -> None:
    p = torch.tensor([[0.9, 0.5, 0.1]])
    found, label = leading(p, torch.tensor([[-1, 1, 0]], dtype=torch.int8))
    assert (found.tolist(), label.tolist()) == ([[0.5]], [[1]])

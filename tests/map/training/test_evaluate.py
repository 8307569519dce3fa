"""Figures: areas under the curve agree with their definition, and what cannot be measured is NaN."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ftw.map.training.evaluate import auroc, expected_calibration_error, macro, sibling_top1, tfidf_scores
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

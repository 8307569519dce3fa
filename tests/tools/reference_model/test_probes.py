import numpy as np
import torch

from tools.reference_model.probes import columns_auc, ridge_auc
from tools.reference_model.text import rate


def test_auc_of_a_perfect_a_reversed_and_a_blind_score() -> None:
    truth = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=bool)
    scores = np.array([[4.0, 1, 5], [3, 2, 5], [2, 3, 5], [1, 4, 5]])
    assert columns_auc(scores, truth).tolist() == [1.0, 0.0, 0.5]


def test_a_concept_without_both_classes_has_no_auc() -> None:
    assert np.isnan(columns_auc(np.zeros((3, 1)), np.ones((3, 1), dtype=bool))).all()


def test_the_closed_form_classifier_finds_a_direction_and_no_signal_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 16, generator=generator)
    y = torch.stack([x[:, 0] > 0.5, torch.rand(600, generator=generator) > 0.5], 1)
    found = ridge_auc(x[:400], y[:400], x[400:], y[400:].numpy())
    assert found[0] > 0.97
    assert 0.35 < found[1] < 0.65


def test_a_rate_counts_texts_with_a_word_or_its_plural() -> None:
    assert rate(["Two dogs ran.", "A cat.", "The dogma."], {"dog"}) == 0.333

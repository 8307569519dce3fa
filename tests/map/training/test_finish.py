"""Rows of a pack say what was measured; a screen keeps what its lenses read; centroids tell concepts apart."""

import pytest
import torch

from ftw.map.training.baselines import centroids
from ftw.map.training.calibrate import calibrate
from ftw.map.training.evaluate import auroc, macro
from ftw.map.training.finish import rows_of, screened
from ftw.map.training.fit import Lenses
from tests.map.training.matrices import matrix
from tests.map.training.small_packs import concepts


def test_rows_carry_maps_thresholds_intervals_and_places_in_the_tree() -> None:
    pack = concepts()
    given = matrix(lenses=4)
    terms = ("Animal", "Food", "Bird", "Dog")
    found = calibrate(type(given)(**{**vars(given), "terms": terms}))
    rows = rows_of(found, pack, 3, torch.tensor([5, 6, 7, 8]), primary=False, trained="2026-01-01T00:00:00")
    assert [row.term for row in rows] == list(terms)
    assert [row.row for row in rows] == [0, 1, 2, 3]
    bird = rows[2]
    assert (bird.block, bird.level, bird.parent, bird.n_pos, bird.n_words) == (3, 1, "Animal", 7, 6)
    assert bird.reliability == found.reliability[2]
    assert bird.auroc_words == pytest.approx(float(found.auroc_words[2]))
    assert bird.auroc_templates is None
    assert bird.calibration(0.7) == pytest.approx(float(found.platt(torch.full((1, 4), 0.7))[0, 2]), abs=1e-5)
    assert bird.metrics == found.metrics[2]
    assert not bird.primary
    assert bird.trained == "2026-01-01T00:00:00"


def test_a_screen_keeps_nearly_all_readings_and_says_how_many() -> None:
    rng = torch.Generator().manual_seed(0)
    lenses = Lenses(
        torch.randn(128, 16, generator=rng), torch.zeros(128), torch.randn(5, 128, generator=rng) / 8, torch.zeros(5)
    )
    x = torch.randn(3000, 16, generator=rng)
    marks = lenses(x).quantile(0.99, dim=0)
    tensors, report = screened(lenses, x[:2000], x[2000:], marks)
    assert tensors.screen_w.shape == (5, 16)
    assert report.recall > 0.7
    assert report.pass_rate < 1


def test_centroids_tell_planted_concepts_apart_and_nothing_else() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = (torch.rand(600, 6, generator=rng) < 0.2).to(torch.int8)
    planted = torch.randn(6, 32, generator=rng)
    x = torch.randn(600, 32, generator=rng) + labels.float() @ planted
    found = centroids(x[:300], labels[:300])
    assert macro(auroc(found(x[300:]), labels[300:])) > 0.85
    noise = torch.randn(300, 32, generator=rng)
    assert abs(macro(auroc(found(noise), labels[300:])) - 0.5) < 0.08
    assert torch.allclose(found.weight.norm(dim=1), torch.ones(6), atol=1e-5)


def test_a_channel_that_every_concept_uses_counts_less() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.zeros(400, 4, dtype=torch.int8)
    labels[torch.arange(400), torch.arange(400) % 4] = 1
    x = torch.randn(400, 8, generator=rng) * 0.1
    x[:, 0] += (torch.arange(400) % 4).float()  # every concept's mean differs in channel 0
    x[:, 1] += (torch.arange(400) % 4 == 2).float() * 2  # only the third one's in channel 1
    weight = centroids(x, labels).weight[2].abs()
    assert weight[1] > 2 * weight[0]

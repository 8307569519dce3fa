"""Intervals: they agree with definition and theory, pair what is compared, and never promise from a few words."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ftw.map.training.bootstrap import (
    areas,
    auroc_draws,
    draws,
    interval_of,
    macro_interval,
    placements,
    reliabilities,
    share_interval,
)
from ftw.substrate.errors import NumericError


def sample(n: int = 400, lenses: int = 3, apart: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    labels = (torch.rand(n, lenses, generator=rng) < 0.3).to(torch.int8)
    scores = torch.randn(n, lenses, generator=rng) + apart * labels
    return scores, labels, torch.arange(n)


def test_a_draw_has_as_many_synsets_as_there_are() -> None:
    assert draws(17, n=9).sum(1).tolist() == [17.0] * 9


def test_the_same_seed_draws_the_same_synsets() -> None:
    assert torch.equal(draws(30, seed=4, n=5), draws(30, seed=4, n=5))
    assert not torch.equal(draws(30, seed=4, n=5), draws(30, seed=5, n=5))


def test_the_mean_placement_of_positives_is_the_area() -> None:
    scores, labels, _ = sample()
    found = areas(placements(scores, labels), labels)
    wanted = [roc_auc_score(labels[:, at], scores[:, at]) for at in range(3)]
    assert found.tolist() == pytest.approx(wanted)


def test_a_score_that_is_not_a_number_is_not_placed() -> None:
    with pytest.raises(NumericError, match="not a number"):
        placements(torch.tensor([[float("nan")]]), torch.zeros(1, 1, dtype=torch.int8))


def test_an_interval_is_as_wide_as_drawing_the_whole_sample_again_makes_it() -> None:
    scores, labels, group = sample(300, 1)
    drawn = auroc_draws(placements(scores, labels), labels, group, draws(300, n=1000))
    rng = torch.Generator().manual_seed(1)
    again = []
    for _ in range(400):
        at = torch.randint(300, (300,), generator=rng)
        again.append(roc_auc_score(labels[at, 0], scores[at, 0]))
    assert float(drawn.std()) == pytest.approx(float(torch.tensor(again).std()), rel=0.15)


def test_synsets_that_are_read_together_widen_an_interval() -> None:
    scores, labels, group = sample(100)
    alone = auroc_draws(placements(scores, labels), labels, group, draws(100))
    five = [each.repeat(5, 1) for each in (scores, labels)]
    together = auroc_draws(placements(*five), five[1], group.repeat(5), draws(100))
    assert float(together.std(0).mean()) == pytest.approx(float(alone.std(0).mean()), rel=0.02)


def test_the_same_draws_make_a_difference_of_nothing_certain() -> None:
    scores, labels, group = sample()
    weights = draws(400)
    one = auroc_draws(placements(scores, labels), labels, group, weights)
    other = auroc_draws(placements(2 * scores + 1, labels), labels, group, weights)
    found = interval_of(0.0, (other - one).nanmean(1))
    assert found.high - found.low < 1e-5


def test_a_lens_that_separates_two_synsets_is_not_called_certain() -> None:
    scores = torch.tensor([[5.0], [5.0], [0.0], [0.0], [0.1], [0.2]])
    labels = torch.tensor([[1], [1], [0], [0], [0], [0]], dtype=torch.int8)
    placed, group = placements(scores, labels), torch.arange(6)
    found = reliabilities(placed, labels, group, auroc_draws(placed, labels, group, draws(6)))[0]
    assert found is not None
    assert (found.auroc, found.high, found.n) == (1.0, 1.0, 2)
    assert found.low == pytest.approx(1 - (1 - 0.05**0.5) / 2)


def test_more_synsets_that_all_agree_make_the_interval_narrower() -> None:
    def low(n: int) -> float:
        scores = torch.cat([torch.full((n, 1), 5.0), torch.zeros(40, 1)])
        labels = torch.cat([torch.ones(n, 1), torch.zeros(40, 1)]).to(torch.int8)
        placed, group = placements(scores, labels), torch.arange(n + 40)
        found = reliabilities(placed, labels, group, auroc_draws(placed, labels, group, draws(n + 40)))[0]
        assert found is not None
        return found.low

    assert low(3) < low(10) < low(60) < 1


def test_a_lens_without_positives_has_no_reliability() -> None:
    labels = torch.zeros(6, 1, dtype=torch.int8)
    placed = placements(torch.randn(6, 1), labels)
    assert reliabilities(placed, labels, torch.arange(6), torch.full((4, 1), float("nan"))) == (None,)
    assert math.isnan(interval_of(float("nan"), torch.tensor([1.0])).low)


@given(st.integers(0, 1000))
def test_an_interval_holds_its_value_and_lies_in_the_unit_range(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2, (40, 3), generator=rng).to(torch.int8)
    placed, group = placements(torch.randn(40, 3, generator=rng), labels), torch.randint(9, (40,), generator=rng)
    drawn = auroc_draws(placed, labels, group, draws(9, seed, n=60))
    found = macro_interval(placed, labels, drawn)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for one in reliabilities(placed, labels, group, drawn):
        assert one is None or one.low <= one.auroc <= one.high


def test_a_share_counts_prompts_and_leaves_out_those_without_an_answer() -> None:
    hits = torch.tensor([1.0, 0.0, float("nan"), 1.0])
    found = share_interval(hits, torch.tensor([0, 1, 2, 3]), draws(4))
    assert found.value == pytest.approx(2 / 3)
    assert found.low < found.value < found.high
    assert math.isnan(share_interval(hits[2:3], torch.tensor([0]), draws(1)).value)

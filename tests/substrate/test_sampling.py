"""The sampler: what it keeps, what it draws, and on what a draw depends."""

import math

import pytest
import torch
from torch import Tensor
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ftw.substrate.errors import ConfigError
from ftw.substrate.sampling import Dice, Sampling, choose, draw, shape


def logits(rows: int = 3, vocab: int = 50, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def test_greedy_takes_the_most_likely_token_whatever_else_is_set() -> None:
    scores = logits()
    settings = [Sampling(), Sampling(top_k=3, seed=1), Sampling(temperature=0.0, min_p=0.5)]
    tokens, logprobs = choose(scores, settings, [Dice(s.seed) for s in settings])
    assert tokens.tolist() == scores.argmax(-1).tolist()
    assert torch.allclose(logprobs, scores.log_softmax(-1).amax(-1))


def test_greedy_takes_the_first_of_equals_as_generate_does() -> None:
    scores = torch.zeros(2, 5000)
    scores[0, [7, 4000]] = 2.0
    tokens, _ = choose(scores, [Sampling()] * 2, [Dice(None)] * 2)
    assert tokens.tolist() == scores.argmax(-1).tolist() == [7, 0]


@pytest.mark.parametrize(
    ("sampling", "warpers"),
    [
        (Sampling(temperature=0.7, top_k=5), [TemperatureLogitsWarper(0.7), TopKLogitsWarper(5)]),
        (Sampling(temperature=1.3, top_p=0.8), [TemperatureLogitsWarper(1.3), TopPLogitsWarper(0.8)]),
        (Sampling(temperature=1.0, min_p=0.1), [MinPLogitsWarper(0.1)]),
        (
            Sampling(temperature=0.9, top_k=20, top_p=0.9, min_p=0.05),
            [TemperatureLogitsWarper(0.9), TopKLogitsWarper(20), TopPLogitsWarper(0.9), MinPLogitsWarper(0.05)],
        ),
    ],
)
def test_filters_leave_what_transformers_leaves(sampling: Sampling, warpers: list) -> None:
    scores = logits(rows=8)
    want = scores
    for warper in warpers:
        want = warper(torch.zeros(8, 1, dtype=torch.long), want)
    got = shape(scores, [sampling] * 8)
    assert torch.allclose(got.softmax(-1), want.softmax(-1), atol=1e-6)
    assert torch.equal(got.isinf(), want.isinf())


def test_rows_of_a_batch_keep_their_own_settings() -> None:
    scores = logits(rows=4)
    mixed = [
        Sampling(temperature=1.0),
        Sampling(temperature=0.5, top_k=3),
        Sampling(temperature=1.0, top_p=0.5),
        Sampling(temperature=2.0, min_p=0.3),
    ]
    together = shape(scores, mixed)
    for row, sampling in enumerate(mixed):
        assert torch.equal(together[row], shape(scores[row : row + 1], [sampling])[0])


@pytest.mark.parametrize("share", [1e-6, 0.01])
def test_the_best_token_is_never_filtered_out(share: float) -> None:
    sampling = Sampling(temperature=1.0, top_k=1, top_p=share, min_p=1.0)
    kept = shape(logits(), [sampling] * 3).isfinite()
    assert kept.sum(-1).tolist() == [1, 1, 1]


def test_a_draw_depends_on_the_seed_alone_and_not_on_the_neighbours() -> None:
    scores = logits(rows=5)
    mine = Sampling(temperature=1.5, seed=11)
    others = [Sampling(temperature=1.0, seed=1), Sampling(), Sampling(temperature=0.3, top_p=0.5), Sampling()]

    def drawn(row: int, settings: list[Sampling]) -> list[int]:
        dice = [Dice(s.seed) for s in settings]
        return [int(choose(scores, settings, dice).tokens[row]) for _ in range(20)]

    last = drawn(4, [*others, mine])
    swapped = scores.clone()
    alone_dice = [Dice(11)]
    alone = [int(choose(swapped[4:5], [mine], alone_dice).tokens[0]) for _ in range(20)]
    assert last == alone
    assert len(set(last)) > 1


def test_another_seed_draws_otherwise_and_no_seed_is_fresh() -> None:
    scores = torch.zeros(1, 1000)

    def drawn(seed: int | None) -> list[int]:
        dice = [Dice(seed)]
        return [int(choose(scores, [Sampling(temperature=1.0, seed=seed)], dice).tokens[0]) for _ in range(8)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)


def test_draws_follow_the_probabilities() -> None:
    probs = torch.tensor([0.5, 0.0, 0.25, 0.25])
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens = draw(probs.log().expand(4000, 4), uniform)
    assert torch.bincount(tokens, minlength=4).tolist() == [2000, 0, 1000, 1000]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_a_ruled_out_token_is_never_drawn_at_the_ends(uniform: float) -> None:
    scores = torch.tensor([[-math.inf, 1.0, -math.inf]])
    assert draw(scores, torch.tensor([uniform], dtype=torch.float64)).tolist() == [1]


def test_the_logprob_is_the_models_own_and_not_the_filtered_one() -> None:
    scores = logits(rows=1)
    sampling = Sampling(temperature=5.0, top_k=4, seed=3)
    tokens, logprobs = choose(scores, [sampling], [Dice(3)])
    assert torch.allclose(logprobs[0], scores.log_softmax(-1)[0, tokens[0]])


def test_a_nan_in_the_logits_shows_in_the_logprob_of_its_row_alone() -> None:
    scores = logits(rows=2)
    scores[0, 3] = math.nan
    _, logprobs = choose(scores, [Sampling()] * 2, [Dice(None)] * 2)
    assert logprobs.isnan().tolist() == [True, False]


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_bad_temperature_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"temperature is .*: it is 0 \(greedy\) or a positive number"):
        Sampling(temperature=bad)


def test_a_bad_top_k_is_refused() -> None:
    with pytest.raises(ConfigError, match="top_k is 0: it is at least 1"):
        Sampling(top_k=0)


@pytest.mark.parametrize("name", ["top_p", "min_p"])
@pytest.mark.parametrize("bad", [0.0, 1.5, math.nan])
def test_a_bad_share_is_refused(name: str, bad: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is .*: it lies in \(0, 1\]"):
        Sampling(**{name: bad})

"""The numbers of a distribution are their definitions, held against fp64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ftw.sweep import metrics

SHAPES = [(3, 7), (2, 3, 101), (4, 5000)]


def logits(*shape: int, seed: int = 0, scale: float = 4.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_and_logsumexp_are_their_definitions(shape: tuple[int, ...]) -> None:
    z = logits(*shape)
    p = z.double().softmax(-1)
    torch.testing.assert_close(
        metrics.entropy_bits(metrics.softmax(z)).double(), -(p * p.log2()).sum(-1), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(metrics.logsumexp(metrics.softmax(z)), z.logsumexp(-1))


@pytest.mark.parametrize("shape", SHAPES)
def test_divergences_are_their_definitions(shape: tuple[int, ...]) -> None:
    z, other = logits(*shape), logits(*shape, seed=1)
    p, q = z.double().softmax(-1), other.double().softmax(-1)
    m = (p + q) / 2
    kl = (p * (p / q).log2()).sum(-1)
    js = ((p * (p / m).log2()).sum(-1) + (q * (q / m).log2()).sum(-1)) / 2
    a, b = metrics.softmax(z), metrics.softmax(other)
    torch.testing.assert_close(metrics.kl_bits(a, b).double(), kl, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(metrics.js_bits(a, b).double(), js, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics.js_bits(a, b), metrics.js_bits(b, a))


def test_a_distribution_is_no_distance_from_itself() -> None:
    a = metrics.softmax(logits(4, 5000))
    assert metrics.kl_bits(a, a).tolist() == [0.0] * 4
    assert metrics.js_bits(a, a).abs().max() < 1e-6


def test_a_divergence_does_not_stop_at_a_floor() -> None:
    far, near = torch.zeros(1, 10), torch.zeros(1, 10)
    far[0, 0], near[0, 1] = 500.0, 500.0
    assert metrics.kl_bits(metrics.softmax(far), metrics.softmax(near)).item() == pytest.approx(500 / math.log(2))
    assert metrics.js_bits(metrics.softmax(far), metrics.softmax(near)).item() == pytest.approx(1.0)


@given(st.floats(-50, 50))
def test_a_constant_on_all_logits_changes_nothing(shift: float) -> None:
    z, other = logits(3, 200), logits(3, 200, seed=1)
    a, b, q = metrics.softmax(z), metrics.softmax(z + shift), metrics.softmax(other)
    for left, right in (
        (metrics.entropy_bits(a), metrics.entropy_bits(b)),
        (metrics.kl_bits(a, q), metrics.kl_bits(b, q)),
        (metrics.js_bits(a, q), metrics.js_bits(b, q)),
        (metrics.cosine_of_logits(z, other), metrics.cosine_of_logits(z + shift, other)),
    ):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 1000))
def test_renaming_the_tokens_changes_nothing_but_their_names(seed: int) -> None:
    z, other = logits(2, 700, seed=seed), logits(2, 700, seed=seed + 1)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(seed))
    a, b = metrics.softmax(z), metrics.softmax(z[:, order])
    torch.testing.assert_close(metrics.entropy_bits(a), metrics.entropy_bits(b), rtol=1e-5, atol=1e-5)
    q, r = metrics.softmax(other), metrics.softmax(other[:, order])
    torch.testing.assert_close(metrics.kl_bits(a, q), metrics.kl_bits(b, r), rtol=1e-5, atol=1e-5)
    assert torch.equal(metrics.rank(z, z[:, :3]), metrics.rank(z[:, order], z[:, :3]))
    assert torch.equal(metrics.best(z, 6)[1], order[metrics.best(z[:, order], 6)[1]])


@pytest.mark.parametrize(("vocab", "k"), [(5, 5), (100, 1), (100, 7), (5000, 5), (5001, 40), (64 * 40, 9)])
def test_the_best_are_those_of_a_full_sort(vocab: int, k: int) -> None:
    z = logits(2, 6, vocab)
    values, ids = metrics.best(z, k)
    full = z.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(values, full.values[..., :k])
    assert torch.equal(ids, full.indices[..., :k])


@given(st.integers(0, 200), st.sampled_from([1, 3, 9]), st.sampled_from([50, 3000]))
def test_among_equals_the_lower_id_comes_first_however_many_they_are(seed: int, k: int, vocab: int) -> None:
    z = torch.randint(4, (3, vocab), generator=torch.Generator().manual_seed(seed)).float()
    _, ids = metrics.best(z, k)
    assert torch.equal(ids, z.sort(dim=-1, descending=True, stable=True).indices[..., :k])


def test_ties_share_the_better_rank() -> None:
    z = torch.tensor([[3.0, 1.0, 3.0, 2.0, 1.0]])
    assert metrics.rank(z, z).tolist() == [[1, 4, 1, 3, 4]]
    assert metrics.rank(z, z[:, :0]).shape == (1, 0)


def test_a_mass_is_the_sum_of_its_tokens_probabilities() -> None:
    z = logits(2, 50)
    p = z.softmax(-1)
    found = metrics.mass(metrics.softmax(z), torch.tensor([[3, 7, -1], [0, -1, -1]]))
    torch.testing.assert_close(found, torch.stack([p[0, 3] + p[0, 7], p[1, 0]]))


def test_cosine_of_logits_ignores_their_mean_and_has_no_value_without_a_direction() -> None:
    z = logits(1, 40)
    assert metrics.cosine_of_logits(z + 100, 2 * z - 7).item() == pytest.approx(1.0, abs=1e-5)
    assert metrics.cosine_of_logits(torch.ones(1, 40), z).isnan().all()
    assert metrics.cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])).item() == pytest.approx(2**-0.5)

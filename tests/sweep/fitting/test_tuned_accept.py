"""Each gate passes and fails at its number, and the numbers are those of the sweep's definitions."""

import json

import numpy as np
import pytest
import torch

from ftw.substrate.errors import NumericError
from ftw.substrate.model import Model, load
from ftw.substrate.unembed import unembed
from ftw.sweep.fitting.accept import Comparison, accept, compare, depth_layers, first_layers, layers_earlier
from ftw.sweep.lenses.tuned import TunedLens

N, ROWS = 8, 40


def comparison(gain: float, *, last: float = 0.0, worst: float = 0.0, earlier: int = 0) -> Comparison:
    """A lens with the same gain everywhere but at layer 1, whose choice comes into view `earlier` layers before."""
    logit = np.full((N + 1, ROWS), 4.0)
    logit[N] = 0
    lens = logit - gain
    lens[1] = logit[1] - worst
    lens[N] = last
    ranks = np.where(np.arange(N + 1)[:, None] >= 6, 1, 100) * np.ones((1, ROWS), dtype=int)
    moved = np.where(np.arange(N + 1)[:, None] >= 6 - earlier, 1, 100) * np.ones((1, ROWS), dtype=int)
    return Comparison(logit, lens, logit, lens, ranks, moved)


def test_a_lens_that_gains_enough_everywhere_is_accepted() -> None:
    verdict = accept(comparison(0.31, worst=-0.09))
    assert verdict.accepted
    assert verdict.gates["A"].measured == pytest.approx((0.31,) * 3)
    assert verdict.positions == ROWS


@pytest.mark.parametrize(
    ("changed", "failed"),
    [
        ({"gain": 0.29}, "A"),
        ({"gain": 0.31, "last": 0.06}, "C"),
        ({"gain": 0.31, "worst": -0.11}, "D"),
    ],
)
def test_each_gate_refuses_by_itself(changed: dict[str, float], failed: str) -> None:
    verdict = accept(comparison(**changed))
    assert not verdict.accepted
    assert [name for name in "ACD" if not verdict.gates[name].passed] == [failed]


def test_an_earlier_onset_is_reported_but_does_not_decide() -> None:
    late, early = accept(comparison(0.31)), accept(comparison(0.31, earlier=1))
    assert late.accepted
    assert not late.gates["B"].passed
    assert early.gates["B"].passed
    assert early.gates["B"].measured == (1.0, 1.0)


def test_layers_to_be_earlier_by_scale_with_depth() -> None:
    assert [layers_earlier(4, n) for n in (4, 8, 32, 80)] == [1, 1, 4, 10]
    assert [layers_earlier(2, n) for n in (4, 8, 32, 80)] == [1, 1, 2, 5]


def test_depth_layers_lie_inside_the_stack() -> None:
    assert depth_layers(8) == (2, 4, 6)
    assert depth_layers(32) == (8, 16, 24)
    assert depth_layers(2) == (1, 1, 1)
    assert depth_layers(1) == (0, 0, 0)


def test_the_first_layer_counts_even_if_the_rank_falls_back() -> None:
    rank = np.array([[50, 1], [3, 50], [60, 50], [1, 1]])
    assert first_layers(rank, 5).tolist() == [1, 0]
    assert first_layers(np.full((4, 1), 99), 5).tolist() == [3]


def test_the_verdict_is_plain_data() -> None:
    body = accept(comparison(0.31)).document()
    assert json.loads(json.dumps(body)) == body
    assert body["gates"]["A"]["wanted"] == [0.2, 0.3, 0.3]


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


def lens_and_states(model: Model) -> tuple[TunedLens, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    bias = torch.randn(model.n_layers, model.d_model, generator=draw)
    return TunedLens(model.arch, bias), 2 * torch.randn(model.n_layers + 1, 7, model.d_model, generator=draw)


def test_divergences_and_ranks_are_those_of_the_definitions(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    lens, states = lens_and_states(model)
    monkeypatch.setattr("ftw.sweep.fitting.accept.BUDGET", 4 * model.vocab_size * 3)  # three rows at once
    found = compare(model, lens, states)
    logit = unembed(model.arch, states).double().log_softmax(-1)
    moved = states.clone()
    moved[:-1] += lens.bias[:, None]
    own = unembed(model.arch, moved).double().log_softmax(-1)
    for log_q, kl, table, rank in (
        (logit, found.logit_kl_bits, found.logit_table_kl_bits, found.logit_rank),
        (own, found.lens_kl_bits, found.lens_table_kl_bits, found.lens_rank),
    ):
        log_p = logit[-1].expand_as(log_q)
        forward = (log_p.exp() * (log_p - log_q)).sum(-1) / np.log(2)
        backward = (log_q.exp() * (log_q - log_p)).sum(-1) / np.log(2)
        np.testing.assert_allclose(kl, forward.numpy(), atol=2e-5)
        np.testing.assert_allclose(table, backward.numpy(), atol=2e-5)
        first = log_p.argmax(-1, keepdim=True)
        np.testing.assert_array_equal(rank, 1 + (log_q > log_q.gather(-1, first)).sum(-1).numpy())
    assert (found.lens_kl_bits[-1] == 0).all()


def test_a_lens_that_gives_no_numbers_is_refused(model: Model) -> None:
    lens, states = lens_and_states(model)
    lens.bias[2] = torch.inf
    with pytest.raises(NumericError, match="lens 'tuned' gives no finite distribution at layer 2 of tiny"):
        compare(model, lens, states)

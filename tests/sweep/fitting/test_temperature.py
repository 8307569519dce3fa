"""Temperatures are the bottom of a valley, and an edge is told as one."""

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model, from_net, load
from ftw.substrate.unembed import head_input
from ftw.sweep import forward
from ftw.sweep.fitting import temperature as room
from ftw.sweep.fitting.temperature import HIGH, divergence, fit_temperatures, golden_section
from ftw.sweep.lenses.logit import LogitLens
from tests.substrate.families import build


@cache
def model() -> Model:
    return load("tiny")


@cache
def states() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(0, 256, (12,), generator=draw).tolist() for _ in range(5)]
    return forward.read(model(), prompts, positions="all").states


@dataclass(frozen=True)
class Scaled:
    """The model's own lens input, multiplied: as a lens that is too sure by that factor."""

    model: Model
    factor: float
    name: str = "scaled"
    digest: str = "scaled"

    @property
    def layers(self) -> range:
        return range(self.model.n_layers + 1)

    def head_inputs(
        self, resid: Float[Tensor, "layer row d_model"], layers: object
    ) -> Float[Tensor, "layer row width"]:
        return head_input(self.model.arch, resid) * self.factor


@given(st.floats(-3, 3), st.floats(0.1, 5))
def test_a_golden_section_finds_the_bottom_of_a_valley(bottom: float, steep: float) -> None:
    found = golden_section(lambda x: steep * abs(x - bottom) ** 1.5, -2.0, 2.0)
    assert found == pytest.approx(min(max(bottom, -2), 2), abs=2e-3)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_a_lens_that_is_too_sure_by_a_factor_gets_it_back(factor: float) -> None:
    found = fit_temperatures(model(), Scaled(model(), factor), states())
    assert [each.layer for each in found] == [0, 1, 2, 3, 4]
    assert found[-1].tau == pytest.approx(factor, rel=2e-3)
    assert found[-1].edge is None
    assert found[-1].kl_bits_at_tau < 1e-4
    assert found[-1].positions == states().shape[1]
    assert found[-1].document()["tau"] == found[-1].tau


def test_a_temperature_never_makes_it_worse_and_is_the_best_of_a_fine_grid() -> None:
    lens = LogitLens(model().arch)
    found = fit_temperatures(model(), lens, states())
    for factor in (0.5, 0.9, 0.97, 1.03, 1.1, 2.0):
        taus = [each.tau * factor for each in found]
        other = divergence(model(), lens, states(), taus).from_model.double().mean(1)
        assert all(at <= more + 1e-5 for at, more in zip((e.kl_bits_at_tau for e in found), other, strict=True))
    assert all(each.kl_bits_at_tau <= each.kl_bits for each in found)


def test_what_is_told_is_the_divergence_in_the_text_book() -> None:
    lens = LogitLens(model().arch)
    found = fit_temperatures(model(), lens, states())
    taus = [each.tau for each in found]
    both = divergence(model(), lens, states(), taus)
    plain = divergence(model(), lens, states())
    z = lens.head_inputs(states(), range(5)).double() @ model().arch.head.weight.double().T
    p = z[-1].log_softmax(-1)
    for layer, tau in enumerate(taus):
        q = (z[layer] / tau).log_softmax(-1)
        there = (p.exp() * (p - q)).sum(-1) / math.log(2)
        back = (q.exp() * (q - p)).sum(-1) / math.log(2)
        torch.testing.assert_close(both.from_model[layer].double(), there, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both.to_model[layer].double(), back, atol=1e-4, rtol=1e-4)
        assert found[layer].kl_bits_at_tau == pytest.approx(float(there.mean()), abs=1e-4)
        assert found[layer].kl_bits == pytest.approx(float(plain.from_model[layer].double().mean()), abs=1e-4)


def test_a_lens_that_knows_nothing_is_best_at_the_edge_and_says_so() -> None:
    found = fit_temperatures(model(), Scaled(model(), -1.0), states())[-1]
    assert (found.edge, found.tau) == ("high", pytest.approx(HIGH))
    sharp = fit_temperatures(model(), Scaled(model(), 1e-4), states())[-1]
    assert sharp.edge == "low"


def test_chunks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lens = LogitLens(model().arch)
    whole = fit_temperatures(model(), lens, states())
    monkeypatch.setattr(room, "BUDGET", 8 * 259 * 25)
    for found, wanted in zip(fit_temperatures(model(), lens, states()), whole, strict=True):
        assert found.tau == pytest.approx(wanted.tau, rel=2e-3)
        assert found.kl_bits_at_tau == pytest.approx(wanted.kl_bits_at_tau, abs=1e-5)


def test_softcap_and_half_precision_are_the_models_own() -> None:
    capped = from_net(build("gemma2").to(torch.bfloat16))
    some = forward.read(capped, [[5, 9, 2, 7]], positions="all").states
    found = fit_temperatures(capped, LogitLens(capped.arch), some)[-1]
    assert found.tau == pytest.approx(1.0, rel=2e-3)
    assert found.kl_bits < 1e-5


def test_what_cannot_be_fitted_is_refused() -> None:
    lens = LogitLens(model().arch)
    with pytest.raises(ConfigError, match=r"the states are \[5, 0, 32\]: give those of 5 layers at one position"):
        fit_temperatures(model(), lens, states()[:, :0])
    with pytest.raises(ConfigError, match="3 temperatures are given: lens 'logit' reads 5 layers"):
        divergence(model(), lens, states(), [1.0] * 3)
    with pytest.raises(NumericError, match="lens 'scaled' gives logits at layer 0 that are not finite"):
        fit_temperatures(model(), Scaled(model(), math.inf), states())
    with pytest.raises(NumericError, match=r"the loss at .* is not a number"):
        golden_section(lambda _: math.nan, 0.0, 1.0)
    with pytest.raises(ConfigError, match=r"nothing to search from 1.0 to 0.0"):
        golden_section(abs, 1.0, 0.0)

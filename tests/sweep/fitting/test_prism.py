"""The Prism: rows are mapped onto rows, moments are those of the text, and the verdict is that of held-out text."""

import random
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model, from_net, load
from ftw.sweep import forward
from ftw.sweep.fitting import prism as room
from ftw.sweep.fitting.accept import compare
from ftw.sweep.fitting.corpus import Corpus
from ftw.sweep.fitting.prism import (
    Moments,
    PrismFit,
    build,
    fit_prism,
    head_directions,
    measure,
    procrustes,
    spectrum_of,
)
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.prism import orthogonality_error
from tests.substrate.families import build as build_net


@cache
def model() -> Model:
    return load("tiny")


def corpus(n: int, size: int = 150) -> Corpus:
    draw = random.Random(3)
    letters = "etaoin shrdlu"
    return Corpus.of(["".join(draw.choices(letters, k=size)) for _ in range(n)], "letters")


@cache
def fitted() -> PrismFit:
    return fit_prism(model(), corpus(130), positions=10_000, heldout=256)


@cache
def moments() -> Moments:
    return measure(model(), corpus(12).windows(model(), 1500, 60), 1000)


def basis(rows: int, width: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q[:rows]


@given(st.integers(1, 16), st.integers(0, 1000))
def test_the_rows_of_a_toy_of_16_dimensions_are_mapped_exactly(k: int, seed: int) -> None:
    e, u = basis(k, 16, seed), basis(k, 16, seed + 5000)
    rotation = procrustes(e.T @ u)
    assert float((e @ rotation - u).abs().max()) < 1e-12
    if k == 16:
        assert float((e @ rotation.T - u).abs().max()) > 1e-2, "columns are not rows"
    assert orthogonality_error(rotation) < 1e-12


def test_any_rows_that_were_rotated_give_their_rotation_back() -> None:
    true = basis(16, 16, 1)
    rows = torch.randn(200, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(procrustes(rows.T @ (rows @ true)), true)


@given(st.integers(1, 15), st.integers(0, 1000))
def test_what_the_rows_leave_open_stays_as_near_to_itself_as_it_can(k: int, seed: int) -> None:
    e = basis(k, 16, seed)
    torch.testing.assert_close(procrustes(e.T @ e), torch.eye(16, dtype=torch.float64))
    u = basis(k, 16, seed + 5000)
    ours = float(procrustes(e.T @ u).trace())
    left = torch.linalg.svd(e, full_matrices=True).Vh[k:]
    right = torch.linalg.svd(u, full_matrices=True).Vh[k:]
    for other in range(5):
        turned = e.T @ u + left.T @ basis(16 - k, 16 - k, other) @ right
        assert float(turned.trace()) <= ours + 1e-9


@cache
def distinct() -> Tensor:
    """States [layer, row, d_model] of the positions that `moments` are over, found the long way."""
    seen: dict[tuple[int, ...], Tensor] = {}
    for ids in corpus(12).windows(model(), 1500, 60):
        states = forward.read(model(), [ids], positions="all").states
        for at in range(len(ids)):
            seen.setdefault(tuple(ids[: at + 1]), states[:, at])
    return torch.stack(list(seen.values())[:1000], 1)


def test_moments_are_those_of_the_lens_inputs_of_all_layers() -> None:
    x = LogitLens(model().arch).head_inputs(distinct(), range(5)).double()
    flat, last = x.flatten(0, 1), x[-1]
    found = moments()
    assert found.positions == len(last) == 1000
    torch.testing.assert_close(found.mean, flat.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.covariance, flat.T.cov(correction=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.last_mean, last.mean(0), atol=1e-5, rtol=1e-5)
    cross = torch.einsum("lpw,pv->wv", x - found.mean, last - found.last_mean) / len(flat)
    torch.testing.assert_close(found.cross, cross, atol=1e-4, rtol=1e-4)


def test_a_position_counts_once() -> None:
    once = Corpus.of(["abcdefgh"], "one")
    alike = Corpus.of(["abcdefgh", "abcdefghij", "abcdxy"], "alike")
    count = measure(model(), once.windows(model(), 100, 20, part="all"), 1000).positions
    assert count == 9
    assert measure(model(), alike.windows(model(), 100, 20, part="all"), 1000).positions == 9 + 2 + 2
    assert measure(model(), alike.windows(model(), 100, 20, part="all"), 10).positions == 10


def test_the_directions_are_as_many_as_hold_99_percent_and_never_too_many_for_the_text() -> None:
    spectrum = spectrum_of(moments())
    held = spectrum.values.cumsum(0) / spectrum.values.sum()
    assert held[spectrum.k - 1] >= 0.99 > held[spectrum.k - 2]
    assert spectrum.share == pytest.approx(float(held[spectrum.k - 1]))
    assert float(spectrum.values.mean()) == pytest.approx(1, abs=1e-6)
    few = Moments(70, *(getattr(moments(), name) for name in ("mean", "covariance", "last_mean", "cross")))
    assert spectrum_of(few).k == 7
    assert spectrum_of(few, 12).k == 12


def test_head_takes_principal_directions_to_the_heads_in_order_and_to_the_nearer_side() -> None:
    lens, spectrum = build(model(), moments(), "head", k=5)
    weight = model().arch.head.weight.double()
    _, _, right = torch.linalg.svd(weight - weight.mean(0), full_matrices=False)
    torch.testing.assert_close(head_directions(model()).mul(right).sum(-1).abs(), torch.ones(32, dtype=torch.float64))
    gone_to = spectrum.rows[:5] @ lens.rotation.double()
    torch.testing.assert_close((gone_to * right[:5]).sum(-1).abs(), torch.ones(5, dtype=torch.float64))
    assert ((gone_to * spectrum.rows[:5]).sum(-1) >= -1e-6).all()
    assert (lens.scale, float(lens.offset.abs().max())) == (1.0, 0.0)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_states_is_the_best_orthogonal_map_onto_the_last_layer(covariance: Any) -> None:
    """In the squared distance that Procrustes lowers, no other rotation, scale or offset does better."""
    lens, _ = build(model(), moments(), "states", covariance, k=32)
    x = LogitLens(model().arch).head_inputs(distinct(), lens.layers)
    y = lens.head_inputs(distinct(), lens.layers)
    off = float((y - x[-1]).square().mean())
    draw = torch.Generator().manual_seed(0)
    for _ in range(10):
        skew = 0.02 * torch.randn(32, 32, generator=draw)
        turned = (y - lens.offset) @ torch.linalg.matrix_exp(skew - skew.T) + lens.offset
        assert float((turned - x[-1]).square().mean()) > off
    for other in (0.97 * (y - lens.offset) + lens.offset, 1.03 * (y - lens.offset) + lens.offset, y + 0.05):
        assert float((other - x[-1]).square().mean()) > off


def test_full_covariance_makes_features_of_variance_one_that_do_not_go_together() -> None:
    lens, _ = build(model(), moments(), "states", "full")
    assert lens.decorrelate is not None
    white = lens.decorrelate.double() / lens.deviation.double()[:, None]
    one = white.T @ moments().covariance @ white
    large = spectrum_of(moments()).values > room.FLOOR
    if bool(large.all()):
        torch.testing.assert_close(one, torch.eye(32, dtype=torch.float64), atol=1e-3, rtol=0.0)


def test_a_fit_says_what_it_saw_and_how_it_did() -> None:
    fit = fitted()
    manifest = fit.lens.manifest
    assert manifest is not None
    assert manifest.source["positions"] == 10_000
    assert manifest.source["layers"] == [0, 4]
    assert manifest.source["orthogonality_error"] < 1e-5
    assert manifest.accepted == fit.accepted == fit.acceptance.gates["A"].passed
    assert list(fit.others) == [each for each in ("head", "states") if each != manifest.target]
    assert manifest.source["other_targets"].keys() == fit.others.keys()
    assert manifest.acceptance == fit.acceptance.document()


def test_a_lens_that_does_not_beat_the_logit_lens_is_not_accepted() -> None:
    fit = fit_prism(model(), corpus(130), target="head", positions=10_000, heldout=256)
    assert min(fit.acceptance.gates["A"].measured) < 0
    assert not fit.accepted
    assert fit.lens.manifest is not None
    assert fit.lens.manifest.accepted is False
    assert fit.others == {}


def test_the_target_with_the_lower_held_out_divergence_is_kept() -> None:
    fit = fitted()
    other = next(iter(fit.others.values()))
    assert sum(fit.acceptance.lens_kl_bits[1:4]) <= sum(other.lens_kl_bits[1:4])


def test_the_same_text_gives_the_same_lens() -> None:
    told: list[tuple[int, int]] = []
    again = fit_prism(
        model(), corpus(130), positions=10_000, heldout=256, progress=lambda done, of: told.append((done, of))
    )
    assert again.lens.digest == fitted().lens.digest
    assert again.lens.manifest == fitted().lens.manifest
    assert told[-1] == (10_000, 10_000)


@pytest.mark.parametrize("family", ["gpt2", "opt-projected", "gemma2"])
def test_heads_behind_projections_biases_and_caps_are_fitted_on_what_they_are_given(family: str) -> None:
    other = from_net(build_net(family))
    width = other.arch.head.weight.shape[1]
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 40, (30, 12), generator=draw).tolist()
    found = measure(other, ids_as_windows(ids), 10_000)
    assert found.mean.shape == (width,)
    lens, _ = build(other, found, "states")
    states = forward.read(other, ids[:2], positions="all").states
    assert lens.head_inputs(states, lens.layers).shape == (other.n_layers + 1, states.shape[1], width)
    assert compare(other, lens, states).lens_kl_bits.shape == (other.n_layers + 1, states.shape[1])


def ids_as_windows(ids: list[list[int]]) -> Any:
    """Windows of a model without a tokenizer."""
    windows = corpus(1).windows(model(), 10, 20)
    windows._pieces = iter(ids)
    return windows


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"letters has \d+ distinct positions in its part 'fit': a Prism takes at least"
    ):
        fit_prism(model(), corpus(12), heldout=64)
    with pytest.raises(ConfigError, match="positions are 500: a Prism of tiny takes at least 10000"):
        fit_prism(model(), corpus(2), positions=500)
    with pytest.raises(ConfigError, match=r"k is 33: it must be 1..32"):
        spectrum_of(moments(), 33)
    with pytest.raises(ConfigError, match="no target 'best' for a Prism: use head, states"):
        fit_prism(model(), corpus(2), target="best")
    with pytest.raises(ConfigError, match="no covariance 'half': use diagonal, full"):
        fit_prism(model(), corpus(2), covariance="half")
    with pytest.raises(ConfigError, match="no position to fit a Prism on"):
        measure(model(), ids_as_windows([]), 10)


def test_a_nan_in_the_stream_is_an_error() -> None:
    broken = load("tiny")
    with torch.no_grad():
        broken.arch.blocks[2].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(NumericError, match="tiny has a NaN or infinity in the stream"):
        measure(broken, corpus(2).windows(broken, 40, 20, part="all"), 10)


def test_inputs_that_have_nothing_to_do_with_the_end_have_no_scale() -> None:
    plain = moments()
    none = Moments(plain.positions, plain.mean, plain.covariance, plain.last_mean, torch.zeros_like(plain.cross))
    with pytest.raises(NumericError, match="the Prism's scale is 0: inputs and last layer have nothing in common"):
        build(model(), none, "states")

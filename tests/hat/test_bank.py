from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import MLP, LensBank, LensRow, LensTensors, LinearProbe, normalise
from ftw.substrate.errors import NumericError, PackError, SiteError, UnknownConcept, UsageError
from ftw.substrate.types import Site

Modules = dict[int, list[tuple[MLP, LinearProbe]]]
States = Callable[[int], Tensor]


@pytest.fixture
def bank(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> LensBank:
    return LensBank.from_tensors(blocks, rows, dtype=torch.float32)


def by_modules(modules: Modules, resid: dict[Site, Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits = [lens(normalise(resid[Site(b)])) for b, pairs in modules.items() for lens, _ in pairs]
        screens = [screen(normalise(resid[Site(b)])) for b, pairs in modules.items() for _, screen in pairs]
    return torch.stack(logits, 1), torch.stack(screens, 1)


def test_normalise_gives_mean_0_and_variance_1_in_fp32_whatever_the_input() -> None:
    x = normalise(1000 * torch.randn(3, 5, 64).bfloat16() + 300)
    assert x.dtype == torch.float32
    assert torch.allclose(x.mean(-1), torch.zeros(3, 5), atol=1e-5)
    assert torch.allclose(x.std(-1, correction=0), torch.ones(3, 5), atol=1e-3)


def test_full_scores_equal_the_modules_one_by_one(bank: LensBank, modules: Modules, states: States) -> None:
    resid = {Site(1): states(9), Site(2): states(9)}
    logits, _ = by_modules(modules, resid)
    scores = bank.score(resid, full=True)
    assert torch.allclose(scores.logit, logits, atol=1e-5)
    slope = torch.tensor([row.calibration.slope for row in bank.rows])
    offset = torch.tensor([row.calibration.offset for row in bank.rows])
    assert torch.allclose(scores.p, torch.sigmoid(slope * logits + offset), atol=1e-5)
    assert bool(scores.passed.all())


def test_screened_scores_equal_full_ones_where_the_screen_passes_and_are_0_elsewhere(
    bank: LensBank, modules: Modules, states: States
) -> None:
    resid = {Site(1): states(9), Site(2): states(9)}
    logits, screens = by_modules(modules, resid)
    scores = bank.score(resid)
    passed = screens >= 0
    assert 0 < int(passed.sum()) < passed.numel()
    assert torch.equal(scores.passed, passed)
    assert scores.computed == int(passed.sum())
    assert torch.allclose(scores.logit[passed], logits[passed], atol=1e-5)
    assert bool((scores.p[~passed] == 0).all())


def test_bf16_weights_change_probabilities_by_less_than_a_hundredth(
    blocks: dict[int, LensTensors], rows: tuple[LensRow, ...], modules: Modules, states: States
) -> None:
    resid = {Site(1): states(20), Site(2): states(20)}
    unit = tuple(row.model_copy(update={"calibration": rows[0].calibration}) for row in rows)
    exact = LensBank.from_tensors(blocks, unit, dtype=torch.float32).score(resid)
    half = LensBank.from_tensors(blocks, unit).score(resid)
    assert float((exact.p - half.p).abs().max()) < 1e-2


def test_one_block_and_one_row_work_alike(
    modules: Modules, blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]
) -> None:
    bank = LensBank.from_tensors({2: blocks[2]}, [row for row in rows if row.block == 2], dtype=torch.float32)
    assert bank.sites == (Site(2),)
    x = torch.randn(1, 32)
    with torch.no_grad():
        expected = torch.stack([lens(normalise(x)) for lens, _ in modules[2]], 1)
    assert torch.allclose(bank.score({Site(2): x}, full=True).logit, expected, atol=1e-5)


def test_no_rows_give_no_scores(bank: LensBank) -> None:
    none = {Site(1): torch.zeros(0, 32), Site(2): torch.zeros(0, 32)}
    assert bank.score(none).p.shape == (0, 12)
    assert bank.score(none, full=True).p.shape == (0, 12)


def test_the_budget_keeps_the_pairs_that_clear_their_screens_by_most(bank: LensBank, states: States) -> None:
    resid = {Site(1): states(9), Site(2): states(9)}
    margins = bank.screen_scores(resid).flatten()
    scores = bank.score(resid, budget=10)
    kept = scores.passed.flatten()
    assert int(kept.sum()) == 10
    assert scores.capped == int((margins >= 0).sum()) - 10
    assert float(margins[kept].min()) >= float(margins[~kept].max())


def test_a_concept_that_is_asked_for_passes_every_screen(bank: LensBank, modules: Modules, states: States) -> None:
    resid = {Site(1): states(9), Site(2): states(9)}
    watching = bank.reading(["b2r3"])
    scores = watching.score(resid, budget=9)
    assert bool(scores.passed[:, watching.index("B2R3")].all())
    assert torch.allclose(scores.logit[:, 8], by_modules(modules, resid)[0][:, 8], atol=1e-5)
    assert not bool(bank.score(resid).passed[:, 8].all())


def test_top_names_the_strongest_first(bank: LensBank, states: States) -> None:
    scores = bank.score({Site(1): states(3), Site(2): states(3)}, full=True)
    for row, named in enumerate(scores.top(4)):
        assert [p for _, p in named] == sorted((p for _, p in named), reverse=True)
        assert named[0][1] == pytest.approx(float(scores.p[row].max()))
        assert all(p == pytest.approx(float(scores.p[row, bank.index(term)])) for term, p in named)


def test_the_host_copy_holds_the_computed_pairs(bank: LensBank, states: States) -> None:
    scores = bank.score({Site(1): states(4), Site(2): states(4)})
    dense = scores.logit.flatten()
    assert [float(dense[int(at)]) for at in scores.host.flat] == scores.host.logit.tolist()


def test_a_nan_in_a_state_is_an_error_and_never_a_low_score(bank: LensBank, states: States) -> None:
    resid = {Site(1): states(2), Site(2): states(2)}
    resid[Site(2)][1, 3] = float("nan")
    with pytest.raises(NumericError, match="not finite"):
        _ = bank.score(resid).p
    with pytest.raises(NumericError, match="not finite"):
        _ = bank.score(resid).host
    with pytest.raises(NumericError, match="not finite"):
        _ = bank.score(resid, full=True).host


def test_a_lens_can_be_taken_out_as_a_module(bank: LensBank, modules: Modules, states: States) -> None:
    x = normalise(states(5))
    assert torch.allclose(bank.module("B1R4")(x), modules[1][4][0](x), atol=1e-6)


def test_a_missing_site_is_named(bank: LensBank) -> None:
    with pytest.raises(SiteError, match="block 2 was not given"):
        bank.score({Site(1): torch.zeros(1, 32)})


def test_states_of_another_width_are_refused(bank: LensBank) -> None:
    with pytest.raises(UsageError, match=r"take \[row, 32\]"):
        bank.score({Site(1): torch.zeros(1, 16), Site(2): torch.zeros(1, 16)})


def test_an_unknown_concept_gets_the_nearest_names(bank: LensBank) -> None:
    with pytest.raises(UnknownConcept, match="B2R6"):
        bank.index("B2R66")


def test_tensors_and_index_must_fit(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> None:
    with pytest.raises(PackError, match="the index has lenses at blocks"):
        LensBank.from_tensors({1: blocks[1]}, rows)
    with pytest.raises(PackError, match="w1 of block 2"):
        LensBank.from_tensors(blocks, rows[:-1])


def test_stacking_needs_a_screen_per_lens() -> None:
    with pytest.raises(UsageError, match="one screen per lens"):
        LensTensors.stack([MLP(32)], [])


def test_the_probe_direction_is_a_unit_vector() -> None:
    assert float(LinearProbe(32).direction.norm()) == pytest.approx(1)


@pytest.fixture
def one_first_layer(modules: Modules) -> tuple[Modules, dict[int, LensTensors]]:
    """Lenses of which all at one block have the same first layer, and listen to three units of the second."""
    for pairs in modules.values():
        for lens, _ in pairs:
            lens.first = pairs[0][0].first
            lens.last.weight.data[:, 3:] = 0
    return modules, {
        block: LensTensors.stack([m for m, _ in pairs], [s for _, s in pairs]) for block, pairs in modules.items()
    }


def test_a_shared_first_layer_is_found_and_gives_the_same_scores(
    one_first_layer: tuple[Modules, dict[int, LensTensors]], rows: tuple[LensRow, ...], states: States
) -> None:
    modules, blocks = one_first_layer
    bank = LensBank.from_tensors(blocks, rows)
    assert bank.is_shared
    resid = {Site(1): states(9), Site(2): states(9)}
    logits, screens = by_modules(modules, resid)
    assert torch.allclose(bank.score(resid, full=True).logit, logits, atol=1e-5)
    assert torch.allclose(bank.module("B2R3")(normalise(resid[Site(2)])), logits[:, 8], atol=1e-5)
    assert bool(((bank.screen_scores(resid) > 0) | (screens < 1e9)).all())


def test_a_bank_with_a_shared_first_layer_misses_no_reading(
    one_first_layer: tuple[Modules, dict[int, LensTensors]], rows: tuple[LensRow, ...], states: States
) -> None:
    bank = LensBank.from_tensors(one_first_layer[1], rows).reading(["B1R1"])
    resid = {Site(1): states(9), Site(2): states(9)}
    full, some = bank.score(resid, full=True), bank.score(resid, budget=1)
    wanted = full.logit >= torch.tensor([row.threshold_logit for row in rows])
    wanted[:, 1] = True
    assert 0 < int(wanted.sum()) < wanted.numel()
    assert torch.equal(some.passed, wanted)
    assert torch.equal(some.logit[wanted], full.logit[wanted])
    assert some.capped == 0


def test_a_nan_cannot_hide_in_a_shared_bank(
    one_first_layer: tuple[Modules, dict[int, LensTensors]], rows: tuple[LensRow, ...], states: States
) -> None:
    bank = LensBank.from_tensors(one_first_layer[1], rows)
    with pytest.raises(NumericError, match="not finite"):
        _ = bank.score({Site(1): states(2) * float("nan"), Site(2): states(2)}).host


def test_units_that_no_lens_listens_to_are_dropped(
    one_first_layer: tuple[Modules, dict[int, LensTensors]],
) -> None:
    part = one_first_layer[1][2]
    assert part.trimmed().w2.shape == (7, 3, 128)
    assert part.trimmed().trimmed().w2.shape == (7, 3, 128)


def test_too_many_units_are_refused(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> None:
    wide = replace(blocks[1], w2=torch.ones(5, 65, 128), b2=torch.ones(5, 65), w3=torch.ones(5, 65))
    with pytest.raises(PackError, match="65 units in their second layer: 1 to 64"):
        LensBank.from_tensors({**blocks, 1: wide}, rows)

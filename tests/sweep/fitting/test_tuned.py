"""A tuned fit begins as the logit lens, moves every parameter, lowers held-out KL, and says what it saw."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model, load
from ftw.substrate.unembed import head_input
from ftw.sweep.fitting import tuned
from ftw.sweep.fitting.accept import compare
from ftw.sweep.fitting.corpus import Corpus
from ftw.sweep.fitting.rows import heldout_rows
from ftw.sweep.fitting.schedule import Schedule
from ftw.sweep.fitting.tuned import Fit, attribution, best_of, default_rank, fit_kinds, fit_tuned
from ftw.sweep.lenses.tuned import KINDS, TunedKind, load_tuned

QUICK = Schedule(
    steps=24, warmup=3, lr=3e-2, rows=32, length=24, share=1.0, heldout=120, check_every=8, patience=3, clip=10.0
)


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = random.Random(1)
    texts = ["".join(rng.choice("abcdef ") for _ in range(rng.randint(8, 40))) for _ in range(150)]
    return Corpus.of(texts, "made up")


@pytest.fixture(scope="module")
def fits(model: Model, corpus: Corpus) -> dict[TunedKind, Fit]:
    return fit_kinds(model, corpus, rank=8, schedule=QUICK)


def states(model: Model, rows: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(model.n_layers + 1, rows, model.d_model, generator=torch.Generator().manual_seed(seed)) + 1


def begun(model: Model, kind: TunedKind, schedule: Schedule = QUICK) -> tuned._Run:
    return tuned._Run(model.arch, kind, 8 if kind == "rank" else None, states(model, 64), schedule, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_logit_lens(model: Model, kind: TunedKind) -> None:
    run = begun(model, kind)
    x = states(model, 9, seed=1)
    for layer in range(model.n_layers):
        assert torch.equal(run.translators.move(x[layer], layer), x[layer])
    lens = run.best.lens(model.arch, "float32")
    assert torch.equal(lens.head_inputs(x, lens.layers), head_input(model.arch, x))


def test_no_parameter_stays_where_it_began(model: Model) -> None:
    run = begun(model, "rank")
    before = run.translators.copy()
    run._step(0, [states(model, 64)])
    first = run.translators.copy()
    assert all(bool((first["up"][layer] != 0).any()) for layer in range(model.n_layers))
    run._step(1, [states(model, 64, seed=1)])
    after = run.translators.copy()
    for name in ("down", "up", "bias"):
        moved = (after[name] - before[name]).flatten(1).norm(dim=1)
        assert bool((moved > 1e-3).all()), name


def test_the_gradient_at_the_start_is_not_zero(model: Model) -> None:
    for kind, name in (("rank", "up"), ("full", "weight"), ("bias", "bias")):
        run = begun(model, kind)  # type: ignore[arg-type]
        run._kl(states(model, 32), share=1.0)
        grad = run.translators.parts[name].grad
        assert grad is not None
        assert bool((grad.flatten(1).norm(dim=1) > 1e-4).all())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_folded_is_what_was_fitted(model: Model, kind: TunedKind) -> None:
    run = begun(model, kind)
    for step in range(3):
        run._step(step, [states(model, 64, seed=step)])
    run.best.parts.update(run.translators.copy())
    lens, x = run.best.lens(model.arch, "float32"), states(model, 9, seed=9)
    for layer in range(model.n_layers):
        with torch.no_grad():
            moved = run.translators.move(x[layer], layer)
        torch.testing.assert_close(lens.translate(x[layer], layer), moved, atol=1e-5, rtol=1e-5)


def test_accumulated_micro_batches_are_one_large_batch(model: Model) -> None:
    whole, parts = begun(model, "rank"), begun(model, "rank")
    batch = states(model, 64, seed=2)
    assert parts._step(0, [batch[:, :32], batch[:, 32:]]) == pytest.approx(whole._step(0, [batch]), rel=1e-5)
    for name, part in whole.translators.parts.items():
        torch.testing.assert_close(parts.translators.parts[name], part, atol=1e-6, rtol=1e-4)


def test_a_loss_is_the_same_in_any_chunks_of_rows(model: Model) -> None:
    run, x = begun(model, "bias"), states(model, 33, seed=3)
    whole = run._kl(x)
    run.teacher.rows = 5
    torch.testing.assert_close(run._kl(x), whole)


def test_each_layers_gradient_is_clipped_by_itself(model: Model) -> None:
    run = begun(model, "rank", QUICK.model_copy(update={"clip": 0.5}))
    run._kl(states(model, 32), share=1.0)
    parts = run.translators.parts.values()
    before = (
        torch.stack([part.grad.flatten(1).square().sum(1) for part in parts if part.grad is not None]).sum(0).sqrt()
    )
    small = int(before.argmin())
    for part in parts:
        assert part.grad is not None
        part.grad[small] *= 0.1 / before[small]
    run._clip()
    after = torch.stack([part.grad.flatten(1).square().sum(1) for part in parts if part.grad is not None]).sum(0).sqrt()
    assert float(after[small]) == pytest.approx(0.1, rel=1e-4)
    for layer in set(range(model.n_layers)) - {small}:
        assert float(after[layer]) == pytest.approx(min(0.5, float(before[layer])), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_kl_falls(fits: dict[TunedKind, Fit], kind: TunedKind) -> None:
    verdict = fits[kind].acceptance
    for logit, lens in zip(verdict.logit_kl_bits[:-1], verdict.lens_kl_bits[:-1], strict=True):
        assert lens < logit
    assert verdict.lens_kl_bits[-1] == 0
    assert fits[kind].losses[-1][1] < fits[kind].losses[0][1]


def test_a_freer_kind_gains_more(fits: dict[TunedKind, Fit]) -> None:
    mean = {kind: sum(fit.acceptance.lens_kl_bits) for kind, fit in fits.items()}
    assert mean["full"] < mean["bias"]
    assert mean["rank"] < mean["bias"]


def test_gains_are_told_apart_by_kind(fits: dict[TunedKind, Fit]) -> None:
    told = attribution(fits)
    assert told["layers"] == [1, 2, 3]
    for at in range(3):
        assert sum(told["steps"][kind][at] for kind in KINDS) == pytest.approx(told["by_kind"]["full"][at])
    assert set(told["accepted"]) == set(KINDS)
    with pytest.raises(ConfigError, match="no fits to compare"):
        attribution({})


def test_the_best_is_accepted_before_it_is_low(fits: dict[TunedKind, Fit]) -> None:
    low = min(fits, key=lambda kind: sum(fits[kind].acceptance.lens_kl_bits))
    other: TunedKind = "bias"
    marked = {
        kind: replace(fit, acceptance=replace(fit.acceptance, accepted=kind == other)) for kind, fit in fits.items()
    }
    assert best_of(marked) == other
    nobody = {kind: replace(fit, acceptance=replace(fit.acceptance, accepted=False)) for kind, fit in fits.items()}
    assert best_of(nobody) == low
    with pytest.raises(ConfigError, match="no fits to choose from"):
        best_of({})


def test_what_it_saw_is_counted(fits: dict[TunedKind, Fit], model: Model) -> None:
    for kind, fit in fits.items():
        manifest = fit.lens.manifest
        assert manifest is not None
        source = manifest.source
        assert source["corpus"]["positions"] == source["steps"] * QUICK.positions_per_step
        assert Schedule.read(source["schedule"], source="manifest") == QUICK
        assert manifest.model.fingerprint == model.fingerprint
        assert (manifest.lens, manifest.rank) == (kind, 8 if kind == "rank" else None)
        assert len(source["corpus"]["digest"]) == 64
        assert source["corpus"]["digest"] != source["corpus"]["heldout_digest"]


def test_every_kind_sees_the_same_text(fits: dict[TunedKind, Fit]) -> None:
    seen = {str(fit.lens.manifest.source["corpus"]) for fit in fits.values() if fit.lens.manifest is not None}
    assert len(seen) == 1


def test_accumulation_is_counted_in_positions(model: Model, corpus: Corpus) -> None:
    schedule = QUICK.model_copy(update={"steps": 6, "rows": 16, "accumulate": 3})
    fit = fit_tuned(model, corpus, kind="bias", schedule=schedule)
    assert fit.lens.manifest is not None
    assert fit.lens.manifest.source["corpus"]["positions"] == schedule.positions == 288


def test_each_layer_keeps_its_best_step(fits: dict[TunedKind, Fit], model: Model) -> None:
    for fit in fits.values():
        assert fit.lens.manifest is not None
        kept = fit.lens.manifest.source["kept_step"]
        for layer in range(model.n_layers):
            by_step = {step: kl[layer] for step, kl in fit.heldout}
            assert by_step[kept[layer]] == min(by_step.values())


def test_a_fit_at_a_wild_rate_gives_the_best_it_saw(model: Model, corpus: Corpus) -> None:
    schedule = QUICK.model_copy(update={"lr": 3.0, "steps": 8, "check_every": 2, "patience": 9})
    fit = fit_tuned(model, corpus, kind="full", schedule=schedule)
    first, _, _ = heldout_rows(model, corpus, schedule.heldout, length=schedule.length, share=schedule.share, seed=0)
    reached = compare(model, fit.lens, first).lens_kl_bits.mean(1)
    looks = dict(fit.heldout)
    layers = range(model.n_layers)
    assert any(looks[8][layer] > min(kl[layer] for kl in looks.values()) + 0.01 for layer in layers)
    for layer in layers:
        lowest = min(kl[layer] for kl in looks.values())
        assert reached[layer] == pytest.approx(lowest, abs=1e-4)


def test_a_fit_that_gains_nothing_stops_and_stays_the_logit_lens(model: Model, corpus: Corpus) -> None:
    schedule = QUICK.model_copy(update={"lr": 1e-12, "check_every": 2, "patience": 3})
    fit = fit_tuned(model, corpus, kind="full", schedule=schedule)
    assert fit.lens.manifest is not None
    assert fit.lens.manifest.source["steps"] == 6
    assert not fit.accepted
    assert not fit.lens.manifest.accepted


def test_the_same_seed_gives_the_same_lens_and_another_one_another(
    fits: dict[TunedKind, Fit], model: Model, corpus: Corpus
) -> None:
    again = fit_tuned(model, corpus, kind="rank", rank=8, schedule=QUICK)
    assert again.lens.digest == fits["rank"].lens.digest
    assert again.acceptance == fits["rank"].acceptance
    other = fit_tuned(model, corpus, kind="rank", rank=8, schedule=QUICK, seed=1)
    assert other.lens.digest != again.lens.digest


def test_a_fit_leaves_the_global_random_state_and_the_model_alone(model: Model, corpus: Corpus) -> None:
    state, weight = torch.get_rng_state(), model.arch.head.weight.clone()  # type: ignore[operator,union-attr]
    fit_tuned(model, corpus, kind="rank", rank=2, schedule=QUICK.model_copy(update={"steps": 5}))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.arch.head.weight, weight)  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in model.net.parameters())


def test_a_model_in_half_precision_is_fitted_in_fp32(corpus: Corpus) -> None:
    half = load(ModelSpec(name="tiny", dtype="bfloat16"))
    fit = fit_tuned(half, corpus, kind="rank", rank=4, schedule=QUICK.model_copy(update={"steps": 8}))
    assert {tensor.dtype for tensor in fit.lens.tensors.values()} == {torch.float32}
    assert fit.acceptance.lens_kl_bits[1] < fit.acceptance.logit_kl_bits[1]


def test_it_is_saved_as_it_was_judged(model: Model, corpus: Corpus, tmp_path: Path) -> None:
    schedule = QUICK.model_copy(update={"steps": 10})
    fit = fit_tuned(model, corpus, kind="full", schedule=schedule, stored="bfloat16")
    fit.save(tmp_path / "lens")
    read = load_tuned(tmp_path / "lens", model)
    assert read.digest == fit.lens.digest
    assert read.manifest is not None
    assert read.manifest.acceptance == fit.acceptance.document()


def test_progress_is_told(model: Model, corpus: Corpus) -> None:
    told: list[tuple[str, int, int]] = []
    fit_kinds(
        model,
        corpus,
        kinds=("bias", "full"),
        schedule=QUICK.model_copy(update={"steps": 5}),
        progress=lambda kind, done, of: told.append((kind, done, of)),
    )
    assert told == [(kind, done, 5) for kind in ("bias", "full") for done in range(1, 6)]


def test_a_loss_that_is_not_finite_ends_the_fit(model: Model) -> None:
    run = begun(model, "bias")
    with torch.no_grad():
        run.translators.parts["bias"][1] = math.nan
    with pytest.raises(NumericError, match=r"loss is nan at step 1 of 24: lower lr \(0.03\)"):
        run._step(0, [states(model, 8)])


@pytest.mark.parametrize(
    ("kind", "rank", "told"),
    [
        ("linear", None, "no tuned lens of kind 'linear': use bias, rank, full"),
        ("full", 4, "rank is 4, but a lens of kind 'full' has none"),
        ("rank", 33, r"rank is 33: it must be 1\.\.32"),
        ("rank", 0, r"rank is 0: it must be 1\.\.32"),
    ],
)
def test_a_bad_kind_or_rank_is_refused(model: Model, kind: str, rank: int | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tuned._rank(model, kind, rank)


def test_the_rank_follows_the_width() -> None:
    assert [default_rank(d) for d in (32, 256, 3584, 4096, 16384)] == [16, 64, 112, 128, 256]

"""Ends: what is measured at a prompt's last position is what the whole distributions say, in fp64."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ftw.substrate.model import Model, load
from ftw.sweep import ends, forward
from ftw.sweep.battery import Prompt
from ftw.sweep.head import Head
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.table import SCALES

TEXTS = ["The capital of France is", "The opposite of hot is", "Once upon a time"]


@pytest.fixture(scope="module")
def model() -> Model:
    return load("reference")


def measured(model: Model, **options: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, list[list[int]]]:
    ids = [model.encode(text) for text in TEXTS]
    resid = forward.read(model, ids).states
    echo = torch.tensor([(row + [-1] * 9)[:9] for row in ids])
    pool = torch.tensor([[7, 9], [11, -1], [-1, -1]])
    lenses = [LogitLens(model.arch), view(model, "raw"), view(model, "own")]
    found = ends.measure(Head(model.arch), lenses, lenses[0], resid, torch.tensor([5, 6, -1]), echo, pool, **options)
    return found, resid, ids


def test_every_number_is_that_of_the_whole_distributions(model: Model) -> None:
    found, resid, _ = measured(model)
    n, layer, row = model.n_layers, 5, 1
    head = Head(model.arch)
    base, raw = (
        lens.head_inputs(resid[layer : layer + 1], [layer])[0] for lens in (LogitLens(model.arch), view(model, "raw"))
    )
    p, q = (head.logits(h).double().softmax(-1)[row] for h in (base, raw))
    at = n + 1 + layer  # views stand lens by lens
    top = [set(one.topk(50).indices.tolist()) for one in (p, q)]
    few = [set(one.topk(10).indices.tolist()) for one in (p, q)]
    expected = {
        "vs_logit_kl_bits": float((p * (p / q).log2()).sum()),
        "vs_logit_rev_kl_bits": float((q * (q / p).log2()).sum()),
        "vs_logit_l1": float((p - q).abs().sum()),
        "vs_logit_jaccard10": len(few[0] & few[1]) / len(few[0] | few[1]),
        "vs_logit_jaccard50": len(top[0] & top[1]) / len(top[0] | top[1]),
    }
    order = p.topk(50).indices
    expected["vs_logit_spearman50"] = spearmanr(np.arange(50), -q[order].numpy()).statistic
    weight = head.rows(torch.tensor([6]))[0].double()
    expected["cos_answer"] = float(torch.cosine_similarity(raw[row].double(), weight, dim=-1))
    for name, value in expected.items():
        assert float(found[name][at, row]) == pytest.approx(value, rel=1e-4, abs=1e-5), name
    for scale, said in zip(SCALES, found["answer_logprob_scaled"][at, row].tolist(), strict=True):
        z = head.logits(raw)[row].double() * scale
        assert said == pytest.approx(float(z[6] - z.logsumexp(-1)), abs=1e-4)
    assert found["pool_ranks"][at, row].tolist() == [1 + int((q > q[11]).sum()), 0]


def test_the_echo_is_held_against_the_closest_word_and_the_best_fifty(model: Model) -> None:
    found, resid, ids = measured(model)
    head, layer, row = Head(model.arch), 2, 0
    h = LogitLens(model.arch).head_inputs(resid[layer : layer + 1], [layer])[0][row]
    words = torch.tensor(ids[row])
    closest = torch.cosine_similarity(head.rows(words), h.expand(len(words), -1), dim=-1).max()
    p = head.logits(h[None])[0].softmax(-1)
    covered = sum(float(p[token]) for token in set(ids[row]) & set(p.topk(50).indices.tolist()))
    assert float(found["cos_echo_max"][layer, row]) == pytest.approx(float(closest), abs=1e-5)
    assert float(found["echo_mass_top50"][layer, row]) == pytest.approx(covered, abs=1e-5)


def test_the_logit_lens_is_not_held_against_itself_and_no_answer_has_no_geometry(model: Model) -> None:
    found, _, _ = measured(model)
    n = model.n_layers
    assert found["vs_logit_kl_bits"][: n + 1].isnan().all()
    assert found["vs_logit_kl_bits"][n + 1 :].isfinite().all()
    assert found["cos_answer"][:, 2].isnan().all()
    assert found["cos_answer"][:, :2].isfinite().all()
    first = [0, n + 1, 2 * (n + 1)]
    assert found["jaccard50_prev"][first].isnan().all()
    rest = [at for at in range(len(found["jaccard50_prev"])) if at not in first]
    assert found["jaccard50_prev"][rest].isfinite().all()


def test_the_last_layer_of_a_view_with_the_models_own_tail_agrees_fully(model: Model) -> None:
    lens = view(model, "next")
    resid = forward.read(model, [model.encode(TEXTS[0])]).states
    one = torch.tensor([[-1]])
    found = ends.measure(Head(model.arch), [lens], LogitLens(model.arch), resid, one[0], one, one)
    last = {name: float(value[-1, 0]) for name, value in found.items() if name.startswith("vs_logit")}
    assert last["vs_logit_kl_bits"] == pytest.approx(0, abs=1e-5)
    assert (last["vs_logit_jaccard50"], last["vs_logit_spearman50"]) == (1, 1)
    assert math.isnan(found["cos_echo_max"][-1, 0])


def test_how_many_rows_go_at_once_changes_nothing(model: Model) -> None:
    whole, _, _ = measured(model)
    single, _, _ = measured(model, budget=1)
    for name, value in whole.items():
        torch.testing.assert_close(single[name], value, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_lenses_at_the_end_are_read_there_alone_and_say_the_same(model: Model) -> None:
    prompts = [Prompt("fr", TEXTS[0], "Paris", control_answer="Berlin"), Prompt("s", TEXTS[2], kind="probe")]
    views = [view(model, "raw")]
    some = Sweep(model, at_end=views).run(prompts, positions="all")
    every = Sweep(model, views).run(prompts, positions="all")
    assert set(some.where(lens="raw")["pos"][some.where(lens="raw")["prompt"] == 0]) == {len(some.items[0].ids) - 1}
    here, there = some.last(), every.last()
    assert here["lens"].tolist() == there["lens"].tolist()
    for name, column in here.columns.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(column, there[name], rtol=2e-3, atol=2e-3, err_msg=name)
    assert np.isnan(some["cos_answer"][some["pos"] == 0]).all()
    assert (some["pool_ranks"][some["pos"] == 0] == 0).all()

"""Decoding in chunks gives the numbers of the plain computation, for every lens, layer and kind of head."""

import math

import pytest
import torch
from torch import Tensor

from ftw.substrate.errors import ConfigError, SiteError
from ftw.substrate.model import Model, from_net, load
from ftw.substrate.reference import tiny
from ftw.substrate.unembed import unembed
from ftw.sweep.decode import METRICS, Decoded, Targets, View, decode
from ftw.sweep.forward import read
from ftw.sweep.head import Head
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.views import view
from tests.substrate.families import build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
PROMPTS = [[5, 6, 7, 8, 9], [10, 11, 12]]
BUDGETS = [None, 1, 3000, 40_000]


@pytest.fixture(scope="module", params=["llama-tied", "phi", "gemma2", "cohere", "opt-projected", "gpt2"])
def model(request: pytest.FixtureRequest) -> Model:
    return from_net(build(request.param))


def states(model: Model) -> Tensor:
    return read(model, PROMPTS, positions="all").states


def targets(n: int) -> Targets:
    ids = torch.arange(n) * 7 % 100
    ids[1] = -1
    return Targets({"answer": ids, "other": ids.flip(0)}, {"echo": torch.tensor([[3, 50, -1]] * n)})


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_number_is_that_of_the_plain_computation(model: Model, budget: int | None) -> None:
    resid = states(model)
    wanted = targets(resid.shape[1])
    found = decode(model, [LogitLens(model.arch)], resid, wanted, k=4, budget=budget)
    z = unembed(model.arch, resid).double()
    logp = z.log_softmax(-1)
    p, q = logp.exp(), logp[-1].exp()
    m = (p + q) / 2
    close = {"rtol": 1e-4, "atol": 2e-5}

    torch.testing.assert_close(found.logsumexp.double(), z.logsumexp(-1), **close)
    torch.testing.assert_close(found.top_logprobs.double(), logp.topk(4).values, **close)
    assert torch.equal(found.top_ids, logp.topk(4).indices)
    torch.testing.assert_close(found.values["entropy"].double(), -(p * logp).sum(-1) / math.log(2), **close)
    torch.testing.assert_close(found.values["kl"].double(), (p * (logp - logp[-1])).sum(-1) / math.log(2), **close)
    js = ((p * (p / m).log2()).sum(-1) + (q * (q / m).log2()).sum(-1)) / 2
    torch.testing.assert_close(found.values["js"].double(), js, **close)
    centred = z - z.mean(-1, keepdim=True)
    cosine = torch.cosine_similarity(centred, centred[-1:].expand_as(centred), dim=-1)
    torch.testing.assert_close(found.values["cosine"].double(), cosine, **close)
    torch.testing.assert_close(found.masses["echo"].double(), p[..., 3] + p[..., 50], **close)
    for name, ids in wanted.ids.items():
        own = z.gather(-1, ids.clamp_min(0).expand(z.shape[:-1])[..., None])
        has = (ids >= 0).expand(z.shape[:-1])
        assert torch.equal(found.ranks[name], ((z > own + 1e-5).sum(-1) + 1) * has)
        logprobs = logp.gather(-1, ids.clamp_min(0).expand(z.shape[:-1])[..., None])[..., 0]
        torch.testing.assert_close(found.logprobs[name][has].double(), logprobs[has], **close)
        assert found.logprobs[name][~has].isnan().all()
    assert found.logsumexp_bound.abs().max() == 0
    assert found.is_finite.all()


def test_the_last_layer_is_the_model_itself(model: Model) -> None:
    found = decode(model, [LogitLens(model.arch)], states(model), k=3)
    with torch.no_grad():
        own = torch.cat([model.net(input_ids=torch.tensor([ids])).logits[0] for ids in PROMPTS]).log_softmax(-1)
    torch.testing.assert_close(found.top_logprobs[-1], own.topk(3).values, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.top_ids[-1], own.topk(3).indices)
    assert found.values["kl"][-1].abs().max() == 0
    assert found.values["js"][-1].abs().max() < 1e-5
    torch.testing.assert_close(found.state_cosine[-1], torch.ones_like(found.state_cosine[-1]))


@pytest.mark.parametrize("budget", BUDGETS)
def test_lenses_are_decoded_together_as_each_by_itself(budget: int | None) -> None:
    model = tiny()
    lenses = [LogitLens(model.arch), view(model, "own"), view(model, "raw"), view(model, "next")]
    resid = states(model)
    together = decode(model, lenses, resid, targets(resid.shape[1]), budget=budget)
    assert together.views == tuple(View(lens.name, layer) for lens in lenses for layer in lens.layers)
    start = 0
    for lens in lenses:
        single = decode(model, [lens], resid, targets(resid.shape[1]))
        part = slice(start, start + len(lens.layers))
        start = part.stop
        for name in METRICS:
            torch.testing.assert_close(together.values[name][part], single.values[name], rtol=1e-4, atol=2e-5)
        assert torch.equal(together.top_ids[part], single.top_ids)
        assert torch.equal(together.ranks["answer"][part], single.ranks["answer"])


def test_divergences_of_any_lens_are_from_the_models_own_distribution() -> None:
    model = tiny()
    resid = states(model)
    raw = decode(model, [view(model, "raw")], resid)
    logp = (resid.double() @ model.arch.head.weight.double().T).log_softmax(-1)
    own = unembed(model.arch, resid[-1]).double().log_softmax(-1)
    kl = (logp.exp() * (logp - own)).sum(-1) / math.log(2)
    torch.testing.assert_close(raw.values["kl"].double(), kl, rtol=1e-4, atol=1e-5)


def test_only_the_metrics_asked_for_are_measured() -> None:
    model = tiny()
    found = decode(model, [LogitLens(model.arch)], states(model), wanted=["kl"])
    assert set(found.values) == {"kl"}
    assert (found.ranks, found.masses) == ({}, {})


def test_the_same_states_give_the_same_bits() -> None:
    model = tiny()
    resid = states(model)
    first, second = (decode(model, [LogitLens(model.arch)], resid) for _ in range(2))
    assert torch.equal(first.logsumexp, second.logsumexp)
    assert all(torch.equal(first.values[name], second.values[name]) for name in METRICS)


def test_a_state_that_is_not_finite_spoils_its_own_row_only() -> None:
    model = tiny()
    resid = states(model).clone()
    plain = decode(model, [LogitLens(model.arch)], resid)
    resid[2, 1] = math.nan
    found = decode(model, [LogitLens(model.arch)], resid)
    assert (~found.is_finite).nonzero().tolist() == [[2, 1]]
    torch.testing.assert_close(found.values["kl"][found.is_finite], plain.values["kl"][found.is_finite])


def test_a_head_in_half_precision_is_read_as_fp32() -> None:
    half = from_net(build("llama").to(torch.bfloat16))
    resid = states(half)
    found = decode(half, [LogitLens(half.arch)], resid)
    torch.testing.assert_close(found.logsumexp, unembed(half.arch, resid).logsumexp(-1))


# --- fast -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> tuple[Decoded, Decoded]:
    """Exact and fast, of the trained model, through every lens."""
    model = load("reference")
    texts = ["The capital of France is", "Once upon a time there was a small dog who lived", "Hot is the opposite of"]
    found = read(model, [model.encode(text) for text in texts], positions="all")
    lenses = [LogitLens(model.arch), view(model, "next"), view(model, "own"), view(model, "raw")]
    wanted = Targets({"answer": torch.arange(len(found)) * 31})
    return (
        decode(model, lenses, found.states, wanted),
        decode(model, lenses, found.states, wanted, precision="fast"),
    )


def test_fast_names_the_same_best_tokens_through_every_lens(pair: tuple[Decoded, Decoded]) -> None:
    exact, fast = pair
    assert torch.equal(exact.top_ids, fast.top_ids)


def test_fast_is_within_its_stated_bound(pair: tuple[Decoded, Decoded]) -> None:
    exact, fast = pair
    rounding = 2.0**-20 * (1 + exact.logsumexp.abs())
    assert ((exact.logsumexp - fast.logsumexp).abs() <= fast.logsumexp_bound + rounding).all()
    gap = (exact.top_logprobs - fast.top_logprobs).abs().amax(-1)
    assert (gap <= fast.logsumexp_bound + 4 * rounding).all()


def test_fast_probabilities_of_the_logit_lens_are_within_half_a_thousandth(pair: tuple[Decoded, Decoded]) -> None:
    exact, fast = pair
    mine = [at for at, one in enumerate(exact.views) if one.lens == "logit"]
    assert (exact.top_logprobs[mine].exp() - fast.top_logprobs[mine].exp()).abs().max() <= 5e-4
    assert (exact.values["kl"][mine] - fast.values["kl"][mine]).abs().max() < 0.1


def test_fast_ranks_are_exact_near_the_top_and_close_below(pair: tuple[Decoded, Decoded]) -> None:
    exact, fast = pair
    mine = [at for at, one in enumerate(exact.views) if one.lens == "logit"]
    a, b = exact.ranks["answer"][mine].float(), fast.ranks["answer"][mine].float()
    assert torch.equal(a[a <= 5], b[a <= 5])
    assert ((a - b).abs() / a).median() < 0.01


@pytest.mark.parametrize("family", ["phi", "gemma2", "cohere"])
def test_fast_goes_through_bias_and_transform(family: str) -> None:
    model = from_net(build(family))
    resid = states(model)
    exact = decode(model, [LogitLens(model.arch)], resid, targets(resid.shape[1]))
    fast = decode(model, [LogitLens(model.arch)], resid, targets(resid.shape[1]), precision="fast")
    assert torch.equal(exact.top_ids, fast.top_ids)
    assert ((exact.logsumexp - fast.logsumexp).abs() <= fast.logsumexp_bound).all()


def test_rows_whose_best_tokens_are_too_close_to_call_are_decoded_in_full() -> None:
    model = from_net(build("llama"))
    with torch.no_grad():  # tokens that differ by less than bf16 can tell
        weight = model.arch.head.weight
        weight[1:] = weight[0] + 1e-4 * torch.randn(weight[1:].shape, generator=torch.Generator().manual_seed(0))
    resid = states(model)
    exact = decode(model, [LogitLens(model.arch)], resid)
    fast = decode(model, [LogitLens(model.arch)], resid, precision="fast")
    assert torch.equal(exact.top_ids, fast.top_ids)
    assert fast.logsumexp_bound.max() == 0


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(ConfigError, match="precision is 'quick': use exact or fast"):
        Head(tiny().arch, "quick")


def test_two_lenses_of_one_name_are_an_error() -> None:
    model = tiny()
    with pytest.raises(ConfigError, match=r"lenses are \['logit', 'logit'\]: give at least one, each with a name"):
        decode(model, [LogitLens(model.arch)] * 2, states(model))


@pytest.mark.parametrize("k", [0, 260])
def test_a_k_beyond_the_vocabulary_is_an_error(k: int) -> None:
    model = tiny()
    with pytest.raises(ConfigError, match=f"k is {k}: it must be 1..259"):
        decode(model, [LogitLens(model.arch)], states(model), k=k)


def test_an_unknown_metric_is_an_error() -> None:
    model = tiny()
    with pytest.raises(ConfigError, match="there is no metric 'kll': use entropy, kl, js, cosine"):
        decode(model, [LogitLens(model.arch)], states(model), wanted=["kll"])


def test_states_of_other_layers_are_an_error_with_both_shapes() -> None:
    model = tiny()
    with pytest.raises(SiteError, match=r"the states are \[4, 8, 32\]: this model's are \[5 layers, row, 32\]"):
        decode(model, [LogitLens(model.arch)], states(model)[1:])


def test_no_states_are_an_error() -> None:
    model = tiny()
    with pytest.raises(ConfigError, match="there are no states to decode"):
        decode(model, [LogitLens(model.arch)], states(model)[:, :0])


def test_targets_for_other_rows_are_an_error() -> None:
    model = tiny()
    with pytest.raises(ConfigError, match="target 'answer' has 2 rows, the states have 8"):
        decode(model, [LogitLens(model.arch)], states(model), Targets({"answer": torch.tensor([1, 2])}))


@pytest.mark.parametrize("token", [-2, 259])
def test_a_target_outside_the_vocabulary_is_an_error(token: int) -> None:
    model = tiny()
    wanted = Targets({}, {"echo": torch.full((8, 2), token)})
    with pytest.raises(ConfigError, match=f"target 'echo' has token id {token}: tiny has ids 0..258"):
        decode(model, [LogitLens(model.arch)], states(model), wanted)


def test_a_head_without_weights_is_an_error() -> None:
    model = tiny()
    model.arch.head.weight = None  # type: ignore[assignment]
    with pytest.raises(SiteError, match="the head lm_head has no weight to decode with"):
        Head(model.arch)

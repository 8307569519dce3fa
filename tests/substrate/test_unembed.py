"""Decoding in chunks is decoding at once: same logits, same best tokens, same ranks, for every kind of head."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftw.substrate.anatomy import Arch, LogitTransform
from ftw.substrate.arch import find
from ftw.substrate.bundled import tiny_net
from ftw.substrate.errors import ConfigError, SiteError
from ftw.substrate.unembed import entropy_bits, rank_and_logprob, topk, unembed
from tests.substrate.families import build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
CHUNKS: list[dict[str, int]] = [{}, {"rows": 2, "vocab": 7}, {"rows": 1, "vocab": 1000}, {"rows": 3, "vocab": 1}]


@pytest.fixture(scope="module", params=["tied", "untied", "bias", "softcap", "scale", "projected"])
def arch(request: pytest.FixtureRequest) -> Arch:
    families = {"tied": "llama-tied", "untied": "llama", "bias": "phi", "softcap": "gemma2", "scale": "cohere"}
    return find(build(families.get(request.param, "opt-projected")))


def stream(arch: Arch, *shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, arch.d_model, generator=torch.Generator().manual_seed(seed))


def plainly(arch: Arch, resid: Tensor) -> Tensor:
    """The definition, in fp64: tail, head, transform, on everything at once."""
    with torch.no_grad():
        h = resid[None]
        for module in arch.tail:
            h = module(h)
        weight: Any = arch.head.weight
        bias: Any = getattr(arch.head, "bias", None)
        logits = h[0].double() @ weight.double().T
        return arch.transform(logits if bias is None else logits + bias.double())


@pytest.mark.parametrize("chunks", CHUNKS)
def test_logits_are_those_of_the_plain_computation(arch: Arch, chunks: dict[str, int]) -> None:
    resid = stream(arch, 5)
    logits = unembed(arch, resid, **chunks)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), plainly(arch, resid), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_best_tokens_are_those_of_the_plain_computation(arch: Arch, chunks: dict[str, int]) -> None:
    resid = stream(arch, 2, 3)
    values, ids, norm = topk(arch, resid, 9, **chunks)
    logits = unembed(arch, resid)
    torch.testing.assert_close(values, logits.topk(9).values)
    torch.testing.assert_close(logits.gather(-1, ids), values)
    torch.testing.assert_close(norm, logits.logsumexp(-1))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_ranks_and_log_probabilities_are_those_of_the_plain_computation(arch: Arch, chunks: dict[str, int]) -> None:
    resid = stream(arch, 2, 3)
    targets = torch.tensor([[0, 1, 2], [50, 99, 100]])
    ranks, logprobs = rank_and_logprob(arch, resid, targets, **chunks)
    logits = unembed(arch, resid)
    own = logits.gather(-1, targets[..., None])
    torch.testing.assert_close(ranks, (logits > own).sum(-1) + 1)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0])


@pytest.mark.parametrize("chunks", CHUNKS)
def test_entropy_is_that_of_the_plain_computation(arch: Arch, chunks: dict[str, int]) -> None:
    resid = stream(arch, 2, 3)
    p = unembed(arch, resid).double().softmax(-1)
    plain = -(p * p.log2()).nan_to_num().sum(-1)
    torch.testing.assert_close(entropy_bits(arch, resid, **chunks).double(), plain, rtol=1e-4, atol=1e-5)


def test_the_best_token_has_rank_one(arch: Arch) -> None:
    resid = stream(arch, 4)
    assert rank_and_logprob(arch, resid, topk(arch, resid, 1).ids[:, 0])[0].tolist() == [1, 1, 1, 1]


def test_equal_logits_share_the_better_rank_and_stand_by_id() -> None:
    net = tiny_net()
    net.lm_head.weight.data[:] = 0
    arch = find(net)
    resid = stream(arch, 1)
    assert rank_and_logprob(arch, resid, torch.tensor([200]))[0].item() == 1
    values, ids, _ = topk(arch, resid, 259, vocab=50)
    assert ids.tolist() == [list(range(259))]
    assert values.unique().numel() == 1
    assert entropy_bits(arch, resid, vocab=50).item() == pytest.approx(math.log2(259), abs=1e-5)


def test_certainty_has_no_entropy() -> None:
    arch = replace(find(tiny_net()), transform=LogitTransform(1e4))
    assert entropy_bits(arch, stream(arch, 3), vocab=10).abs().max() < 1e-3


def test_half_precision_models_are_decoded_in_fp32() -> None:
    half, full = tiny_net().to(torch.bfloat16), tiny_net().to(torch.bfloat16).float()
    resid = stream(find(full), 4).bfloat16()
    torch.testing.assert_close(unembed(find(half), resid), unembed(find(full), resid.float()))
    assert half.model.norm.weight.dtype == torch.bfloat16


def test_gradients_flow_to_the_stream_and_nowhere_else() -> None:
    net = tiny_net()
    net.requires_grad_(requires_grad=True)
    arch = find(net)
    resid = stream(arch, 2).requires_grad_()
    unembed(arch, resid, vocab=100).sum().backward()
    assert resid.grad is not None
    assert resid.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in net.parameters())


def test_no_rows_give_no_rows(arch: Arch) -> None:
    resid = stream(arch, 0)
    assert unembed(arch, resid).shape == (0, arch.vocab_size)
    assert topk(arch, resid, 3).ids.shape == (0, 3)
    assert rank_and_logprob(arch, resid, torch.zeros(0, dtype=torch.long))[0].shape == (0,)
    assert entropy_bits(arch, resid).shape == (0,)


def test_a_single_stream_gives_a_single_answer(arch: Arch) -> None:
    resid = stream(arch)
    assert unembed(arch, resid).shape == (arch.vocab_size,)
    assert topk(arch, resid, 2).logsumexp.shape == ()


@pytest.mark.parametrize("k", [0, 1000])
def test_k_beyond_the_vocabulary_is_an_error(arch: Arch, k: int) -> None:
    with pytest.raises(ConfigError, match=rf"k is {k}: it must be 1\.\.101"):
        topk(arch, stream(arch, 1), k)


@pytest.mark.parametrize("target", [-1, 101])
def test_a_target_outside_the_vocabulary_is_an_error(arch: Arch, target: int) -> None:
    with pytest.raises(ConfigError, match=rf"token id {target} does not exist: this model has ids 0\.\.100"):
        rank_and_logprob(arch, stream(arch, 1), torch.tensor([target]))


def test_a_stream_of_another_width_is_an_error(arch: Arch) -> None:
    with pytest.raises(SiteError, match="the stream given is 8 wide: this model's is 32"):
        unembed(arch, torch.zeros(1, 8))


def test_a_head_without_a_weight_is_an_error() -> None:
    arch = replace(find(tiny_net()), head=nn.Identity())
    with pytest.raises(SiteError, match="has no weight to decode with"):
        unembed(arch, stream(arch, 1))


def test_a_tail_that_returns_no_tensor_is_an_error() -> None:
    class Nothing(nn.Module):
        def forward(self, _: Tensor) -> None: ...

    arch = replace(find(tiny_net()), tail=(Nothing(),))
    with pytest.raises(SiteError, match="Nothing in the tail returns no tensor"):
        unembed(arch, stream(arch, 1))


def test_best_tokens_never_hold_all_logits() -> None:
    net = tiny_net()
    arch = find(net)
    largest = 0
    linear = nn.functional.linear

    def spy(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal largest
        out = linear(*args, **kwargs)
        largest = max(largest, out.numel())
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftw.substrate.unembed.F.linear", spy)
        topk(arch, stream(arch, 100), 5, rows=10, vocab=20)
        rank_and_logprob(arch, stream(arch, 100), torch.zeros(100, dtype=torch.long), rows=10, vocab=20)
        entropy_bits(arch, stream(arch, 100), rows=10, vocab=20)
    assert largest == 200

"""Anatomy and identity gate over the zoo of families: exact, or refused by name."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel, PreTrainedModel, T5Config, T5ForConditionalGeneration

from ftw.substrate.anatomy import Arch, LogitTransform, replay, replay_tail
from ftw.substrate.arch import find, gate
from ftw.substrate.bundled import tiny_net
from ftw.substrate.errors import NotCausalLM, Refused
from ftw.substrate.gate import kl_bits
from ftw.substrate.probe import look, probe_ids
from ftw.substrate.transform import fit_transform, tolerance
from ftw.substrate.watch import watch
from tests.substrate.families import BLOCKS, D_MODEL, FAMILIES, VOCAB, build

EXACT = sorted(name for name, family in FAMILIES.items() if family.refused is None)
REFUSED = sorted(name for name, family in FAMILIES.items() if family.refused is not None)

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own deprecations, model by model


def check_exact(name: str) -> None:
    family = FAMILIES[name]
    net = build(name)
    arch = find(net)
    verdict = gate(net, arch)
    assert verdict.refused is None
    assert verdict.exact
    assert verdict.max_abs_error <= 2e-6
    assert verdict.kl_bits <= 1e-9
    assert arch.blocks_path == family.path
    assert (arch.n_layers, arch.d_model, arch.vocab_size) == (family.n_layers, D_MODEL, VOCAB)
    assert arch.transform.scale == pytest.approx(family.transform[0], rel=1e-9)
    assert arch.transform.softcap == family.transform[1]
    assert arch.transform_source == ("none" if family.transform == (1.0, None) else "config")


@pytest.mark.parametrize("name", EXACT)
def test_the_gate_is_exact(name: str) -> None:
    check_exact(name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_single_stream_is_refused_by_name(name: str) -> None:
    reason = FAMILIES[name].refused
    assert reason is not None
    with pytest.raises(Refused, match=reason):
        find(build(name))


@pytest.mark.parametrize("name", ["llama", "gemma2", "opt-projected", "mamba2", "gpt2"])
def test_a_forgotten_tail_or_transform_fails_the_gate(name: str) -> None:
    net = build(name)
    arch = find(net)
    for wrong in (_with(arch, tail=()), _with(arch, transform=LogitTransform(1.5, arch.transform.softcap))):
        verdict = gate(net, wrong)
        assert not verdict.exact
        assert verdict.refused is not None
        with pytest.raises(Refused, match="fails the identity gate"):
            verdict.require()


def test_a_one_percent_error_in_one_norm_weight_fails_the_gate() -> None:
    net = tiny_net()
    arch = find(net)
    twin = tiny_net().model.norm
    twin.weight.data[3] *= 1.01
    assert not gate(net, _with(arch, tail=(twin,))).exact


def test_an_exact_gate_requires_nothing_more() -> None:
    net = tiny_net()
    verdict = gate(net, find(net))
    verdict.require()
    assert verdict.refused is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_and_double_precision_pass_with_their_own_rounding(dtype: torch.dtype) -> None:
    net = tiny_net().to(dtype)
    verdict = gate(net, find(net))
    assert verdict.exact
    assert verdict.kl_bits < 1e-3


def test_half_precision_does_not_hide_a_wrong_norm() -> None:
    net = tiny_net().to(torch.bfloat16)
    twin = tiny_net().to(torch.bfloat16).model.norm
    twin.weight.data[:] *= 1.02
    assert not gate(net, _with(find(net), tail=(twin,))).exact


def test_search_and_gate_leave_the_model_as_it_was() -> None:
    net = tiny_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    gate(net, find(net))
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_bidirectional_model_is_not_causal() -> None:
    size = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    net = BertLMHeadModel(BertConfig(**size, intermediate_size=24, initializer_range=0.3)).eval()
    with pytest.raises(NotCausalLM, match="changing the last token moves earlier scores"):
        find(net)


def test_a_model_whose_scores_are_not_finite_is_told_so_and_not_called_something_else() -> None:
    net = Odd()
    net.head.weight.data[3, 3] = math.nan  # type: ignore[union-attr, index]
    with pytest.raises(
        Refused, match=r"Odd gives scores that are not finite \(\d+ of \d+ for plain tokens\): .*float32"
    ):
        find(net)


def test_an_encoder_decoder_is_not_causal() -> None:
    net = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, num_layers=2, num_heads=2, d_ff=24, d_kv=8, decoder_start_token_id=0)
    )
    with pytest.raises(NotCausalLM, match="encoder-decoder"):
        find(net.eval())


class Odd(nn.Module):
    """A small causal model whose parts can be made wrong one by one."""

    def __init__(self, *, blocks: int = 2, repeats: int = 1) -> None:
        super().__init__()
        self.config: Any = SimpleNamespace(vocab_size=20, num_hidden_layers=blocks)
        generator = torch.Generator().manual_seed(0)
        self.embed = nn.Embedding(20, 8)
        self.embed.weight.data = torch.randn(20, 8, generator=generator)
        self.stack = nn.ModuleList(nn.Linear(8, 8) for _ in range(blocks))
        self.norm = nn.LayerNorm(8)
        self.head: nn.Module = nn.Linear(8, 20, bias=False)
        self.repeats = repeats
        for weight in (module.weight for module in (*self.stack, self.head)):
            weight.data = torch.randn(weight.shape, generator=generator)

    def get_input_embeddings(self) -> nn.Module | None:
        return self.embed

    def get_output_embeddings(self) -> nn.Module | None:
        return self.head

    def stream(self, input_ids: Tensor) -> Tensor:
        h: Tensor = self.embed(input_ids)
        for _ in range(self.repeats):
            for block in self.stack:
                h = block(h)
        return h

    def finish(self, h: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(h))
        return logits

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.finish(self.stream(input_ids)))


def test_a_model_of_no_known_library_is_found_by_watching() -> None:
    net = Odd()
    arch = find(net)
    assert (arch.blocks_path, arch.tail_paths, arch.head_path) == ("stack", ("norm",), "head")
    assert gate(net, arch).exact


def test_an_undeclared_scale_is_fitted() -> None:
    net = Odd()
    net.finish = lambda h: 0.37 * net.head(net.norm(h))  # type: ignore[method-assign]
    arch = find(net)
    assert arch.transform_source == "fitted"
    assert arch.transform.scale == pytest.approx(0.37, rel=1e-5)
    assert gate(net, arch).exact


def test_an_undeclared_softcap_is_fitted() -> None:
    net = Odd()
    net.finish = lambda h: 3.3 * torch.tanh(net.head(net.norm(h)) / 3.3)  # type: ignore[method-assign]
    arch = find(net)
    assert arch.transform_source == "fitted"
    assert arch.transform.softcap == pytest.approx(3.3, rel=1e-4)


def test_a_transform_of_another_form_is_refused_with_its_error() -> None:
    net = Odd()
    net.finish = lambda h: net.head(net.norm(h)).square()  # type: ignore[method-assign]
    verdict = gate(net, find(net))
    assert not verdict.exact
    assert verdict.refused is not None
    assert "neither the head's output nor a scale or softcap" in verdict.refused
    assert verdict.max_abs_error > 1


def test_a_head_that_is_not_linear_is_refused() -> None:
    net = Odd()
    net.head = nn.Sequential(nn.Linear(8, 20), nn.Tanh())
    verdict = gate(net, find(net))
    assert verdict.refused == "the head is a Sequential, not a linear map"


def test_padding_that_a_model_cuts_off_its_logits_is_cut_off_too() -> None:
    net = Odd()
    net.finish = lambda h: net.head(net.norm(h))[..., :17]  # type: ignore[method-assign]
    arch = find(net)
    assert arch.vocab_size == 17
    assert gate(net, arch).exact


def test_a_step_that_is_no_module_is_seen_and_followed_by_call_order() -> None:
    net = Odd()
    net.finish = lambda h: net.head(net.norm(h / 2) * 3)  # type: ignore[method-assign]
    arch = find(net)
    assert (arch.tail, arch.gain) == ((net.norm,), 0.5)
    assert (arch.transform.scale, arch.transform_source) == (pytest.approx(3.0, rel=1e-6), "fitted")
    assert gate(net, arch).exact


def test_a_shift_that_is_no_module_is_refused() -> None:
    net = Odd()
    net.finish = lambda h: net.head(net.norm(h + torch.arange(8.0)))  # type: ignore[method-assign]
    verdict = gate(net, find(net))
    assert verdict.refused is not None
    assert "neither the head's output nor a scale" in verdict.refused


def test_a_tail_module_that_returns_no_tensor_is_not_replayed() -> None:
    class Nothing(nn.Module):
        def forward(self, _: Tensor) -> None: ...

    with pytest.raises(TypeError, match="Nothing returns no tensor"):
        replay_tail((Nothing(),), torch.zeros(1, 8))


def test_blocks_that_run_twice_are_refused() -> None:
    with pytest.raises(Refused, match="stack run 2 times in one pass"):
        find(Odd(repeats=2))


def test_two_stacks_are_refused() -> None:
    net = Odd()
    net.other = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
    inner = net.stream
    net.stream = lambda ids: net.other[1](net.other[0](inner(ids)))  # type: ignore[method-assign]
    with pytest.raises(Refused, match="several stacks could be its blocks: stack, other"):
        find(net)


def test_no_stack_at_all_is_refused() -> None:
    net = Odd()
    net.stream = lambda ids: net.embed(ids)  # type: ignore[method-assign]
    with pytest.raises(Refused, match="no stack of blocks"):
        find(net)


def test_blocks_out_of_order_are_refused() -> None:
    net = Odd()
    net.stream = lambda ids: net.stack[0](net.stack[1](net.embed(ids)))  # type: ignore[method-assign]
    with pytest.raises(Refused, match="do not run in their order"):
        find(net)


def test_streams_of_different_widths_are_refused() -> None:
    net = Odd()
    net.stack[0] = nn.Linear(8, 6)
    net.stack[1] = nn.Linear(6, 8)
    with pytest.raises(Refused, match="streams of different shapes"):
        find(net)


def test_a_head_that_never_runs_is_refused() -> None:
    net = Odd()
    net.finish = lambda h: nn.functional.linear(net.norm(h), net.head.weight)  # type: ignore[method-assign, arg-type]
    with pytest.raises(Refused, match="its head head takes no part"):
        find(net)


def test_a_model_without_a_head_is_not_a_language_model() -> None:
    net = Odd()
    net.get_output_embeddings = lambda: None  # type: ignore[method-assign]
    with pytest.raises(NotCausalLM, match="no output head"):
        find(net)


def test_a_model_without_an_embedding_is_not_a_language_model() -> None:
    net = Odd()
    net.get_input_embeddings = lambda: None  # type: ignore[method-assign]
    with pytest.raises(NotCausalLM, match="no token embedding"):
        find(net)


def test_a_model_that_wants_more_than_token_ids_is_refused() -> None:
    net = Odd()

    def fail(ids: Tensor) -> Tensor:
        raise ValueError("pixel_values are needed")

    net.stream = fail  # type: ignore[method-assign]
    with pytest.raises(Refused, match="a forward pass over token ids fails: pixel_values are needed"):
        find(net)


def test_one_score_per_text_is_not_a_language_model() -> None:
    net = Odd()
    net.finish = lambda h: net.head(h[:, -1])  # type: ignore[method-assign]
    with pytest.raises(NotCausalLM, match="not one score per next token"):
        find(net)


def test_logits_that_are_not_finite_are_refused() -> None:
    net = Odd()
    arch = find(net)
    net.head.weight.data[3, 3] = math.nan  # type: ignore[union-attr, index]
    verdict = gate(net, arch)
    assert verdict.refused == "the model's own logits are not finite"
    assert math.isnan(verdict.max_abs_error)


def test_a_tail_that_cannot_be_replayed_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    net = Odd()
    net.both = Two()
    net.finish = lambda h: net.head(net.both(h, h))  # type: ignore[method-assign]
    verdict = gate(net, find(net))
    assert verdict.refused is not None
    assert "cannot be replayed" in verdict.refused


def test_probe_ids_avoid_special_tokens() -> None:
    net = build("gemma3-multimodal")
    ids = probe_ids(net, 2000, seed=3)
    assert not {0, 1, 2, 95, 96, 97} & set(ids.flatten().tolist())


def test_replay_is_the_model_bit_for_bit() -> None:
    net = build("gemma2")
    arch = find(net)
    ids = probe_ids(net, 9, seed=5)
    with torch.no_grad(), watch((), keep=[arch.blocks[-1]]) as witness:
        own = look(net, ids)
    resid = witness.calls[-1].gave
    assert resid is not None
    assert torch.equal(replay(arch, resid), own)


def test_no_watching_hook_survives_a_crash() -> None:
    net = tiny_net()

    def run() -> None:
        with watch(net.modules()):
            raise KeyError("crash")

    with pytest.raises(KeyError, match="crash"):
        run()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.3, None), (1.0, 2.0), (1.0, 1.0), (0.2, 30.0)])
def test_a_transform_named_in_the_config_is_taken_from_there(scale: float, cap: float | None) -> None:
    scores = 10 * torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    config = SimpleNamespace(logit_scale=scale, final_logit_softcapping=cap, attn_logit_softcapping=50.0)
    found = fit_transform(scores, LogitTransform(scale, cap)(scores), [config])
    assert found.transform == LogitTransform(scale, cap)
    assert found.doubt is None


def test_a_config_that_names_a_scale_it_does_not_use_is_not_believed() -> None:
    scores = torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    found = fit_transform(scores, scores, [SimpleNamespace(logit_scale=0.5, logits_scaling=4.0)])
    assert found.transform == LogitTransform()
    assert found.source == "none"


def test_transforms_say_what_they_are() -> None:
    assert str(LogitTransform()) == "none"
    assert str(LogitTransform(0.5, 30.0)) == "scale 0.5, softcap 30"
    assert LogitTransform(0.5).is_monotone
    assert not LogitTransform(-1.0).is_monotone


def test_kl_is_zero_for_equal_and_one_bit_for_a_halved_certainty() -> None:
    sure = torch.tensor([[50.0, -50.0]])
    even = torch.tensor([[0.0, 0.0]])
    assert kl_bits(even, even) == 0
    assert kl_bits(sure, even) == pytest.approx(1.0)


def test_tolerance_grows_with_the_logits_and_the_unit_of_the_dtype() -> None:
    assert tolerance(torch.tensor([10.0])) == pytest.approx(10 * tolerance(torch.tensor([1.0])))
    assert tolerance(torch.tensor([1.0], dtype=torch.bfloat16)) > 1000 * tolerance(torch.tensor([1.0]))


def _with(arch: Arch, **changes: Any) -> Arch:
    return replace(arch, **changes)


def test_the_zoo_is_the_same_for_the_same_seed() -> None:
    def weights(net: PreTrainedModel) -> list[Tensor]:
        return list(net.parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(build("gpt2")), weights(build("gpt2")), strict=True))
    assert len(find(build("llama")).blocks) == BLOCKS

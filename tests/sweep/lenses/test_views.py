"""Norm views read a layer through the norm that they name, found in any model by watching it."""

import pytest
import torch
from torch import nn

from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model, from_net
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.views import block_norms, view
from tests.substrate.families import build

pytestmark = pytest.mark.filterwarnings("ignore")
PLACES = {  # family: first norm, second norm of a block
    "llama": ("input_layernorm", "post_attention_layernorm"),
    "gpt2": ("ln_1", "ln_2"),
    "gpt-neox": ("input_layernorm", "post_attention_layernorm"),  # parallel: both read the block's input
    "gemma2": ("input_layernorm", "pre_feedforward_layernorm"),  # the norms behind attention and MLP do not count
    "gemma3": ("input_layernorm", "pre_feedforward_layernorm"),
    "opt": ("self_attn_layer_norm", "final_layer_norm"),
    "bloom": ("input_layernorm", "post_attention_layernorm"),
    "qwen3": ("input_layernorm", "post_attention_layernorm"),  # the norms of queries and keys do not count
    "mamba": ("norm", None),
    "phi": ("input_layernorm", None),  # parallel, one norm for both
    "olmo2": (None, None),  # norms only behind attention and MLP
}


def made(family: str) -> Model:
    return from_net(build(family))


def resid(model: Model, layers: int) -> torch.Tensor:
    return 2 * torch.randn(layers, 3, model.d_model, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", PLACES)
def test_the_norms_of_a_block_are_found_by_what_they_read(family: str) -> None:
    model = made(family)
    for block, found in zip(model.arch.blocks, block_norms(model), strict=True):
        names = {id(module): name for name, module in block.named_modules()}
        assert tuple(names.get(id(norm)) if norm is not None else None for norm in found) == PLACES[family]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_each_view_is_its_norm_by_the_models_own_module(family: str) -> None:
    model = made(family)
    n = model.n_layers
    states = resid(model, n + 1)
    norms = block_norms(model)
    with torch.no_grad():
        following = view(model, "next").head_inputs(states, range(n + 1))
        own = view(model, "own").head_inputs(states[1:], range(1, n + 1))
        raw = view(model, "raw").head_inputs(states, range(n + 1))
        for layer, (first, second) in enumerate(norms):
            assert isinstance(first, nn.Module)
            assert isinstance(second, nn.Module)
            torch.testing.assert_close(following[layer], first(states[layer][None])[0])
            torch.testing.assert_close(own[layer], second(states[layer + 1][None])[0])
    torch.testing.assert_close(following[n], LogitLens(model.arch).head_inputs(states[n:], [n])[0])
    assert torch.equal(raw, states)


def test_layers_are_those_that_the_view_can_read() -> None:
    model = made("llama")
    n = model.n_layers
    assert view(model, "next").layers == view(model, "raw").layers == LogitLens(model.arch).layers == range(n + 1)
    assert view(model, "own").layers == range(1, n + 1)
    assert all(isinstance(lens, VocabLens) for lens in (LogitLens(model.arch), view(model, "raw")))


def test_views_read_half_precision_in_fp32() -> None:
    model = from_net(build("llama").to(torch.bfloat16))
    states = resid(model, 1).to(torch.bfloat16)
    assert view(model, "next").head_inputs(states, [0]).dtype == torch.float32
    assert view(model, "raw").head_inputs(states, [0]).dtype == torch.float32


def test_a_projection_in_the_tail_is_kept_without_its_norm() -> None:
    model = made("opt-projected")
    states = resid(model, 1)
    with torch.no_grad():
        expected = model.arch.tail[-1](states)
    torch.testing.assert_close(view(model, "raw").head_inputs(states, [0]), expected)


@pytest.mark.parametrize(
    ("family", "name", "what"),
    [("olmo2", "next", "norm of its input"), ("mamba", "own", "second norm of the stream")],
)
def test_a_view_that_a_model_does_not_have_is_an_error_that_names_the_block(family: str, name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"has no view '{name}': block 0 has no {what}"):
        view(made(family), name)


def test_an_unknown_view_is_an_error() -> None:
    with pytest.raises(ConfigError, match="there is no norm view 'last': use next, own, raw"):
        view(made("llama"), "last")

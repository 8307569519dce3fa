"""A vector depends on its nonce alone, every block is reflected once, and what does not fit is an error."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel, GraniteConfig, GraniteForCausalLM

from ftw.poc import forward
from ftw.poc.codec import decode
from ftw.poc.forward import Prover, Round, artifacts
from ftw.poc.inputs import input_embeddings
from ftw.poc.profiles import ARTIFACT_K12, DISTANCE_K64
from ftw.poc.readout import readout
from ftw.poc.reflections import LayerVectors, layer_vectors, normalise_reflect, reflect
from ftw.substrate.errors import ConfigError, NumericError, PromptTooLong, ProofError
from ftw.substrate.model import from_net
from ftw.substrate.reference import tiny
from ftw.substrate.taps import tap
from ftw.substrate.types import Edit, Site

ROUND = Round("block", "key", seq_len=8)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def prover(model):
    return Prover(model, ROUND, rows=4)


@pytest.fixture(scope="module")
def six(prover):
    return prover.vectors(range(6))


# --- what a vector is


@pytest.mark.parametrize("profile", [ARTIFACT_K12, DISTANCE_K64], ids=lambda p: p.name)
def test_a_vector_is_the_readout_of_the_reflected_forward_pass(model, profile):
    round_ = Round("block", "key", profile, seq_len=8, k_dim=12)
    x = input_embeddings(round_.strings, [0, 1], 8, model.d_model)
    step = normalise_reflect if profile is DISTANCE_K64 else reflect
    vectors = layer_vectors("block", model.n_layers, model.d_model)
    edits = [Edit(Site(i), lambda s, v=v: step(s, v)) for i, v in enumerate(vectors)]
    positions = torch.arange(8)[None].expand(2, 8)
    with torch.inference_mode(), tap(model, edits=edits):
        hidden = model.net.base_model(inputs_embeds=x, position_ids=positions).last_hidden_state[:, -1]
    expected = readout(hidden, round_.strings, [0, 1], profile, 12).half()
    got = Prover(model, round_, rows=2).vectors([0, 1])
    assert torch.allclose(got.float(), expected.float(), atol=1e-3)


def test_artifacts_are_the_vectors_in_the_order_asked_for(model, six):
    made = artifacts(model, ARTIFACT_K12, "block", "key", [5, 0, 3], 8, rows=4)
    assert [one.nonce for one in made] == [5, 0, 3]
    for one in made:
        assert decode(one.vector_b64, 12).tobytes() == six[one.nonce].numpy().tobytes()


def test_company_and_count_change_no_bit(prover, six):
    for nonces in ([0], [5], [3, 2], [5, 4, 3, 2, 1, 0], [100, 3, 7, 50, 1]):
        got = prover.vectors(nonces)
        for nonce, vector in zip(nonces, got, strict=True):
            if nonce < 6:
                assert torch.equal(vector, six[nonce]), f"nonce {nonce} among {nonces}"


def test_the_number_of_threads_changes_no_bit(prover, six):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(prover.vectors(range(6)), six)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "change",
    [
        {"block_hash": "other"},
        {"public_key": "other"},
        {"seq_len": 9},
        {"stronger_rng": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_a_round_binds_changes_the_vectors(model, six, change):
    other = Prover(model, replace(ROUND, **change), rows=4).vectors(range(6))
    assert float((other.float() - six.float()).norm(dim=-1).min()) > 0.05


def test_other_weights_give_other_vectors(six):
    other = Prover(tiny(seed=1), ROUND, rows=4).vectors(range(6))
    assert float((other.float() - six.float()).norm(dim=-1).min()) > 0.05


def test_vectors_are_unit_vectors_in_binary16(six):
    assert six.dtype == torch.float16
    assert torch.allclose(six.float().norm(dim=-1), torch.ones(6), atol=1e-3)


def test_nothing_asked_gives_nothing(prover):
    assert prover.vectors([]).shape == (0, 12)
    assert prover.artifacts([]) == []


def test_no_hook_stays_on_the_model(model, prover):
    prover.vectors([1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_plain_generation_is_untouched_after_a_proof(model):
    ids = torch.arange(5)[None]
    with torch.inference_mode():
        before = model.net(ids).logits
        Prover(model, ROUND, rows=2).vectors([0])
        assert torch.equal(model.net(ids).logits, before)


# --- reflections


def test_a_reflection_undoes_itself_and_is_linear():
    x = torch.randn(3, 32, dtype=torch.float64)
    r = torch.randn(3, 32, dtype=torch.float64)
    v = layer_vectors("b", 1, 32)[0].double()
    v = v / v.norm()
    assert torch.allclose(reflect(reflect(x, v), v), x)
    assert torch.allclose(reflect(x, v) + reflect(r, v), reflect(x + r, v))


def test_normalised_reflections_have_unit_norm():
    v = layer_vectors("b", 1, 32)[0]
    assert torch.allclose(normalise_reflect(5 * torch.randn(4, 32), v).norm(dim=-1), torch.ones(4), atol=1e-5)


def test_layer_vectors_are_made_once_per_round_and_forgotten_in_turn():
    cache = LayerVectors(rounds=2)
    first = cache.get("a", 2, 8)
    assert cache.get("a", 2, 8) is first
    cache.get("b", 2, 8)
    cache.get("c", 2, 8)
    assert cache.get("a", 2, 8) is not first
    assert torch.equal(cache.get("a", 2, 8), first)


def test_a_cache_is_shared_by_the_provers_that_are_given_it(model):
    cache = LayerVectors()
    Prover(model, ROUND, rows=1, layers=cache)
    kept = cache.get("block", model.n_layers, model.d_model, model.device)
    Prover(model, replace(ROUND, public_key="other"), rows=1, layers=cache)
    assert cache.get("block", model.n_layers, model.d_model, model.device) is kept


def test_a_model_whose_blocks_do_not_run_proves_nothing():
    model = tiny()
    prover = Prover(model, ROUND, rows=1)
    real = model.net.base_model.layers
    model.net.base_model.layers = nn.ModuleList(list(real)[:2])
    with pytest.raises(ProofError, match=r"2 of 4 blocks were reflected once \(block 2 0 times, block 3 0 times\)"):
        prover.vectors([0])
    model.net.base_model.layers = nn.ModuleList()
    with pytest.raises(ProofError, match="0 of 4 blocks were reflected"):
        prover.vectors([0])


class TwoStreams(nn.Module):
    """A block that hands hidden and residual on unsummed, as vLLM's do."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden_states, **kwargs):
        return hidden_states, self.block(hidden_states, **kwargs)


class Summing(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, streams):
        return self.norm(streams[0] + streams[1])


def test_a_residual_stream_that_is_out_of_reach_is_refused():
    model = tiny()
    base = model.net.base_model
    last = TwoStreams(base.layers[3])
    base.layers[3] = last
    base.norm = Summing(base.norm)
    model.arch = replace(model.arch, blocks=base.layers)
    with pytest.raises(ProofError, match="a residual not yet summed"):
        Prover(model, ROUND, rows=1)


# --- other architectures


def small(config_type, net_type, **more):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = config_type(vocab_size=50, **shape, **more)
    return from_net(net_type(config).eval(), name=net_type.__name__)


def entry_of(prover):
    """What the first block is given in a batch of the prover, and what the nonce's inputs are."""
    seen = []
    norm = prover.model.arch.blocks[0].input_layernorm
    handle = norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    try:
        prover.vectors([0])
    finally:
        handle.remove()
    return seen[-1][0], input_embeddings(prover.round.strings, [0], prover.round.seq_len, 32)[0]


@pytest.mark.parametrize(
    ("config", "net", "more"),
    [
        (GemmaConfig, GemmaForCausalLM, {"num_key_value_heads": 2, "head_dim": 16}),
        (GraniteConfig, GraniteForCausalLM, {"embedding_multiplier": 12.0}),
    ],
)
def test_a_scale_of_the_embedding_does_not_touch_the_inputs(config, net, more):
    prover = Prover(small(config, net, **more), ROUND, rows=2)
    entry, given = entry_of(prover)
    assert torch.equal(entry, given)


def test_positions_that_a_model_adds_stay():
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=16)).eval()
    prover = Prover(from_net(net, name="gpt2"), ROUND, rows=2)
    x = input_embeddings(ROUND.strings, [0], 8, 32)
    with torch.inference_mode():
        shifted = net.transformer(inputs_embeds=x, position_ids=torch.arange(1, 9)[None]).last_hidden_state
        plain = net.transformer(inputs_embeds=x).last_hidden_state
    assert not torch.allclose(shifted, plain)
    assert prover.vectors([0]).shape == (1, 12)
    assert not any(edit.label == "proof inputs" for edit in prover._edits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_models_prove_near_their_fp32_selves(six, dtype):
    model = tiny()
    model.net.to(dtype)
    got = Prover(model, ROUND, rows=4).vectors(range(6))
    assert float((got.float() - six.float()).norm(dim=-1).max()) < 0.3


# --- errors


@pytest.mark.parametrize("nonces", [[-1], [2, 2]])
def test_nonces_that_are_none_are_errors(prover, nonces):
    with pytest.raises(ConfigError, match="whole numbers from 0 on, and each stands once"):
        prover.vectors(nonces)


def test_a_round_that_no_model_can_run_is_an_error(model):
    with pytest.raises(ConfigError, match="seq_len is 0"):
        replace(ROUND, seq_len=0)
    with pytest.raises(ConfigError, match="k_dim is 1"):
        replace(ROUND, k_dim=1)
    with pytest.raises(ConfigError, match="distance-k64/1 has no poc_stronger_rng"):
        Round("b", "k", DISTANCE_K64, stronger_rng=True)
    with pytest.raises(ConfigError, match="rows is 0"):
        Prover(model, ROUND, rows=0)
    with pytest.raises(ConfigError, match="k_dim is 64, and tiny has 32 dimensions"):
        Prover(model, replace(ROUND, k_dim=64))
    with pytest.raises(PromptTooLong, match=f"seq_len is {model.context + 1}"):
        Prover(model, replace(ROUND, seq_len=model.context + 1))


def test_a_model_in_training_mode_is_refused():
    model = tiny()
    model.net.train()
    with pytest.raises(ProofError, match="training mode"):
        Prover(model, ROUND)


def test_a_state_that_is_not_finite_stops_the_batch():
    model = tiny()
    prover = Prover(model, ROUND, rows=2)
    with torch.no_grad():
        model.net.base_model.norm.weight[3] = float("nan")
    with pytest.raises(NumericError, match=r"nonces \[4, -1\] are not finite"):
        prover.vectors([4])


def test_inputs_exist_only_during_a_pass(prover):
    with pytest.raises(ProofError, match="one prover computes one batch at a time"):
        prover._unscaled(torch.zeros(1))


def test_the_default_rows_are_those_of_the_module(model):
    assert Prover(model, ROUND).rows == forward.ROWS


# --- one pass at a time


def test_a_batch_gives_the_artifacts_of_its_nonces_whatever_comes_then(model, prover):
    expected = {one.nonce: one for one in prover.artifacts(range(6))}
    for nonces, then in (((3, 1), (0, 2)), ((0, 2), ()), ((5, 4, 2, 0), (1,)), ((3,), (9, 8, 7))):
        batch = prover.batch(nonces, then)
        assert batch.nonces == nonces
        assert batch.artifacts == tuple(expected[nonce] for nonce in nonces)


def test_a_batch_says_how_long_each_stage_took(model):
    ticks = iter([0.0, 1.0, 3.0, 7.0, 20.0, 36.0])
    batch = Prover(model, ROUND, rows=2, clock=lambda: next(ticks)).batch([0])
    assert batch.seconds == (1.0, 2.0, 4.0, 16.0)


@pytest.mark.parametrize("nonces", [(), (0, 1, 2, 3, 4)])
def test_a_batch_of_no_or_too_many_nonces_is_an_error(prover, nonces):
    with pytest.raises(ConfigError, match=r"takes 1\.\.4"):
        prover.batch(nonces)


def test_after_a_batch_that_failed_no_hook_is_left_and_the_prover_goes_on(six):
    model = tiny()
    prover = Prover(model, ROUND, rows=4)
    weight = model.net.base_model.norm.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[3] = float("nan")
    with pytest.raises(NumericError, match="not finite"):
        prover.batch([0, 1], [2, 3])
    real = model.net.base_model.layers[2].forward
    model.net.base_model.layers[2].forward = None
    with pytest.raises(TypeError):
        prover.batch([0, 1], [2, 3])
    model.net.base_model.layers[2].forward = real
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())
    with torch.no_grad():
        weight.copy_(kept)
    assert decode(prover.batch([2, 3]).artifacts[0].vector_b64, 12).tobytes() == six[2].numpy().tobytes()

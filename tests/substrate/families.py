"""A zoo of tiny random causal LMs: one configuration per family that transformers knows, built in milliseconds.

`build(name)` gives a net whose norms, biases and logit transform are far from trivial, so that a forgotten norm weight,
bias, scale or softcap shows at once. Other rooms' tests use it too. The same name and seed give the same weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCAB = 101
D_MODEL = 32
BLOCKS = 3

PLAIN = {
    "vocab_size": VOCAB,
    "hidden_size": D_MODEL,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What most decoder configs call their sizes."""
OLD = {
    "vocab_size": VOCAB,
    "n_embd": D_MODEL,
    "n_layer": BLOCKS,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What GPT-2 and its kin call them."""
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_routed_experts": 4}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Family:
    """One kind of model. `refused` is a part of the reason, for models that the identity gate must refuse."""

    config: str
    values: Mapping[str, Any]
    transform: tuple[float, float | None] = (1.0, None)
    """The scale and softcap that turn the head's output into logits."""
    path: str = "model.layers"
    """Where its blocks are."""
    refused: str | None = None
    n_layers: int = BLOCKS


def plain(config: str, path: str = "model.layers", **extra: Any) -> Family:
    """A family whose config uses the usual names. A usual value of None is left out."""
    own = {key: extra.pop(key) for key in ("transform", "refused", "n_layers") if key in extra}
    values = {key: value for key, value in {**PLAIN, **extra}.items() if value is not None or key not in PLAIN}
    return Family(config, values, path=path, **own)


def old(config: str, path: str = "transformer.h", **extra: Any) -> Family:
    """A family whose config uses GPT-2's names."""
    return Family(config, {**OLD, **extra}, path=path)


# fmt: off
FAMILIES: Mapping[str, Family] = {
    "gpt2": old("GPT2Config"),
    "gpt2-untied": old("GPT2Config", tie_word_embeddings=False),
    "gpt-neo": Family("GPTNeoConfig", {"vocab_size": VOCAB, "hidden_size": D_MODEL, "num_layers": 4, "num_heads": 4,
        "window_size": 8, "attention_types": [[["global", "local"], 2]], "max_position_embeddings": 64},
        path="transformer.h", n_layers=4),
    "gpt-j": old("GPTJConfig", rotary_dim=4),
    "gpt-neox": plain("GPTNeoXConfig", "gpt_neox.layers", num_key_value_heads=None),
    "gpt-bigcode": old("GPTBigCodeConfig"),
    "codegen": old("CodeGenConfig", rotary_dim=4),
    "openai-gpt": old("OpenAIGPTConfig"),
    "opt": plain("OPTConfig", "model.decoder.layers", num_key_value_heads=None, ffn_dim=48,
        word_embed_proj_dim=D_MODEL),
    "opt-projected": plain("OPTConfig", "model.decoder.layers", num_key_value_heads=None, ffn_dim=48,
        word_embed_proj_dim=20),
    "opt-post-norm": plain("OPTConfig", "model.decoder.layers", num_key_value_heads=None, ffn_dim=48,
        word_embed_proj_dim=20, do_layer_norm_before=False),
    "bloom": old("BloomConfig", hidden_size=D_MODEL),
    "mpt": Family("MptConfig", {"vocab_size": VOCAB, "d_model": D_MODEL, "n_layers": BLOCKS, "n_heads": 4,
        "max_seq_len": 64}, path="transformer.blocks"),
    "falcon": plain("FalconConfig", "transformer.h", head_dim=None),
    "falcon-new": plain("FalconConfig", "transformer.h", head_dim=None, new_decoder_architecture=True,
        num_kv_heads=2),
    "llama": plain("LlamaConfig"),
    "llama-tied": plain("LlamaConfig", tie_word_embeddings=True),
    "llama-biased": plain("LlamaConfig", attention_bias=True, mlp_bias=True),
    "mistral": plain("MistralConfig"),
    "ministral": plain("MinistralConfig"),
    "qwen2": plain("Qwen2Config"),
    "qwen3": plain("Qwen3Config"),
    "gemma": plain("GemmaConfig"),
    "gemma2": plain("Gemma2Config", final_logit_softcapping=7.0, query_pre_attn_scalar=8, transform=(1.0, 7.0)),
    "gemma2-cap-one": plain("Gemma2Config", final_logit_softcapping=1.0, query_pre_attn_scalar=8, transform=(1.0,
        1.0)),
    "gemma2-uncapped": plain("Gemma2Config", final_logit_softcapping=None, query_pre_attn_scalar=8),
    "gemma3": plain("Gemma3TextConfig", query_pre_attn_scalar=8),
    "gemma3-multimodal": Family("Gemma3Config", {"text_config": {**PLAIN, "query_pre_attn_scalar": 8},
        "vision_config": VISION, "mm_tokens_per_image": 4, "boi_token_index": 95, "eoi_token_index": 96,
        "image_token_index": 97}, path="model.language_model.layers"),
    "phi": plain("PhiConfig"),
    "phi3": plain("Phi3Config"),
    "phimoe": plain("PhimoeConfig", num_local_experts=4, num_experts_per_tok=2),
    "olmo": plain("OlmoConfig"),
    "olmo2": plain("Olmo2Config"),
    "olmo3": plain("Olmo3Config"),
    "olmoe": plain("OlmoeConfig", num_experts=4, num_experts_per_tok=2),
    "cohere": plain("CohereConfig", logit_scale=0.0625, transform=(0.0625, None)),
    "cohere2": plain("Cohere2Config", logit_scale=0.25, transform=(0.25, None)),
    "granite": plain("GraniteConfig", logits_scaling=3.0, embedding_multiplier=2.0, transform=(1 / 3, None)),
    "granite-moe": plain("GraniteMoeConfig", logits_scaling=3.0, num_local_experts=4, transform=(1 / 3, None)),
    "stablelm": plain("StableLmConfig"),
    "starcoder2": plain("Starcoder2Config"),
    "mixtral": plain("MixtralConfig", num_local_experts=4),
    "qwen2-moe": plain("Qwen2MoeConfig", **EXPERTS, shared_expert_intermediate_size=24),
    "qwen3-moe": plain("Qwen3MoeConfig", **EXPERTS),
    "gpt-oss": plain("GptOssConfig", num_local_experts=4, num_experts_per_tok=2),
    "deepseek-v2": plain("DeepseekV2Config", num_key_value_heads=4, **EXPERTS, head_dim=None, kv_lora_rank=16,
        q_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, n_group=1, topk_group=1,
        n_shared_experts=1, first_k_dense_replace=1, topk_method="greedy"),
    "deepseek-v3": plain("DeepseekV3Config", num_key_value_heads=4, **EXPERTS, head_dim=None, kv_lora_rank=16,
        q_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, n_group=2, topk_group=1,
        n_shared_experts=1, first_k_dense_replace=1),
    "mamba": plain("MambaConfig", "backbone.layers", max_position_embeddings=None, state_size=8),
    "mamba2": plain("Mamba2Config", "backbone.layers", max_position_embeddings=None, state_size=8,
        num_heads=8, head_dim=8, n_groups=2, chunk_size=8),
    "falcon-mamba": plain("FalconMambaConfig", "backbone.layers", state_size=8),
    "recurrent-gemma": plain("RecurrentGemmaConfig", lru_width=D_MODEL, logits_soft_cap=5.0,
        attention_window_size=16, transform=(1.0, 5.0)),
    "qwen3-next": plain("Qwen3NextConfig", **EXPERTS, shared_expert_intermediate_size=24, linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8, layer_types=["linear_attention",
        "full_attention", "linear_attention"]),
    "qwen3.5": plain("Qwen3_5TextConfig", linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
        linear_value_head_dim=8, layer_types=["linear_attention", "full_attention", "linear_attention"]),
    "lfm2": plain("Lfm2Config", layer_types=["conv", "full_attention", "conv"], block_ff_dim=48,
        block_multiple_of=8),
    "lfm2-moe": plain("Lfm2MoeConfig", **EXPERTS, layer_types=["conv", "full_attention", "conv"],
        num_dense_layers=1),
    "llama4": plain("Llama4TextConfig", intermediate_size_mlp=48, num_local_experts=4, num_experts_per_tok=1),
    "gemma3n": plain("Gemma3nTextConfig", vocab_size_per_layer_input=VOCAB, hidden_size_per_layer_input=8,
        laurel_rank=8, num_kv_shared_layers=0, altup_num_inputs=2, final_logit_softcapping=7.0,
        refused="not one stream", activation_sparsity_pattern=[0.0] * BLOCKS, layer_types=["full_attention"] * BLOCKS),
    "gemma4": plain("Gemma4TextConfig", vocab_size_per_layer_input=VOCAB, hidden_size_per_layer_input=8,
        num_kv_shared_layers=0, final_logit_softcapping=7.0, global_head_dim=8,
        layer_types=["sliding_attention"] * 2 + ["full_attention"], transform=(1.0, 7.0)),
    "glm": plain("GlmConfig"),
    "glm4": plain("Glm4Config"),
    "glm4-moe": plain("Glm4MoeConfig", **EXPERTS, n_shared_experts=1, n_group=1, topk_group=1),
    "falcon-h1": plain("FalconH1Config", mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1,
        mamba_d_state=8, mamba_chunk_size=8, lm_head_multiplier=0.2, embedding_multiplier=3.0, transform=(0.2,
        None)),
    "bamba": plain("BambaConfig", mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8,
        mamba_chunk_size=8, attn_layer_indices=[1]),
    "granite-hybrid": plain("GraniteMoeHybridConfig", mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1,
        mamba_d_state=8, mamba_chunk_size=8, layer_types=["mamba", "attention", "mamba"], num_local_experts=4,
        shared_intermediate_size=24, logits_scaling=3.0, transform=(1 / 3, None)),
    "zamba": plain("ZambaConfig", mamba_d_state=8, mamba_dt_rank=4, n_mamba_heads=2, attn_layer_period=2,
        attn_layer_offset=1, layers_block_type=["mamba", "hybrid", "mamba", "hybrid"], num_key_value_heads=4,
        num_hidden_layers=4, n_layers=4),
    "zamba2": plain("Zamba2Config", mamba_d_state=8, n_mamba_heads=4, mamba_headdim=16, mamba_ngroups=1,
        chunk_size=8, num_mem_blocks=1, layers_block_type=["mamba", "hybrid", "mamba"], num_key_value_heads=4,
        adapter_rank=8),
    "jamba": plain("JambaConfig", mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False, num_experts=2,
        attn_layer_period=2, attn_layer_offset=1),
    "rwkv": plain("RwkvConfig", "rwkv.blocks", context_length=64, attention_hidden_size=D_MODEL, num_hidden_layers=6,
        n_layers=6),
    "xlstm": plain("xLSTMConfig", "backbone.blocks", num_heads=2, output_logit_soft_cap=6.0, transform=(1.0, 6.0)),
    "minicpm3": plain("MiniCPM3Config", num_key_value_heads=4, head_dim=None, kv_lora_rank=16, q_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, dim_model_base=8, scale_emb=3, scale_depth=1.4,
        transform=(0.25, None)),
    "nemotron": plain("NemotronConfig"),
    "nemotron-h": plain("NemotronHConfig", mamba_num_heads=8, mamba_head_dim=8, n_groups=1, ssm_state_size=8,
        chunk_size=8, layers_block_type=["mamba", "attention", "mlp"]),
    "exaone4": plain("Exaone4Config", sliding_window=16, layer_types=["sliding_attention"] * 2 +
        ["full_attention"]),
    "smollm3": plain("SmolLM3Config"),
    "hunyuan": plain("HunYuanDenseV1Config"),
    "hunyuan-moe": plain("HunYuanMoEV1Config", num_experts=4, moe_topk=2),
    "ernie4.5": plain("Ernie4_5Config"),
    "ernie4.5-moe": plain("Ernie4_5_MoeConfig", moe_num_experts=4, moe_k=2, moe_intermediate_size=24),
    "minimax": plain("MiniMaxConfig", num_local_experts=4, layer_types=["linear_attention", "full_attention",
        "linear_attention"], block_size=8),
    "minimax-m2": plain("MiniMaxM2Config", num_local_experts=4, num_experts_per_tok=2),
    "kimi-linear": plain("KimiLinearConfig", **EXPERTS, num_key_value_heads=4, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, linear_num_heads=2, linear_head_dim=8,
        mlp_layer_types=["dense", "sparse", "sparse"],
        layer_types=["linear_attention", "full_attention", "linear_attention"]),
    "seed-oss": plain("SeedOssConfig"),
    "arcee": plain("ArceeConfig"),
    "apertus": plain("ApertusConfig"),
    "helium": plain("HeliumConfig"),
    "persimmon": plain("PersimmonConfig"),
    "nanochat": plain("NanoChatConfig", final_logit_softcapping=6.0, transform=(1.0, 6.0)),
    "dbrx": Family("DbrxConfig", {"vocab_size": VOCAB, "d_model": D_MODEL, "n_layers": BLOCKS, "n_heads": 4,
        "max_seq_len": 64, "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}, "ffn_config":
        {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}}, path="transformer.blocks"),
    "xglm": Family("XGLMConfig", {"vocab_size": VOCAB, "d_model": D_MODEL, "num_layers": BLOCKS, "attention_heads":
        4, "ffn_dim": 48, "max_position_embeddings": 64}),
    "biogpt": plain("BioGptConfig", "biogpt.layers"),
    "ctrl": Family("CTRLConfig", {"vocab_size": VOCAB, "n_embd": D_MODEL, "n_layer": BLOCKS, "n_head": 4, "dff": 48,
        "n_positions": 64}, path="transformer.h"),
    "diffllama": plain("DiffLlamaConfig"),
    "jetmoe": plain("JetMoeConfig", num_local_experts=4, num_experts_per_tok=2, kv_channels=8),
    "hrm-text": plain("HrmTextConfig", refused="times in one pass"),
    "deepseek-v4": plain("DeepseekV4Config", **EXPERTS, refused="not one stream"),
}
# fmt: on


def config(name: str) -> Any:
    """The transformers config of a family."""
    family = FAMILIES[name]
    return getattr(transformers, family.config)(**family.values)


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """A random net of a family, in evaluation mode, fp32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = AutoModelForCausalLM.from_config(config(name), dtype=torch.float32)
        randomise(net)
    return net.eval()


def randomise(net: nn.Module) -> None:
    """Norm weights in 0.5..1.5, norm and head biases in -0.5..0.5, embeddings and head large: lively logits."""
    with torch.no_grad():
        for module_name, module in net.named_modules():
            kind = type(module).__name__.lower()
            if "norm" in kind or module_name.rsplit(".", 1)[-1].startswith(("ln_", "norm")):
                for key, value in module.named_parameters(recurse=False):
                    value.uniform_(-0.5, 0.5) if "bias" in key else value.uniform_(0.5, 1.5)
        for module in (net.get_input_embeddings(), net.get_output_embeddings()):
            module.weight.normal_(0, 0.8)
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.5, 0.5)

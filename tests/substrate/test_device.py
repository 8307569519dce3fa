"""Device and dtype choice, and the memory estimate against what a model really takes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from ftw.substrate import device
from ftw.substrate.arch import find
from ftw.substrate.checkpoint import open_checkpoint
from ftw.substrate.device import (
    Memory,
    choose_device,
    choose_dtype,
    estimate,
    free_bytes,
    kv_bytes_per_token,
    require_fit,
)
from ftw.substrate.errors import ConfigError, ModelError
from ftw.substrate.probe import text_config
from tests.substrate.families import build

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_auto_is_the_cpu_without_cuda_and_the_emptiest_card_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ([5, 9, 7][index if index else 0], 10))
    assert choose_device() == torch.device("cuda", 1)
    assert choose_device("cuda:2") == torch.device("cuda:2")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpu", "use auto, cpu, cuda, cuda:N or map"),
        ("cuda:99", "this machine has .* CUDA devices"),
        ("meta", "hold weights"),
    ],
)
def test_a_device_that_does_not_exist_is_an_error(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        choose_device(name)


def test_auto_dtype_is_fp32_on_the_cpu_and_the_stored_one_elsewhere() -> None:
    assert choose_dtype("auto", CPU, torch.bfloat16) == torch.float32
    assert choose_dtype("auto", torch.device("cuda:0"), torch.bfloat16) == torch.bfloat16
    assert choose_dtype("float16", CPU, torch.bfloat16) == torch.float16


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama-tied", "qwen3-moe", "opt-projected", "mamba"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_of_weights_is_exact(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    net = build(name)
    net.save_pretrained(tmp_path)
    true = sum(weight.numel() for weight in {id(w): w for w in net.parameters()}.values()) * dtype.itemsize
    assert estimate(open_checkpoint(tmp_path), net.config, dtype).weights == true


CACHING = (
    "gpt2 gpt-neo gpt-neox gpt-bigcode bloom falcon falcon-new opt llama qwen3 gemma3-multimodal "
    "qwen3-next deepseek-v2 deepseek-v3 minicpm3 granite-hybrid mamba mamba2"
)


@pytest.mark.parametrize("name", CACHING.split())
def test_the_estimate_of_the_cache_is_what_transformers_keeps(name: str) -> None:
    net = build(name)
    cache = net(input_ids=torch.tensor([[5, 6, 7, 8]]), use_cache=True)
    kept = getattr(cache, "past_key_values", None)
    kept = kept if isinstance(kept, DynamicCache) else getattr(cache, "cache_params", None)
    keys = [layer for layer in getattr(kept, "layers", ()) if isinstance(getattr(layer, "keys", None), torch.Tensor)]
    sizes = [t.numel() * t.element_size() for layer in keys for t in (layer.keys, layer.values)]
    assert kv_bytes_per_token(text_config(net), 4) == sum(sizes) // 4


def test_the_total_counts_tokens_and_batches(tmp_path: Path) -> None:
    net = build("llama")
    net.save_pretrained(tmp_path)
    one = estimate(open_checkpoint(tmp_path), net.config, torch.float32, batch=1, length=10)
    four = estimate(open_checkpoint(tmp_path), net.config, torch.float32, batch=4, length=10)
    assert (one.tokens, four.tokens) == (10, 40)
    assert one.weights == four.weights
    assert four.total - four.weights == 4 * (one.total - one.weights)


def test_pickled_weights_are_estimated_from_the_size_of_the_file(tmp_path: Path) -> None:
    net = build("llama")
    net.config.save_pretrained(tmp_path)
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    true = sum(weight.numel() for weight in net.parameters()) * 4
    assert estimate(open_checkpoint(tmp_path), net.config, torch.float32).weights == pytest.approx(true, rel=0.5)


def test_a_model_that_does_not_fit_is_an_error_with_both_sides() -> None:
    memory = Memory(weights=3 << 30, kv_per_token=1 << 10, activations=1 << 20, tokens=512)
    with pytest.raises(ModelError, match=r"big needs 3\.0 GiB \(3\.0 GiB of it weights\), cpu has 100 MiB free"):
        require_fit(memory, CPU, name="big", free=100 << 20)
    require_fit(memory, CPU, name="big", free=4 << 30)


def test_free_memory_is_what_the_device_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (7, 9))
    assert free_bytes(torch.device("cuda:0")) == 7
    assert free_bytes(CPU) > 1 << 20


def test_a_cgroup_limits_what_is_free_but_not_by_its_page_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    whole = free_bytes(CPU)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    assert free_bytes(CPU) == 100000
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 50000\nactive_file 1000\n")
    assert free_bytes(CPU) == 151000 < whole


def test_a_config_without_attention_keeps_nothing() -> None:
    assert kv_bytes_per_token(SimpleNamespace(num_hidden_layers=3), 4) == 0


def test_the_widest_layer_counts_where_a_config_lists_one_width_per_layer() -> None:
    config = SimpleNamespace(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=[1, 2], hidden_size=32)
    assert kv_bytes_per_token(config, 2) == 2 * 2 * 2 * 8 * 2


def test_the_zoo_is_found_on_the_device_of_its_weights() -> None:
    net = build("llama")
    assert find(net).embed.weight.device == CPU  # type: ignore[union-attr]

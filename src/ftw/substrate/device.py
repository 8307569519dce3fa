"""Where a model runs, in which dtype, and whether it fits: judged from config and safetensors headers alone.

The rule of the file: the answer comes before the weights do.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ftw.substrate.checkpoint import Checkpoint
from ftw.substrate.config import DTypeName
from ftw.substrate.errors import ConfigError, ModelError

MIB = 1 << 20
CGROUP = Path("/sys/fs/cgroup")
ATTENTION = ("attention", "full_attention", "sliding_attention", "chunked_attention", "hybrid")
"""Names that configs give to layers which keep keys and values."""


@dataclass(frozen=True, slots=True)
class Memory:
    """An estimate of peak memory, in bytes."""

    weights: int
    """All tensors, in the dtype they are loaded in."""
    kv_per_token: int
    """Keys and values of one position of one request, over all blocks. 0 for models with a state of fixed size."""
    activations: int
    """The largest intermediate results of one pass over `tokens` positions."""
    tokens: int
    """Positions that the estimate counts with: batch times length."""

    @property
    def total(self) -> int:
        """Weights, cache and activations together."""
        return self.weights + self.kv_per_token * self.tokens + self.activations


def choose_device(name: str = "auto") -> torch.device:
    """The device of a spec: `auto` is the CUDA device with the most free memory, or the CPU. Raises ConfigError."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        count = torch.cuda.device_count()
        return torch.device("cuda", max(range(count), key=lambda index: torch.cuda.mem_get_info(index)[0]))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} does not exist: use auto, cpu, cuda, cuda:N or map") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(f"device {name!r} does not exist: this machine has {count} CUDA devices")
    elif device.type not in ("cpu", "mps"):
        raise ConfigError(f"device {name!r} does not hold weights: use auto, cpu, cuda, cuda:N or map")
    return device


def choose_dtype(name: DTypeName, device: torch.device, stored: torch.dtype) -> torch.dtype:
    """The dtype to load in: as named; `auto` is fp32 on a CPU (exact, and as fast), else what the checkpoint stores."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    return torch.float32 if device.type == "cpu" else stored


def estimate(checkpoint: Checkpoint, config: Any, dtype: torch.dtype, *, batch: int = 1, length: int = 512) -> Memory:
    """Peak memory of a pass over `batch` requests of `length` positions, from headers and config."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    width = dtype.itemsize
    if checkpoint.is_safe:
        weights = sum(_loaded_bytes(entry.dtype, entry.numel, entry.n_bytes, width) for entry in checkpoint.entries)
    else:
        weights = checkpoint.n_bytes * width // max(checkpoint.dtype.itemsize, 1)
    tokens = batch * length
    return Memory(weights, kv_bytes_per_token(text, width), _activations(text, width, tokens, batch), tokens)


def kv_bytes_per_token(text: Any, width: int) -> int:
    """Bytes that transformers' cache keeps for one position, over all blocks, for numbers of `width` bytes.

    An upper bound: sliding windows stop growing at their size, and layers that share a cache are counted each.
    """
    layers = int(_first(text, ("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 0))
    heads = int(_first(text, ("num_attention_heads", "n_head", "n_heads", "num_heads"), 0))
    if not heads or not layers:
        return 0
    if getattr(text, "kv_lora_rank", None) and getattr(text, "v_head_dim", None):
        # multi-head latent attention: the cache holds the latent and the shared rotary key
        return layers * (int(text.kv_lora_rank) + int(text.qk_rope_head_dim)) * width
    kinds: Sequence[str] | None = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None)
    if kinds is not None:
        layers = sum(kind in ATTENTION for kind in kinds)
    d_model = int(_first(text, ("hidden_size", "n_embd", "d_model"), 0))
    head_dim = int(getattr(text, "head_dim", None) or d_model // heads)
    return 2 * layers * _kv_heads(text, heads) * head_dim * width


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device: CUDA's figure, or what Linux calls available within its cgroup."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [_available()]

    ceiling, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if ceiling is not None and used is not None:
        limits.append(ceiling - used + _reclaimable(CGROUP / "memory.stat"))
    return max(0, min(limits))


def require_fit(memory: Memory, device: torch.device, *, name: str, free: int | None = None) -> None:
    """Raises ModelError, with both sides, where the weights and a first pass do not fit on the device."""
    free = free_bytes(device) if free is None else free
    if memory.total > free:
        raise ModelError(
            f"{name} needs {_mib(memory.total)} ({_mib(memory.weights)} of it weights), "
            f"{device} has {_mib(free)} free: use "
            "a smaller dtype (bfloat16), another device, or a smaller model"
        )


def _loaded_bytes(stored: str, numel: int, n_bytes: int, width: int) -> int:
    """Floats are loaded in the wanted dtype; 8-bit and integer tensors as they are."""
    return numel * width if stored in ("F64", "F32", "F16", "BF16") else n_bytes


def _kv_heads(text: Any, heads: int) -> int:
    if getattr(text, "new_decoder_architecture", False):
        return heads  # Falcon's newer form caches the heads after they were repeated
    if getattr(text, "multi_query", False):
        return 1
    return int(_first(text, ("num_key_value_heads", "num_kv_heads", "n_head_kv"), heads))


def _activations(text: Any, width: int, tokens: int, batch: int) -> int:
    """Per position a dozen streams and three widest rows of one block; fp32 logits of each request's last position."""
    d_model = int(_first(text, ("hidden_size", "n_embd", "d_model"), 0))
    inner = int(_first(text, ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"), 4 * d_model))
    return tokens * (12 * d_model + 3 * inner) * width + batch * 4 * int(_first(text, ("vocab_size",), 0))


def _first(config: Any, keys: Sequence[str], default: int) -> Any:
    for key in keys:
        value = getattr(config, key, None)
        if isinstance(value, list) and value:
            value = max(value)
        if value:
            return value
    return default


def _available() -> int:
    """What /proc/meminfo calls available; elsewhere all physical memory, which is the best that can be asked."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable(file: Path) -> int:
    """Page cache inside a cgroup: counted as used, given back when asked."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "active_file"))


def _mib(size: int) -> str:
    return f"{size / MIB / 1024:.1f} GiB" if size >= 1024 * MIB else f"{size / MIB:.0f} MiB"

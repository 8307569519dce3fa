"""Loads a causal language model, and holds what every room needs of it: net, tokenizer, anatomy, identity.

The rule of the file: a model that comes out of `load` is whole. Files are judged before weights are read, and a tensor
that the files do not hold is an error, never a random number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftw.substrate import fingerprint
from ftw.substrate.anatomy import Arch
from ftw.substrate.arch import find
from ftw.substrate.bundled import tiny_net, tiny_tokenizer
from ftw.substrate.checkpoint import Checkpoint
from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.device import choose_device, choose_dtype, estimate, require_fit
from ftw.substrate.errors import ModelError, UsageError
from ftw.substrate.files import load_config, load_net, load_tokenizer, locate
from ftw.substrate.offload import MAP, load_mapped
from ftw.substrate.probe import text_config

UNBOUNDED = 1 << 20
"""The context of a model whose config sets no limit (state-space models, ALiBi)."""
LONGEST_CHARACTER = 4
"""Bytes of a UTF-8 character, so the most tokens that one can be spread over."""
CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length", "max_sequence_length")
"""Where configs say how many positions there are."""


@dataclass
class Model:
    """A causal language model with its tokenizer and anatomy."""

    net: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    arch: Arch
    spec: ModelSpec
    name: str
    """A short name to show: `reference`, a folder's name, a hub id."""
    checkpoint: Checkpoint | None = field(default=None, repr=False)
    """The files it came from; None for a model that was built in memory."""
    cache_dir: Path | None = field(default=None, repr=False)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.arch.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.arch.d_model

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return self.arch.vocab_size

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        weight: torch.Tensor = self.arch.embed.weight  # type: ignore[assignment]
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        dtype: torch.dtype = self.net.dtype
        return dtype

    @property
    def context(self) -> int:
        """How many positions the model can take; 2**20 where its config sets no limit."""
        config = text_config(self.net)
        for key in CONTEXTS:
            value = getattr(config, key, None)
            if isinstance(value, int) and value > 0:
                return value
        return UNBOUNDED

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the weights: see `ftw.substrate.fingerprint`. Computed on first use."""
        if self.checkpoint is not None:
            return fingerprint.of_checkpoint(self.checkpoint, cache_dir=self.cache_dir)
        return fingerprint.of_net(self.net)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every token id that ends a text, by generation config, config and tokenizer."""
        found: set[int] = set()
        for owner in (getattr(self.net, "generation_config", None), text_config(self.net), self.tokenizer):
            value = getattr(owner, "eos_token_id", None)
            found.update([value] if isinstance(value, int) else value or ())
        return frozenset(found)

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer puts around it.

        With `chat`, the text is one user message in the model's chat template, followed by the opening of the answer.
        Raises UsageError without a tokenizer or without a template.
        """
        tokenizer = self._tokenizer()
        if not chat:
            return list(tokenizer(text)["input_ids"])
        if not tokenizer.chat_template:
            raise UsageError(f"{self.name} has no chat template: give it plain text")
        message = [{"role": "user", "content": text}]
        shown = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        # The template writes its own special tokens.
        return list(tokenizer(shown, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens. Raises UsageError without a tokenizer."""
        return str(self._tokenizer().decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text, spaces kept, special tokens by name. Joined, they are the text.

        A character spread over several tokens stands with its last one; the ones before it are empty. A part of a
        character that never becomes whole shows as U+FFFD.
        """
        tokenizer = self._tokenizer()

        def text(window: Sequence[int]) -> str:
            return str(tokenizer.decode(list(window), skip_special_tokens=False, clean_up_tokenization_spaces=False))

        anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
        return _pieces(list(ids), anchor, text)

    def _tokenizer(self) -> Any:  # transformers leaves its tokenizers' methods untyped
        if self.tokenizer is None:
            raise UsageError(f"{self.name} has no tokenizer: give it token ids, or add tokenizer.json to its folder")
        return self.tokenizer


def load(spec: ModelSpec | str, *, settings: Settings | None = None) -> Model:
    """The model of a spec or a name: `reference`, `tiny`, a local folder, a hub id (only the cache when offline).

    Raises ModelNotFound, ModelBroken (the file is named), NotCausalLM, Refused (no anatomy was found), ModelError (not
    enough memory, unknown type), ConfigError (no such device). The identity gate is not asked: see `gate.gate`.
    """
    spec = ModelSpec.of(spec)
    settings = settings or Settings.from_env()
    if spec.name == "tiny":
        device = choose_device(spec.device)
        dtype = choose_dtype(spec.dtype, device, torch.float32)
        net: Any = tiny_net()
        _move(net.to(dtype), device)
        return _wrap(net, tiny_tokenizer(), spec, "tiny")
    checkpoint = locate(spec)
    config = load_config(spec, checkpoint)
    if spec.device == MAP:
        net = load_mapped(spec, checkpoint, config, (settings.cache_dir or Path()) / "offload")
    else:
        device = choose_device(spec.device)
        dtype = choose_dtype(spec.dtype, device, checkpoint.dtype)
        require_fit(estimate(checkpoint, config, dtype), device, name=spec.name)
        net = load_net(spec, checkpoint, config, dtype)
        _move(net, device)
    net.requires_grad_(requires_grad=False)
    model = _wrap(net, load_tokenizer(spec, checkpoint), spec, display_name(spec.name))
    model.checkpoint, model.cache_dir = checkpoint, settings.cache_dir
    return model


def from_net(net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, name: str = "") -> Model:
    """A model that already is in memory. It is put into evaluation mode. Raises NotCausalLM or Refused."""
    name = name or type(net).__name__
    return _wrap(net, tokenizer, ModelSpec(name=name), name)


def display_name(name: str) -> str:
    """A short name to show: the last part of a path, a hub id as it is."""
    return Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else name


def _move(net: nn.Module, device: torch.device) -> None:
    """Puts the weights on the device. Raises ModelError where they do not fit after all."""
    try:
        net.to(device)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the weights do not fit on {device}: use bfloat16, another device, or a smaller model"
        ) from error


def _wrap(net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, spec: ModelSpec, name: str) -> Model:
    net.train(mode=False)
    return Model(net=net, tokenizer=tokenizer, arch=find(net), spec=spec, name=name)


def _pieces(ids: list[int], anchor: list[int], text: Callable[[Sequence[int]], str]) -> list[str]:
    """Differences of decodings of a short window. The anchor keeps a tokenizer from stripping a leading space."""
    out: list[str] = []
    window, known, held = list(anchor), text(anchor), list[int]()
    for token in ids:
        held.append(token)
        after = text([*window, *held])
        if after.endswith("\ufffd") and len(held) < LONGEST_CHARACTER:
            out.append("")
            continue
        out.append(after[len(known) :])
        window, held = [*anchor, *held], []
        known = text(window)
    if held:
        out[-1] = text([*window, *held])[len(known) :]
    return out

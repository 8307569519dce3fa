"""Runs a model on a few chosen token ids, at rest: what `arch` and `gate` look at.

The rule of the file: a model that cannot be run on token ids alone is refused here, by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ftw.substrate.errors import NotCausalLM, Refused

FORWARD_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError)
"""What a model's own forward raises when it wants more than token ids."""


@contextmanager
def at_rest(net: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, the former mode put back afterwards.

    Not `inference_mode`: buffers that a model refreshes in its forward must stay usable for gradients later.
    """
    trains = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in trains:
            module.training = True


def look(net: nn.Module, ids: Tensor) -> Tensor:
    """The model's own logits [row, pos, vocab] for token ids, without a cache. Raises NotCausalLM or Refused."""
    try:
        out = net(input_ids=ids, use_cache=False)
    except FORWARD_ERRORS as error:
        if "decoder_input_ids" in str(error) or getattr(config(net), "is_encoder_decoder", False):
            raise NotCausalLM(f"{name(net)} is an encoder-decoder: it needs a source beside the text") from error
        raise Refused(f"{name(net)}: a forward pass over token ids fails: {first_line(error)}") from error
    logits = getattr(out, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != ids.shape:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else "no logits"
        raise NotCausalLM(f"{name(net)} gives {shape} for token ids {tuple(ids.shape)}, not one score per next token")
    return logits


def probe_ids(net: nn.Module, n: int, *, seed: int) -> Tensor:
    """`n` token ids [1, n] from the model's vocabulary, on its device; never a special one (image, padding, end)."""
    text = text_config(net)
    size = min(int(getattr(text, "vocab_size", 0) or 0) or _rows(net), _rows(net))
    special = {value for owner in (config(net), text) for key, value in vars(owner).items() if _is_token_id(key, value)}
    usable = [i for i in range(min(size, 4096)) if i not in special] or list(range(size))
    picks = torch.randint(len(usable), (n,), generator=torch.Generator().manual_seed(seed))
    return torch.tensor([[usable[int(i)] for i in picks]], device=embedding(net).weight.device)


def text_config(net: nn.Module) -> Any:
    """The part of the model's config that describes its language model."""
    whole = config(net)
    return whole.get_text_config() if hasattr(whole, "get_text_config") else whole


def config(net: nn.Module) -> Any:
    """The model's transformers config."""
    found: Any = getattr(net, "config", None)
    return SimpleNamespace() if found is None else found


def name(net: nn.Module) -> str:
    """The class that runs the model."""
    return type(net).__name__


def first_line(error: Exception) -> str:
    """The first line of an exception, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _is_token_id(key: str, value: object) -> bool:
    return key.endswith(("token_id", "token_index")) and isinstance(value, int)


def embedding(net: nn.Module) -> Any:
    """The token embedding. Raises NotCausalLM where there is none."""
    getter: Any = getattr(net, "get_input_embeddings", None)
    try:
        embed = getter() if getter is not None else None
    except NotImplementedError:
        embed = None
    if not isinstance(embed, nn.Module) or not isinstance(getattr(embed, "weight", None), Tensor):
        raise NotCausalLM(f"{name(net)} has no token embedding: it does not read token ids")
    return embed


def _rows(net: nn.Module) -> int:
    return int(embedding(net).weight.shape[0])

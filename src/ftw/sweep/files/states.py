"""The residual stream of every prompt of a sweep, kept on disk for whoever wants to look further.

One safetensors file per prompt: `resid` [layer, pos, d_model] in the model's dtype, layers 0 (embedding output) to n,
and `pos`, the positions; the header's metadata say model, fingerprint, prompt and token ids.

The rule of the file: what is kept is the stream itself, before any norm or lens.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from ftw.substrate.errors import StorageError
from ftw.substrate.manifest import write_atomically
from ftw.sweep.table import Item


class StateFolder:
    """A folder of residual streams of one model. Raises StorageError where it cannot be made."""

    def __init__(self, folder: Path, *, model: str, fingerprint: str) -> None:
        self.folder = folder
        self.about = {"model": model, "fingerprint": fingerprint, "layers": "0 is the embedding output, n the last"}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror or error}; give another folder for the states") from error

    def file(self, index: int) -> Path:
        """Where the states of the prompt with this index lie."""
        return self.folder / f"prompt-{index:05}.safetensors"

    def put(self, index: int, item: Item, pos: Sequence[int], states: Float[Tensor, "layer row d_model"]) -> None:
        """Keeps the states of one prompt at these positions. Raises StorageError."""
        tensors = {"resid": states.cpu().contiguous(), "pos": torch.tensor(list(pos), dtype=torch.int32)}
        about = {**self.about, "prompt": item.id, "ids": json.dumps(list(item.ids))}
        write_atomically(self.file(index), save(tensors, metadata=about))

"""The bundled reference model, and `tiny`: a random 4-block model with a byte tokenizer, for tests and first steps."""

from ftw.substrate.bundled import reference_dir, tiny_net, tiny_tokenizer
from ftw.substrate.model import Model, from_net

__all__ = ["reference_dir", "tiny"]


def tiny(seed: int = 0) -> Model:
    """The tiny model: no files, no network. See `bundled.tiny_net` and `bundled.tiny_tokenizer`."""
    return from_net(tiny_net(seed), tiny_tokenizer(), name="tiny")

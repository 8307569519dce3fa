"""Reflections of the residual stream after every block, keyed by the block hash, as edits of `substrate.taps`.

The rule of the file: it is counted that every block was reflected exactly once per forward pass. A model whose blocks
were not found would otherwise give the vectors of its plain forward pass, silently.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.poc.bound import BoundSeeds, bound_units
from ftw.poc.normals import unit_normals
from ftw.poc.profiles import Profile
from ftw.poc.seeds import SeedStrings, seed_tensor
from ftw.substrate.errors import ProofError
from ftw.substrate.types import Edit, Site


def reflect(x: Float[Tensor, "*b d_model"], v: Float[Tensor, " d_model"]) -> Float[Tensor, "*b d_model"]:
    """x - 2 (v.x) v in the dtype of x; v is a unit vector of that dtype.

    Linear: where a block returns a hidden and a residual stream unsummed, reflecting both reflects their sum.
    """
    return x - 2.0 * (x * v).sum(dim=-1, keepdim=True) * v


def normalise_reflect(x: Float[Tensor, "*b d_model"], v: Float[Tensor, " d_model"]) -> Float[Tensor, "*b d_model"]:
    """Each token's state brought to unit norm (with 1e-8 added to the norm), then reflected. In the dtype of x."""
    return reflect(x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-8), v)


def layer_vectors(
    source: str | BoundSeeds, layers: int, width: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "layer d_model"]:
    """The unit vectors of a round's reflections, one per block. Computed in fp32.

    From a block hash, where all nodes of a round reflect alike; or from seeds that bind the key too.
    """
    if isinstance(source, BoundSeeds):
        return bound_units(source.words("layer", range(layers)), width).to(device)
    strings = SeedStrings(source, "")  # layer strings hold no key: every node of a round reflects alike
    return unit_normals(seed_tensor([strings.layer(layer) for layer in range(layers)], device), width)


class LayerVectors:
    """Layer vectors of the last few rounds, so that a batch does not make them again. Passed in, never global."""

    def __init__(self, rounds: int = 4) -> None:
        self._rounds = rounds
        self._made: OrderedDict[tuple[str | BoundSeeds, int, int, str], Tensor] = OrderedDict()

    def get(
        self, source: str | BoundSeeds, layers: int, width: int, device: torch.device | str = "cpu"
    ) -> Float[Tensor, "layer d_model"]:
        """The vectors of `layer_vectors`; made once, the oldest round forgotten when there are too many."""
        key = (source, layers, width, str(device))
        if key not in self._made:
            self._made[key] = layer_vectors(source, layers, width, device)
            if len(self._made) > self._rounds:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]


class Reflections:
    """The edits of one round, and the count of what they did in the current forward pass."""

    def __init__(self, profile: Profile, vectors: Float[Tensor, "layer d_model"], dtype: torch.dtype) -> None:
        self._counts = [0] * len(vectors)
        self._step = normalise_reflect if profile.hook == "normalise-reflect" else reflect
        self._exact = vectors
        self._cast = list(vectors.to(dtype))
        self.edits: Sequence[Edit] = tuple(
            Edit(Site(layer), partial(self._apply, layer), f"proof reflection {layer}") for layer in range(len(vectors))
        )

    def begin(self) -> None:
        """Forget the counts: a new forward pass starts."""
        self._counts[:] = [0] * len(self._counts)

    def check(self) -> None:
        """Raise ProofError unless every block was reflected exactly once since `begin`."""
        once = sum(count == 1 for count in self._counts)
        if self._counts and once == len(self._counts):
            return
        odd = ", ".join(f"block {layer} {n} times" for layer, n in enumerate(self._counts) if n != 1) or "no blocks"
        raise ProofError(
            f"{once} of {len(self._counts)} blocks were reflected once ({odd}): the vectors would not prove this "
            "model's forward pass. The blocks that were found are not the ones that run, or run through compiled code"
        )

    def _apply(self, layer: int, stream: Tensor) -> Tensor:
        self._counts[layer] += 1
        v = self._cast[layer]
        if v.dtype != stream.dtype or v.device != stream.device:  # a stream kept in fp32, or a model on many devices
            v = self._cast[layer] = self._exact[layer].to(stream)
        return self._step(stream, v)

"""What a lens must beat: the same lenses on a model with random weights, a reading of the text alone, and centroids.

High figures of the first two would mean that a lens reads the wording of its prompts, not what the model made of them.
Equal ones of the third, that fitting it was not worth while.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

from ftw.map.training.targets import NEGATIVE, POSITIVE
from ftw.substrate.model import Model, from_net

FIRES = 0.5
"""Standard deviations by which a centroid departs from the mean in a channel that counts as the concept's."""


@dataclass(frozen=True)
class Centroids:
    """One direction per concept, and what a state lacks to be compared with it."""

    mean: Float[Tensor, " d_model"]
    std: Float[Tensor, " d_model"]
    weight: Float[Tensor, "lens d_model"]
    """Unit rows."""

    def __call__(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        """The cosine of each standardised state with each concept's centroid."""
        return F.normalize((x - self.mean) / self.std, dim=-1) @ self.weight.T


def centroids(x: Float[Tensor, "state d_model"], labels: Int8[Tensor, "state lens"]) -> Centroids:
    """The centroid of each concept's states less that of all others, weighted by how few concepts use a channel.

    The weight of a channel is log((concepts + 1) / (concepts in which it fires + 1)). Nothing is fitted.
    """
    mean, std = x.mean(0), x.std(0) + 1e-6
    z = (x - mean) / std
    positive, negative = (labels == POSITIVE).float(), (labels == NEGATIVE).float()
    centre = (positive.T @ z) / positive.sum(0).clamp(min=1)[:, None]
    other = (negative.T @ z) / negative.sum(0).clamp(min=1)[:, None]
    used = ((centre - other).abs() > FIRES).sum(0)
    rarity = torch.log((labels.shape[1] + 1) / (used + 1)).clamp(min=1e-3)
    return Centroids(mean, std, F.normalize((centre - other) * rarity, dim=-1))


def random_twin(model: Model, seed: int = 0) -> Model:
    """The same architecture and tokenizer with weights drawn anew: matrices by their own scale, vectors kept.

    The twin is a deep copy; `model` stays as it is.
    """
    net = copy.deepcopy(model.net)
    rng = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim < 2 or weight.data_ptr() in done:
                continue
            done.add(weight.data_ptr())
            drawn: Tensor = torch.randn(weight.shape, generator=rng) * float(weight.float().std())
            weight.copy_(drawn.to(weight.device, weight.dtype))
    return from_net(net, model.tokenizer, f"{model.name} (random twin)")

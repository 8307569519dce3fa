"""What a lens must beat: the same lenses on a model with random weights, and a reading of the text alone.

High figures of either would mean that a lens reads the wording of its prompts, not what the model made of them.
"""

import copy

import torch
from torch import Tensor

from ftw.substrate.model import Model, from_net


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

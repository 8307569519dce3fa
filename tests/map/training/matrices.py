"""A held-out matrix with known truth: logits drawn so that sigmoid(a logit + b) is how often they are right."""

import torch

from ftw.map.training.heldout import HeldOutMatrix


def matrix(
    prompts: int = 600, lenses: int = 4, *, synsets: int = 150, states: int = 2000, seed: int = 0, tilt: float = 0.4
) -> HeldOutMatrix:
    rng = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(prompts, lenses, generator=rng)
    labels = (torch.rand(prompts, lenses, generator=rng) < torch.sigmoid(tilt * logits - 1.5)).to(torch.int8)
    return HeldOutMatrix(
        terms=tuple(f"T{at}" for at in range(lenses)),
        logits=logits,
        labels=labels,
        home=torch.arange(prompts) % lenses,
        group=torch.arange(prompts) % synsets + 7,
        template=torch.arange(prompts) % 5,
        kind=("carrier",) * prompts,
        neutral=torch.randn(states, lenses, generator=rng) - 4,
        neutral_text=torch.arange(states) // 10,
    )

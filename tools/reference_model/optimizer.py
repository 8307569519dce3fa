"""The optimizer for the matrices inside the blocks, and the learning-rate schedule.

Muon: https://kellerjordan.github.io/posts/muon/
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of each matrix in a batch, by Newton-Schulz in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        y = x @ x.mT
        x = a * x + (b * y + c * (y @ y)) @ x
    return (x.mT if flip else x).float()


class Muon:
    """Momentum with orthogonalised updates; each process works on its share of the matrices, the shares are summed."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        self.params = list(params)
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.velocity = [torch.zeros_like(p) for p in self.params]
        self._by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, p in enumerate(self.params):
            self._by_shape.setdefault(tuple(p.shape), []).append(i)
        ends = torch.tensor([p.numel() for p in self.params]).cumsum(0).tolist()
        self._spans = [(end - p.numel(), end) for p, end in zip(self.params, ends, strict=True)]

    @torch.no_grad()
    def step(self, scale: float, rank: int, world: int) -> None:
        """One update at ``scale`` times the learning rate; gradients must agree between the processes."""
        grads = [p.grad for p in self.params if p.grad is not None]
        flat = torch.zeros(self._spans[-1][1], dtype=torch.bfloat16)
        for velocity, grad in zip(self.velocity, grads, strict=True):
            velocity.lerp_(grad, 1 - self.momentum)
        for index in self._by_shape.values():
            mine = index[rank::world]
            if mine:
                nesterov = torch.stack([grads[i].lerp(self.velocity[i], self.momentum) for i in mine])
                for i, update in zip(mine, orthogonal(nesterov), strict=True):
                    start, end = self._spans[i]
                    flat[start:end] = update.flatten()
        if world > 1:
            dist.all_reduce(flat)
        lr = self.lr * scale
        for p, (start, end) in zip(self.params, self._spans, strict=True):
            gain = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            p.mul_(1 - lr * self.decay)
            p.add_(flat[start:end].view_as(p), alpha=-lr * gain)


def schedule(step: int, steps: int, warmup: int, plateau: float) -> float:
    """Learning-rate factor: a warm-up, a constant stretch to ``plateau`` of the run, then a straight line to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = step / steps
    return 1.0 if progress < plateau else (1 - progress) / (1 - plateau)

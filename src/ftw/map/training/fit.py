"""All lenses of a block, fitted together.

The concepts of a pack have few words each, and what makes one of them readable helps with the others. So the lenses
share their first layer, and each learns its own reading of it. As an MLP of the lens contract, D -> 128 -> unit -> 1,
such a lens has two units in its second layer, exactly: a reading a of the first layer is relu(a) - relu(-a).

The linear baseline, ridge regression on the same states, is closed-form and fits every block in seconds: it chooses the
block.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ftw.hat.classifiers.modules import HIDDEN
from ftw.hat.classifiers.tensors import LensTensors
from ftw.map.training.targets import NEGATIVE, POSITIVE, Targets

CHUNK = 4096
"""States per step where nothing is learnt."""
RIDGE = 8.0
"""Strength of the ridge, in variances of a standardised channel. Words held out want far more than words seen."""
RAREST = 60.0
"""No positive weighs more than this many times a state."""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How lenses are fitted. The defaults were chosen by cross-validation on the reference model."""

    epochs: int = 14
    batch: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    dropout_in: float = 0.4
    dropout: float = 0.4


@dataclass(frozen=True)
class Linear:
    """One weight per channel and lens, on normalised states."""

    weight: Float[Tensor, "lens d_model"]
    bias: Float[Tensor, " lens"]

    def __call__(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        return x @ self.weight.T + self.bias


@dataclass(frozen=True)
class Lenses:
    """Fitted lenses of one block: a first layer that all share, and each lens's reading of it."""

    first: Float[Tensor, "unit d_model"]
    first_bias: Float[Tensor, " unit"]
    head: Float[Tensor, "lens unit"]
    head_bias: Float[Tensor, " lens"]

    def __call__(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        """Logits of normalised states, in fp32."""
        return torch.cat([self._part(x[at : at + CHUNK]) for at in range(0, max(1, len(x)), CHUNK)])

    def _part(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        return F.linear(torch.relu(F.linear(x, self.first, self.first_bias)), self.head, self.head_bias)

    def tensors(self, screen: Linear, screen_threshold: Float[Tensor, " lens"]) -> LensTensors:
        """The same lenses as MLPs of their own: two units of the second layer each, and views of one first layer."""
        n = len(self.head)
        return LensTensors(
            w1=self.first[None].expand(n, -1, -1),
            b1=self.first_bias[None].expand(n, -1),
            w2=torch.stack([self.head, -self.head], 1),
            b2=torch.stack([self.head_bias, -self.head_bias], 1),
            w3=torch.tensor([1.0, -1.0])[None].expand(n, -1),
            b3=torch.zeros(n),
            screen_w=screen.weight,
            screen_b=screen.bias,
            screen_threshold=screen_threshold,
        )


def fit_lenses(
    x: Float[Tensor, "state d_model"],
    home: Int[Tensor, " state"],
    targets: Targets,
    config: FitConfig,
    seed: int,
    progress: Callable[[int, int], None],
) -> Lenses:
    """Lenses for every concept, by class-balanced cross-entropy over all states, with AdamW and a one-cycle schedule.

    Each lens weighs its positives and its negatives alike, and leaves out what is unsaid. fp32.
    """
    mean, std = x.mean(0), x.std(0) + 1e-6
    balance = _Balance(targets, home)
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, head = nn.Linear(x.shape[1], HIDDEN), nn.Linear(HIDDEN, len(targets.terms))
        net = nn.Sequential(nn.Dropout(config.dropout_in), first, nn.ReLU(), nn.Dropout(config.dropout), head)
        steps = max(1, config.epochs * len(x) // config.batch)
        optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
        for step in range(steps):
            rows = torch.randint(len(x), (config.batch,), generator=rng)
            loss = balance.loss(net((x[rows] - mean) / std), home[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress(step + 1, steps)
    weight = first.weight.detach() / std
    return Lenses(weight, first.bias.detach() - weight @ mean, head.weight.detach(), head.bias.detach())


def fit_ridge(x: Float[Tensor, "state d_model"], wanted: Float[Tensor, "state lens"], ridge: float = RIDGE) -> Linear:
    """Ridge regression of all columns of `wanted` on standardised channels, closed form. Computed in fp64."""
    mean, std = x.double().mean(0), x.double().std(0) + 1e-6
    z = (x.double() - mean) / std
    gram = z.T @ z / len(z) + ridge * torch.eye(z.shape[1], dtype=z.dtype)
    centre = wanted.double().mean(0)
    weight = torch.linalg.solve(gram, z.T @ (wanted.double() - centre) / len(z)).T / std
    return Linear(weight.float(), (centre - weight @ mean).float())


class _Balance:
    """Weights under which a lens's positives and its negatives count alike."""

    def __init__(self, targets: Targets, home: Int[Tensor, " state"]) -> None:
        positives, negatives = targets.counts(home)
        heavy = (len(home) / (2 * positives.clamp(min=1))).clamp(max=RAREST)
        light = len(home) / (2 * negatives.clamp(min=1))
        self._truth = (targets.table == POSITIVE).float()
        self._weight = self._truth * heavy + (targets.table == NEGATIVE).float() * light

    def loss(self, logits: Float[Tensor, "state lens"], home: Int[Tensor, " state"]) -> Float[Tensor, ""]:
        """Mean weighted cross-entropy."""
        return F.binary_cross_entropy_with_logits(logits, self._truth[home], weight=self._weight[home])

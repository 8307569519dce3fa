"""All lenses of a block, fitted together over a first layer that they share.

The concepts of a pack have few words each, and what makes one of them readable helps with the others. So the lenses
share their first layer, and each learns its own reading of it. As an MLP of the lens contract, D -> 128 -> unit -> 1,
such a lens has two units in its second layer, exactly: a reading a of the first layer is relu(a) - relu(-a).

The linear baseline, ridge regression on the same states, is closed-form and fits every block in seconds: it chooses the
block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
SMALLEST = 1e-30
Steps = Callable[[int, int], None]
"""Told how many of how many steps are done."""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How lenses are fitted. The defaults were chosen by cross-validation on the reference model."""

    epochs: int = 20
    batch: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    dropout_in: float = 0.4
    dropout: float = 0.4
    siblings: float = 0.2
    """Weight of the second loss: cross-entropy among siblings, over the states of one of them or of what is below."""


@runtime_checkable
class Fitted(Protocol):
    """What every fit of lenses gives."""

    def __call__(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        """Logits of normalised states, in fp32."""

    def tensors(self, screen: "Linear", screen_threshold: Float[Tensor, " lens"]) -> LensTensors:
        """The lenses as a pack holds them."""


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

    def units(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state unit"]:
        """What the first layer makes of normalised states."""
        return torch.relu(F.linear(x, self.first, self.first_bias))

    def _part(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        return F.linear(self.units(x), self.head, self.head_bias)

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
    progress: Steps,
) -> Lenses:
    """Lenses for every concept, by class-balanced cross-entropy over all states, with AdamW and a one-cycle schedule.

    Each lens weighs its positives and its negatives alike, and leaves out what is unsaid; siblings compete besides.
    Every state is a negative of most lenses, so no negatives are drawn. fp32, on the states' device.
    """
    mean, std = x.mean(0), x.std(0) + 1e-6
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, head = nn.Linear(x.shape[1], HIDDEN), nn.Linear(HIDDEN, len(targets.terms))
        net = nn.Sequential(nn.Dropout(config.dropout_in), first, nn.ReLU(), nn.Dropout(config.dropout), head)
        _descend(net, (x, mean, std), home, Loss(targets, home, config.siblings), config, rng, progress)
    weight = first.weight.detach() / std
    return Lenses(weight, first.bias.detach() - weight @ mean, head.weight.detach(), head.bias.detach())


def refit_heads(
    lenses: Lenses,
    x: Float[Tensor, "state d_model"],
    home: Int[Tensor, " state"],
    targets: Targets,
    config: FitConfig,
    seed: int,
) -> Lenses:
    """The same first layer, and all lenses' readings of it fitted anew: for more states of some concepts."""
    units = torch.cat([lenses.units(x[at : at + CHUNK]) for at in range(0, len(x), CHUNK)])
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(units.shape[1], len(targets.terms))
        head.weight.data.copy_(lenses.head)
        head.bias.data.copy_(lenses.head_bias)
        net = nn.Sequential(nn.Dropout(config.dropout), head)
        plain = torch.zeros(units.shape[1]), torch.ones(units.shape[1])
        loss = Loss(targets, home, config.siblings)
        _descend(net, (units, *plain), home, loss, config, rng, lambda done, total: None)
    return Lenses(lenses.first, lenses.first_bias, head.weight.detach(), head.bias.detach())


def _descend(
    net: nn.Sequential,
    states: tuple[Tensor, Tensor, Tensor],
    home: Tensor,
    loss: "Loss",
    config: FitConfig,
    rng: torch.Generator,
    progress: Steps,
) -> None:
    """Fit `net` to states that are standardised batch by batch."""
    x, mean, std = states
    steps = max(1, config.epochs * len(x) // config.batch)
    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
    for step in range(steps):
        rows = torch.randint(len(x), (config.batch,), generator=rng)
        value = loss(net((x[rows].float() - mean) / std), home[rows])
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(step + 1, steps)


def fit_ridge(x: Float[Tensor, "state d_model"], wanted: Float[Tensor, "state lens"], ridge: float = RIDGE) -> Linear:
    """Ridge regression of all columns of `wanted` on standardised channels, closed form. Computed in fp64."""
    return Sums.of(x, wanted).solve(ridge)


@dataclass(frozen=True)
class Sums:
    """What a ridge needs of its states. Sums of parts add up, so that one pass over all folds fits each without one."""

    n: int
    x: Float[Tensor, " d_model"]
    xx: Float[Tensor, "d_model d_model"]
    y: Float[Tensor, " lens"]
    xy: Float[Tensor, "d_model lens"]

    @classmethod
    def of(cls, x: Float[Tensor, "state d_model"], wanted: Float[Tensor, "state lens"]) -> "Sums":
        """The sums over these states, in fp64."""
        wide, goal = x.double(), wanted.double()
        return cls(len(x), wide.sum(0), wide.T @ wide, goal.sum(0), wide.T @ goal)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.n + other.n, self.x + other.x, self.xx + other.xx, self.y + other.y, self.xy + other.xy)

    def times(self, k: int) -> "Sums":
        """The sums of the same states `k` times over."""
        return Sums(k * self.n, k * self.x, k * self.xx, k * self.y, k * self.xy)

    def solve(self, ridge: float = RIDGE) -> Linear:
        """The ridge regression on channels that are standardised over these states."""
        mean, centre = self.x / self.n, self.y / self.n
        spread = self.xx - self.n * torch.outer(mean, mean)
        std = (spread.diagonal() / max(1, self.n - 1)).clamp(min=0).sqrt() + 1e-6
        gram = spread / torch.outer(std, std) / self.n + ridge * torch.eye(len(mean), dtype=mean.dtype)
        cross = (self.xy - self.n * torch.outer(mean, centre)) / std[:, None] / self.n
        weight = torch.linalg.solve(gram, cross).T / std
        return Linear(weight.float(), (centre - weight @ mean).float())


class Loss:
    """Cross-entropy under which a lens's positives and its negatives count alike, and one among siblings."""

    def __init__(self, targets: Targets, home: Int[Tensor, " state"], siblings: float) -> None:
        positives, negatives = targets.counts(home)
        heavy = (len(home) / (2 * positives.clamp(min=1))).clamp(max=RAREST)
        light = len(home) / (2 * negatives.clamp(min=1))
        self._truth = (targets.table == POSITIVE).float()
        self._weight = self._truth * heavy + (targets.table == NEGATIVE).float() * light
        self._share = siblings
        self._group = targets.group_of
        self._member = F.one_hot(self._group, len(targets.siblings)).float()
        self._rivals = (self._member.sum(0)[self._group] > 1).float()

    def __call__(self, logits: Float[Tensor, "state lens"], home: Int[Tensor, " state"]) -> Float[Tensor, ""]:
        """The mean over states and lenses, and the sibling loss over the lenses that are right."""
        loss = F.binary_cross_entropy_with_logits(logits, self._truth[home], weight=self._weight[home])
        if not self._share:
            return loss
        highest = logits.amax(1, keepdim=True).detach()
        together = ((logits - highest).exp() @ self._member).clamp(min=SMALLEST).log() + highest
        right = self._truth[home] * self._rivals
        among = ((together[:, self._group] - logits) * right).sum() / right.sum().clamp(min=1)
        return loss + self._share * among

"""Hundreds of lenses fitted at once, each an MLP of its own: D -> 128 -> 64 -> 1.

Every step draws each lens a batch: its own states, its siblings', others (see `negatives`). The lenses of a chunk take
the step together, in batched products; none sees another's gradient. A lens whose validation loss has stopped falling
is frozen at its best and leaves the products.
The rule of the file: what a lens becomes depends on its chunk and the seed, never on which process fits the chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.hat.classifiers.tensors import LensTensors
from ftw.map.training.fit import CHUNK, Linear, Steps
from ftw.map.training.negatives import Drawer, Kin
from ftw.map.training.targets import POSITIVE, UNSAID, Targets

TOGETHER = 128
"""Lenses of a chunk, about: whole groups of siblings."""
BETAS = (0.9, 0.999)
TINY = 1e-8


@dataclass(frozen=True, slots=True)
class MlpConfig:
    """How separate lenses are fitted. With a few dozen words each they want strong regularisation."""

    steps: int = 600
    """At most."""
    batch: int = 96
    """States per lens and step: a third its own, a third its family's, a third others'."""
    learning_rate: float = 2e-3
    weight_decay: float = 1.0
    dropout_in: float = 0.6
    dropout: float = 0.5
    siblings: float = 0.2
    """Weight of the cross-entropy among siblings."""
    check: int = 25
    """Steps between looks at the validation loss."""
    patience: int = 8
    """Looks without a better one, after which a lens is done."""
    validation: int = 128
    """States per lens that the validation loss is taken over."""


@dataclass(frozen=True)
class Mlps:
    """Separate lenses of one block."""

    w1: Float[Tensor, "lens 128 d_model"]
    b1: Float[Tensor, "lens 128"]
    w2: Float[Tensor, "lens unit 128"]
    b2: Float[Tensor, "lens unit"]
    w3: Float[Tensor, "lens unit"]
    b3: Float[Tensor, " lens"]

    def __call__(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        """Logits of normalised states, in fp32."""
        n = max(1, CHUNK * 32 // len(self.b3))
        return torch.cat([self._part(x[at : at + n]) for at in range(0, max(1, len(x)), n)])

    def _part(self, x: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
        first = F.linear(x, self.w1.flatten(0, 1), self.b1.flatten()).view(len(x), len(self.b3), HIDDEN).relu()
        second = (torch.bmm(first.transpose(0, 1), self.w2.transpose(1, 2)) + self.b2[:, None]).relu()
        return (torch.bmm(second, self.w3[..., None])[..., 0] + self.b3[:, None]).T

    def tensors(self, screen: Linear, screen_threshold: Float[Tensor, " lens"]) -> LensTensors:
        """The lenses as a pack holds them."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return LensTensors(**own, screen_w=screen.weight, screen_b=screen.bias, screen_threshold=screen_threshold)

    @classmethod
    def join(cls, parts: Sequence["Mlps"], places: Sequence[Sequence[int]]) -> "Mlps":
        """The lenses of several chunks in the order of the targets; `places` names each chunk's lenses."""
        order = torch.tensor([lens for chunk in places for lens in chunk]).argsort()
        return cls(**{each.name: torch.cat([getattr(p, each.name) for p in parts])[order] for each in fields(cls)})


def chunks_of(targets: Targets, together: int = TOGETHER) -> list[tuple[int, ...]]:
    """Lenses in chunks of whole groups of siblings, in order. The same for every process."""
    out: list[tuple[int, ...]] = []
    current: tuple[int, ...] = ()
    for group in targets.siblings:
        if current and len(current) + len(group) > together:
            out.append(current)
            current = ()
        current += group
    return [*out, current]


def fit_mlps(
    x: Float[Tensor, "state d_model"],
    home: Int[Tensor, " state"],
    is_validation: Bool[Tensor, " state"],
    targets: Targets,
    kin: Kin,
    chunk: Sequence[int],
    config: MlpConfig,
    seed: int,
    progress: Steps,
) -> tuple[Mlps, Int[Tensor, " lens"]]:
    """The lenses of one chunk, and at how many steps each was best. fp32, on the CPU.

    Validation states are learnt from by none; they should be of words of their own. Without any, the loss that lenses
    learn by is looked at.
    """
    mean, std = x.mean(0), x.std(0) + 1e-6
    fitting = _Fitting(x, home, is_validation, targets, kin, chunk, config, seed)
    fitting.standard = (mean, std)
    for step in range(config.steps):
        fitting.step(step)
        if (step + 1) % config.check == 0 and not fitting.look(step + 1):
            break
        progress(step + 1, config.steps)
    progress(config.steps, config.steps)
    w1, b1, *rest = fitting.best
    w1 = w1 / std
    return Mlps(w1, b1 - w1 @ mean, *rest), fitting.best_step


class _Fitting:
    """One chunk on its way."""

    standard: tuple[Tensor, Tensor]

    def __init__(
        self,
        x: Tensor,
        home: Tensor,
        is_validation: Tensor,
        targets: Targets,
        kin: Kin,
        chunk: Sequence[int],
        config: MlpConfig,
        seed: int,
    ) -> None:
        self.x, self.config, self.targets = x, config, targets
        self.rng = torch.Generator().manual_seed(seed * 1_000_003 + chunk[0])
        self.lenses = torch.tensor(chunk)
        learnt, watched = (~is_validation).nonzero()[:, 0], is_validation.nonzero()[:, 0]
        self.rows = [learnt, watched if len(watched) else learnt]
        self.home = home
        self.drawers = [Drawer(kin, targets, home[rows]) for rows in self.rows]
        self.groups = [g for g in targets.siblings if g[0] in set(chunk)]
        self.group_at = torch.tensor([at for at, g in enumerate(self.groups) for _ in g])
        self.best = _fresh(len(chunk), x.shape[1], self.rng)
        self.now = [part.clone().requires_grad_() for part in self.best]
        self.moments = [(torch.zeros_like(part), torch.zeros_like(part)) for part in self.now]
        self.active = torch.arange(len(chunk))
        """Which lenses of the chunk the current tensors hold."""
        self.best_loss = torch.full((len(chunk),), float("inf"))
        self.best_step = torch.zeros(len(chunk), dtype=torch.long)
        self.waited = torch.zeros(len(chunk), dtype=torch.long)
        self.watch = self._batch(1, config.validation)

    def step(self, at: int) -> None:
        """One step of all lenses that are not done."""
        rows, weight, truth = self._batch(0, self.config.batch)
        logits = self._logits(rows, training=True)
        own = self._loss(logits, weight, truth).sum() + self.config.siblings * self._among(logits, rows)
        for part in self.now:
            part.grad = None
        own.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            rate = self.config.learning_rate * min(1.0, 2 * (1 - at / self.config.steps))
            self._adam(at + 1, rate)

    def look(self, step: int) -> bool:
        """Keep what got better, drop who is done; False when nobody is left."""
        with torch.no_grad():
            rows, weight, truth = (part[self.active] for part in self.watch)
            loss = self._loss(self._logits(rows, training=False), weight, truth)
            better = loss < self.best_loss[self.active] - 1e-4
            where = self.active[better]
            for best, part in zip(self.best, self.now, strict=True):
                best[where] = part.detach()[better]
            self.best_loss[where], self.best_step[where] = loss[better], step
            self.waited[self.active] = torch.where(better, 0, self.waited[self.active] + 1)
            stay = self.waited[self.active] < self.config.patience
            if not bool(stay.all()):
                self.active = self.active[stay]
                self.now = [part.detach()[stay].requires_grad_() for part in self.now]
                self.moments = [(first[stay], second[stay]) for first, second in self.moments]
        return len(self.active) > 0

    def _batch(self, which: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """States [lens, n] of the active lenses (indices into x), their weights, whether each is a positive."""
        drawer, lenses = self.drawers[which], self.lenses[self.active]
        third = n // 3
        family = drawer.families(self.groups, third, self.rng)[self.group_at[self.active]]
        others, counts = drawer.negatives(lenses, third, self.rng)
        rows = torch.cat([drawer.positives(lenses, third, self.rng), family, others], 1)
        label = self.targets.table[self.home[self.rows[which][rows]], lenses[:, None]]
        truth = (label == POSITIVE).float()
        weight = (label != UNSAID).float()
        weight[:, -third:] *= counts
        positive, negative = weight * truth, weight * (1 - truth)
        weight = positive / (2 * positive.sum(1, keepdim=True).clamp(min=1))
        weight = weight + negative / (2 * negative.sum(1, keepdim=True).clamp(min=1))
        return self.rows[which][rows], weight, truth

    def _logits(self, rows: Tensor, *, training: bool) -> Tensor:
        w1, b1, w2, b2, w3, b3 = self.now
        mean, std = self.standard
        x = (self.x[rows] - mean) / std
        if training:
            x = self._dropped(x, self.config.dropout_in)
        first = torch.baddbmm(b1[:, None], x, w1.transpose(1, 2)).relu()
        if training:
            first = self._dropped(first, self.config.dropout)
        second = torch.baddbmm(b2[:, None], first, w2.transpose(1, 2)).relu()
        return torch.baddbmm(b3[:, None, None], second, w3[..., None])[..., 0]

    def _dropped(self, x: Tensor, share: float) -> Tensor:
        return x * (torch.rand(x.shape, generator=self.rng) >= share) / (1 - share)

    @staticmethod
    def _loss(logits: Tensor, weight: Tensor, truth: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, truth, weight=weight, reduction="none").sum(1)

    def _among(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy among the active siblings over their family's states."""
        third = self.config.batch // 3
        family = logits[:, third : 2 * third]
        truth = self.targets.table[self.home[rows[:, third : 2 * third]], self.lenses[self.active][:, None]]
        right = (truth == POSITIVE).float()
        member = F.one_hot(self.group_at[self.active], len(self.groups)).float()
        group = self.group_at[self.active]
        floor = torch.full((len(self.groups), family.shape[1]), float("-inf"))
        highest = floor.scatter_reduce(0, group[:, None].expand_as(family), family.detach(), "amax")[group]
        together = (member.T @ (family - highest).exp()).log()[group] + highest
        return ((together - family) * right).sum() / family.shape[1]

    def _adam(self, step: int, rate: float) -> None:
        """AdamW, each lens by itself."""
        for part, (first, second) in zip(self.now, self.moments, strict=True):
            gradient = part.grad
            assert gradient is not None
            first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            if part.ndim == 3:
                part.mul_(1 - rate * self.config.weight_decay)
            size = (second / (1 - BETAS[1] ** step)).sqrt_().add_(TINY)
            part.addcdiv_(first, size, value=-rate / (1 - BETAS[0] ** step))


def _fresh(n: int, d_model: int, rng: torch.Generator) -> list[Tensor]:
    """Weights as `nn.Linear` draws them."""
    shapes = [(HIDDEN, d_model), (HIDDEN,), (NARROW, HIDDEN), (NARROW,), (NARROW,), ()]
    widths = [d_model, d_model, HIDDEN, HIDDEN, NARROW, NARROW]
    return [
        (torch.rand(n, *shape, generator=rng) * 2 - 1) / width**0.5 for shape, width in zip(shapes, widths, strict=True)
    ]

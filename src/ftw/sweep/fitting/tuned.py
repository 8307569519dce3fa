"""Fits tuned lenses: translators that bring every layer's distribution near the model's own (Belrose et al. 2023).

Each micro-batch of positions is read at every layer in one pass and dropped; all layers are fitted side by side, each
by itself. A translator works on standardised states, y = x + s ((x - m) / d A + b), with m and d the mean and deviation
of each feature and s the typical deviation of the layer, all from the first micro-batch; afterwards this is folded into
y = x + x A' + b'. It begins as the logit lens: A and b are zero (of A = U V only V, so that V moves at once and U with
it). Held-out text in two halves: one picks for each layer the step whose parameters are kept (step 0, the logit lens,
is among them) and when to stop, the other gives the figures that are reported.

The rule of the file: a fit says what it saw and what it reached, and is the same for the same seed on a CPU.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.anatomy import Arch
from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model
from ftw.substrate.unembed import head_input
from ftw.sweep.fitting.accept import Acceptance, accept, compare, depth_layers
from ftw.sweep.fitting.corpus import Corpus
from ftw.sweep.fitting.rows import Rows, heldout_rows
from ftw.sweep.fitting.schedule import Schedule
from ftw.sweep.fitting.teacher import Teacher
from ftw.sweep.lenses.fitted import ModelOf
from ftw.sweep.lenses.tuned import (
    KINDS,
    PARTS,
    Stored,
    TunedKind,
    TunedLens,
    TunedManifest,
    head_device,
    save_tuned,
)

RANKS = (64, 256)
"""A low-rank translator has rank d / 32, at least the one and at most the other (and at most d / 2)."""
FLAT = 1e-3
"""A feature that varies less than this share of the layer's typical deviation is not blown up beyond it."""
GAIN = 1e-3
"""Nats that a look at the held-out text must improve by to count."""


@dataclass(frozen=True)
class Fit:
    """A fitted lens with all that is known of it."""

    lens: TunedLens
    acceptance: Acceptance
    losses: tuple[tuple[int, float], ...]
    """Step, and KL(model || lens) in bits over the step's positions, mean of all layers; one for each look."""
    heldout: tuple[tuple[int, tuple[float, ...]], ...]
    """Step, and the same on the stopping half, layer by layer 0 to n - 1."""
    stored: Stored = "float32"
    """How its tensors are rounded, and written."""

    @property
    def accepted(self) -> bool:
        """Whether the gates are passed."""
        return self.acceptance.accepted

    def save(self, folder: Path) -> None:
        """Writes the artefact. Raises StorageError."""
        save_tuned(folder, self.lens, stored=self.stored)


def default_rank(d_model: int) -> int:
    """The rank of a low-rank translator where none is given."""
    return max(1, min(max(RANKS[0], min(d_model // 32, RANKS[1])), d_model // 2))


def fit_tuned(
    model: Model,
    corpus: Corpus,
    *,
    kind: TunedKind = "rank",
    rank: int | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    stored: Stored = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """A tuned lens of one kind, fitted on the corpus's `fit` part and judged on its `heldout` part.

    `stored` rounds the tensors before they are judged: the figures are those of the file. `progress` is told how many
    of how many steps are done. Raises ConfigError for a bad kind or rank or too little text, NumericError for a loss
    that is not finite.
    """
    schedule = schedule or Schedule()
    rank = _rank(model, kind, rank)
    first, second, heldout_digest = heldout_rows(
        model, corpus, schedule.heldout, length=schedule.length, share=schedule.share, seed=seed
    )
    rows = Rows(model, corpus, rows=schedule.rows, length=schedule.length, share=schedule.share, seed=seed)
    run = _Run(model.arch, kind, rank, next(rows), schedule, seed)
    steps = run.steps(rows, first, progress)
    lens = run.best.lens(model.arch, stored)
    acceptance = accept(compare(model, lens, second))
    source = {
        "how": "fit",
        "corpus": {
            "name": corpus.name,
            "digest": rows.digest,
            "heldout_digest": heldout_digest,
            "positions": rows.n_positions,
            "windows": rows.n_windows,
            "passes": rows.n_passes,
            "heldout_positions": [first.shape[1], second.shape[1]],
        },
        "schedule": schedule.model_dump(mode="json"),
        "seed": seed,
        "stored": stored,
        "steps": steps,
        "kept_step": list(run.kept),
        "losses_bits": [list(entry) for entry in run.losses],
    }
    lens = replace(lens, manifest=_manifest(model, lens, source, acceptance))
    return Fit(lens, acceptance, tuple(run.losses), tuple(run.heldout), stored)


def _manifest(model: Model, lens: TunedLens, source: dict[str, Any], acceptance: Acceptance) -> TunedManifest:
    return TunedManifest(
        model=ModelOf.of(model),
        d_model=model.d_model,
        n_layers=model.n_layers,
        lens=lens.kind,
        rank=None if lens.down is None else lens.down.shape[-1],
        accepted=acceptance.accepted,
        source=source,
        acceptance=acceptance.document(),
    )


def fit_kinds(
    model: Model,
    corpus: Corpus,
    *,
    kinds: Sequence[TunedKind] = KINDS,
    rank: int | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    stored: Stored = "float32",
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[TunedKind, Fit]:
    """Several kinds on the same positions in the same order: what one gains over another is due to its form.

    `rank` is that of kind `rank`. `progress` is told the kind, and how many of how many steps are done.
    """
    fits: dict[TunedKind, Fit] = {}
    for kind in kinds:
        told = None if progress is None else (lambda done, of, kind=kind: progress(kind, done, of))
        fits[kind] = fit_tuned(
            model,
            corpus,
            kind=kind,
            rank=rank if kind == "rank" else None,
            schedule=schedule,
            seed=seed,
            stored=stored,
            progress=told,
        )
    return fits


def attribution(fits: Mapping[TunedKind, Fit]) -> dict[str, Any]:
    """The gains of several kinds side by side: mean KL gain over the logit lens in bits, at 25, 50, 75 % depth.

    `by_kind` are the gains; `steps` what each kind adds to the one before (bias, then rank, then full).
    """
    kinds = [kind for kind in KINDS if kind in fits]
    if not kinds:
        raise ConfigError("there are no fits to compare: fit at least one kind")
    some = fits[kinds[0]].acceptance
    layers = depth_layers(len(some.logit_kl_bits) - 1)
    gains = {
        kind: [fits[kind].acceptance.logit_kl_bits[at] - fits[kind].acceptance.lens_kl_bits[at] for at in layers]
        for kind in kinds
    }
    added: dict[str, list[float]] = {}
    before = [0.0] * len(layers)
    for kind in kinds:
        added[kind] = [now - then for now, then in zip(gains[kind], before, strict=True)]
        before = gains[kind]
    return {
        "layers": list(layers),
        "logit_kl_bits": [some.logit_kl_bits[at] for at in layers],
        "by_kind": gains,
        "steps": added,
        "accepted": {kind: fits[kind].accepted for kind in kinds},
    }


def best_of(fits: Mapping[TunedKind, Fit]) -> TunedKind:
    """The accepted kind with the lowest mean KL over all layers; where none is accepted, the lowest of all."""
    if not fits:
        raise ConfigError("there are no fits to choose from: fit at least one kind")
    pool = [kind for kind in fits if fits[kind].accepted] or list(fits)
    return min(pool, key=lambda kind: sum(fits[kind].acceptance.lens_kl_bits))


def _rank(model: Model, kind: str, rank: int | None) -> int | None:
    if kind not in KINDS:
        raise ConfigError(f"there is no tuned lens of kind {kind!r}: use {', '.join(KINDS)}")
    if kind != "rank":
        if rank is not None:
            raise ConfigError(f"rank is {rank}, but a lens of kind {kind!r} has none: leave it out, or use kind rank")
        return None
    rank = default_rank(model.d_model) if rank is None else rank
    if not 1 <= rank <= model.d_model:
        raise ConfigError(f"rank is {rank}: it must be 1..{model.d_model}, the width of {model.name}")
    return rank


class _Translators:
    """The parameters of all layers, in standardised coordinates."""

    def __init__(
        self, kind: TunedKind, rank: int | None, states: Float[Tensor, "layer row d_model"], seed: int
    ) -> None:
        x = states.float()
        n, _, d = x.shape
        self.kind = kind
        self.mean = x.mean(1)
        spread = x.std(1, correction=0)
        self.size = spread.median(-1, keepdim=True).values.clamp_min(torch.finfo(torch.float32).tiny)
        self.inverse = 1 / torch.maximum(spread, FLAT * self.size)
        self.parts = {"bias": torch.zeros(n, d, device=x.device)}
        if kind == "full":
            self.parts["weight"] = torch.zeros(n, d, d, device=x.device)
        if rank is not None:
            draw = torch.Generator().manual_seed(seed)
            self.parts["down"] = (torch.randn(n, d, rank, generator=draw) / math.sqrt(d)).to(x.device)
            self.parts["up"] = torch.zeros(n, rank, d, device=x.device)
        for part in self.parts.values():
            part.requires_grad_()

    def move(self, x: Float[Tensor, "row d_model"], layer: int) -> Float[Tensor, "row d_model"]:
        """The translated states of one layer."""
        moved = self.parts["bias"][layer].expand_as(x)
        inner = (x - self.mean[layer]) * self.inverse[layer]
        if self.kind == "full":
            moved = moved + inner @ self.parts["weight"][layer]
        elif self.kind == "rank":
            moved = moved + inner @ self.parts["down"][layer] @ self.parts["up"][layer]
        return x + self.size[layer] * moved

    def copy(self) -> dict[str, Tensor]:
        """The parameters as they are now."""
        return {name: part.detach().clone() for name, part in self.parts.items()}


@dataclass(frozen=True)
class _Best:
    """The best parameters so far, layer by layer, and the coordinates that they are in."""

    translators: _Translators
    parts: dict[str, Tensor]

    @torch.no_grad()
    def lens(self, arch: Arch, stored: Stored) -> TunedLens:
        """Folded into y = x + x A + b, in fp64, and rounded as it will be stored."""
        t = self.translators
        parts = {name: part.double() for name, part in self.parts.items()}
        inverse, size = t.inverse.double(), t.size.double()
        shift = (t.mean.double() * inverse)[:, None]  # [layer, 1, d]
        found = {}
        if t.kind == "full":
            found["weight"] = inverse[:, :, None] * parts["weight"] * size[:, None]
            lost = shift @ parts["weight"]
        elif t.kind == "rank":
            found["down"] = inverse[:, :, None] * parts["down"]
            found["up"] = parts["up"] * size[:, None]
            lost = shift @ parts["down"] @ parts["up"]
        else:
            lost = torch.zeros_like(shift)
        found["bias"] = size * (parts["bias"] - lost[:, 0])
        device, dtype = head_device(arch), getattr(torch, stored)
        parts = {name: found[name].to(dtype).float().to(device) for name in PARTS[t.kind]}
        return TunedLens(arch, parts["bias"], parts.get("down"), parts.get("up"), parts.get("weight"))


class _Run:
    """The steps of one fit."""

    def __init__(
        self, arch: Arch, kind: TunedKind, rank: int | None, states: Tensor, schedule: Schedule, seed: int
    ) -> None:
        self.arch, self.schedule = arch, schedule
        self.teacher = Teacher(arch)
        self.n = arch.n_layers
        self.translators = _Translators(kind, rank, states[: self.n].to(self.teacher.device), seed)
        self.best = _Best(self.translators, self.translators.copy())
        self.kept = [0] * self.n
        self.losses: list[tuple[int, float]] = []
        self.heldout: list[tuple[int, tuple[float, ...]]] = []
        self._first = states
        groups: list[dict[str, Any]] = [
            {"params": [part], "weight_decay": 0.0 if name == "bias" else schedule.weight_decay}
            for name, part in self.translators.parts.items()
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=schedule.betas)

    def steps(self, rows: Rows, heldout: Tensor, progress: Callable[[int, int], None] | None) -> int:
        """All steps, or as many as it takes until no layer gains any more. Gives how many were made."""
        stream = chain([self._first], rows)
        lowest = self._look(0, heldout)
        idle = 0
        for step in range(self.schedule.steps):
            loss = self._step(step, [next(stream) for _ in range(self.schedule.accumulate)])
            done = step + 1
            if done % self.schedule.check_every == 0 or done == self.schedule.steps:
                self.losses.append((done, loss / math.log(2)))
                found = self._look(done, heldout)
                better = found < lowest
                gained = bool((found < lowest - GAIN).any())
                self._keep(better, done)
                lowest = torch.minimum(lowest, found)
                idle = 0 if gained else idle + 1
            if progress is not None:
                progress(done, self.schedule.steps)
            if idle >= self.schedule.patience:
                return done
        return self.schedule.steps

    def _step(self, step: int, batches: Sequence[Tensor]) -> float:
        """One move of the parameters. Gives the mean KL in nats before it, over positions and layers."""
        self._optimizer.zero_grad(set_to_none=True)
        total = sum(self._kl(batch, share=1 / len(batches)).mean() for batch in batches) / len(batches)
        loss = float(total)
        if not math.isfinite(loss):
            raise NumericError(
                f"the fit's loss is {loss} at step {step + 1} of {self.schedule.steps}: lower lr ({self.schedule.lr:g})"
            )
        self._clip()
        for group in self._optimizer.param_groups:
            group["lr"] = self.schedule.rate(step)
        self._optimizer.step()
        return loss

    def _kl(self, states: Float[Tensor, "layer row d_model"], share: float = 0.0) -> Float[Tensor, " fitted"]:
        """KL of each layer in nats, mean over rows. With a share, gradients of share * KL are added up."""
        n_rows = states.shape[1]
        total = torch.zeros(self.n, device=self.teacher.device)
        for start in range(0, n_rows, self.teacher.rows):
            x = states[:, start : start + self.teacher.rows].to(self.teacher.device).float()
            with torch.no_grad():
                truth = self.teacher.truth(head_input(self.arch, x[self.n]))
            for layer in range(self.n):
                with torch.set_grad_enabled(share > 0):
                    h = head_input(self.arch, self.translators.move(x[layer], layer))
                kl, pull = self.teacher.divergence(truth, h.detach())
                total[layer] += kl.sum() / n_rows
                if share > 0:
                    torch.autograd.backward(h, pull * (share / n_rows))
        return total

    def _clip(self) -> None:
        """Each layer's gradient, over all its tensors, to the schedule's length at most."""
        grads = [part.grad for part in self.translators.parts.values() if part.grad is not None]
        length = torch.stack([grad.flatten(1).square().sum(1) for grad in grads]).sum(0).sqrt()
        factor = (self.schedule.clip / length.clamp_min(1e-12)).clamp_max(1.0)
        for grad in grads:
            grad.mul_(factor.view(-1, *[1] * (grad.dim() - 1)))

    def _look(self, step: int, heldout: Tensor) -> Float[Tensor, " fitted"]:
        found = self._kl(heldout)
        self.heldout.append((step, tuple((found / math.log(2)).tolist())))
        return found

    def _keep(self, better: Tensor, step: int) -> None:
        now = self.translators.copy()
        for layer in better.nonzero()[:, 0].tolist():
            self.kept[layer] = step
            for name, part in now.items():
                self.best.parts[name][layer] = part[layer]

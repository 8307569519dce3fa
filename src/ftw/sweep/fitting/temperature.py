"""Temperatures: the one number per layer that a lens's logits are best divided by, fitted on held-out text.

A lens can be far from the model because it points elsewhere, or only because it is too sure or too unsure of itself.
The second is undone by a temperature, so what a learned lens gains beyond one is its rotation. The loss is the mean of
KL(model || softmax(z / τ)): in 1/τ it is convex, so in ln τ it has one valley, and a golden section finds its bottom.

The rule of the file: a minimum on the edge of the search is reported as such, never as a temperature that was found.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model
from ftw.sweep import metrics
from ftw.sweep.head import Head
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.metrics import LN2

LOW, HIGH = 1 / 64, 64.0
"""The temperatures that are searched. A lens that knows nothing is best at the high edge: uniform."""
CLOSE = 1e-3
"""How closely ln τ is found: a tenth of a percent of τ."""
EDGE = 2 * CLOSE
"""Nearer than this to an edge, in ln τ, the valley may lie outside."""
GOLDEN = (math.sqrt(5) - 1) / 2
BUDGET = 64 << 20
"""Bytes of logits that are kept between two looks at a layer; beyond, they are computed again."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """What a search found for one layer."""

    layer: int
    tau: float
    """Divides the lens's logits (after the model's own logit transform). Above 1: the lens was too sure."""
    edge: Literal["low", "high"] | None
    """Which edge of the search the minimum lies on: then `tau` is the edge, and the best may lie beyond."""
    kl_bits: float
    """Mean KL(model || lens) at temperature 1, in bits."""
    kl_bits_at_tau: float
    """The same at `tau`: never more."""
    positions: int
    """Positions that it rests on."""

    def document(self) -> dict[str, Any]:
        """As it stands in a run's document."""
        return {
            "layer": self.layer,
            "tau": self.tau,
            "edge": self.edge,
            "kl_bits": self.kl_bits,
            "kl_bits_at_tau": self.kl_bits_at_tau,
            "positions": self.positions,
        }


class Divergence(NamedTuple):
    """How far lens and model are from each other, in bits."""

    from_model: Float[Tensor, "layer row"]
    """KL(model || lens): what temperatures and tuned lenses are fitted to lower."""
    to_model: Float[Tensor, "layer row"]
    """KL(lens || model): the column `kl_bits` of a table."""


def fit_temperatures(
    model: Model, lens: VocabLens, states: Float[Tensor, "layer row d_model"], *, head: Head | None = None
) -> tuple[Temperature, ...]:
    """The best temperature of each layer that the lens reads. `states` are held-out ones, of layers 0 to n, all rows.

    Computed in fp32, sums over positions in fp64. Raises ConfigError for no rows, NumericError where a lens's logits
    are not finite.
    """
    head = head or Head(model.arch)
    rows = _check(model, states)
    final = LogitLens(model.arch).head_inputs(states[-1:].to(head.device), [model.n_layers])[0]
    with torch.inference_mode():
        return tuple(_fit(head, lens, layer, states[layer], final, rows) for layer in lens.layers)


def divergence(
    model: Model,
    lens: VocabLens,
    states: Float[Tensor, "layer row d_model"],
    taus: Sequence[float] | None = None,
    *,
    head: Head | None = None,
) -> Divergence:
    """KL between model and lens in both directions, each layer's logits divided by its temperature (default: by 1).

    `states` are of layers 0 to n, `taus` one for each layer that the lens reads. Raises ConfigError for another number.
    """
    head = head or Head(model.arch)
    rows = _check(model, states)
    taus = [1.0] * len(lens.layers) if taus is None else taus
    if len(taus) != len(lens.layers):
        raise ConfigError(f"{len(taus)} temperatures are given: lens {lens.name!r} reads {len(lens.layers)} layers")
    final = LogitLens(model.arch).head_inputs(states[-1:].to(head.device), [model.n_layers])[0]
    ways: list[list[Tensor]] = [[], []]
    with torch.inference_mode():
        for layer, tau in zip(lens.layers, taus, strict=True):
            parts = []
            for part in _parts(rows, head.vocab_size):
                p = metrics.softmax(head.logits(final[part]))
                q = metrics.softmax(_logits(head, lens, layer, states[layer, part]) / tau)
                parts.append((metrics.kl_bits(p, q), metrics.kl_bits(q, p)))
            for way, column in zip(ways, zip(*parts, strict=True), strict=True):
                way.append(torch.cat(column))
    return Divergence(torch.stack(ways[0]), torch.stack(ways[1]))


def golden_section(loss: Callable[[float], float], low: float, high: float, close: float = CLOSE) -> float:
    """Where a function with one valley between `low` and `high` is lowest, to within `close`. An edge if it is there.

    Raises NumericError where the function gives a NaN, ConfigError for an interval that is none.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high and close > 0):
        raise ConfigError(f"there is nothing to search from {low} to {high} in steps down to {close}")
    asked: dict[float, float] = {}

    def ask(x: float) -> float:
        value = asked[x] = loss(x)
        if math.isnan(value):
            raise NumericError(f"the loss at {x:.4g} is not a number")
        return value

    a, b = low, high
    x, y = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    fx, fy = ask(x), ask(y)
    while b - a > close:
        if fx <= fy:
            b, y, fy = y, x, fx
            x = b - GOLDEN * (b - a)
            fx = ask(x)
        else:
            a, x, fx = x, y, fy
            y = a + GOLDEN * (b - a)
            fy = ask(y)
    for edge in (low, high):
        ask(edge)
    return min(asked, key=lambda at: asked[at])


def _fit(head: Head, lens: VocabLens, layer: int, states: Tensor, final: Tensor, rows: int) -> Temperature:
    parts = _parts(rows, head.vocab_size)
    kept: dict[int, Tensor] = {}
    entropy = torch.zeros((), dtype=torch.float64)
    cross: list[Tensor] = []  # Σ p z, of which cross-entropy at any temperature needs no more
    for part in parts:
        z = _logits(head, lens, layer, states[part])
        if not bool(z.isfinite().all()):
            raise NumericError(f"lens {lens.name!r} gives logits at layer {layer} that are not finite")
        own = head.logits(final[part]).log_softmax(-1)
        p = own.exp()
        entropy += float(-(p * own.clamp_min(-1e30)).sum(dtype=torch.float64))
        cross.append((p * z).sum(-1, dtype=torch.float64))
        if 4 * rows * head.vocab_size <= BUDGET:
            kept[part.start] = z

    def loss(log_tau: float) -> float:
        beta = math.exp(-log_tau)
        total = 0.0
        for part, dot in zip(parts, cross, strict=True):
            z = kept[part.start] if kept else _logits(head, lens, layer, states[part])
            total += float(((z * beta).logsumexp(-1).double() - beta * dot).sum())
        return max(0.0, (total - float(entropy)) / rows / LN2)

    found = golden_section(loss, math.log(LOW), math.log(HIGH))
    plain, best = loss(0.0), loss(found)
    if plain <= best:
        found, best = 0.0, plain
    near = {"low": found - math.log(LOW), "high": math.log(HIGH) - found}
    edge: Literal["low", "high"] | None = "low" if near["low"] < EDGE else "high" if near["high"] < EDGE else None
    return Temperature(layer, math.exp(found), edge, plain, best, rows)


def _check(model: Model, states: Tensor) -> int:
    if states.ndim != 3 or states.shape[0] != model.n_layers + 1 or not states.shape[1]:
        raise ConfigError(
            f"the states are {list(states.shape)}: give those of {model.n_layers + 1} layers at one position or more"
        )
    return int(states.shape[1])


def _parts(rows: int, vocab: int) -> list[slice]:
    step = max(1, BUDGET // (8 * vocab))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def _logits(head: Head, lens: VocabLens, layer: int, states: Tensor) -> Tensor:
    return head.logits(lens.head_inputs(states[None].to(head.device), [layer])[0])

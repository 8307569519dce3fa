"""Acceptance of a fitted lens: what it must show on held-out text before it is offered by default.

The gates are those of the published suite, restated so that each can pass and each can fail:

A  the median gain in KL over the logit lens is at least 0.2, 0.3, 0.3 bits at 25, 50, 75 % depth
B  the model's own choice comes into view earlier on at least 60 % of positions: rank <= 10 by 4 layers, rank <= 5 by 2
   (of 32; scaled to the model's depth, at least 1). Reported only: a lens chosen for early onsets would bias them
C  at the last layer its KL to the model is at most 0.05 bits
D  at no layer is the mean KL more than 0.1 bits worse than the logit lens's

`accepted` is A, C and D. KL is KL(model || lens) in bits, what a tuned lens is fitted to lower; the gain is the logit
lens's minus the lens's, position by position. The sweep's column `kl_bits` is the other direction, KL(lens || model):
its means are reported beside.

The rule of the file: every gate shows its number beside its threshold.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.substrate.errors import NumericError
from ftw.substrate.model import Model
from ftw.sweep import metrics
from ftw.sweep.head import Head
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens

DEPTHS = (0.25, 0.5, 0.75)
"""Shares of the depth that gate A looks at."""
GAINS = (0.2, 0.3, 0.3)
"""Bits that it asks for there."""
EARLIER = ((10, 4), (5, 2))
"""Gate B: rank, and how many layers of a model of 32 it must be reached earlier by."""
DEPTH_OF_B = 32
"""Blocks of the model that those layers are counted for."""
SHARE_OF_B = 0.6
"""Share of positions that it asks for."""
LAST_KL = 0.05
"""Gate C, in bits."""
WORST = -0.1
"""Gate D, in bits."""
BUDGET = 32 << 20
"""Bytes of logits of one view at once."""


@dataclass(frozen=True)
class Comparison:
    """A lens and the logit lens on the same held-out positions. Layers 0 to n."""

    logit_kl_bits: Float[np.ndarray, "layer row"]
    """KL(model || logit lens)."""
    lens_kl_bits: Float[np.ndarray, "layer row"]
    """KL(model || lens)."""
    logit_table_kl_bits: Float[np.ndarray, "layer row"]
    """KL(logit lens || model): the sweep's column."""
    lens_table_kl_bits: Float[np.ndarray, "layer row"]
    """KL(lens || model)."""
    logit_rank: Int[np.ndarray, "layer row"]
    """Of the token that the model itself puts first."""
    lens_rank: Int[np.ndarray, "layer row"]

    @property
    def gain_bits(self) -> Float[np.ndarray, "layer row"]:
        """KL of the logit lens minus KL of the lens: above 0 the lens is nearer to the model."""
        gain: np.ndarray = self.logit_kl_bits - self.lens_kl_bits
        return gain


@dataclass(frozen=True)
class GateResult:
    """One gate: whether it is passed, what was measured, what was asked for."""

    passed: bool
    measured: tuple[float, ...]
    wanted: tuple[float, ...]
    what: str


@dataclass(frozen=True)
class Acceptance:
    """The verdict on one lens."""

    accepted: bool
    """A, C and D are passed."""
    gates: dict[str, GateResult]
    """`A` to `D`."""
    positions: int
    """Held-out positions it rests on."""
    logit_kl_bits: tuple[float, ...]
    """KL(model || logit lens), mean over positions, by layer."""
    lens_kl_bits: tuple[float, ...]
    logit_table_kl_bits: tuple[float, ...]
    """KL(logit lens || model) likewise: what the sweep's column shows."""
    lens_table_kl_bits: tuple[float, ...]

    def document(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        plain: dict[str, Any] = _listed(asdict(self))
        return plain


def depth_layers(n_layers: int, depths: Sequence[float] = DEPTHS) -> tuple[int, ...]:
    """The layers at some shares of the depth, rounded half up: at least 1, before the last (of one block: 0)."""
    return tuple(min(max(1, int(n_layers * depth + 0.5)), n_layers - 1) for depth in depths)


def layers_earlier(of_32: int, n_layers: int) -> int:
    """How many layers stand for so many of 32: the same share of the depth, rounded half up, at least 1."""
    return max(1, int(of_32 * n_layers / DEPTH_OF_B + 0.5))


def compare(
    model: Model, lens: VocabLens, states: Float[Tensor, "layer row d_model"], *, head: Head | None = None
) -> Comparison:
    """A lens that reads every layer, and the logit lens, on held-out states (layers 0 to n), in fp32.

    Never holds more than `BUDGET` bytes of one view's logits. Raises NumericError where a KL is not finite.
    """
    head = head or Head(model.arch)
    lenses = (LogitLens(model.arch), lens)
    chunk = max(1, BUDGET // (4 * head.vocab_size))
    parts = [_compared(head, lenses, states[:, at : at + chunk]) for at in range(0, states.shape[1], chunk)]
    (logit, logit_table, logit_rank), (own, own_table, own_rank) = (
        tuple(torch.cat([part[which][column] for part in parts], -1).cpu().numpy() for column in range(3))
        for which in range(2)
    )
    for name, kl in (("logit", logit), (lens.name, own), ("logit", logit_table), (lens.name, own_table)):
        if not np.isfinite(kl).all():
            layer = int(np.argwhere(~np.isfinite(kl))[0][0])
            raise NumericError(f"lens {name!r} gives no finite distribution at layer {layer} of {model.name}")
    return Comparison(logit, own, logit_table, own_table, logit_rank, own_rank)


@torch.no_grad()
def _compared(head: Head, lenses: Sequence[VocabLens], states: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each lens KL(model || lens), KL(lens || model) and rank of the model's first token, [layer, row]."""
    states = states.to(head.device)
    layers = range(states.shape[0])
    z = head.logits(lenses[0].head_inputs(states[-1:], [layers[-1]])[0])
    final, first = metrics.softmax(z), z.argmax(-1, keepdim=True)
    found = []
    for lens in lenses:
        inputs = lens.head_inputs(states, layers)
        rows = []
        for h in inputs:
            z = head.logits(h)
            p = metrics.softmax(z)
            rank = metrics.rank(z, z.gather(-1, first))[..., 0]
            rows.append((metrics.kl_bits(final, p), metrics.kl_bits(p, final), rank))
        kl, table, rank = (torch.stack(column) for column in zip(*rows, strict=True))
        found.append((kl, table, rank))
    return found


def accept(comparison: Comparison) -> Acceptance:
    """The gates on a comparison. `C` is the largest KL of any position at the last layer."""
    gain = comparison.gain_bits
    n = gain.shape[0] - 1
    layers = depth_layers(n)
    medians = tuple(float(np.median(gain[layer])) for layer in layers)
    means = gain[:n].mean(1)
    last = float(comparison.lens_kl_bits[n].max())
    gates = {
        "A": GateResult(
            all(found >= wanted for found, wanted in zip(medians, GAINS, strict=True)),
            medians,
            GAINS,
            f"median KL gain over the logit lens at layers {', '.join(map(str, layers))}, bits, at least",
        ),
        "B": _earlier(comparison),
        "C": GateResult(
            last <= LAST_KL, (last,), (LAST_KL,), "largest KL to the model at the last layer, bits, at most"
        ),
        "D": GateResult(
            float(means.min()) >= WORST,
            (float(means.min()),),
            (WORST,),
            f"smallest mean KL gain of any layer (here {int(means.argmin())}), bits, at least",
        ),
    }
    return Acceptance(
        accepted=all(gates[name].passed for name in "ACD"),
        gates=gates,
        positions=gain.shape[1],
        logit_kl_bits=_means(comparison.logit_kl_bits),
        lens_kl_bits=_means(comparison.lens_kl_bits),
        logit_table_kl_bits=_means(comparison.logit_table_kl_bits),
        lens_table_kl_bits=_means(comparison.lens_table_kl_bits),
    )


def first_layers(rank: Int[np.ndarray, "layer row"], best: int) -> Int[np.ndarray, " row"]:
    """For each position the first layer where the rank is `best` or better; the last layer where it never is."""
    reached = rank <= best
    reached[-1] = True
    first: np.ndarray = reached.argmax(0)
    return first


def _earlier(comparison: Comparison) -> GateResult:
    n = comparison.logit_rank.shape[0] - 1
    shares, told = [], []
    for rank, of_32 in EARLIER:
        wanted = layers_earlier(of_32, n)
        gained = first_layers(comparison.logit_rank, rank) - first_layers(comparison.lens_rank, rank)
        shares.append(float((gained >= wanted).mean()))
        told.append(f"rank <= {rank} by {wanted} or more")
    return GateResult(
        all(share >= SHARE_OF_B for share in shares),
        tuple(shares),
        (SHARE_OF_B,) * len(shares),
        f"share of positions where the model's choice reaches {' and '.join(told)} layers earlier, at least",
    )


def _means(kl_bits: Float[np.ndarray, "layer row"]) -> tuple[float, ...]:
    return tuple(float(mean) for mean in kl_bits.astype(np.float64).mean(1))


def _listed(value: Any) -> Any:
    """Tuples as lists, so that what is saved is what is read back."""
    if isinstance(value, dict):
        return {key: _listed(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_listed(entry) for entry in value]
    return value

"""The branch gate: one linear probe per branch of the tree, before the screens of the lenses in it.

A branch is a concept with everything below it. Its probe is fitted to the margin of the lens that exceeds its own
threshold by most. Where no state opens a branch, the screens of its lenses are not computed, and families that are not
in memory need not be fetched.
The rule of the file: a gate only ever leaves lenses out. Lenses that belong to no branch are always screened, and a
state that is not a number opens every branch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ftw.hat.classifiers.packfile import read_tensors, write_tensors
from ftw.hat.classifiers.screen import ScreenReport, fit_screen_thresholds, fit_screens, measure_screen
from ftw.substrate.errors import NumericError, PackError, StorageError, UsageError

GATE = "gate.safetensors"
_NAMES = ("weight", "bias", "branch_of")
_ALWAYS = -1
"""The branch of a lens that belongs to none."""


class Run(NamedTuple):
    """Neighbouring lenses whose screens are to be computed."""

    start: int
    end: int
    shut: Bool[Tensor, "row lens"] | None
    """Which of them are closed in which row all the same; None where none is."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The probes of all branches, over the normalised states after one block."""

    block: int
    weight: Float[Tensor, "branch d_model"]
    bias: Float[Tensor, " branch"]
    """A branch is open from a score of 0 on."""
    branch_of: Int[Tensor, " lens"]
    """The branch of each lens in bank order; -1 for those that are always screened."""

    def to(self, device: torch.device) -> "Gate":
        """The same gate on another device."""
        moved = (self.weight.to(device), self.bias.to(device), self.branch_of.to(device))
        return replace(self, weight=moved[0], bias=moved[1], branch_of=moved[2])

    def open(self, x: Float[Tensor, "row d_model"]) -> Bool[Tensor, "row branch"]:
        """Which branches the normalised states of its block open."""
        return torch.addmm(self.bias, x.float(), self.weight.T).lt(0).logical_not_()  # not `ge`: a NaN opens

    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """(start, end, branch) of the neighbouring lenses of one branch each, in bank order."""
        branch = self.branch_of.tolist()
        cuts = [0, *(at for at in range(1, len(branch)) if branch[at] != branch[at - 1]), len(branch)]
        return tuple((a, b, branch[a]) for a, b in pairwise(cuts))

    def runs(
        self, x: Float[Tensor, "row d_model"], segments: Sequence[tuple[int, int, int]], start: int, end: int
    ) -> Iterator[Run]:
        """The lenses from `start` to before `end` whose screens the states ask for. One look at the host per call."""
        opened = self.open(x)
        branches = opened.any(0).tolist()
        told = None if len(x) == 1 else torch.cat([opened, opened.new_ones(len(x), 1)], 1)
        wanted: list[list[int]] = []
        for a, b, branch in segments:
            a, b = max(a, start), min(b, end)
            if a >= b or not (branch == _ALWAYS or branches[branch]):
                continue
            if wanted and wanted[-1][1] == a:
                wanted[-1][1] = b
            else:
                wanted.append([a, b])
        for a, b in wanted:
            yield Run(a, b, None if told is None else ~told[:, self.branch_of[a:b]])


@dataclass(frozen=True, slots=True)
class GateFit:
    """A gate, and what it opens on states that its probes were not fitted on."""

    gate: Gate
    report: ScreenReport
    """Of branches: `readings` counts the pairs of a state and a branch with at least one reading in it."""


def fit_gate(
    x: Float[Tensor, "row d_model"],
    logits: Float[Tensor, "row lens"],
    threshold_logit: Float[Tensor, " lens"],
    branches: Sequence[Sequence[int]],
    *,
    block: int,
    recall: float = 0.998,
) -> GateFit:
    """The gate of branches that are given as places of lenses, for normalised states `x` and all lenses' logits there.

    Every other state fits the probes, the rest says where they open. Raises UsageError for branches that are empty or
    share a lens, and what `fit_screens` raises.
    """
    n = logits.shape[1]
    branch_of = torch.full((n,), _ALWAYS)
    for number, places in enumerate(branches):
        at = torch.tensor(list(places), dtype=torch.int64)
        if not len(at) or int(at.min()) < 0 or int(at.max()) >= n or bool((branch_of[at] != _ALWAYS).any()):
            raise UsageError(
                f"branch {number} is empty, shares a lens with another or names one beyond the {n} there are"
            )
        branch_of[at] = number
    over = logits.float() - threshold_logit
    best = torch.stack([over[:, branch_of == number].amax(1) for number in range(len(branches))], 1)
    probes = fit_screens(x[::2], best[::2])
    scores, zero = probes(x[1::2]), torch.zeros(len(branches))
    fit = fit_screen_thresholds(scores, best[1::2], zero, recall)
    gate = Gate(block, probes.weight, probes.bias - fit.thresholds, branch_of)
    return GateFit(gate, measure_screen(gate.open(x[1::2]), best[1::2] >= 0))


def save_gate(folder: Path, gate: Gate) -> None:
    """Write a gate beside the lens pack for whose primary lenses it was fitted. Raises NumericError, StorageError."""
    tensors = {f"block{gate.block}.{name}": getattr(gate, name) for name in _NAMES}
    write_tensors(folder / GATE, tensors, {"format": "ftw-gate/1"})


def load_gate(folder: Path) -> Gate:
    """The gate beside a lens pack. Raises PackError, NumericError, StorageError."""
    file = folder / GATE
    if not file.is_file():
        raise StorageError(f"{folder} holds no {GATE}: make one with `fit_gate` and `save_gate`")
    tensors = read_tensors(file)
    block = next(iter(tensors), "").removeprefix("block").split(".")[0]
    names = [f"block{block}.{name}" for name in _NAMES]
    if not block.isdigit() or set(tensors) != set(names):
        raise PackError(f"{file} holds {', '.join(sorted(tensors)) or 'nothing'}: {', '.join(_NAMES)} of one block")
    weight, bias, branch_of = (tensors[name] for name in names)
    branches = len(bias) if bias.ndim == 1 else -1
    fits = weight.ndim == 2 and len(weight) == branches and branch_of.ndim == 1 and not branch_of.is_floating_point()
    if not fits or (len(branch_of) and not _ALWAYS <= int(branch_of.min()) <= int(branch_of.max()) < branches):
        shapes = [list(each.shape) for each in (weight, bias, branch_of)]
        raise PackError(
            f"{file}: weight, bias, branch_of are {shapes}: [branch, D], [branch] and a branch (or -1) per lens"
        )
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        raise NumericError(f"{file}: the gate holds a NaN or an infinity; fit it again")
    return Gate(int(block), weight.float(), bias.float(), branch_of)

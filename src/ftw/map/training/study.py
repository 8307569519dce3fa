"""Held-out measurement: which block to read, and how well lenses fare on carriers and words they were not fitted on.

Words are dealt into folds by whole synsets. For each fold, lenses are fitted on the words of the other folds in the
fit carriers, and read the fold's words in the held carriers: neither carrier nor word nor synonym was seen.
The rule of the file: blocks are chosen in fit carriers, figures come from held carriers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from ftw.map.training.collect import States
from ftw.map.training.evaluate import auroc, macro
from ftw.map.training.fit import FitConfig, fit_lenses, fit_ridge
from ftw.map.training.targets import POSITIVE, Targets

PLAIN_SHARE = 0.1
"""Plain states per prompted state in a fit. Most tokens that a lens reads later name no concept."""
Reader = Callable[[Float[Tensor, "state d_model"]], Float[Tensor, "state lens"]]
"""What a fit gives: logits of normalised states."""


@dataclass(frozen=True)
class Exam:
    """Prompted states with what is needed to split them. All of one length."""

    states: States
    home: Int[Tensor, " state"]
    held: Bool[Tensor, " state"]
    """Whether its carrier is kept for measuring."""
    fold: Int[Tensor, " state"]
    """The fold of its word."""
    apart: Bool[Tensor, " state"]
    """Whether its word shares no part with a word of another fold."""
    plain: States
    """States of plain text, for the fit."""

    @property
    def n_folds(self) -> int:
        return int(self.fold.max()) + 1

    def fit_rows(self, without: int | None) -> Bool[Tensor, " state"]:
        """The states to fit on: fit carriers, and not the words of the fold `without`."""
        return ~self.held if without is None else ~self.held & (self.fold != without)

    def fit_set(self, block: int, targets: Targets, without: int | None) -> tuple[Tensor, Tensor]:
        """Normalised states to fit on with their homes; plain text, repeated, is about a tenth of them."""
        rows = self.fit_rows(without)
        times = max(1, round(PLAIN_SHARE * int(rows.sum()) / len(self.plain)))
        x = torch.cat([self.states.at(block)[rows], self.plain.at(block).repeat(times, 1)])
        return x, torch.cat([self.home[rows], targets.plain(times * len(self.plain))])


@dataclass(frozen=True)
class BlockScore:
    """How a block does with the linear baseline."""

    block: int
    choice: float
    """Macro AUROC on held-out words in the fit carriers: what the choice is made by."""
    words: float
    """Macro AUROC with carriers and words held out."""
    templates: float
    """Macro AUROC with carriers held out."""
    per_lens: Float[Tensor, " lens"]
    """`words` of each lens."""
    choice_per_lens: Float[Tensor, " lens"]
    """`choice` of each lens."""


@dataclass(frozen=True)
class HeldOut:
    """Readings of held carriers by lenses that saw none of the words."""

    rows: Int[Tensor, " read"]
    """Which states of the exam."""
    logits: Float[Tensor, "read lens"]
    labels: Int8[Tensor, "read lens"]

    @property
    def per_lens(self) -> Float[Tensor, " lens"]:
        """AUROC of each lens over all folds together."""
        return auroc(self.logits, self.labels)

    def macro_of(self, rows: Bool[Tensor, " read"]) -> float:
        """Macro AUROC over some of the readings."""
        return macro(auroc(self.logits[rows], self.labels[rows]))


def score_blocks(exam: Exam, targets: Targets, blocks: Sequence[int], seen: Callable[[int], None]) -> list[BlockScore]:
    """The linear baseline on every block, with the first fold held out."""
    out = []
    for block in blocks:
        x, home = exam.fit_set(block, targets, 0)
        reader = fit_ridge(x, (targets.labels(home) == POSITIVE).float())
        new = exam.fold == 0
        figures = [
            auroc(reader(exam.states.at(block)[rows]), targets.labels(exam.home[rows]))
            for rows in (~exam.held & new, exam.held & new, exam.held & ~new)
        ]
        out.append(BlockScore(block, macro(figures[0]), macro(figures[1]), macro(figures[2]), figures[1], figures[0]))
        seen(len(out))
    return out


def best_block(scores: Sequence[BlockScore]) -> int:
    """The block with the highest choice figure, the earlier one of equals."""
    return max(scores, key=lambda score: (score.choice, -score.block)).block


def held_out(
    exam: Exam, targets: Targets, block: int, fit: Callable[[Tensor, Tensor, int], Reader], folds: Sequence[int]
) -> HeldOut:
    """Readings of each fold's words in held carriers by what `fit(x, home, fold)` made of the others."""
    rows, logits = [], []
    for fold in folds:
        x, home = exam.fit_set(block, targets, fold)
        reader = fit(x, home, fold)
        new = (exam.held & (exam.fold == fold)).nonzero()[:, 0]
        rows.append(new)
        logits.append(reader(exam.states.at(block)[new]))
    where = torch.cat(rows)
    return HeldOut(where, torch.cat(logits), targets.labels(exam.home[where]))


def lens_fitter(
    targets: Targets, config: FitConfig, seed: int, progress: Callable[[int, int], None]
) -> Callable[[Tensor, Tensor, int], Reader]:
    """A fit for `held_out`: the lenses themselves."""
    return lambda x, home, fold: fit_lenses(x, home, targets, config, seed + fold, progress)


def ridge_fitter(targets: Targets) -> Callable[[Tensor, Tensor, int], Reader]:
    """A fit for `held_out`: the linear baseline."""
    return lambda x, home, _fold: fit_ridge(x, (targets.labels(home) == POSITIVE).float())

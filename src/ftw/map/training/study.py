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

from ftw.map.training.evaluate import auroc, macro
from ftw.map.training.fit import Sums
from ftw.map.training.states import States
from ftw.map.training.targets import POSITIVE, UNSAID, Targets

PLAIN_SHARE = 0.1
"""Plain states per prompted state in a fit. Most tokens that a lens reads later name no concept."""
ROWS = 16_384
"""States that are widened to fp32 at a time where all of them are read."""
Reader = Callable[[Float[Tensor, "state d_model"]], Float[Tensor, "state lens"]]
"""What a fit gives: logits of normalised states."""


@dataclass(frozen=True)
class Exam:
    """Prompted states with what is needed to split them. All of one length."""

    states: States
    home: Int[Tensor, " state"]
    held: Bool[Tensor, " state"]
    """Whether its template is kept for measuring."""
    fold: Int[Tensor, " state"]
    """The fold of its word."""
    apart: Bool[Tensor, " state"]
    """Whether its word shares no part with a word of another fold."""
    plain: States
    """States of plain text, for the fit."""
    group: Int[Tensor, " state"]
    """The synset of its word."""
    template: Int[Tensor, " state"]
    kind: tuple[str, ...]
    """What the prompt was made from."""

    @property
    def n_folds(self) -> int:
        """How many parts the words are dealt into."""
        return int(self.fold.max()) + 1

    def fit_rows(self, without: int | None) -> Bool[Tensor, " state"]:
        """The states to fit on: fit carriers, and not the words of the fold `without`."""
        return ~self.held if without is None else ~self.held & (self.fold != without)

    def taught(self, targets: Targets) -> Bool[Tensor, " lens"]:
        """Lenses whose examples stand in more than one fold: of the others nothing is left to learn from where theirs
        are held out.
        """
        fit = [self.home[~self.held & (self.fold == fold)] for fold in range(self.n_folds)]
        return torch.stack([targets.counts(home)[0] > 0 for home in fit]).sum(0) > 1

    def unseen_labels(self, targets: Targets, rows: Tensor) -> Int8[Tensor, "state lens"]:
        """The labels of states (a mask or indices) whose words are held out: unsaid for a lens that was not taught."""
        return targets.labels(self.home[rows]).masked_fill(~self.taught(targets), UNSAID)

    def fit_set(self, block: int, targets: Targets, without: int | None) -> tuple[Tensor, Tensor]:
        """Normalised states to fit on with their homes; plain text, repeated, is about a tenth of them."""
        rows = self.fit_rows(without)
        times = self._plain_times(int(rows.sum()))
        x = torch.cat([self.states.at(block, rows), self.plain.at(block).repeat(times, 1)])
        return x, torch.cat([self.home[rows], targets.plain(times * len(self.plain))])

    def fit_sums(self, block: int, targets: Targets) -> list[Sums]:
        """For each fold, what a ridge on `fit_set` without it needs. Every state is read once."""
        folds = range(self.n_folds)
        parts = [self._sums(block, targets, (~self.held & (self.fold == fold)).nonzero()[:, 0]) for fold in folds]
        plain = Sums.of(self.plain.at(block), torch.zeros(len(self.plain), len(targets.terms)))
        out = []
        for fold in folds:
            rest = [part for other, part in enumerate(parts) if other != fold]
            total = rest[0]
            for part in rest[1:]:
                total = total + part
            out.append(total + plain.times(self._plain_times(total.n)))
        return out

    def with_more(self, more: "Exam", block: int) -> "Exam":
        """This exam and further prompts, with the states of one block. Plain text stays as it is."""
        x = torch.cat([part.states.x[part.states.blocks.index(block)][_rows(part.states)] for part in (self, more)])
        unknown = torch.full((1, len(x)), float("nan"))  # fits and figures use normalised states alone
        return Exam(
            States((block,), x[None], unknown, unknown),
            torch.cat([self.home, more.home]),
            torch.cat([self.held, more.held]),
            torch.cat([self.fold, more.fold]),
            torch.cat([self.apart, more.apart]),
            self.plain,
            torch.cat([self.group, more.group]),
            torch.cat([self.template, more.template]),
            self.kind + more.kind,
        )

    def _sums(self, block: int, targets: Targets, rows: Tensor) -> Sums:
        total: Sums | None = None
        for part in torch.split(rows, ROWS):
            wanted = (targets.labels(self.home[part]) == POSITIVE).float()
            own = Sums.of(self.states.at(block, part), wanted)
            total = own if total is None else total + own
        return total or Sums.of(torch.zeros(0, self.states.x.shape[-1]), torch.zeros(0, len(targets.terms)))

    def _plain_times(self, n: int) -> int:
        return max(1, round(PLAIN_SHARE * n / len(self.plain)))


@dataclass(frozen=True)
class BlockScore:
    """How a block does with the linear baseline, cross-validated over all folds."""

    block: int
    choice: float
    """Macro AUROC on held-out words in the fit carriers: what the choice is made by."""
    words: float
    """Macro AUROC with carriers and words held out."""
    templates: float
    """Macro AUROC with carriers held out, in the first fold's fit."""
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
    """The linear baseline on every block: for each fold a ridge without its words, which then reads them."""
    out = []
    for block in blocks:
        probes = [sums.solve() for sums in exam.fit_sums(block, targets)]
        unseen, logits = read_folds(exam, block, probes, torch.ones_like(exam.held))
        held = exam.held[unseen]
        choice, words = (auroc(logits[rows], exam.unseen_labels(targets, unseen[rows])) for rows in (~held, held))
        seen_words = (exam.held & (exam.fold != 0)).nonzero()[:, 0]
        templates = auroc(probes[0](exam.states.at(block, seen_words)), targets.labels(exam.home[seen_words]))
        out.append(BlockScore(block, macro(choice), macro(words), macro(templates), words, choice))
        seen(len(out))
    return out


def best_block(scores: Sequence[BlockScore]) -> int:
    """The block with the highest choice figure, the earlier one of equals.

    Where no lens has words to hold out, the one that reads held carriers best.
    """
    known = any(score.choice == score.choice for score in scores)
    return max(scores, key=lambda score: (score.choice if known else score.templates, -score.block)).block


def best_per_depth(scores: Sequence[BlockScore], n_layers: int) -> dict[str, int]:
    """The best block of each third of the model's depth, of those that were read: early, mid, late."""
    out: dict[str, int] = {}
    for at, name in enumerate(("early", "mid", "late")):
        third = [score for score in scores if score.block * 3 // n_layers == at]
        if third:
            out[name] = best_block(third)
    return out


def read_folds(
    exam: Exam, block: int, readers: Sequence[Reader], rows: Bool[Tensor, " state"]
) -> tuple[Int[Tensor, " read"], Float[Tensor, "read lens"]]:
    """What the reader of each fold makes of that fold's words, in those of `rows`: which states, and their logits."""
    where, logits = [], []
    for fold, reader in enumerate(readers):
        own = (rows & (exam.fold == fold)).nonzero()[:, 0]
        where.append(own)
        logits += [reader(exam.states.at(block, part)) for part in torch.split(own, ROWS)]
    return torch.cat(where), torch.cat(logits)


def held_out(exam: Exam, targets: Targets, block: int, readers: Sequence[Reader]) -> HeldOut:
    """Readings of each fold's words in held carriers by the reader that was fitted without that fold."""
    rows, logits = read_folds(exam, block, readers, exam.held)
    return HeldOut(rows, logits, exam.unseen_labels(targets, rows))


def choice_of(exam: Exam, targets: Targets, block: int, readers: Sequence[Reader]) -> Float[Tensor, " lens"]:
    """AUROC of each lens on words held out, in fit carriers: what may be decided by, and is never reported."""
    rows, logits = read_folds(exam, block, readers, ~exam.held)
    return auroc(logits, exam.unseen_labels(targets, rows))


def _rows(states: States) -> Tensor:
    return torch.arange(len(states)) if states.rows is None else states.rows

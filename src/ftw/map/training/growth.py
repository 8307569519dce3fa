"""More prompts for the lenses that miss the target, and for them alone.

A round says the words of their concepts in further fit carriers, fits those lenses anew, and keeps each that reads
words held out better. One that does not is stuck: it gets no third helping, and its row in the pack says so.
The rule of the file: what is decided here is decided in fit carriers; the figures of the report come from held ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ftw.map.training.fit import Fitted
from ftw.map.training.fits import Fitter
from ftw.map.training.study import Exam, choice_of
from ftw.map.training.work import Job, mixed

GAIN = 0.002
"""AUROC by which a lens must have gained not to be stuck."""


@dataclass(frozen=True)
class Round:
    """What one round of growth did."""

    terms: tuple[str, ...]
    """Concepts that got more prompts."""
    prompts: int
    before: float
    """Mean AUROC of their lenses on words held out, in fit carriers."""
    after: float
    stuck: tuple[str, ...]
    """Those that gained nothing by it."""


@dataclass(frozen=True)
class Grown:
    """The lenses after growth: one set per fold, and the one that ships."""

    folds: list[Fitted]
    shipped: Fitted
    rounds: tuple[Round, ...]

    @property
    def stuck(self) -> frozenset[str]:
        """Concepts that more prompts did not help."""
        return frozenset(term for one in self.rounds for term in one.stuck)


def grow(
    fitter: Fitter,
    block: int,
    folds: Sequence[Fitted],
    shipped: Fitted,
    more: Callable[[int, Sequence[str]], Exam | None],
    progress: Callable[[str, int, int], None],
) -> Grown:
    """Let weak lenses grow. `more(round, terms)` gives the exam with further prompts of concepts, None for no more."""
    targets, config = fitter.targets, fitter.config
    now, best, rounds = list(folds), shipped, []
    exam = fitter.exam
    figures = choice_of(exam, targets, block, now)
    stuck = torch.zeros(len(targets.terms), dtype=torch.bool)
    for number in range(1, config.growth + 1):
        weak = (figures < config.target) & ~stuck
        if not bool(weak.any()):
            break
        terms = [term for term, is_weak in zip(targets.terms, weak.tolist(), strict=True) if is_weak]
        larger = more(number, terms)
        if larger is None:
            break
        what = f"growing {len(terms)} weak lenses, round {number} of {config.growth}"
        tried: list[Fitted] = []
        for fold, fitted in enumerate(now):
            progress(what, fold, len(now) + 1)
            tried.append(fitter.again(fitted, larger, Job("", block, fold), weak, fitter.seed + 100 * number + fold))
        found = choice_of(exam, targets, block, tried)
        better = weak & (found > figures + GAIN)
        if bool(better.any()):
            progress(what, len(now), len(now) + 1)
            fresh = fitter.again(best, larger, Job("", block, None), weak, fitter.seed + 100 * number + 99)
            best = mixed(best, fresh, better)
            now = [mixed(old, new, better) for old, new in zip(now, tried, strict=True)]
        stuck |= weak & ~better
        after = torch.where(better, found, figures)
        rounds.append(_round(fitter, weak, better, figures, after, len(larger.home) - len(exam.home)))
        figures = after
    return Grown(now, best, tuple(rounds))


def _round(
    fitter: Fitter,
    weak: Bool[Tensor, " lens"],
    better: Bool[Tensor, " lens"],
    before: Float[Tensor, " lens"],
    after: Float[Tensor, " lens"],
    prompts: int,
) -> Round:
    terms = fitter.targets.terms

    def named(mask: Tensor) -> tuple[str, ...]:
        return tuple(term for term, chosen in zip(terms, mask.tolist(), strict=True) if chosen)

    return Round(named(weak), prompts, float(before[weak].mean()), float(after[weak].mean()), named(weak & ~better))

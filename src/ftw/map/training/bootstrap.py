"""How sure a figure is: intervals from drawing whole synsets again, with replacement.

An AUROC is the mean, over positives, of the share of negatives that they exceed, and the same seen from the negatives.
Drawing synsets again changes both means; to first order the changes add up (DeLong et al. 1988), so that all draws of
all lenses are two matrix products.
The rule of the file: every figure of one report is drawn with the same synsets, so differences between two readers of
the same prompts are paired.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ftw.hat.classifiers.index import Reliability
from ftw.map.training.targets import NEGATIVE, POSITIVE
from ftw.substrate.errors import NumericError

DRAWS = 500
LEVEL = 0.95
"""Share of draws that an interval holds."""
FEWEST = 2
"""Positives, and negatives, below which no area is given."""
TELLING = 5
"""Synsets below which their own spread says too little about further ones."""
CHUNK = 256
"""Lenses at a time."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where 95 % of its draws lie. NaN throughout where it could not be measured."""

    value: float
    low: float
    high: float


def draws(groups: int, seed: int = 0, n: int = DRAWS) -> Float[Tensor, "draw group"]:
    """How often each synset is in each draw."""
    rng = torch.Generator().manual_seed(seed)
    out = torch.zeros(n, groups)
    for row in out:  # one draw at a time: the places of a hundred thousand synsets in all draws would not fit
        row.copy_(torch.bincount(torch.randint(groups, (groups,), generator=rng), minlength=groups))
    return out


def placements(
    scores: Float[Tensor, "prompt lens"], labels: Int8[Tensor, "prompt lens"]
) -> Float[Tensor, "prompt lens"]:
    """Per positive the share of negatives below it, per negative the share of positives above it; ties count half.

    NaN for what is unsaid, and throughout a lens with fewer than two of either class. Raises NumericError for a score
    that is not a number.
    """
    if bool(scores.isnan().any()):
        raise NumericError("a score that is to be ranked is not a number")
    out = torch.full(scores.shape, float("nan"))
    for lens in range(scores.shape[1]):
        column, label = scores[:, lens].contiguous(), labels[:, lens]
        above, below = label == POSITIVE, label == NEGATIVE
        positives, negatives = column[above].sort().values, column[below].sort().values
        if min(len(positives), len(negatives)) >= FEWEST:
            out[above, lens] = _below(negatives, column[above])
            out[below, lens] = 1 - _below(positives, column[below])
    return out


def auroc_draws(
    placed: Float[Tensor, "prompt lens"],
    labels: Int8[Tensor, "prompt lens"],
    group: Int[Tensor, " prompt"],
    drawn: Float[Tensor, "draw group"],
) -> Float[Tensor, "draw lens"]:
    """The AUROC of each lens in each draw, from `placements`; `group` counts from 0 without gaps.

    NaN where a draw holds no positive of a lens.
    """
    parts = [
        _drawn(placed[:, at : at + CHUNK], labels[:, at : at + CHUNK], group, drawn)
        for at in range(0, placed.shape[1], CHUNK)
    ]
    return torch.cat(parts, 1)


def interval_of(value: float, drawn: Float[Tensor, " draw"]) -> Interval:
    """The middle 95 % of the draws that gave a number, widened to hold the value itself."""
    known = drawn[drawn.isfinite()]
    if not len(known) or value != value:
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - LEVEL) / 2
    low, high = torch.quantile(known.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(value, min(low, value), max(high, value))


def reliabilities(
    placed: Float[Tensor, "prompt lens"],
    labels: Int8[Tensor, "prompt lens"],
    group: Int[Tensor, " prompt"],
    drawn: Float[Tensor, "draw lens"],
) -> tuple[Reliability | None, ...]:
    """Each lens's AUROC, its interval and how many synsets it rests on; None where there is no figure.

    Where fewer than five synsets were read, or all draws agree, the draws cannot show how much the next synset may
    differ. Then `low` is what the AUROC would be if as many further synsets were read at chance as n that were not are
    still compatible with: a share 1 - 0.05^(1/n).
    """
    out: list[Reliability | None] = []
    for lens in range(placed.shape[1]):
        above = labels[:, lens] == POSITIVE
        value = float(placed[above, lens].double().mean()) if bool(above.any()) else float("nan")
        if value != value:
            out.append(None)
            continue
        n = len(torch.unique(group[above]))
        found = interval_of(value, drawn[:, lens])
        low, high = (value, value) if found.low != found.low else (found.low, found.high)
        if n < TELLING or low == high:
            unseen = 1 - (1 - LEVEL) ** (1 / n)
            low = min(low, value - unseen * max(0.0, value - 0.5))
        out.append(Reliability(auroc=_share(value), low=_share(low), high=_share(high), n=n))
    return tuple(out)


def macro_interval(placed: Float[Tensor, "prompt lens"], labels: Tensor, drawn: Float[Tensor, "draw lens"]) -> Interval:
    """The mean AUROC of all lenses that have one, with its interval."""
    return interval_of(float(areas(placed, labels).nanmean()), drawn.nanmean(1))


def areas(placed: Float[Tensor, "prompt lens"], labels: Tensor) -> Float[Tensor, " lens"]:
    """The AUROC of each lens from `placements`; NaN where there is none."""
    above = labels == POSITIVE
    total = placed.double().masked_fill(~above, 0).sum(0)
    return (total / above.sum(0)).float()


def share_interval(
    hits: Float[Tensor, " prompt"], group: Int[Tensor, " prompt"], drawn: Float[Tensor, "draw group"]
) -> Interval:
    """The mean of what is counted per prompt, with its interval. NaN prompts are left out."""
    known = hits.isfinite()
    if not bool(known.any()):
        return Interval(float("nan"), float("nan"), float("nan"))
    total = torch.zeros(drawn.shape[1]).index_add(0, group[known], hits[known].float())
    count = torch.zeros(drawn.shape[1]).index_add(0, group[known], torch.ones(int(known.sum())))
    return interval_of(float(hits[known].double().mean()), (drawn @ total) / (drawn @ count))


def _drawn(placed: Tensor, labels: Tensor, group: Tensor, drawn: Tensor) -> Tensor:
    out = torch.zeros(len(drawn), placed.shape[1])
    filled = placed.nan_to_num(0.0)
    for label in (POSITIVE, NEGATIVE):
        mask = (labels == label).float() * placed.isfinite()
        size = (drawn.shape[1], placed.shape[1])
        total = torch.zeros(size).index_add(0, group, filled * mask)
        count = torch.zeros(size).index_add(0, group, mask)
        out = out + (drawn @ total) / (drawn @ count)
    return (out - areas(placed, labels)).clamp(0, 1)


def _below(ordered: Tensor, values: Tensor) -> Tensor:
    """The share of `ordered` that lies below each value; equal ones count half."""
    count = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return count.float() / (2 * len(ordered))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))

"""How well lenses tell their concepts from others, and whether their probabilities come true.

The rule of the file: a state whose label is unsaid counts neither way, and a lens without enough positives has no
figure (NaN) rather than a lucky one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ftw.map.training.bootstrap import areas, placements
from ftw.map.training.targets import NEGATIVE, POSITIVE, UNSAID

HALF = 0.5
BINS = 15
"""Bins of a calibration error."""
_SAMPLE = 1 << 20
"""Probabilities that the edges of bins of equal mass are taken from."""


def auroc(scores: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"]) -> Float[Tensor, " lens"]:
    """Area under the ROC curve of each column; equal scores count half. NaN with fewer than two of either class.

    Raises NumericError for a score that is not a number.
    """
    return areas(placements(scores, labels), labels)


def macro(values: Float[Tensor, " lens"]) -> float:
    """Mean over the lenses that have a figure; NaN if none has."""
    return float(values.nanmean())


@dataclass(frozen=True, slots=True)
class Curve:
    """How often it is true what is said with a probability, bin by bin. Empty bins are left out."""

    said: tuple[float, ...]
    """Mean probability of each bin."""
    true: tuple[float, ...]
    """Share of its readings that are right."""
    n: tuple[int, ...]
    """How many readings it holds."""

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap, weighted by n. NaN where nothing was read."""
        total = sum(self.n)
        gaps = (n * abs(said - true) for said, true, n in zip(self.said, self.true, self.n, strict=True))
        return sum(gaps) / total if total else float("nan")


def calibration_curve(
    p: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"], bins: int = BINS, *, adaptive: bool = False
) -> Curve:
    """Probability against frequency, over bins of equal width, or, if `adaptive`, of equal mass."""
    edges = _mass_edges(p, labels, bins) if adaptive else torch.linspace(0, 1, bins + 1)[1:-1].double()
    n, said, true = (torch.zeros(len(edges) + 1, dtype=torch.float64) for _ in range(3))
    for at in range(0, p.shape[1], 256):  # by columns: doubles of every pair at once would not fit for large packs
        counted = labels[:, at : at + 256] != UNSAID
        value = p[:, at : at + 256][counted].double()
        where = torch.bucketize(value, edges, right=True)
        truth = (labels[:, at : at + 256][counted] == POSITIVE).double()
        n += torch.bincount(where, minlength=len(n)).double()
        said += torch.bincount(where, value, minlength=len(n))
        true += torch.bincount(where, truth, minlength=len(n))
    some = n > 0
    means = [tuple((each[some] / n[some]).tolist()) for each in (said, true)]
    return Curve(means[0], means[1], tuple(int(each) for each in n[some]))


def expected_calibration_error(
    p: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"], bins: int = BINS
) -> float:
    """Mean gap between probability and frequency over equal-width bins, weighted by how many readings fall in each."""
    return calibration_curve(p, labels, bins).error


def brier(p: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"]) -> Float[Tensor, " lens"]:
    """Mean squared distance between probability and truth of each lens; NaN without a said reading."""
    said = labels != UNSAID
    squared = (p - (labels == POSITIVE).float()).square().masked_fill(~said, 0)
    return squared.sum(0) / said.sum(0)


def f1_at(p: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"]) -> Float[Tensor, " lens"]:
    """F1 of each lens where p of a half or more says yes; NaN for a lens without a positive."""
    yes, positive = p >= HALF, labels == POSITIVE
    hits = (yes & positive).sum(0)
    wrong = (yes & (labels == NEGATIVE)).sum(0) + (~yes & positive).sum(0)
    return torch.where(positive.any(0), 2 * hits / (2 * hits + wrong).clamp(min=1), float("nan"))


def leading(
    p: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"]
) -> tuple[Float[Tensor, "state 1"], Int8[Tensor, "state 1"]]:
    """The highest said reading of each state, with its label: nearly all others are near 0 and say little."""
    lead = p.masked_fill(labels == UNSAID, -1).argmax(1, keepdim=True)
    return p.gather(1, lead), labels.gather(1, lead)


def sibling_hits(
    scores: Float[Tensor, "state lens"], home: Int[Tensor, " state"], siblings: Sequence[Sequence[int]]
) -> Float[Tensor, " state"]:
    """1 where the lens of the state's own concept reads highest among its siblings, 0 where another does.

    NaN where the concept has no sibling.
    """
    out = torch.full((len(home),), float("nan"))
    for group in siblings:
        own = torch.isin(home, torch.tensor(list(group)))
        if len(group) > 1 and bool(own.any()):
            best = torch.tensor(list(group))[scores[own][:, list(group)].argmax(1)]
            out[own] = (best == home[own]).float()
    return out


def sibling_top1(
    scores: Float[Tensor, "state lens"], home: Int[Tensor, " state"], siblings: Sequence[Sequence[int]]
) -> float:
    """Among siblings, how often the lens of the state's own concept reads highest. NaN without any group of two."""
    return float(sibling_hits(scores, home, siblings).nanmean())


def tfidf_scores(
    fit: Sequence[Sequence[int]],
    fit_labels: Int8[Tensor, "fit lens"],
    test: Sequence[Sequence[int]],
    vocab_size: int,
) -> Float[Tensor, "test lens"]:
    """The baseline that reads no states: prompts as TF-IDF bags of token ids, scored by difference of class means."""
    seen = Counter(token for row in fit for token in set(row))
    idf = torch.ones(vocab_size)
    for token, n in seen.items():
        idf[token] += torch.log(torch.tensor(len(fit) / n))
    train = _bags(fit, idf)
    positive, negative = (fit_labels == POSITIVE).float(), (fit_labels == NEGATIVE).float()
    means = [(train.T @ each) / each.sum(0).clamp(min=1) for each in (positive, negative)]
    return _bags(test, idf) @ (means[0] - means[1])


def _bags(rows: Sequence[Sequence[int]], idf: Float[Tensor, " vocab"]) -> Tensor:
    """Sparse rows of unit length, [row, vocab]."""
    where, values, weight_of = [], [], idf.tolist()
    for at, row in enumerate(rows):
        counts = Counter(row)
        weights = torch.tensor([n * weight_of[token] for token, n in counts.items()])
        where += [(at, token) for token in counts]
        values.append(F.normalize(weights, dim=0))
    size = (len(rows), len(idf))
    return torch.sparse_coo_tensor(torch.tensor(where).T, torch.cat(values), size, check_invariants=True).coalesce()


def _mass_edges(p: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Inner edges between bins of about equal mass, each once."""
    step = min(p.shape[1], max(1, p.numel() // _SAMPLE))  # some lenses of a large pack tell the edges well enough
    said = p[:, ::step][labels[:, ::step] != UNSAID]
    if not len(said):
        return torch.zeros(0, dtype=torch.float64)
    ordered = said.double().sort().values
    at = (torch.arange(1, bins) * len(ordered) / bins).long()
    edges: Tensor = torch.unique(ordered[at])
    return edges

"""How well lenses tell their concepts from others: the area under the ROC curve per lens, and the text-only baseline.

The rule of the file: a state whose label is unsaid counts neither way, and a lens without enough positives has no
figure (NaN) rather than a lucky one.
"""

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ftw.map.training.targets import NEGATIVE, POSITIVE
from ftw.substrate.errors import NumericError

FEWEST = 2
"""Positives below which no area is given."""


def auroc(scores: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"]) -> Float[Tensor, " lens"]:
    """Area under the ROC curve of each column; equal scores count half. NaN with fewer than two of either class.

    Raises NumericError for a score that is not a number.
    """
    if bool(scores.isnan().any()):
        raise NumericError("a score that is to be ranked is not a number")
    out = torch.full((scores.shape[1],), float("nan"))
    for lens in range(scores.shape[1]):
        column, label = scores[:, lens], labels[:, lens]
        negatives = column[label == NEGATIVE].sort().values
        positives = column[label == POSITIVE].contiguous()
        if min(len(positives), len(negatives)) < FEWEST:
            continue
        below = torch.searchsorted(negatives, positives) + torch.searchsorted(negatives, positives, right=True)
        out[lens] = below.double().mean() / (2 * len(negatives))
    return out


def macro(values: Float[Tensor, " lens"]) -> float:
    """Mean over the lenses that have a figure; NaN if none has."""
    return float(values.nanmean())


def expected_calibration_error(
    p: Float[Tensor, "state lens"], labels: Int8[Tensor, "state lens"], bins: int = 15
) -> float:
    """Mean gap between probability and frequency over equal-width bins, weighted by how many readings fall in each."""
    said = labels != -1
    at, truth = p[said].double(), (labels[said] == POSITIVE).double()
    where = (at * bins).long().clamp(max=bins - 1)
    n = torch.bincount(where, minlength=bins)
    gap = torch.bincount(where, at, minlength=bins) - torch.bincount(where, truth, minlength=bins)
    return float(gap.abs().sum() / n.sum().clamp(min=1))


def sibling_top1(
    scores: Float[Tensor, "state lens"], home: Int[Tensor, " state"], siblings: Sequence[Sequence[int]]
) -> float:
    """Among siblings, how often the lens of the state's own concept reads highest. NaN without any group of two."""
    hits = total = 0
    for group in siblings:
        own = torch.isin(home, torch.tensor(group))
        if len(group) > 1 and bool(own.any()):
            best = torch.tensor(group)[scores[own][:, list(group)].argmax(1)]
            hits += int((best == home[own]).sum())
            total += int(own.sum())
    return hits / total if total else float("nan")


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

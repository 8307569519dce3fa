"""How small lenses can be stored, and what each way costs, measured on words that the lenses did not see."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.hat.classifiers.quantise import dequantise_rows, quantise_rows
from ftw.map.training.evaluate import auroc, macro
from ftw.map.training.fit import Fitted, Lenses
from ftw.map.training.report import SizeFigures
from ftw.map.training.study import Exam
from ftw.map.training.targets import Targets

RANKS = (32, 64, 128)
MEGABYTE = 1e6


def size_table(lenses: Fitted, exam: Exam, targets: Targets, block: int, fold: int) -> list[SizeFigures]:
    """Forms of `lenses`, which were fitted without the words of `fold`, read on those words in held carriers.

    Empty for lenses that share no first layer.
    """
    if not isinstance(lenses, Lenses):
        return []
    new = exam.held & (exam.fold == fold)
    x, labels = exam.states.at(block)[new], exam.unseen_labels(targets, new)
    n, width = lenses.head.shape[0], lenses.first.shape[1]
    separate = n * (HIDDEN * width + NARROW * HIDDEN)
    shared = HIDDEN * width + n * HIDDEN

    def row(form: str, size: float, kept: Lenses, states: Float[Tensor, "state d_model"]) -> SizeFigures:
        return SizeFigures(form, size / MEGABYTE, macro(auroc(kept(states), labels)))

    small = replace(lenses, first=_int8(lenses.first), head=_int8(lenses.head))
    out = [
        row("separate MLPs, fp32", 4.0 * separate, lenses, x),
        row("separate MLPs, int8 rows", separate + 2.0 * n * (HIDDEN + NARROW), small, x),
        row("one first layer for all, int8 rows", float(shared), small, x),
        row("one first layer for all, fp32 (shipped)", 4.0 * shared, lenses, x),
    ]
    fit = exam.states.at(block)[exam.fit_rows(fold)]
    basis = torch.linalg.eigh((fit.T @ fit).double() / len(fit))[1].float()
    for rank in (rank for rank in RANKS if rank < width):
        top = basis[:, -rank:]
        size = float(rank * width + n * (HIDDEN * rank + NARROW * HIDDEN))
        out.append(row(f"separate MLPs on a projection to rank {rank}, int8 rows", size, small, (x @ top) @ top.T))
    return out


def _int8(matrix: Float[Tensor, "row channel"]) -> Float[Tensor, "row channel"]:
    return dequantise_rows(quantise_rows(matrix))

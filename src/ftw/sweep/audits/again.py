"""Again: the last row against the model's own logits, and the same prompts run a second time, together and alone.

The rule of the file: what is compared is computed anew. A number is never held against itself.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.substrate.anatomy import LogitTransform
from ftw.sweep import metrics
from ftw.sweep.audits.finding import Figures, Finding, grade, number, shown, worst
from ftw.sweep.audits.grid import Grids, first_true, share
from ftw.sweep.audits.states import Ends
from ftw.sweep.battery import Prompt
from ftw.sweep.fitting.temperature import golden_section
from ftw.sweep.head import Head
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable

HOTTEST = 20.0
"""Temperatures are looked for between 1/20 and 20."""


def last_layer(sweep: Sweep, ends: Ends, grid: Grids, thresholds: Thresholds, chosen: Sequence[int]) -> Finding:
    """Row n against the model's own logits at the ends of these prompts (indices), beside the identity gate's figures.

    `kl_bits_untransformed` is what a lens would be off by that leaves out the model's scale and softcap.
    """
    model, table = sweep.model, grid.table
    own = torch.stack([_own_logits(sweep, table.items[at].ids) for at in chosen])
    states = ends.of(chosen)[-1].to(sweep.head.device)
    h = LogitLens(model.arch).head_inputs(states[None], [model.n_layers])[0]
    decoded = sweep.head.logits(h)
    plain_head = Head(replace(model.arch, transform=LogitTransform()))
    best, after = temperature_to(own.to(decoded.device), decoded)
    kl = metrics.kl_bits(metrics.softmax(own.to(decoded.device)), metrics.softmax(decoded))
    bare = metrics.kl_bits(metrics.softmax(own.to(decoded.device)), metrics.softmax(plain_head.logits(h)))
    figures = {
        "max_kl_bits": number(float(kl.max())),
        "kl_bits_after_temperature": number(after),
        "temperature": number(best),
        "kl_bits_untransformed": number(float(bare.max())),
        "share_top1_agrees": number(float((own.argmax(-1).cpu() == decoded.argmax(-1).cpu()).float().mean())),
        "max_abs_error": number(float((own.to(decoded.device) - decoded).abs().max())),
        "gate_max_abs_error": number(table.gate.max_abs_error),
        "gate_kl_bits": number(table.gate.kl_bits),
        "transform": Outcome(str(model.arch.transform)),
        "n_prompts": Outcome(len(chosen)),
    }
    prompts: dict[str, Figures] = {grid.ids[at]: {"kl_bits": number(float(kl[i]))} for i, at in enumerate(chosen)}
    reading = (
        f"Over {len(chosen)} prompts the last row is within {float(kl.max()):.1e} bits of the model's own distribution "
        f"(best temperature {best:.3f})."
    )
    return Finding("last_layer", grade(float(kl.max()), thresholds.grade_last_row_bits), reading, figures, prompts)


@torch.inference_mode()
def _own_logits(sweep: Sweep, ids: Sequence[int]) -> Float[Tensor, " vocab"]:
    """The model's logits at the end of a prompt, from its own forward pass."""
    given = torch.tensor([list(ids)], device=sweep.model.device)
    logits: Tensor = sweep.model.net(input_ids=given, use_cache=False).logits[0, -1]
    return logits[: sweep.model.vocab_size].float()


def temperature_to(own: Float[Tensor, "row vocab"], z: Float[Tensor, "row vocab"]) -> tuple[float, float]:
    """The temperature τ for which softmax(z / τ) is closest to softmax(own), and the mean divergence left, bits."""
    target = metrics.softmax(own)

    def loss(log_tau: float) -> float:
        return float(metrics.kl_bits(target, metrics.softmax(z / math.exp(log_tau))).mean())

    best = golden_section(loss, -math.log(HOTTEST), math.log(HOTTEST))
    if loss(0.0) <= loss(best):  # no temperature is as good: rounding alone must not invent one
        best = 0.0
    return math.exp(best), loss(best)


def repeatability(sweep: Sweep, grid: Grids, thresholds: Thresholds, chosen: Sequence[int]) -> Finding:
    """These prompts (indices) run twice together, and each alone, which is held against the table.

    Together twice must give the same bits. Alone, sums run in another order: best tokens may change only on near ties.
    """
    asked = [grid.table.items[at].source for at in chosen]
    has_sources = all(isinstance(each, Prompt) for each in asked)
    ids = [list(grid.table.items[at].ids) for at in chosen]

    def run(some: Sequence[int]) -> SweepTable:
        return sweep.run([asked[i] for i in some] if has_sources else [ids[i] for i in some])

    once, twice = run(range(len(chosen))), run(range(len(chosen)))
    falls: list[np.ndarray] = []
    gaps: list[np.ndarray] = []
    moved = []
    prompts: dict[str, Figures] = {}
    for place, at in enumerate(chosen):
        alone = Grids(run([place]))
        fall, gap = _difference(grid, alone, at)
        falls.append(fall)
        gaps.append(gap)
        moved.append(bool(has_sources and grid.onset(LOGIT)[at] != first_true(alone.is_first(LOGIT))[0]))
        prompts[grid.ids[at]] = {"flips": Outcome(int((fall > 0).sum())), "onset_moved": Outcome(moved[-1])}
    fall, gap = np.concatenate(falls), np.concatenate(gaps)
    is_same = _same(once, twice)
    figures = {
        "bits_equal": Outcome(is_same),
        "flip_share": number(share(fall > 0)),
        "max_rank_deviation": Outcome(int(fall.max())) if len(fall) else Outcome.none("too_few"),
        "p95_rank_deviation": number(float(np.quantile(fall, 0.95))) if len(fall) else Outcome.none("too_few"),
        "max_logprob_change": number(float(gap.max())) if len(gap) else Outcome.none("too_few"),
        "share_onset_moved": number(share(moved)) if has_sources else Outcome.none("no_answer"),
        "deterministic_algorithms": Outcome(torch.are_deterministic_algorithms_enabled()),
        "n_rows": Outcome(len(fall)),
    }
    figures["varies"] = varies(fall, thresholds)
    severity = worst(
        grade(share(fall > 0), thresholds.grade_flips),
        "fine" if is_same else "note",
        "caution" if figures["varies"].value or any(moved) else None,
    )
    reading = (
        f"{len(chosen)} prompts twice: {'the same bits' if is_same else 'not the same bits'}; each alone: "
        f"{share(fall > 0):.2%} of {len(fall)} best tokens change, log-probabilities by at most "
        f"{shown(figures['max_logprob_change'], 5)} nats."
    )
    return Finding("repeatability", severity, reading, figures, prompts)


def varies(falls: Int[np.ndarray, " row"], thresholds: Thresholds) -> Outcome:
    """Whether best tokens fall too often, or one of them too far: `falls` are the ranks that each falls by."""
    if not len(falls):
        return Outcome.none("too_few")
    return Outcome(bool(share(falls > 0) > thresholds.flip_share or falls.max() > thresholds.rank_deviation))


def _difference(grid: Grids, alone: Grids, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Over lenses and layers: ranks that the table's best token falls by, and the change of its log-probability."""
    falls, gaps = [], []
    for lens in grid.lenses:
        before = grid.best(lens)[at]
        k = alone.table["top_ids"].shape[1]
        listed = np.stack([alone.matrix(lens, "top_ids", place)[0] for place in range(k)], -1)
        scores = np.stack([alone.listed(lens, place)[0] for place in range(k)], -1)
        known = (before >= 0) & ~np.isnan(listed[:, 0])
        here = (listed == before[:, None])[known]
        falls.append(np.where(here.any(1), here.argmax(1), k))
        own = grid.listed(lens, 0)[at][known]
        gaps.append(np.abs(scores[known] - own[:, None])[here])
    return np.concatenate(falls), np.concatenate(gaps)


def _same(a: SweepTable, b: SweepTable) -> bool:
    return all(
        np.array_equal(column, b[name], equal_nan=column.dtype.kind == "f") for name, column in a.columns.items()
    )

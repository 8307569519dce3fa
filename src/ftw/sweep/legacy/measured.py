"""What the legacy files measure of a layer's next-token distribution, row by row, from the table's columns.

| field | formula (P the layer's distribution, a the answer's first token, z logits) |
|---|---|
| entropy_bits, kl_to_final_bits | the table's `entropy_bits`, `kl_bits` |
| teacher_entropy_bits | `entropy_bits` of the model itself at this prompt |
| p_top1, p_top5, p_answer | the largest P; the sum of the five largest; P[a] |
| answer_minus_uniform | P[a] - 1/V |
| cos_to_final | cosine of z to the model's own, each minus its mean (uncentred cosines mostly show the mean) |
| cos_to_answer, cos_to_prompt_max | cosine of the head's input to the head's rows of a, and of the prompt's words |
| echo_mass_prompt, topk_prompt_mass@50 | probability of the prompt's words; of those among the 50 best |
| mass_ratio_ans_over_prompt | P[a] / (echo_mass_prompt + 1e-9) |
| control_margin | P[a] - P[the control's answer], on control rows |
| resid_norm_ratio | length of the head's input over length of the residual stream |
| answer_logit_gap, answer_vs_top1_gap | z[a] - z[second] where a is first; z[a] - z[first] where it is not |

`kl_to_final_bits_norm_temp` and `delta_resid_cos` are empty: the table has no such column. Temperatures, and how a norm
turns the stream, stand in the run's audit.

The rule of the file: a field is a formula over columns. What a milestone decides, its own flag decides here.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ftw.sweep.legacy.columns import soft_flag, strict_flag
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.raw import NORM, RAW
from ftw.sweep.legacy.rows import chances, next_token, ranks, values
from ftw.sweep.milestones.copy import copy_soft, copy_strict, low_entropy
from ftw.sweep.milestones.semantics import behind, control_margins, gaps, is_answer, margins
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.table import SweepTable

TINY = 1e-9
"""Added to the prompt's mass where it divides."""


def measured(
    table: SweepTable, rows: SweepTable, one: Pass, lens: str, thresholds: Thresholds
) -> Iterator[dict[str, Any]]:
    """A dict of fields for every row of one prompt's last position through one lens (`rows`), layer by layer."""
    columns = {**_shape(rows), **_answer(rows, thresholds), **_flags(rows, thresholds)}
    columns |= _teacher(table, rows, one)
    columns |= _overlap(table, rows, one, lens)
    columns["control_margin"] = values(control_margins(rows)) if one.is_control else [None] * len(rows)
    names = list(columns)
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(names, row, strict=True))


def _shape(rows: SweepTable) -> dict[str, list[Any]]:
    """Of the distribution as such."""
    best = chances(rows["top_logprobs"])
    return {
        "entropy_bits": values(rows["entropy_bits"]),
        "p_top1": values(best[:, 0]),
        "p_top5": values(best[:, :5].sum(axis=1).clip(max=1)),
        "kl_to_final_bits": values(rows["kl_bits"]),
        "cos_to_final": values(rows["cos_logits"]),
        "resid_norm_ratio": values(rows["state_norm"] / np.maximum(rows["resid_norm"], 1e-12)),
    }


def _answer(rows: SweepTable, thresholds: Thresholds) -> dict[str, list[Any]]:
    """Of the answer, and of the prompt's own words beside it."""
    p, echo = chances(rows["answer_logprob"]), rows["echo_mass"].astype(np.float64)
    to_answer, to_prompt = rows["cos_answer"], rows["cos_echo_max"]
    known = np.isfinite(to_answer) & np.isfinite(to_prompt)
    crossed = to_answer >= to_prompt + thresholds.geometry_margin
    return {
        "p_answer": values(p),
        "answer_rank": ranks(rows["answer_rank"]),
        "cos_to_answer": values(to_answer),
        "cos_to_prompt_max": values(to_prompt),
        "geom_crossover": _known(crossed, known),
        "echo_mass_prompt": values(echo),
        "answer_mass": values(p),
        "answer_minus_echo_mass": values(p - echo),
        "mass_ratio_ans_over_prompt": values(p / (echo + TINY)),
        "topk_prompt_mass@50": values(rows["echo_mass_top50"]),
    }


def _teacher(table: SweepTable, rows: SweepTable, one: Pass) -> dict[str, list[Any]]:
    """Of the model itself at this prompt."""
    own = next_token(table, one.index, NORM).where(layer=table.n_layers)
    entropy = values(own["entropy_bits"])
    return {"teacher_entropy_bits": (entropy or [None]) * len(rows)}


def _overlap(table: SweepTable, rows: SweepTable, one: Pass, lens: str) -> dict[str, list[Any]]:
    """Of the 50 best tokens: with the raw lens's (baseline rows only), and with the layer before."""
    raw = dict.fromkeys(rows["layer"].tolist())
    if lens == NORM:
        other = next_token(table, one.index, RAW)
        raw |= dict(zip(other["layer"].tolist(), values(other["vs_logit_jaccard50"]), strict=True))
    return {
        "topk_jaccard_raw_norm@50": [raw.get(layer) for layer in rows["layer"].tolist()],
        "topk_jaccard_consecutive@50": values(rows["jaccard50_prev"]),
    }


def _flags(rows: SweepTable, thresholds: Thresholds) -> dict[str, list[Any]]:
    """What the milestones say of each row."""
    answered, margin = rows["answer_rank"] > 0, margins(rows)
    strict = {
        p: copy_strict(rows, p, thresholds.copy_margin).tolist() for p in (*thresholds.copy_sweep, thresholds.copy_p)
    }
    copied = copy_strict(rows, thresholds.copy_p, thresholds.copy_margin, thresholds.copy_window).tolist()
    strict[thresholds.copy_p] = copied
    soft = {
        soft_flag(k, p): copy_soft(rows, p, k).tolist()
        for p in (thresholds.soft_p, *thresholds.soft_extra)
        for k in thresholds.soft_windows
    }
    return {
        "copy_collapse": copied,
        **{strict_flag(p): flags for p, flags in strict.items()},
        **soft,
        "entropy_collapse": _known(low_entropy(rows, thresholds.low_entropy_bits), np.isfinite(rows["entropy_bits"])),
        "is_answer": _known(is_answer(rows), answered),
        "semantic_margin_ok": _known(is_answer(rows) & (margin >= thresholds.uniform_margin), answered),
        "answer_minus_uniform": values(margin),
        "answer_logit_gap": values(gaps(rows)),
        "answer_vs_top1_gap": values(behind(rows)),
    }


def _known(flags: np.ndarray, known: np.ndarray) -> list[bool | None]:
    """Flags as Python values, None where a side is missing."""
    return [flag if there else None for flag, there in zip(flags.tolist(), known.tolist(), strict=True)]

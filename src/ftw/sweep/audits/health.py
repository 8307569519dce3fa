"""Health of the rows: whether they are finite, how large logits are, how the stream grows.

The rule of the file: rows alone are read, so a run that lies on disk can be audited again without its model.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from ftw.sweep.audits.finding import Finding, grade, layer, missing, number, plain, quantile, shown
from ftw.sweep.audits.grid import Grids, share
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome, Why
from ftw.sweep.table import SweepTable

SPREAD = 1.4826
"""Standard deviations in a median absolute deviation of normal values."""
FEWEST_BLOCKS = 4
"""Between the first and the last, below which no block stands out."""


def numeric_health(table: SweepTable, grid: Grids, thresholds: Thresholds) -> Finding:
    """Rows with a NaN or an infinity by lens and layer, sizes of logits, and what a fast product may have lost.

    A flagged layer at or before an onset is serious, however few there are: the onset may be an artefact.
    """
    broken = ~table["is_finite"]
    rows = _broken_rows(table, broken)
    whole = ~broken
    sizes = np.abs(table["top_logprobs"][:, 0] + table["logsumexp"])
    own = whole & (table["lens"] == LOGIT)
    answers = np.exp(table["answer_logprob"][own].astype(float))
    figures = {
        "share_not_finite": number(share(broken)),
        "max_abs_logit_p99": quantile(sizes[own], 0.99),
        "min_answer_probability_p01": quantile(answers, 0.01, "no_answer"),
        "max_logsumexp_bound": quantile(table["logsumexp_bound"][own], 1.0),
        "earliest_flagged_layer": layer(min((row["layer"] for row in rows), default=-1)),
    }
    lenses = [_sizes(lens, sizes, table["logsumexp_bound"], whole & (table["lens"] == lens)) for lens in table.lenses]
    onsets = {lens: grid.onset(lens) for lens in table.lenses}
    hit = any((onsets[row["lens"]] >= row["layer"]).any() for row in rows)
    figures["is_before_an_onset"] = Outcome(bool(hit))
    severity = "serious" if hit else grade(share(broken), thresholds.grade_not_finite)
    reading = (
        f"{int(broken.sum())} of {len(table)} rows are not finite; the logit lens's largest logit is "
        f"{shown(figures['max_abs_logit_p99'], 1)} (99th percentile)"
    )
    if table.precision == "fast":
        reading += f", its log-probabilities are within {shown(figures['max_logsumexp_bound'], 4)} nats of exact ones"
    return Finding("numeric_health", severity, reading + ".", figures, tables={"not_finite": rows, "lenses": lenses})


def _sizes(lens: str, sizes: np.ndarray, bounds: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """How large a lens's logits are, and how far its log-probabilities can be off."""
    return {
        "lens": lens,
        "max_abs_logit_p99": quantile(sizes[rows], 0.99).value,
        "max_logsumexp_bound": quantile(bounds[rows], 1.0).value,
    }


def _broken_rows(table: SweepTable, broken: np.ndarray) -> list[dict[str, Any]]:
    found: dict[tuple[str, int], int] = {}
    for lens, at_layer in zip(table["lens"][broken].tolist(), table["layer"][broken].tolist(), strict=True):
        found[lens, at_layer] = found.get((lens, at_layer), 0) + 1
    return [{"lens": lens, "layer": at_layer, "rows": rows} for (lens, at_layer), rows in sorted(found.items())]


def norm_trajectory(grid: Grids, thresholds: Thresholds) -> Finding:
    """How the residual stream's length grows over the blocks, and which blocks step out of line.

    A block is compared with the other blocks, not with a constant: every trained model's stream grows, and its first
    and last block nearly always stand apart. Those two are given as figures of their own.
    """
    name = "norm_trajectory"
    norms = grid.matrix(LOGIT, "resid_norm")
    if grid.n_layers < FEWEST_BLOCKS + 2 or not np.isfinite(norms).all():
        why: Why = "not_finite" if grid.n_layers >= FEWEST_BLOCKS + 2 else "too_few"
        return missing(name, why, f"There is no trajectory over {grid.n_layers} blocks to fit.")
    lengths = np.log(np.median(norms, axis=0) + 1e-9)
    growth = np.diff(lengths)
    slope, r2 = _line(lengths[1:])
    inner = growth[1:-1]
    centre = float(np.median(inner))
    deviation = SPREAD * float(np.median(np.abs(inner - centre)))
    bound = max(math.log(thresholds.spike_factor), thresholds.spike_deviations * deviation)
    spikes = [at_block + 1 for at_block, step in enumerate(inner) if abs(step - centre) > bound]
    if spikes:
        shape = "spike"
    elif abs(slope) <= 0.01:
        shape = "plateau"
    else:
        shape = "monotonic" if r2 >= 0.7 else "irregular"
    figures = {
        "shape": Outcome(shape),
        "slope": number(slope),
        "r2": number(r2),
        "n_spikes": Outcome(len(spikes)),
        "share_spikes": Outcome(len(spikes) / len(inner)),
        "first_block_growth": number(float(growth[0])),
        "last_block_growth": number(float(growth[-1])),
        "median_growth": number(centre),
    }
    rows = [
        {"layer": at_layer, "ln_length": plain(lengths[at_layer]), "is_spike": at_layer - 1 in spikes}
        for at_layer in range(grid.n_layers + 1)
    ]
    reading = (
        f"The stream's length changes by a factor of {np.exp(slope):.2f} per block (r2 {r2:.2f}): {shape}, "
        f"{len(spikes)} of {len(inner)} inner blocks out of line."
    )
    return Finding(
        name, grade(len(spikes) / len(inner), thresholds.grade_spikes), reading, figures, tables={"layers": rows}
    )


def _line(values: Float[np.ndarray, " layer"]) -> tuple[float, float]:
    """Slope and r2 of the least-squares line through values at 0, 1, 2, …"""
    x = np.arange(len(values)) - (len(values) - 1) / 2
    y = values - values.mean()
    slope = float(x @ y / (x @ x))
    total = float(y @ y)
    return slope, 1 - float(((y - slope * x) ** 2).sum()) / total if total > 0 else 1.0

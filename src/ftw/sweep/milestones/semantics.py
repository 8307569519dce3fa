"""Meaning: layers where the answer comes first, by how much, and whether it would under another scale of the logits.

All flags and figures are of rows of a table, at any position, in its order. P is the row's distribution, z its logits
(differences of logits are differences of log-probabilities), a the first token of the answer, V the vocabulary's size.

The rule of the file: NaN or False where a row has no answer. A gap is never taken for zero.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from ftw.substrate.errors import UsageError
from ftw.sweep.milestones.grid import Grid
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.table import SCALES, SweepTable

GATES = ("uniform", "top2", "both")
"""Margin over uniform, gap to the second token, and both at the same scale."""


def is_answer(table: SweepTable) -> Bool[np.ndarray, " row"]:
    """Whether the answer's first token comes first. Ties share the better rank."""
    flags: np.ndarray = np.logical_and(table["answer_rank"] == 1, table["is_finite"])
    return flags


def is_accepted(table: SweepTable) -> Bool[np.ndarray, " row"]:
    """Whether the best token begins anything that counts as right: the answer or an alias."""
    best = table["top_ids"][:, 0]
    out = np.zeros(len(table), dtype=bool)
    for prompt in np.unique(table["prompt"]).tolist():
        mine = table["prompt"] == prompt
        out[mine] = np.isin(best[mine], table.items[prompt].accepted)
    flags: np.ndarray = np.logical_and(out, table["is_finite"])
    return flags


def margins(table: SweepTable) -> Float[np.ndarray, " row"]:
    """P(a) - 1/V: the answer's probability above that of chance."""
    above = np.exp(table["answer_logprob"].astype(np.float64)) - 1 / table.vocab_size
    return np.where(table["is_finite"], above, np.nan)


def gaps(table: SweepTable) -> Float[np.ndarray, " row"]:
    """z(a) - z(second), in logits, where a is the best token; NaN elsewhere. Not negative.

    Raises UsageError where the table lists only one token per row.
    """
    return _lead(table, table["answer_id"])


def behind(table: SweepTable) -> Float[np.ndarray, " row"]:
    """z(a) - z(best), in logits, where the answer's rank is above 1; NaN elsewhere. Not positive."""
    ahead = table["answer_logprob"].astype(np.float64) - table["top_logprobs"][:, 0].astype(np.float64)
    return np.where((table["answer_rank"] > 1) & table["is_finite"], ahead, np.nan)


def control_gaps(table: SweepTable) -> Float[np.ndarray, " row"]:
    """As `gaps`, in rows of prompts with a control; NaN elsewhere."""
    return np.where(table["control_id"] >= 0, _lead(table, table["answer_id"]), np.nan)


def control_margins(table: SweepTable) -> Float[np.ndarray, " row"]:
    """P(a) - P(control): by how much the right answer leads the one that must not win, in probability.

    NaN without a control, and where both begin with the same token.
    """
    same = table["control_id"] == table["answer_id"]
    lead = np.exp(table["answer_logprob"].astype(np.float64)) - np.exp(table["control_logprob"].astype(np.float64))
    return np.where(same | ~table["is_finite"], np.nan, lead)


def strong(table: SweepTable, margin: float = 0.002, gap: float = 0.5) -> Bool[np.ndarray, " row"]:
    """Whether the answer comes first, `margins` is at least `margin` and `gaps` at least `gap`."""
    flags: np.ndarray = np.logical_and(is_answer(table), (margins(table) >= margin) & (gaps(table) >= gap))
    return flags


def twice(flags: Bool[np.ndarray, "prompt layer"]) -> Bool[np.ndarray, "prompt layer"]:
    """Whether it is so at this layer and the next. False at the last."""
    both: np.ndarray = flags & np.concatenate([flags[:, 1:], np.zeros((len(flags), 1), dtype=bool)], axis=1)
    return both


def gate_holds(
    table: SweepTable, thresholds: Thresholds
) -> tuple[Float[np.ndarray, "row scale"], Float[np.ndarray, "row scale"]]:
    """Whether the two gates of a row still hold when all logits are multiplied by s: 1, 0, or NaN where it is unknown.

    First the margin over uniform, P_s(a) - 1/V >= uniform_margin with P_s = softmax(s z), for the scales that the table
    holds (`ftw.sweep.table.SCALES`); then the gap to the second token, s (z(a) - z(second)) >= top2_gap, for any scale.
    """
    scales = np.array(thresholds.gate_scales)
    gap = gaps(table)[:, None]
    lead = np.where(np.isnan(table["answer_logprob"])[:, None], np.nan, gap * scales >= thresholds.top2_gap)
    uniform = np.full(lead.shape, np.nan)
    if "answer_logprob_scaled" in table.columns:
        held = np.exp(table["answer_logprob_scaled"].astype(np.float64)) - 1 / table.vocab_size
        for at, scale in enumerate(thresholds.gate_scales):
            if scale in SCALES:
                own = held[:, SCALES.index(scale)]
                uniform[:, at] = np.where(np.isnan(own), np.nan, own >= thresholds.uniform_margin)
    return uniform, lead


def gate_stability(
    grid: Grid, targets: Mapping[str, Sequence[tuple[int, ...]]], thresholds: Thresholds
) -> dict[str, list[Outcome]]:
    """Per prompt and target the share of `gate_scales` at which the gates hold, as `gate_{uniform,top2,both}_{target}`.

    A target names, per prompt, the layers at which they must hold at the same scale; none where there is no such onset
    (`no_onset`). `not_asked`: the table does not hold a scale. `gate_both_least` is the least of the `both`.
    """
    uniform, top2 = (grid.shaped(gate) for gate in gate_holds(grid.rows, thresholds))
    both = np.where((uniform == 0) | (top2 == 0), 0.0, uniform * top2)
    out: dict[str, list[Outcome]] = {}
    for target, layers in targets.items():
        for gate, holds in zip(GATES, (uniform, top2, both), strict=True):
            out[f"gate_{gate}_{target}"] = [
                _share(holds[prompt, [layer - grid.layers[0] for layer in at]], at) for prompt, at in enumerate(layers)
            ]
    out["gate_both_least"] = [
        _least([out[f"gate_both_{target}"][prompt] for target in targets]) for prompt in range(len(grid.prompts))
    ]
    return out


def _share(holds: Float[np.ndarray, "layer scale"], layers: tuple[int, ...]) -> Outcome:
    if not layers:
        return Outcome.none("no_onset")
    each = np.where((holds == 0).any(axis=0), 0.0, holds.sum(axis=0) / len(holds))
    return Outcome.none("not_asked") if np.isnan(each).any() else Outcome(float(each.mean()))


def _least(shares: Sequence[Outcome]) -> Outcome:
    known = [float(share.value) for share in shares if share.value is not None]
    if any(share.why == "not_asked" for share in shares):
        return Outcome.none("not_asked")
    return Outcome(min(known)) if known else Outcome.none("no_onset")


def _lead(table: SweepTable, tokens: np.ndarray) -> Float[np.ndarray, " row"]:
    """By how many logits each row's best token leads the second, where it is the given one; NaN elsewhere."""
    listed = table["top_logprobs"]
    if listed.shape[1] < 2:
        raise UsageError("the table lists one token per row: sweep with k of at least 2, gaps need the second best")
    lead = listed[:, 0].astype(np.float64) - listed[:, 1].astype(np.float64)
    is_best = (tokens >= 0) & (table["top_ids"][:, 0] == tokens) & table["is_finite"]
    return np.where(is_best, lead, np.nan)

"""Copying: layers whose best token repeats the prompt, strictly or softly, and layers that are nearly decided.

All flags are of rows of a table, at any position, in its order. P is the row's distribution, p1 and p2 its two largest
probabilities.

The rule of the file: what is compared is token ids. Text is looked at only to leave out blanks and punctuation.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from ftw.substrate.errors import UsageError
from ftw.sweep.milestones.grid import Grid
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.milestones.windows import is_passage
from ftw.sweep.outcome import Outcome
from ftw.sweep.table import SweepTable

Stability = Literal["stable", "mixed", "fragile"]
"""How much strict copy depends on its threshold. `stable`: its onsets at the lowest and highest threshold lie within 2
layers or 5 % of the depth. `fragile`: at least 6 layers or 15 % apart. `mixed`: between, or only one of the two exists.
"""


def copy_strict(table: SweepTable, p: float = 0.95, margin: float = 0.10, window: int = 1) -> Bool[np.ndarray, " row"]:
    """Whether a row copies: its window is a passage of the prompt, p1 > p, p1 - p2 > margin, its best token is a word.

    The window are the best tokens of `window` consecutive layers. A word is more than blanks, punctuation and symbols.
    """
    p1, p2 = best_two(table)
    flags: np.ndarray = np.logical_and(is_passage(table, window) & _words(table), (p1 > p) & (p1 - p2 > margin))
    return flags


def copy_soft(table: SweepTable, p: float = 0.33, window: int = 1) -> Bool[np.ndarray, " row"]:
    """Whether a row copies loosely: its window is a passage of the prompt and p1 > p. No margin, any token."""
    flags: np.ndarray = np.logical_and(is_passage(table, window), best_two(table)[0] > p)
    return flags


def low_entropy(table: SweepTable, bits: float = 1.0) -> Bool[np.ndarray, " row"]:
    """Whether a row is nearly decided: at most so many bits. Of whatever token: that is no sign of copying."""
    flags: np.ndarray = np.logical_and(table["entropy_bits"] <= bits, table["is_finite"])
    return flags


def best_two(table: SweepTable) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """The two largest probabilities of each row, float64; NaN in a row that is no distribution.

    Raises UsageError where the table lists only one token.
    """
    listed = table["top_logprobs"]
    if listed.shape[1] < 2:
        raise UsageError("the table lists one token per row: sweep with k of at least 2, margins need the second best")
    p = np.where(table["is_finite"][:, None], np.exp(listed[:, :2].astype(np.float64)), np.nan)
    return p[:, 0], p[:, 1]


def stability(low: Outcome, high: Outcome, n_layers: int, thresholds: Thresholds) -> Outcome:
    """`stable`, `mixed` or `fragile` (see Stability) from the onsets at the lowest and the highest threshold.

    None where there is no copying at either. In a shallow model 2 layers are few layers and much of the depth: it is
    stable then.
    """
    if low.value is None and high.value is None:
        return Outcome.none("not_finite" if "not_finite" in (low.why, high.why) else "no_copy")
    if low.value is None or high.value is None:
        return Outcome("mixed")
    apart = abs(float(high.value) - float(low.value))
    share = apart / n_layers
    if apart <= thresholds.copy_stable_layers or share <= thresholds.copy_stable_share:
        return Outcome("stable")
    if apart >= thresholds.copy_fragile_layers or share >= thresholds.copy_fragile_share:
        return Outcome("fragile")
    return Outcome("mixed")


def strict_onsets(grid: Grid, thresholds: Thresholds, p: float, window: int = 1) -> list[Outcome]:
    """Per prompt the first layer with a strict copy above p."""
    return grid.onset(grid.shaped(copy_strict(grid.rows, p, thresholds.copy_margin, window)))


def soft_onsets(grid: Grid, thresholds: Thresholds) -> dict[tuple[int, float], list[Outcome]]:
    """Per window and threshold, per prompt the first layer with a soft copy."""
    return {
        (window, p): grid.onset(grid.shaped(copy_soft(grid.rows, p, window)))
        for p in (thresholds.soft_p, *thresholds.soft_extra)
        for window in thresholds.soft_windows
    }


def raw_radius(norm_only: Bool[np.ndarray, " layer"], kl: Float[np.ndarray, " layer"], thresholds: Thresholds) -> int:
    """Layers around a milestone within which the raw lens is looked at: `raw_radius`, the second where risk is high.

    High: the logit lens ranks the answer first at a layer where the raw one does not, or KL(logit || raw), bits, is
    somewhere at least the first of `raw_kl_bits`.
    """
    is_high = bool(norm_only.any() or (kl >= thresholds.raw_kl_bits[0]).any())
    return thresholds.raw_radius[is_high]


def raw_radii(logit: Grid, raw: Grid, thresholds: Thresholds) -> dict[int, int]:
    """`raw_radius` of every prompt that both lenses read."""
    if logit.layers != raw.layers:
        return {}
    out = {}
    rows = {prompt: at for at, prompt in enumerate(logit.prompts)}
    own, bare = logit.numbers("answer_rank"), raw.numbers("answer_rank")
    kl = raw.numbers("vs_logit_kl_bits") if raw.has("vs_logit_kl_bits") else np.full(bare.shape, np.nan)
    for at, prompt in enumerate(raw.prompts):
        if prompt in rows:
            out[prompt] = raw_radius((own[rows[prompt]] == 1) & (bare[at] > 1), kl[at], thresholds)
    return out


def norm_only(
    onsets: Sequence[Outcome],
    grid: Grid,
    raw: Grid | None,
    radii: Mapping[int, int],
    thresholds: Thresholds,
    p: float,
) -> list[Outcome]:
    """Per prompt whether a strict copy is the norm's work: the raw lens has none near the onset at that threshold.

    Near is within the prompt's radius (see `raw_radii`; the smaller one where it has none). None: `no_copy` without an
    onset, `no_view` without a raw lens in the run.
    """
    if raw is None:
        return [Outcome.none("no_view" if onset.value is not None else "no_copy") for onset in onsets]
    copied = dict(zip(raw.prompts, raw.shaped(copy_strict(raw.rows, p, thresholds.copy_margin)), strict=True))
    layers = np.array(raw.layers)
    out = []
    for onset, prompt in zip(onsets, grid.prompts, strict=True):
        if onset.value is None:
            out.append(Outcome.none("no_copy"))
        elif prompt not in copied:
            out.append(Outcome.none("no_view"))
        else:
            near = np.abs(layers - float(onset.value)) <= radii.get(prompt, thresholds.raw_radius[0])
            out.append(Outcome(not bool(copied[prompt][near].any())))
    return out


def low_entropy_onsets(grid: Grid, thresholds: Thresholds) -> list[Outcome]:
    """Per prompt the first layer that is nearly decided."""
    if not grid.has("entropy_bits"):
        return [Outcome.none("not_asked")] * len(grid.prompts)
    return grid.onset(grid.shaped(low_entropy(grid.rows, thresholds.low_entropy_bits)))


def _words(table: SweepTable) -> Bool[np.ndarray, " row"]:
    top = table["top_ids"][:, 0]
    ids, at = np.unique(top, return_inverse=True)
    return np.array([table.is_word(int(token)) for token in ids], dtype=bool)[at]

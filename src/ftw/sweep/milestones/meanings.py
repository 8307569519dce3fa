"""What each milestone means: its unit, and the formula that finds it.

P is a layer's distribution, p1 and p2 its largest probabilities, z its logits, a the answer's first token, n the
model's depth, V the vocabulary's size. "First" is the first layer of the lens, layers counting the blocks that have
run. Names in code style are thresholds or other milestones.

The rule of the file: a name in a run's document stands here, with its thresholds written {so}.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from ftw.substrate.errors import UsageError


class Meaning(NamedTuple):
    """Of a milestone."""

    unit: str
    formula: str


MEANINGS: Mapping[str, Meaning] = {
    "copy": Meaning(
        "layer",
        "first with the best tokens of the last `copy_window` layers a passage of the prompt, p1 > `copy_p`, "
        "p1 - p2 > `copy_margin`, and the best token a word (no blank, punctuation, special token)",
    ),
    "copy_at_{p}": Meaning("layer", "the same at each of `copy_sweep`, with a window of 1"),
    "copy_at_{p}_norm_only": Meaning(
        "yes or no",
        "the raw lens has no strict copy at that threshold within `raw_radius` layers: the second where the answer is "
        "somewhere first by the norm alone or KL(logit || raw) reaches the first of `raw_kl_bits`, else the first",
    ),
    "copy_stability": Meaning(
        "stable, mixed, fragile",
        "from d, the layers between the sweep's lowest and highest threshold: stable if d <= `copy_stable_layers` or "
        "d/n <= `copy_stable_share`; else fragile if d >= `copy_fragile_layers` or d/n >= `copy_fragile_share`; else "
        "(or with one of the two missing) mixed",
    ),
    "soft_copy_k{k}_at_{p}": Meaning(
        "layer", "first with the best tokens of k layers in a row a passage of the prompt and p1 > p"
    ),
    "low_entropy": Meaning("layer", "first with entropy <= `low_entropy_bits`: nearly decided, of whatever token"),
    "semantic": Meaning("layer", "first with rank(a) = 1"),
    "semantic_accepted": Meaning("layer", "first whose best token begins the answer or an alias"),
    "semantic_stays": Meaning("layer", "first from which on rank(a) = 1 to the end"),
    "semantic_step": Meaning(
        "layer",
        "the change point: the c with the fewest layers on the wrong side (rank 1 before c, another rank from c on); "
        "the last of several; never if that lies beyond n",
    ),
    "semantic_margin_ok": Meaning("layer", "first with rank(a) = 1 and P(a) - 1/V >= `uniform_margin`"),
    "semantic_top2_ok": Meaning("layer", "first with a the best token and z(a) - z(second) >= `top2_gap`"),
    "semantic_run2": Meaning("layer", "first with rank(a) = 1 here and at the next layer"),
    "semantic_strong": Meaning("layer", "first with both gates, margin over uniform and gap to the second"),
    "semantic_strong_run2": Meaning("layer", "first with both gates here and at the next layer"),
    "gap_ge_{gap}": Meaning("layer", "first with a the best token and z(a) - z(second) >= that many logits"),
    "p_at_semantic": Meaning("probability", "P(a) at `semantic`"),
    "gap_at_semantic": Meaning("logits", "z(a) - z(second) at `semantic`; `not_finite` if a shares the first place"),
    "margin_ok_at_semantic": Meaning("yes or no", "P(a) - 1/V >= `uniform_margin` at `semantic`"),
    "confirmed": Meaning(
        "layer",
        "`semantic`, if the raw lens or a learned one ranks a first within `confirm_window` layers of it",
    ),
    "confirmed_by": Meaning("lenses", "which ones, joined by +"),
    "confirmed_margin_ok": Meaning("yes or no", "`confirmed` is the layer of `semantic_margin_ok`"),
    "run2_near_confirmed": Meaning(
        "yes or no", "a layer of the run of `semantic_run2` lies within `confirm_window` of `confirmed`"
    ),
    "delta": Meaning("layers", "`semantic` - `copy`"),
    "delta_soft_k{k}": Meaning("layers", "`semantic` - soft copy of window k at `soft_p`"),
    "delta_hat": Meaning("share of n", "(`semantic` - `copy`, or without one the earliest soft copy) / n"),
    "rank_le_{rank}": Meaning("layer", "first with rank(a) <= that"),
    "kl_le_{bits}": Meaning("layer", "first with KL(layer || the model's own) <= that, bits"),
    "cos_ge_{cos}": Meaning("layer", "first with the cosine of centred logits to the model's own >= that"),
    "kl_at_p{depth}": Meaning("bits", "KL(layer || the model's own) at the layer round(n x depth)"),
    "surface": Meaning("layer", "first with P(accepted) >= P(words of the prompt) + `surface_margin`"),
    "surface_answer_mass": Meaning("probability", "P(accepted) there"),
    "surface_echo_mass": Meaning("probability", "P(words of the prompt) there"),
    "geometry": Meaning(
        "layer", "first with cos(h, head row of a) >= max cos(h, head rows of the prompt's words) + `geometry_margin`"
    ),
    "geometry_cos_answer": Meaning("cosine", "the first of the two there"),
    "geometry_cos_echo_max": Meaning("cosine", "the second there"),
    "coverage": Meaning(
        "layer", "first with at most `coverage_p` on the prompt's words among the `coverage_k` best tokens"
    ),
    "coverage_mass": Meaning("probability", "that probability there"),
    "entropy_gap_p{depth}": Meaning(
        "bits", "percentile over the lens's layers of H(layer) - H(the model's own), linear between layers"
    ),
    "entropy_gap_samples": Meaning("layers", "how many went in"),
    "gate_uniform_{target}": Meaning(
        "share",
        "of `gate_scales` s at which P_s(a) - 1/V >= `uniform_margin` holds at the target, P_s = softmax(s z); "
        "`not_asked` where the table does not hold a scale",
    ),
    "gate_top2_{target}": Meaning(
        "share", "of `gate_scales` s at which s (z(a) - z(second)) >= `top2_gap` holds there"
    ),
    "gate_both_{target}": Meaning("share", "of `gate_scales` at which both hold; at a run's both layers at one scale"),
    "gate_both_least": Meaning("share", "the least `gate_both` of the targets that there are"),
    "control_margin_first": Meaning("layer", "first with P(a) > P(control); a coin's toss at layer 0"),
    "control_margin_stays": Meaning("layer", "first from which on P(a) > P(control) to the end"),
    "control_margin_max": Meaning("probability", "the largest P(a) - P(control) over the layers"),
    "control_margin_last": Meaning("probability", "P(a) - P(control) at n"),
    "control_strong": Meaning(
        "layer", "first with P(a) > P(control), a the best token and leading by `top2_gap` logits"
    ),
    "control_gap_max": Meaning("logits", "the largest z(a) - z(second) over the layers where a is best"),
    "control_whole_stays": Meaning("layer", "as `control_margin_stays`, for whole answers, token after token"),
    "whole_half_stays": Meaning(
        "layer", "first from which on P(whole answer) is at least half of that at n, token after token"
    ),
    "whole_p_last": Meaning("probability", "P(whole answer) at n"),
    "pool_first_stays": Meaning(
        "layer", "first from which on a ranks before what the relation's other prompts ask for"
    ),
    "pool_place_last": Meaning("count", "how many of those rank before a, or with it, at n"),
}
"""By name, in the order of a report. A name with _frac is that layer divided by n."""


def meaning(name: str) -> Meaning:
    """What a name of a run's document means. Raises UsageError for a name that no milestone has."""
    base = name.removesuffix("_frac")
    for pattern, found in _patterns():
        if pattern.fullmatch(base):
            return found if base == name else Meaning("share of n", f"{found.formula}; divided by n")
    raise UsageError(f"there is no milestone {name!r}: there are {', '.join(MEANINGS)}")


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Meaning], ...]:
    """Each name as an expression in which a threshold can stand."""
    shaped = ((re.sub(r"\\{\w+\\}", "[^{}]+", re.escape(name)), found) for name, found in MEANINGS.items())
    return tuple((re.compile(shape), found) for shape, found in shaped)

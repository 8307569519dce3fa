"""Crossings: where a curve over depth passes a threshold, or another curve.

Ranks, divergence and cosine to the model's own output; the answer against the words of the prompt in probability and in
direction; entropy beside the model's own; the answer against its control and against the relation's other answers.

The rule of the file: a curve that was not measured, or that a prompt does not have, gives a reason.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from ftw.sweep.milestones.grid import Grid, Reasons, first_token, no_answer, no_first_token, number, read_at, unmeasured
from ftw.sweep.milestones.semantics import control_gaps, control_margins, is_answer
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome, Why

Holds = Callable[[np.ndarray], np.ndarray]
"""From a column [prompt, layer] where it is as looked for."""


def rank_onsets(grid: Grid, thresholds: Thresholds) -> dict[int, list[Outcome]]:
    """Per rank, per prompt the first layer where the answer's rank is at most that."""
    missing = no_first_token(grid)
    ranks = grid["answer_rank"]
    return {most: grid.onset((ranks >= 1) & (ranks <= most), missing=missing) for most in thresholds.ranks}


def kl_onsets(grid: Grid, thresholds: Thresholds) -> dict[float, list[Outcome]]:
    """Per threshold in bits, per prompt the first layer where KL(layer || the model's own) is at most that."""
    return {most: _first(grid, "kl_bits", partial(np.greater_equal, most)) for most in thresholds.kl_bits}


def cosine_onsets(grid: Grid, thresholds: Thresholds) -> dict[float, list[Outcome]]:
    """Per threshold, per prompt the first layer whose centred logits have that cosine to the model's own, or more."""
    return {least: _first(grid, "cos_logits", partial(np.less_equal, least)) for least in thresholds.cosines}


def surface(grid: Grid, thresholds: Thresholds) -> dict[str, list[Outcome]]:
    """The surface crossover: the first layer with P(accepted) >= P(words of the prompt) + surface_margin.

    With both probabilities there. P(accepted) sums the first tokens of everything that counts as right.
    """
    names = ("answer_mass", "echo_mass")
    missing = no_first_token(grid, *names)
    crossed = grid[names[0]] >= grid[names[1]] + thresholds.surface_margin if grid.has(*names) else _nowhere(grid)
    onsets = grid.onset(crossed, missing=missing)
    return {"surface": onsets} | {f"surface_{name}": at(grid, name, onsets) for name in names}


def geometry(grid: Grid, thresholds: Thresholds) -> dict[str, list[Outcome]]:
    """The geometric crossover: the first layer with cos(h, answer) >= max cos(h, prompt's words) + geometry_margin.

    h is the head's input, the others are rows of the head. With both cosines there. A prompt without words has no
    largest cosine, and so no crossover.
    """
    names = ("cos_answer", "cos_echo_max")
    missing = no_first_token(grid, *names)
    crossed = grid[names[0]] >= grid[names[1]] + thresholds.geometry_margin if grid.has(*names) else _nowhere(grid)
    onsets = grid.onset(crossed, missing=missing)
    return {"geometry": onsets} | {f"geometry_{name}": at(grid, name, onsets) for name in names}


def coverage(grid: Grid, thresholds: Thresholds) -> dict[str, list[Outcome]]:
    """Coverage decay: the first layer where the prompt's words among the 50 best tokens hold at most coverage_p.

    With that probability there.
    """
    onsets = _first(grid, "echo_mass_top50", partial(np.greater_equal, thresholds.coverage_p))
    return {"coverage": onsets, "coverage_mass": at(grid, "echo_mass_top50", onsets)}


def entropy_gaps(grid: Grid, own: Grid, thresholds: Thresholds) -> dict[str, list[Outcome]]:
    """Percentiles over the layers of H(layer) - H(the model's own), in bits, and how many layers went in.

    Linear interpolation between layers. `own` is the logit lens, whose last layer is the model. Layers that are no
    distribution do not count.
    """
    names = [f"entropy_gap_p{round(100 * depth)}" for depth in thresholds.depths]
    if not grid.has("entropy_bits"):
        return {name: [Outcome.none("not_asked")] * len(grid.prompts) for name in (*names, "entropy_gap_samples")}
    final = dict(zip(own.prompts, own["entropy_bits"][:, -1], strict=True))
    out: dict[str, list[Outcome]] = {name: [] for name in (*names, "entropy_gap_samples")}
    for prompt, bits, finite in zip(grid.prompts, grid["entropy_bits"], grid["is_finite"], strict=True):
        some = bits[finite] - final[prompt]
        for name, depth in zip(names, thresholds.depths, strict=True):
            out[name].append(number(np.quantile(some, depth)) if len(some) else Outcome.none("not_finite"))
        out["entropy_gap_samples"].append(Outcome(len(some)))
    return out


def kl_at_depths(grid: Grid, thresholds: Thresholds) -> dict[str, list[Outcome]]:
    """KL(layer || the model's own) in bits at the layers round(n x depth) of `depths`."""
    out = {}
    for depth in thresholds.depths:
        layer = round(grid.rows.n_layers * depth)
        layers = [Outcome(layer) if layer in grid.layers else Outcome.none("never")] * len(grid.prompts)
        out[f"kl_at_p{round(100 * depth)}"] = at(grid, "kl_bits", layers)
    return out


def controls(grid: Grid, thresholds: Thresholds) -> dict[str, list[Outcome]]:
    """The answer against the one that must not win, layer by layer.

    `control_margin_first`: the first layer with P(a) > P(control); at layer 0 that is a coin's toss.
    `control_margin_stays`: the first from which on it is so to the end. `control_margin_max`, `control_margin_last`:
    the largest P(a) - P(control), and that at n. `control_strong`: the first layer where besides the answer is best and
    leads by top2_gap logits. `control_gap_max`: the largest such lead. `control_whole_stays`: as
    `control_margin_stays`, but with whole answers, each token forced after the ones before.
    """
    missing = _no_control(grid)
    margin, gap = grid.shaped(control_margins(grid.rows)), grid.shaped(control_gaps(grid.rows))
    ahead = margin > 0
    wholes = ("answer_whole_logprob", "control_whole_logprob")
    ahead_whole = grid[wholes[0]] > grid[wholes[1]] if grid.has(*wholes) else _nowhere(grid)
    apart = [None if why in ("not_told_apart", "blank_first") else why for why in missing]
    best = grid.shaped(is_answer(grid.rows))
    return {
        "control_margin_first": grid.onset(ahead, missing=missing),
        "control_margin_stays": grid.stays(ahead, missing=missing),
        "control_margin_max": _most(margin, missing),
        "control_margin_last": [_or(why, row[-1]) for why, row in zip(missing, margin, strict=True)],
        "control_strong": grid.onset(ahead & best & (gap >= thresholds.top2_gap), missing=missing),
        "control_gap_max": _most(gap, missing),
        "control_whole_stays": grid.stays(ahead_whole, missing=_first_of(apart, unmeasured(grid, *wholes))),
    }


def whole(grid: Grid) -> dict[str, list[Outcome]]:
    """The whole answer, token after token, each forced after the ones before.

    `whole_p_last`: its probability at n. `whole_half_stays`: the first layer from which on it is half of that.
    """
    missing = no_answer(grid, "answer_whole_logprob")
    if not grid.has("answer_whole_logprob"):
        return {name: grid.onset(_nowhere(grid), missing=missing) for name in ("whole_half_stays", "whole_p_last")}
    curve = grid["answer_whole_logprob"]
    return {
        "whole_half_stays": grid.stays(curve >= curve[:, -1:] - np.log(2), missing=missing),
        "whole_p_last": [_or(why, np.exp(row[-1])) for why, row in zip(missing, curve, strict=True)],
    }


def pool_onsets(grid: Grid) -> dict[str, list[Outcome]]:
    """The answer against what other prompts of the relation ask for, up to 16 of them.

    `pool_first_stays`: the first layer from which on it ranks before them all. `pool_place_last`: how many of them rank
    before it at the last layer. By chance one prompt in m + 1 has it first among m others.
    """
    missing = no_first_token(grid, "pool_ranks")
    missing = [
        why or (None if grid.rows.items[prompt].pool else "no_control")
        for why, prompt in zip(missing, grid.prompts, strict=True)
    ]
    if not grid.has("pool_ranks") or grid["pool_ranks"].ndim < 3:
        return {name: grid.onset(_nowhere(grid), missing=missing) for name in ("pool_first_stays", "pool_place_last")}
    ranks = grid["pool_ranks"]
    ahead = ((ranks >= 1) & (ranks <= grid["answer_rank"][:, :, None])).sum(axis=2)
    last = [
        Outcome(int(row[-1])) if why is None else Outcome.none(why) for why, row in zip(missing, ahead, strict=True)
    ]
    return {"pool_first_stays": grid.stays(ahead == 0, missing=missing), "pool_place_last": last}


def at(grid: Grid, name: str, onsets: list[Outcome]) -> list[Outcome]:
    """Per prompt a column's value at its onset; the onset's reason where there is none."""
    return read_at(grid, grid[name], onsets) if grid.has(name) else [Outcome.none("not_asked")] * len(onsets)


def _first(grid: Grid, name: str, holds: Holds) -> list[Outcome]:
    here = holds(grid[name]) if grid.has(name) else _nowhere(grid)
    return grid.onset(here, missing=unmeasured(grid, name))


def _nowhere(grid: Grid) -> Bool[np.ndarray, "prompt layer"]:
    return np.zeros((len(grid.prompts), len(grid.layers)), dtype=bool)


def _or(why: Why | None, value: float) -> Outcome:
    return number(value) if why is None else Outcome.none(why)


def _most(curve: Float[np.ndarray, "prompt layer"], missing: Reasons) -> list[Outcome]:
    out = []
    for prompt, row in enumerate(curve):
        some = row[np.isfinite(row)]
        why = None if missing is None else missing[prompt]
        out.append(Outcome.none(why) if why else Outcome(float(some.max())) if len(some) else Outcome.none("never"))
    return out


def _first_of(*several: Sequence[Why | None]) -> list[Why | None]:
    """Per prompt the first reason that there is."""
    return [next((why for why in each if why is not None), None) for each in zip(*several, strict=True)]


def _no_control(grid: Grid) -> list[Why | None]:
    out: list[Why | None] = []
    for why, prompt in zip(no_answer(grid), grid.prompts, strict=True):
        item = grid.rows.items[prompt]
        if why is None and not item.control:
            why = "no_control"
        elif why is None and "blank_first" in [first_token(grid.rows, each) for each in (item.answer, item.control)]:
            why = "blank_first"
        elif why is None and item.control[0] in item.accepted:
            why = "not_told_apart"
        out.append(why)
    return out

"""Depth curves of a sweep: entropy and divergence, the answer's rank and probability, echo, geometry, and the lenses.

The rule of the file: a curve is the median prompt with the middle half of the prompts around it, and chance is a line.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftw.sweep.milestones.grid import LOGIT
from ftw.ui.visualization.charts import percent
from ftw.ui.visualization.figure import count
from ftw.ui.visualization.plots import Axis, Chart, Line, Rule
from ftw.ui.visualization.report import Figure
from ftw.ui.visualization.sweep_numbers import Curves, Run, first_stay, rounded

MOST_LINES = 6
CLOSE_BITS = 1.0
"""A distribution that is at most this far from the model's own says nearly the same."""
NEARER = 0.9
"""A lens is called nearer than the logit lens from this share of its divergence on."""


def curves(run: Run) -> list[Figure]:
    """Every depth curve that the rows have numbers for."""
    drawn = (shares(run), ranks(run), bits(run), masses(run), geometry(run))
    return [figure for figure in drawn if figure is not None]


def depth(run: Run) -> Axis:
    """The axis of blocks."""
    return Axis("blocks that have run (0: the embedding)", low=0.0, high=float(run.n))


def foot(run: Run, *parts: str, lens: str = LOGIT) -> str:
    """What a curve is of: how many prompts, which lens, which model."""
    shown = "facts' prompts" if run.facts else "prompts"
    model = run.document["model"]
    return " · ".join(
        part
        for part in (
            f"median of {len(run.shown)} {shown}, shaded: their middle half" if len(run.shown) > 1 else "one prompt",
            f"lens: {lens}" if lens else "",
            *parts,
            f"{model['name']} {str(model['fingerprint'])[:8]}",
        )
        if part
    )


def shares(run: Run) -> Figure | None:
    """The share of facts whose answer is among the best, with its interval, and beside it that of shuffled answers."""
    found = run.document.get("statistics") or {}
    rows = [one for one in found.get("curves") or () if (one["lens"], one["by"]) == (LOGIT, "all")]
    first = next((one for one in rows if one["rank"] == 1), None)
    if first is None:
        return None
    lines = [_share_line(one) for one in sorted(rows, key=lambda one: one["rank"])[: MOST_LINES - 1]]
    for one in found.get("permutation") or ():
        if (one["lens"], one["relation"], one["rank"]) == (LOGIT, "", 1):
            lines.append(Line("first, answers shuffled", one["layers"], one["chance"], dashed=True))
    half = next((place for place, share in enumerate(first["share"]) if share >= 0.5), None)
    reading = f"{percent(first['share'][-1])} of {count(first['n_facts'], 'fact')} end with their answer first"
    if half is not None:
        reading += f"; half of them have it first by block {first['layers'][half]} of {run.n}"
    axis = Axis("share of facts", low=0.0, high=1.0, percent=True)
    parts = (f"original wordings; {100 * run.level:.0f} % intervals resample facts", f"chance {first['chance']:.1e}")
    return Figure(reading, Chart(depth(run), axis, tuple(lines)), foot(run, *parts).partition(" · ")[2])


def _share_line(one: Mapping[str, Any]) -> Line:
    """A curve of shares; the band where there are enough facts for one."""
    name = "first" if one["rank"] == 1 else f"among the {one['rank']} best"
    known = None not in one["low"] and None not in one["high"]
    low, high = (one["low"], one["high"]) if known else ((), ())
    return Line(name, one["layers"], one["share"], low, high)


def ranks(run: Run) -> Figure | None:
    """The answer's rank, on a logarithmic axis with the first rank on top."""
    answer, control = run.curves("answer_rank"), run.curves("control_rank")
    if answer is None:
        return None
    lines = [line("the answer", answer)]
    if control is not None:
        lines.append(line("the answer that must not win", control))
    axis = Axis("rank (1 is the likeliest token), log scale", log=True, down=True, low=1.0)
    rules = (Rule(run.chance_rank, f"chance: rank {run.chance_rank:.0f}", across=True),)
    return Figure(_rank_reading(run, answer), Chart(depth(run), axis, tuple(lines), rules), foot(run))


def _rank_reading(run: Run, answer: Curves) -> str:
    median = answer.median
    last = median[-1]
    at = first_stay(median == 1)
    near = first_stay(median <= 10)
    if at is not None:
        where = "at every block" if at == 0 else f"from block {answer.layers[at]} of {run.n} on"
        before = "" if near is None or near >= at else f", and among the ten best from block {answer.layers[near]} on"
        return f"The answer's median rank is 1 {where}{before}"
    return f"The answer's median rank falls from {median[0]:.0f} to {last:.0f} and is never 1 at the end"


def bits(run: Run) -> Figure | None:
    """Entropy, and the divergence from the model's own distribution."""
    entropy, kl = run.curves("entropy_bits"), run.curves("kl_bits")
    if entropy is None or kl is None:
        return None
    at = first_stay(kl.median <= CLOSE_BITS)
    near = "only at the last block"
    if at is not None and kl.layers[at] < run.n:
        near = f"from block {kl.layers[at]} of {run.n} on"
    most = int(np.nanargmax(entropy.median))
    peak = f"entropy is highest at block {entropy.layers[most]}, {entropy.median[most]:.1f} bits"
    reading = f"Within 1 bit of the model's own distribution {near}; {peak}"
    lines = (line("entropy", entropy), line("KL(block || the model's own)", kl))
    rules = (Rule(rounded(run.uniform_bits), f"uniform: {run.uniform_bits:.1f} bits", across=True),)
    return Figure(reading, Chart(depth(run), Axis("bits", low=0.0), lines, rules), foot(run))


def masses(run: Run) -> Figure | None:
    """Where the probability goes: to the answer, to the prompt's own words, to the answer that must not win."""
    answer, echo = run.curves("answer_mass"), run.curves("echo_mass")
    if answer is None or echo is None:
        return None
    lines = [line("the answer", answer), line("words of the prompt", echo)]
    control = run.curves("control_logprob")
    if control is not None:
        lines.append(line("the answer that must not win", Curves(control.layers, np.exp(control.values))))
    most = int(np.nanargmax(echo.median))
    at = first_stay(answer.median > echo.median)
    over = "the answer never holds more"
    if at is not None:
        over = f"the answer holds more from block {answer.layers[at]} on" if at else "the answer always holds more"
    reading = (
        f"Words of the prompt hold at most {percent(echo.median[most])} (block {echo.layers[most]}); {over}, "
        f"{percent(answer.median[-1])} at the end"
    )
    axis = Axis("probability of the next token", low=0.0, high=1.0, percent=True)
    chance = f"chance of one token: {1 / run.table.vocab_size:.1e}"
    return Figure(reading, Chart(depth(run), axis, tuple(lines)), foot(run, chance))


def geometry(run: Run) -> Figure | None:
    """Which head row the state points at: the answer's, or the nearest of the prompt's words."""
    answer, echo = run.curves("cos_answer"), run.curves("cos_echo_max")
    if answer is None or echo is None:
        return None
    at = first_stay(answer.median > echo.median)
    over = "never points closer to the answer than to a word of the prompt"
    if at is not None:
        block = answer.layers[at]
        over = f"points closer to the answer than to any word of the prompt from block {block} of {run.n} on"
    lines = (line("the answer", answer), line("the nearest word of the prompt", echo))
    axis = Axis("cosine of the head's input to the token's head row")
    return Figure(f"The state {over}", Chart(depth(run), axis, lines, (Rule(0.0, "no direction", True),)), foot(run))


def lenses(run: Run) -> Figure | None:
    """How far each lens stands from the model's own distribution, block by block. None for a run of one lens."""
    grids = {lens: grid for lens in run.lenses if (grid := run.curves("kl_bits", lens)) is not None}
    if len(grids) < 2:
        return None
    half = run.n // 2
    at_half = {
        lens: float(grid.median[list(grid.layers).index(half)]) for lens, grid in grids.items() if half in grid.layers
    }
    best = min(at_half, key=lambda lens: at_half[lens])
    reading = (
        f"At half depth no lens is much nearer to the model's own words than the logit lens, {at_half[LOGIT]:.1f} bits"
    )
    if at_half[best] < NEARER * at_half[LOGIT]:
        reading = (
            f"At half depth the {best} lens is nearest to the model's own words, {at_half[best]:.1f} bits; "
            f"the logit lens {at_half[LOGIT]:.1f}"
        )
    lines = tuple(line(lens, grid, band=False) for lens, grid in list(grids.items())[:MOST_LINES])
    rules = (Rule(CLOSE_BITS, "1 bit", across=True, left=True),)
    most = "" if len(grids) <= MOST_LINES else f"{MOST_LINES} of {count(len(grids), 'lens', 'lenses')}"
    doubts = (note for note in run.document.get("notes") or () if any(f"the {lens} lens" in note for lens in grids))
    said = foot(run, most, *doubts, lens="")
    return Figure(
        reading,
        Chart(depth(run), Axis("KL(block || the model's own), bits", low=0.0), lines, rules),
        said.replace(", shaded: their middle half", ""),
    )


def line(name: str, grid: Curves, *, band: bool = True) -> Line:
    """The median of each layer, with the middle half around it where there are several prompts."""
    median = grid.median
    known = np.isfinite(median)

    def numbers(values: np.ndarray) -> list[float]:
        return [rounded(float(value)) for value in values[known]]

    if not band or len(grid.values) < 2:
        return Line(name, grid.layers[known].tolist(), numbers(median))
    low, high = grid.quantile(0.25), grid.quantile(0.75)
    return Line(name, grid.layers[known].tolist(), numbers(median), numbers(low), numbers(high))

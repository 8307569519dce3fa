"""Positions: whether what is found at a prompt's end holds where the prompt is moved, and at its other positions.

The rule of the file: a share is one of cases that could have held, so that it can reach 1.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from ftw.sweep.audits.finding import Figures, Finding, grade, middle, missing, number, percent, plain, shown
from ftw.sweep.audits.grid import Grids, share
from ftw.sweep.audits.states import read_each
from ftw.sweep.decode import Targets, decode
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.milestones.grid import LOGIT
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable

SHIFTS = (1, 2, 4, 8)
"""Positions that a prompt is moved to the right by."""
FRACTIONS = (0.2, 0.4, 0.6, 0.8, 0.92, 0.96, 0.98, 1.0)
"""Of the way through a prompt: where a learned lens is looked at."""
EARLY, LATE = 0.92, 0.96
"""Up to the first it is early in the prompt, from the second on late."""


def position_stability(sweep: Sweep, grid: Grids, thresholds: Thresholds, chosen: Sequence[int]) -> Finding:
    """Whether the onset of these prompts (indices) holds when line breaks stand before them.

    A shift at which the model itself no longer answers says nothing about the lens: it is counted apart.
    """
    name = "position_stability"
    onset = grid.onset(LOGIT)
    last = grid.is_first(LOGIT)[:, -1]
    prompts = [at for at in chosen if onset[at] >= 0 and last[at]]
    cases = [
        (at, shift, moved)
        for at in prompts
        for shift in SHIFTS
        if len(moved := shifted(sweep, grid.table, at, shift)) <= sweep.model.context
    ]
    if not cases:
        return missing(name, "no_onset", "No prompt with an onset can be moved within the context.")
    states = read_each(sweep.model, [moved for _, _, moved in cases])
    answers = torch.tensor([grid.table.items[at].answer[0] for at, _, _ in cases])
    lens = LogitLens(sweep.model.arch)
    found = decode(sweep.model, [lens], states, Targets({"answer": answers}), k=1, wanted=(), head=sweep.head)
    ranks = found.ranks["answer"].cpu().numpy()  # [layer, case]
    keeps = ranks[-1] == 1
    layers = np.array([onset[at] for at, _, _ in cases])
    stable = ranks[layers, np.arange(len(cases))] == 1
    later = ranks[np.minimum(layers + 1, grid.n_layers), np.arange(len(cases))] == 1
    return stability(grid, thresholds, [(at, shift) for at, shift, _ in cases], keeps, stable, stable | later)


def stability(
    grid: Grids,
    thresholds: Thresholds,
    cases: Sequence[tuple[int, int]],
    keeps: np.ndarray,
    stable: np.ndarray,
    near: np.ndarray,
) -> Finding:
    """The finding from prompts and their shifts: does the model keep its answer, is it first at the onset, or next."""
    shifts = np.array([shift for _, shift in cases])
    owners = np.array([at for at, _ in cases])
    held = number(share(stable[keeps]), "never")
    each = {at: share(stable[keeps & (owners == at)]) for at in sorted(set(owners.tolist()))}
    whole = [one >= thresholds.position_share for one in each.values() if np.isfinite(one)]
    figures = {
        "share_stable": held,
        "share_prompts_stable": number(share(whole), "never"),
        "share_stable_or_next": number(share(near[keeps]), "never"),
        "share_model_keeps": number(share(keeps)),
        "n_prompts": Outcome(len(set(owners.tolist()))),
        "n_shifts": Outcome(len(cases)),
    }
    table = [
        {
            "shift": int(shift),
            "share_model_keeps": plain(share(keeps[shifts == shift])),
            "share_stable": plain(share(stable[keeps & (shifts == shift)])),
        }
        for shift in sorted(set(shifts.tolist()))
    ]
    prompts: dict[str, Figures] = {grid.ids[at]: {"share_stable": number(one, "never")} for at, one in each.items()}
    severity = grade(1 - float(held.value), thresholds.grade_unstable_positions) if held.value is not None else None
    reading = (
        f"Moved by up to {int(shifts.max())} positions the model keeps {share(keeps):.0%} of {len(cases)} answers; "
        f"the onset's layer still has {percent(held)} of those."
    )
    return Finding(
        "position_stability", severity, reading, figures, prompts, {"shifts": table}, None if severity else "never"
    )


def shifted(sweep: Sweep, table: SweepTable, prompt: int, shift: int) -> list[int]:
    """The prompt (an index) with line breaks before it, behind the special tokens that it begins with.

    Without a tokenizer, or where it has no line break, its own first token of text is repeated instead.
    """
    ids = table.items[prompt].ids
    start = next((at for at, token in enumerate(ids) if token not in table.special_ids), len(ids) - 1)
    filler = ids[start]
    tokenizer = sweep.model.tokenizer
    if tokenizer is not None:
        breaks = tokenizer("\n", add_special_tokens=False)["input_ids"]
        filler = breaks[-1] if breaks else filler
    return [*ids[:start], *[filler] * shift, *ids[start:]]


def next_token_depth(table: SweepTable, grid: Grids) -> Finding:
    """Where ordinary next tokens of the prompts are decided, at every position but the last.

    It reaches 1 when every next token that the model gets right is right at the facts' median onset already.
    """
    name = "next_token_depth"
    ends = np.array([len(item.ids) - 1 for item in table.items])
    rows = (table["lens"] == LOGIT) & (table["pos"] < ends[table["prompt"]])
    if not rows.any():
        return missing(name, "no_positions", "The run read last positions only.")
    ranks = table["next_rank"][rows].reshape(-1, grid.n_layers + 1)
    right = ranks[ranks[:, -1] == 1]
    onset = middle(np.where(grid.onset(LOGIT) >= 0, grid.onset(LOGIT), np.nan)[grid.facts()], "no_onset")
    if not len(right):
        return missing(name, "never", "The model ranks no next token of the prompts first.")
    depths = (right == 1).argmax(1)
    early = Outcome.none("no_onset")
    if onset.value is not None:
        early = number(share(right[:, round(float(onset.value))] == 1))
    figures = {
        "share_at_onset": early,
        "median_layer": middle(depths.astype(float)),
        "n_positions": Outcome(len(right)),
        "facts_median_onset": onset,
    }
    reading = (
        f"Of {len(right)} ordinary next tokens that the model ranks first, the logit lens does so from layer "
        f"{shown(figures['median_layer'], 1)} on (median); the facts' onset is {shown(onset, 1)}."
    )
    return Finding(name, "fine", reading, figures)


def learned_positions(table: SweepTable, grid: Grids, lens: str | None, thresholds: Thresholds) -> Finding:
    """What a learned lens gains at different places of each prompt, keyed by prompt."""
    name = "learned_positions"
    if lens is None:
        return missing(name, "no_lens", "The run read no learned lens.")
    gains = _gains(table, lens)
    prompts: dict[str, Figures] = {}
    early: list[float] = []
    late: list[float] = []
    rows = []
    for prompt, item in enumerate(table.items):
        places = {round(fraction * (len(item.ids) - 1)): fraction for fraction in FRACTIONS}  # the end is 1
        if any((prompt, place) not in gains for place in places):
            continue
        found = {fraction: gains[prompt, place] for place, fraction in places.items()}
        here = middle([gain for fraction, gain in found.items() if fraction <= EARLY], "no_positions")
        there = middle([gain for fraction, gain in found.items() if fraction >= LATE], "no_positions")
        prompts[item.id] = {"early": here, "late": there}
        early += [float(here.value)] if here.value is not None else []
        late += [float(there.value)] if there.value is not None else []
        rows += [{"prompt": item.id, "at": fraction, "gain_bits": plain(gain)} for fraction, gain in found.items()]
    if not early or not late:
        return missing(name, "no_positions", "The run read last positions only.")
    gap = float(np.median(early) - np.median(late))
    figures = {"early": middle(early), "late": middle(late), "gap_bits": number(gap)}
    reading = (
        f"{lens} gains {shown(figures['early'])} bits early in the prompts and {shown(figures['late'])} at their ends."
    )
    return Finding(
        name,
        "fine" if abs(gap) < thresholds.position_gap_bits else "note",
        reading,
        figures,
        prompts,
        {"grid": rows},
        subject=lens,
    )


def _gains(table: SweepTable, lens: str) -> dict[tuple[int, int], float]:
    """By prompt and position the median over the lens's layers of what it takes off the divergence, bits."""
    layers = table.layers_of(lens)
    places, through = _read(table, lens)
    base_places, base = _read(table, LOGIT)
    row = {place: at for at, place in enumerate(base_places)}
    own = base[[row[place] for place in places], layers.start : layers.stop]
    return {place: _median(gain) for place, gain in zip(places, own - through, strict=True)}


def _read(table: SweepTable, lens: str) -> tuple[list[tuple[int, int]], Float[np.ndarray, "place layer"]]:
    """Where a lens was read (prompt and position), and its divergence from the model there, NaN where not finite."""
    rows = table["lens"] == lens
    count = len(table.layers_of(lens))
    kl = np.where(table["is_finite"], table["kl_bits"].astype(float), np.nan)[rows].reshape(-1, count)
    prompts, places = (table[name][rows].reshape(-1, count)[:, 0].tolist() for name in ("prompt", "pos"))
    return list(zip(prompts, places, strict=True)), kl


def _median(values: Float[np.ndarray, " layer"]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")

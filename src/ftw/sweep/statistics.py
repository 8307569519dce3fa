"""Statistics of a battery: onset depths with intervals, curves with bands, chance levels, and the permutation control.

Everything is over facts: a fact asked in several wordings counts once, as the middle of them. A fact without an onset
counts as the latest in medians; means are over those that have one, and say how many that is. A prompt whose answer's
first token is only a blank is left out of whatever is read off that token.

The rule of the file: a figure without its interval, or its level of chance, is not given.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftw.sweep.battery.prompt import ORIGINAL, Prompt
from ftw.sweep.milestones.bootstrap import Bootstrap, sign_test
from ftw.sweep.milestones.grid import LOGIT, Grid, first_token, grids
from ftw.sweep.milestones.permutation import Permuted, permuted
from ftw.sweep.milestones.reading import Found
from ftw.sweep.milestones.semantics import control_margins
from ftw.sweep.milestones.summary import fact_key, middle, originals, told
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome
from ftw.sweep.table import SweepTable

ONSETS = (
    "copy",
    "semantic",
    "semantic_stays",
    "semantic_step",
    "semantic_margin_ok",
    "semantic_strong",
    "confirmed",
    "surface",
    "geometry",
    "whole_half_stays",
    "pool_first_stays",
    "control_margin_stays",
    "low_entropy",
)
"""Milestones that get intervals, besides one for each rank and each divergence of the thresholds."""
IN_PARTS = ("copy", "semantic", "semantic_strong", "rank_le_5", "kl_le_1")
"""Those that get them by relation, language, template and variant too."""


@dataclass(frozen=True)
class Statistics:
    """Of a battery, ready for the run's document."""

    seed: int
    level: float
    resamples: int
    permutations: int
    onsets: tuple[Mapping[str, Any], ...]
    shifts: tuple[Mapping[str, Any], ...]
    curves: tuple[Mapping[str, Any], ...]
    chance: Mapping[str, Any]
    control_signs: tuple[Mapping[str, Any], ...]
    permuted: tuple[Permuted, ...]

    def document(self) -> dict[str, Any]:
        """As plain JSON values, under the names of the fields."""
        return {
            "seed": self.seed,
            "level": self.level,
            "resamples": self.resamples,
            "permutations": self.permutations,
            "onsets": [dict(each) for each in self.onsets],
            "shifts": [dict(each) for each in self.shifts],
            "curves": [dict(each) for each in self.curves],
            "chance": dict(self.chance),
            "control_signs": [dict(each) for each in self.control_signs],
            "permutation": [each.document() for each in self.permuted],
        }

    def onset(self, milestone: str, lens: str = LOGIT, by: str = "all", name: str = "") -> Mapping[str, Any] | None:
        """One row of `onsets`; None where there is none."""
        wanted = (milestone, lens, by, name)
        rows = (one for one in self.onsets if (one["milestone"], one["lens"], one["by"], one["name"]) == wanted)
        return next(rows, None)


@dataclass(frozen=True)
class _Group:
    """Facts that are counted together."""

    by: str
    name: str
    facts: Mapping[str, Sequence[int]]
    """By fact its prompts, indices into the table's items."""


def of(table: SweepTable, found: Found, thresholds: Thresholds | None = None, *, seed: int = 0) -> Statistics:
    """The statistics of a table's milestones. The same seed gives the same numbers."""
    thresholds = thresholds or Thresholds()
    boot = Bootstrap(thresholds.interval_level, thresholds.resamples, thresholds.few, seed)
    every = grids(table)
    groups = list(_groups(table))
    ranks = sorted({*thresholds.ranks, 1})
    return Statistics(
        seed=seed,
        level=boot.level,
        resamples=boot.resamples,
        permutations=thresholds.permutations,
        onsets=tuple(_onsets(found, every, groups, thresholds, boot)),
        shifts=tuple(_shifts(table, found, every, groups, thresholds, boot)),
        curves=tuple(_curves(every, groups, ranks, boot)),
        chance=chance(table, ranks),
        control_signs=tuple(_signs(every, groups)),
        permuted=tuple(
            one
            for grid in every.values()
            for rank in ranks
            for one in permuted(grid, rank, shuffles=thresholds.permutations, seed=seed)
        ),
    )


def chance(table: SweepTable, ranks: Sequence[int]) -> dict[str, Any]:
    """What a reading that knows nothing gives.

    `rank_le`: r/V, the chance that a given token is among the first r. `any_layer`: 1 - (1 - r/V)^(n+1), that it is so
    at some layer, if layers were independent: an upper bound, as they are not. `entropy_bits`: log2 V. `rank_median`:
    (V+1)/2. `control_margin`: 1/2, the chance of a positive sign. `pool_first`: the mean of 1/(m+1) over the prompts
    with m other answers of their relation.
    """
    v, n = table.vocab_size, table.n_layers
    pools = [1 / (len(item.pool) + 1) for item in table.items if item.pool and not first_token(table, item.answer)]
    return {
        "vocab_size": v,
        "rank_le": {str(rank): min(1.0, rank / v) for rank in ranks},
        "any_layer": {str(rank): 1 - (1 - min(1.0, rank / v)) ** (n + 1) for rank in ranks},
        "rank_median": (v + 1) / 2,
        "entropy_bits": float(np.log2(v)),
        "control_margin": 0.5,
        "pool_first": (Outcome(float(np.mean(pools))) if pools else Outcome.none("no_control")).document(),
    }


def _groups(table: SweepTable) -> Iterator[_Group]:
    """All facts in their original wording; by relation, language and template; every variant; and the controls."""
    asked = [
        (index, item.source)
        for index, item in enumerate(table.items)
        if isinstance(item.source, Prompt) and item.answer and item.source.kind in ("fact", "control")
    ]
    original = [(at, prompt) for at, prompt in asked if (prompt.kind, prompt.variant) == ("fact", ORIGINAL)]
    if original:
        yield _Group("all", "", _by_fact(original))
    keys: dict[str, Callable[[Prompt], str]] = {
        "relation": lambda prompt: prompt.relation,
        "language": lambda prompt: prompt.language,
        "template": lambda prompt: f"{prompt.relation}/{prompt.template}" if prompt.template else "",
    }
    for by, key in keys.items():
        for name in dict.fromkeys(key(prompt) for _, prompt in original):
            if name:
                yield _Group(by, name, _by_fact([each for each in original if key(each[1]) == name]))
    facts = [each for each in asked if each[1].kind == "fact"]
    for name in dict.fromkeys(prompt.variant for _, prompt in facts):
        yield _Group("variant", name, _by_fact([each for each in facts if each[1].variant == name]))
    if controls := [each for each in asked if each[1].kind == "control"]:
        yield _Group("kind", "control", _by_fact(controls))


def _by_fact(prompts: Sequence[tuple[int, Prompt]]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for index, prompt in prompts:
        out.setdefault(fact_key(prompt), []).append(index)
    return out


def _names(thresholds: Thresholds) -> list[str]:
    return [
        *ONSETS,
        *(f"rank_le_{rank}" for rank in thresholds.ranks),
        *(f"kl_le_{bits:g}" for bits in thresholds.kl_bits),
    ]


def _onsets(
    found: Found, every: Mapping[str, Grid], groups: Sequence[_Group], thresholds: Thresholds, boot: Bootstrap
) -> Iterator[dict[str, Any]]:
    """Onset depth by lens, milestone and group: median, mean and the share that has one, each with its interval."""
    for lens in every:
        for group in groups:
            known = {index for prompts in group.facts.values() for index in prompts if (index, lens) in found}
            outcomes = {index: found[index, lens].outcomes() for index in known}
            for milestone in _names(thresholds):
                if group.by != "all" and milestone not in IN_PARTS:
                    continue
                each = {
                    fact: told([outcomes[index][milestone] for index in prompts if index in known])
                    for fact, prompts in group.facts.items()
                }
                several = [outcome for per_fact in each.values() for outcome in per_fact]
                values = np.array([_depth(middle(per_fact)) for per_fact in each.values() if per_fact])
                yield {
                    "lens": lens,
                    "milestone": milestone,
                    "by": group.by,
                    "name": group.name,
                    "n_facts": len(values),
                    "n_prompts": len(several),
                    "n_missing": int(np.isinf(values).sum()),
                    "median": boot.median(values).document(),
                    "mean": boot.mean(values).document(),
                    "share": boot.share(np.isfinite(values).astype(float)).document(),
                }


def _shifts(
    table: SweepTable,
    found: Found,
    every: Mapping[str, Grid],
    groups: Sequence[_Group],
    thresholds: Thresholds,
    boot: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Paired differences of onset, in layers, over facts that have both.

    `lens`: another lens minus the logit lens, in the original wording. `variant`: a variant minus the original of the
    same template, through each lens.
    """
    original = next((group for group in groups if group.by == "all"), None)
    if original is None:
        return
    bases = originals(table)
    for milestone in (name for name in _names(thresholds) if name in IN_PARTS):
        for lens in (name for name in every if name != LOGIT and LOGIT in every):
            pairs = {
                fact: [((index, lens), (index, LOGIT)) for index in prompts] for fact, prompts in original.facts.items()
            }
            yield {"by": "lens", "lens": lens, "name": LOGIT, "milestone": milestone} | _paired(
                found, pairs, milestone, boot
            )
        for group in (each for each in groups if each.by == "variant" and each.name != ORIGINAL):
            for lens in every:
                pairs = {
                    fact: [((index, lens), (bases[index], lens)) for index in prompts if index in bases]
                    for fact, prompts in group.facts.items()
                }
                yield {"by": "variant", "lens": lens, "name": group.name, "milestone": milestone} | _paired(
                    found, pairs, milestone, boot
                )


def _paired(
    found: Found,
    pairs: Mapping[str, Sequence[tuple[tuple[int, str], tuple[int, str]]]],
    milestone: str,
    boot: Bootstrap,
) -> dict[str, Any]:
    """Mean and median difference over facts, each fact the mean of its pairs; facts without a pair are missing."""
    gaps = []
    for several in pairs.values():
        onsets = [[found[one][milestone] for one in pair] for pair in several if all(one in found for one in pair)]
        whole = [pair for pair in onsets if len(told(pair)) == len(pair)]
        if onsets and not whole:
            continue
        both = [_depth(here) - _depth(there) for here, there in whole if here.value is not None]
        known = [gap for gap in both if np.isfinite(gap)]
        gaps.append(float(np.mean(known)) if known else np.nan)
    values = np.array(gaps)
    some = values[np.isfinite(values)]
    return {
        "n_facts": len(values),
        "n_missing": int(np.isnan(values).sum()),
        "mean": boot.mean(values).document(),
        "median": boot.median(some).document(),
    }


def _curves(
    every: Mapping[str, Grid], groups: Sequence[_Group], ranks: Sequence[int], boot: Bootstrap
) -> Iterator[dict[str, Any]]:
    """Share of facts whose answer's rank is at most r, layer by layer, with a band; by lens, group and rank."""
    for lens, grid in every.items():
        places, answer = _places(grid), grid["answer_rank"]
        for group in (one for one in groups if one.by != "template"):
            rows = [[places[index] for index in prompts if index in places] for prompts in group.facts.values()]
            for rank in ranks if group.by == "all" else [1]:
                among = ((answer >= 1) & (answer <= rank)).astype(float)
                each = [among[one].mean(axis=0) for one in rows if one]
                if not each:
                    continue
                curves = np.stack(each)
                yield {
                    "lens": lens,
                    "by": group.by,
                    "name": group.name,
                    "rank": rank,
                    "chance": min(1.0, rank / grid.rows.vocab_size),
                    "n_facts": len(curves),
                    "layers": list(grid.layers),
                } | {
                    name: [_plain(each) for each in curve]
                    for name, curve in zip(("share", "low", "high"), boot.band(curves), strict=True)
                }


def _signs(every: Mapping[str, Grid], groups: Sequence[_Group]) -> Iterator[dict[str, Any]]:
    """How many facts have P(answer) > P(control) at the first and the last layer, against a coin's toss.

    Each fact in its first original wording: the test needs independent signs.
    """
    facts = [prompts[0] for group in groups if group.by == "all" for prompts in group.facts.values()]
    for lens, grid in every.items():
        margin = grid.shaped(control_margins(grid.rows))
        places = _places(grid)
        for layer in (0, -1):
            known = margin[[places[index] for index in facts if index in places], layer]
            known = known[np.isfinite(known) & (known != 0)]
            positive = int((known > 0).sum())
            yield {
                "lens": lens,
                "layer": grid.layers[layer],
                "n_facts": len(known),
                "n_positive": positive,
                "chance": 0.5,
                "p_value": sign_test(positive, len(known)).document(),
            }


def _places(grid: Grid) -> dict[int, int]:
    """Where each prompt stands in a grid; prompts whose answer's first token says nothing are left out."""
    items = grid.rows.items
    return {
        prompt: at for at, prompt in enumerate(grid.prompts) if first_token(grid.rows, items[prompt].answer) is None
    }


def _depth(onset: Outcome) -> float:
    """A layer; infinity where it never comes."""
    return float("inf") if onset.value is None else float(onset.value)


def _plain(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None

"""A learned lens beside the logit lens: the metrics that both sidecars share, and the tuned lens's audit files.

The rule of the file: everything is of one fact, the baseline. Gains are the logit lens's number minus the other's,
layers the other's minus the logit lens's.
"""

from collections.abc import Iterator
from typing import Any

from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.raw import NORM
from ftw.sweep.legacy.rows import at_layers, next_token, of_prompt, ranks, values
from ftw.sweep.legacy.seed import minus
from ftw.sweep.legacy.source import Source
from ftw.sweep.table import SweepTable

FRACTIONS = (0.20, 0.40, 0.60, 0.80, 0.92, 0.96, 0.98, 1.00)
"""Places of a prompt that the positional audit reads; where two fall on one position, the first names it."""


def unified(source: Source, lens: str) -> dict[str, Any]:
    """Ranks, divergences and the first close layer of both lenses, with the difference."""
    one, t = source.suite.baseline, source.thresholds

    def pair(name: str, *, gain: bool) -> dict[str, Any]:
        base, other = source.milestone(one, name), source.milestone(one, name, lens)
        return {"baseline": base, lens: other, "delta": minus(base, other) if gain else minus(other, base)}

    return {
        "rank_milestones": {f"le_{rank}": pair(f"rank_le_{rank}", gain=False) for rank in t.ranks},
        "kl_bits_at_percentiles": {
            f"p{share}": pair(f"kl_at_p{share}", gain=True) for share in (round(100 * depth) for depth in t.depths)
        },
        "first_kl_le_1.0": pair("kl_le_1", gain=False),
    }


def variants(source: Source, one: Pass, lens: str) -> Iterator[dict[str, Any]]:
    """Per layer the logit lens, the tuned one, its rotation alone and its temperature alone.

    Temperatures are fitted on held-out text; a rotation's gain is what is left when both lenses are calibrated. Known
    where the run's audit says so for this prompt, else those cells are empty. A temperature changes no rank.
    """
    base, tuned = next_token(source.table, one.index, NORM), next_token(source.table, one.index, lens)
    base = at_layers(base, tuned["layer"])
    told = source.listed("learned_lens", "prompts", lens)
    fitted = {row["layer"]: row for row in told if row["prompt"] == one.entry["id"]}
    kl, better = values(base["kl_bits"]), values(tuned["kl_bits"])
    own, other = ranks(base["answer_rank"]), ranks(tuned["answer_rank"])
    entropies = values(base["entropy_bits"]), values(tuned["entropy_bits"])
    for at, layer in enumerate(tuned["layer"].tolist()):
        if layer == 0:
            continue
        found = fitted.get(layer, {})
        rotation, cooling = found.get("rotation"), found.get("temperature")
        yield {
            "layer": layer,
            "kl_bits_baseline": kl[at],
            "kl_bits_tuned": better[at],
            "kl_bits_rot_only": minus(kl[at], rotation),
            "kl_bits_temp_only": minus(kl[at], cooling),
            "delta_kl_bits_tuned": minus(kl[at], better[at]),
            "delta_kl_bits_rot_only": rotation,
            "delta_kl_bits_temp_only": cooling,
            "delta_kl_bits_interaction": found.get("interaction"),
            "answer_rank_baseline": own[at],
            "answer_rank_tuned": other[at],
            "answer_rank_temp_only": own[at],
            "rank_shift_tuned": minus(own[at], other[at]),
            "rank_shift_temp_only": minus(own[at], own[at]),
            "entropy_bits_baseline": entropies[0][at],
            "entropy_bits_tuned": entropies[1][at],
        }


def positions(table: SweepTable, index: int, lens: str) -> Iterator[dict[str, Any]]:
    """Both lenses at places along a prompt (an index into the table's items), of those positions that were read.

    Ranks are of the token that really follows, which is the answer's first at the end: so they exist at every place.
    """
    whole = of_prompt(table, index)
    length = len(table.items[index].ids)
    read = set(whole.where(lens=lens)["pos"].tolist())
    places: dict[int, float] = {}
    for fraction in FRACTIONS:
        places.setdefault(round(fraction * (length - 1)), fraction)
    for pos, fraction in places.items():
        if pos not in read:
            continue
        tuned = whole.where(lens=lens, pos=pos)
        base = at_layers(whole.where(lens=NORM, pos=pos), tuned["layer"])
        kl, better = values(base["kl_bits"]), values(tuned["kl_bits"])
        own, other = ranks(base["next_rank"]), ranks(tuned["next_rank"])
        for at, layer in enumerate(tuned["layer"].tolist()):
            if layer == 0:
                continue
            yield {
                "pos_frac": fraction,
                "pos_index": pos,
                "layer": layer,
                "kl_bits_baseline": kl[at],
                "kl_bits_tuned": better[at],
                "delta_kl_bits_tuned": minus(kl[at], better[at]),
                "answer_rank_baseline": own[at],
                "answer_rank_tuned": other[at],
                "rank_shift_tuned": minus(own[at], other[at]),
                "entropy_bits_baseline": values(base["entropy_bits"])[at],
                "entropy_bits_tuned": values(tuned["entropy_bits"])[at],
            }

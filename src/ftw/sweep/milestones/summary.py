"""Summary: prompts held against each other. Variants against the original, controls, facts, and lens against lens.

The rule of the file: nothing is measured here. Milestones are counted, subtracted and ordered.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftw.sweep.battery.prompt import ORIGINAL, Prompt
from ftw.sweep.milestones.grid import LOGIT, no_onset
from ftw.sweep.milestones.reading import Found, Milestones
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.outcome import Outcome, Why
from ftw.sweep.table import SweepTable

ABLATED = ("copy", "semantic", "semantic_strong", "rank_le_5")
"""Milestones that a variant is compared in, where the thresholds ask for them."""
CONTROLS = (
    "control_margin_first",
    "control_margin_stays",
    "control_margin_max",
    "control_margin_last",
    "control_strong",
    "control_gap_max",
    "control_whole_stays",
)
PER_FACT = (
    "copy",
    "semantic",
    "semantic_stays",
    "semantic_step",
    "semantic_margin_ok",
    "semantic_strong",
    "confirmed",
    "delta_hat",
    "surface",
    "geometry",
    "pool_first_stays",
)
"""Milestones that are counted over facts."""


@dataclass(frozen=True)
class Summary:
    """Of a battery: ready for the run's document."""

    ablations: tuple[Mapping[str, Any], ...]
    controls: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any]
    sidecars: Mapping[str, Mapping[str, Any]]
    """By lens: its milestones beside the logit lens's."""

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "ablations": [dict(each) for each in self.ablations],
            "controls": [dict(each) for each in self.controls],
            "facts": dict(self.facts),
            "sidecars": {lens: dict(each) for lens, each in self.sidecars.items()},
        }


def of(table: SweepTable, found: Found, thresholds: Thresholds | None = None) -> Summary:
    """The summary of a table's milestones."""
    thresholds = thresholds or Thresholds()
    return Summary(
        ablations=tuple(ablations(table, found)),
        controls=tuple(controls(table, found)),
        facts=facts(table, found),
        sidecars=sidecars(table, found, thresholds),
    )


def ablations(table: SweepTable, found: Found) -> Iterable[dict[str, Any]]:
    """Every variant of a fact beside the original of the same template, lens by lens.

    Each milestone of ABLATED with `orig`, `variant` and `delta` = variant - original, in layers: positive is later. A
    variant whose original was not asked has `no_variant` there; `delta` has the reason of the one that is missing.
    """
    bases = originals(table)
    for index, prompt in _facts(table):
        if prompt.variant == ORIGINAL:
            continue
        base = bases.get(index)
        for lens in _lenses(table, found, index):
            here = found[index, lens].outcomes()
            there = found[base, lens].outcomes() if base is not None and (base, lens) in found else {}
            shifts = {}
            for name in (name for name in ABLATED if name in here):
                before = there.get(name, Outcome.none("no_variant"))
                shifts[name] = {
                    "orig": before.document(),
                    "variant": here[name].document(),
                    "delta": _minus(here[name], before).document(),
                }
            yield {
                "fact": prompt.fact_id,
                "relation": prompt.relation,
                "template": prompt.template,
                "language": prompt.language,
                "variant": prompt.variant,
                "lens": lens,
                "prompt": table.items[index].id,
                "orig": None if base is None else table.items[base].id,
                "milestones": shifts,
            }


def controls(table: SweepTable, found: Found) -> Iterable[dict[str, Any]]:
    """Every negative control, lens by lens: the answer that is right there against the fact's own."""
    for index, item in enumerate(table.items):
        if not isinstance(item.source, Prompt) or item.source.kind != "control":
            continue
        for lens in _lenses(table, found, index):
            here = found[index, lens].outcomes()
            yield {
                "prompt": item.id,
                "fact": item.source.fact_id,
                "relation": item.source.relation,
                "language": item.source.language,
                "lens": lens,
                "milestones": {name: here[name].document() for name in CONTROLS},
            }


def facts(table: SweepTable, found: Found) -> dict[str, Any]:
    """Facts in their original wording: each with its milestones, and medians over them, lens by lens.

    A fact asked through several templates stands for the middle one of its onsets, those that never come being the
    latest. `n_missing` counts facts without; `median`, `p25` and `p75` are over the others (linear interpolation).
    """
    asked: dict[str, list[int]] = {}
    for index, prompt in _facts(table):
        if prompt.variant == ORIGINAL and table.items[index].answer:
            asked.setdefault(fact_key(prompt), []).append(index)
    out: dict[str, Any] = {"n": len(asked), "lenses": {}, "per_fact": []}
    lenses = [lens for lens in table.lenses if any(each == lens for _, each in found)]
    for lens in lenses:
        each = {
            key: _middles([found[at, lens] for at in prompts if (at, lens) in found]) for key, prompts in asked.items()
        }
        out["lenses"][lens] = {name: spread([one[name] for one in each.values()]) for name in PER_FACT}
        out["per_fact"] += [
            {
                "fact": key,
                "lens": lens,
                "prompts": [table.items[at].id for at in asked[key]],
                "milestones": {name: outcome.document() for name, outcome in one.items()},
            }
            for key, one in each.items()
        ]
    return out


def sidecars(table: SweepTable, found: Found, thresholds: Thresholds) -> dict[str, dict[str, Any]]:
    """Every other lens beside the logit lens: medians over prompts in their original wording, each with its `delta`.

    `ranks`: by `le_10`, `le_5`, … the onset of that rank, `delta` = lens - baseline in layers: negative is earlier.
    `kl_bits`: by `p25`, `p50`, `p75` of the depth the divergence, `delta` = baseline - lens in bits: positive is closer
    to the model. `kl_le`: by threshold, as `ranks`. Medians of deltas are over prompts that both have a value for.
    """
    asked = [index for index, prompt in _facts(table) if prompt.variant == ORIGINAL and table.items[index].answer]
    depths = [f"p{round(100 * depth)}" for depth in thresholds.depths]
    out: dict[str, dict[str, Any]] = {}
    for lens in (name for name in table.lenses if name != LOGIT):
        pairs = [(found[at, LOGIT], found[at, lens]) for at in asked if (at, LOGIT) in found and (at, lens) in found]
        if pairs:
            out[lens] = {
                "ranks": {f"le_{rank}": _beside(pairs, f"rank_le_{rank}") for rank in thresholds.ranks},
                "kl_bits": {depth: _beside(pairs, f"kl_at_{depth}", sign=-1) for depth in depths},
                "kl_le": {f"{bits:g}": _beside(pairs, f"kl_le_{bits:g}") for bits in thresholds.kl_bits},
            }
    return out


def spread(onsets: Sequence[Outcome]) -> dict[str, Any]:
    """Median and quartiles of those that there are, and how many there are not, with their reasons."""
    known = [float(each.value) for each in onsets if each.value is not None]
    reasons = Counter(each.why for each in onsets if each.why is not None)
    why: Why = reasons.most_common(1)[0][0] if reasons else "too_few"
    points = {
        name: (Outcome(float(np.quantile(known, share))) if known else Outcome(None, why)).document()
        for name, share in (("p25", 0.25), ("median", 0.5), ("p75", 0.75))
    }
    return {**points, "n": len(onsets), "n_missing": len(onsets) - len(known), "reasons": dict(reasons)}


def originals(table: SweepTable) -> dict[int, int]:
    """For each variant's prompt the original of the same fact, template and language, where it was asked."""
    bases = {_template(prompt): index for index, prompt in _facts(table) if prompt.variant == ORIGINAL}
    return {index: bases[_template(prompt)] for index, prompt in _facts(table) if _template(prompt) in bases}


def fact_key(prompt: Prompt) -> str:
    """Whose facts are the same: relation and fact; a prompt that names no fact is its own."""
    return f"{prompt.relation}/{prompt.fact_id}" if prompt.fact_id else prompt.id


def told(onsets: Sequence[Outcome]) -> list[Outcome]:
    """Those that are not of a first token that is only a blank: such a one is no late onset, it is none at all."""
    return [each for each in onsets if each.why != "blank_first"]


def middle(onsets: Sequence[Outcome]) -> Outcome:
    """The middle one of several onsets, those that never come being the latest; of an even number the later.

    Those that cannot be told (see `told`) count where there is no other.
    """
    if not onsets:
        return Outcome.none("not_asked")
    onsets = told(onsets) or onsets
    order = sorted(onsets, key=lambda each: float("inf") if each.value is None else float(each.value))
    return order[len(order) // 2]


def _middles(several: Sequence[Milestones]) -> dict[str, Outcome]:
    each = [one.outcomes() for one in several]
    return {name: middle([one[name] for one in each]) for name in PER_FACT}


def _facts(table: SweepTable) -> list[tuple[int, Prompt]]:
    sources = [(index, item.source) for index, item in enumerate(table.items)]
    return [(index, source) for index, source in sources if isinstance(source, Prompt) and source.kind == "fact"]


def _template(prompt: Prompt) -> tuple[str, str, str, str]:
    return prompt.relation, prompt.fact_id, prompt.template, prompt.language


def _lenses(table: SweepTable, found: Found, index: int) -> list[str]:
    return [lens for lens in table.lenses if (index, lens) in found]


def _beside(pairs: Sequence[tuple[Milestones, Milestones]], name: str, sign: int = 1) -> dict[str, Any]:
    both = [(base[name], here[name]) for base, here in pairs]
    return {
        "baseline": spread([base for base, _ in both]),
        "lens": spread([here for _, here in both]),
        "delta": spread([_minus(here, base, sign) for base, here in both]),
    }


def _minus(late: Outcome, early: Outcome, sign: int = 1) -> Outcome:
    for each in (late, early):
        if each.value is None:
            return no_onset(each)
    return Outcome(sign * (late.value - early.value))  # type: ignore[operator]

"""Permutation control: how often the answer would come first if it belonged to another fact of the relation.

A model that only knows that a capital is asked for names some capital. Answers are shuffled among the facts of their
relation, and each layer's hits are counted again: what is left above the shuffles is about the fact.

The rule of the file: a hit is exact. The table's best tokens say for every answer whether it is among the first r.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ftw.sweep.battery.prompt import ORIGINAL, Prompt
from ftw.sweep.milestones.grid import Grid, first_token
from ftw.sweep.milestones.summary import fact_key
from ftw.sweep.outcome import Outcome

ALPHA = 0.05
"""A layer stands out from the shuffles when at most this share of them does as well."""


@dataclass(frozen=True)
class Permuted:
    """Hits of one lens and rank, for one relation or all of them (name empty)."""

    lens: str
    relation: str
    rank: int
    n_facts: int
    layers: tuple[int, ...]
    share: Float[np.ndarray, " layer"]
    """Of facts (each the mean of its prompts) whose answer is among the first `rank`."""
    chance: Float[np.ndarray, " layer"]
    """The same, mean over the shuffles."""
    high: Float[np.ndarray, " layer"]
    """The shuffles' quantile at 1 - ALPHA."""
    p: Float[np.ndarray, " layer"]
    """(1 + shuffles that do as well) / (1 + shuffles)."""
    p_depth: Outcome
    """The same for the share averaged over all layers: one test for the whole depth."""
    stands_out: Outcome
    """The first layer from which on p <= ALPHA to the end."""

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        curves = {
            name: [round(float(each), 6) for each in getattr(self, name)] for name in ("share", "chance", "high", "p")
        }
        return {
            "lens": self.lens,
            "relation": self.relation,
            "rank": self.rank,
            "n_facts": self.n_facts,
            "layers": list(self.layers),
            **curves,
            "p_depth": self.p_depth.document(),
            "stands_out": self.stands_out.document(),
        }


def permuted(grid: Grid, rank: int, *, shuffles: int, seed: int) -> list[Permuted]:
    """Each relation with at least two answers, then all of them together (name empty), from original wordings.

    Shuffles move whole facts within their relation, all wordings of a fact alike. Empty where the table lists fewer
    than `rank` tokens, or there is no such relation.
    """
    if grid.rows["top_ids"].shape[1] < rank:
        return []
    names, sizes, own, null = [], [], [], []
    for number, (name, places) in enumerate(_relations(grid).items()):
        hits = _hits(grid, places, rank)
        if hits is not None:
            names.append(name)
            sizes.append(len(hits))
            own.append(np.diagonal(hits).mean(axis=1))
            null.append(_shuffled(hits, shuffles, np.random.default_rng([seed, number])))
    out = [_judged(grid, name, rank, *each) for name, *each in zip(names, sizes, own, null, strict=True)]
    if out:
        together = (np.average(each, axis=0, weights=sizes) for each in (own, null))
        out.append(_judged(grid, "", rank, sum(sizes), *together))
    return out


def _relations(grid: Grid) -> dict[str, list[int]]:
    """By relation the places in the grid of its facts' original prompts, answers that begin with a blank left out."""
    out: dict[str, list[int]] = {}
    for place, index in enumerate(grid.prompts):
        item = grid.rows.items[index]
        if (
            isinstance(item.source, Prompt)
            and (item.source.kind, item.source.variant) == ("fact", ORIGINAL)
            and first_token(grid.rows, item.answer) is None
        ):
            out.setdefault(item.source.relation, []).append(place)
    return out


def _hits(grid: Grid, places: Sequence[int], rank: int) -> Float[np.ndarray, "fact answer layer"] | None:
    """For each fact and each fact's answer, the share of its prompts that have it among the first `rank`, by layer."""
    items = [grid.rows.items[grid.prompts[place]] for place in places]
    keys = list(dict.fromkeys(fact_key(item.source) for item in items))
    if len({item.answer[0] for item in items}) < 2:
        return None
    spelled: dict[tuple[str, str], dict[str, int]] = {}
    for item in items:  # an answer's first token can depend on language and template
        spelled.setdefault((item.source.language, item.source.template), {}).setdefault(
            fact_key(item.source), item.answer[0]
        )
    anywhere = {fact_key(item.source): item.answer[0] for item in items}
    top, whole = grid["top_ids"][:, :, :rank], grid["is_finite"]
    hits = np.zeros((len(keys), len(keys), len(grid.layers)))
    for place, item in zip(places, items, strict=True):
        here = spelled[item.source.language, item.source.template]
        answers = np.array([here.get(key, anywhere[key]) for key in keys])
        among = (top[place][None] == answers[:, None, None]).any(axis=2) & whole[place][None]
        hits[keys.index(fact_key(item.source))] += among
    prompts = np.array([sum(fact_key(item.source) == key for item in items) for key in keys])
    shares: np.ndarray = hits / prompts[:, None, None]
    return shares


def _shuffled(
    hits: Float[np.ndarray, "fact answer layer"], shuffles: int, rng: np.random.Generator
) -> Float[np.ndarray, "shuffle layer"]:
    facts = np.arange(len(hits))
    return np.stack([hits[facts, rng.permutation(len(hits))].mean(axis=0) for _ in range(shuffles)])


def _judged(
    grid: Grid, relation: str, rank: int, n_facts: int, own: np.ndarray, null: Float[np.ndarray, "shuffle layer"]
) -> Permuted:
    p = (1 + (null >= own - 1e-12).sum(axis=0)) / (1 + len(null))
    whole = (1 + int((null.mean(axis=1) >= own.mean() - 1e-12).sum())) / (1 + len(null))
    low = np.logical_and.accumulate((p <= ALPHA)[::-1])[::-1]
    first = grid.layers[int(low.argmax())] if low.any() else None
    return Permuted(
        lens=grid.lens,
        relation=relation,
        rank=rank,
        n_facts=n_facts,
        layers=grid.layers,
        share=own,
        chance=null.mean(axis=0),
        high=np.quantile(null, 1 - ALPHA, axis=0),
        p=p,
        p_depth=Outcome(whole),
        stands_out=Outcome.none("never") if first is None else Outcome(first),
    )

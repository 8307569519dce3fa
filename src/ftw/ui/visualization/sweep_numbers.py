"""What a sweep's rows and its document say, as the report and the terminal draw it: prompts, milestones, grids.

The rule of the file: a number comes from the rows or from the document as it stands. Nothing is decided here again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ftw.substrate.errors import ConfigError
from ftw.sweep.battery.prompt import ORIGINAL
from ftw.sweep.files.rundir import SCHEMA
from ftw.sweep.milestones.grid import LOGIT, Grid, grids
from ftw.sweep.table import SweepTable

ONSET, COPY, CLOSE = "semantic", "copy", "kl_le_1"
"""Milestones that are drawn: the answer is first, the prompt is copied, the distribution is near the model's own."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt of a run."""

    row: int
    """Its place in the table's items."""
    id: str
    kind: str
    relation: str
    fact: str
    variant: str
    language: str
    text: str
    answer: str
    """Empty where none is looked for."""
    milestones: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """By lens and name: `{"value": …, "why": …}`."""

    @property
    def name(self) -> str:
        """A short name: the fact and its variant, or how the prompt ends."""
        if not self.fact:
            words = self.text.split()
            return f"{'… ' if len(words) > 5 else ''}{' '.join(words[-5:])}"
        return self.fact if self.variant in ("", "orig") else f"{self.fact}, {self.variant}"

    @property
    def has_answer(self) -> bool:
        """Whether an answer is looked for."""
        return bool(self.answer)

    def value(self, name: str, lens: str = LOGIT) -> float | None:
        """A milestone's value; None where there is none."""
        found = self.milestones.get(lens, {}).get(name, {}).get("value")
        return None if found is None else float(found)

    def why(self, name: str, lens: str = LOGIT) -> str:
        """Why there is no value."""
        return str(self.milestones.get(lens, {}).get(name, {}).get("why") or "not_asked")


@dataclass(frozen=True, slots=True)
class Spread:
    """How the onsets of some facts lie, as the run's statistics say."""

    lens: str
    by: str
    """What the facts have in common: `all`, `relation`, `language` or `variant`."""
    name: str
    n_facts: int
    n_missing: int
    """Facts whose answer is never first. They count as the latest."""
    median: float | None
    """None where the middle fact has no onset."""
    low: float | None
    """The interval of the median; None where there are too few facts."""
    high: float | None
    """None beside a `low`: it reaches facts that have no onset."""
    onsets: tuple[float, ...]
    """Of their prompts."""
    shares: tuple[float, ...]
    """The share of facts whose answer has rank 1, layer by layer."""

    @property
    def title(self) -> str:
        """Its name as it stands before a row."""
        return self.name if self.by == "relation" else f"{self.by} {self.name}".strip()

    @property
    def interval(self) -> str:
        """The interval in words; empty where there is none."""
        if self.low is None:
            return ""
        return f"{self.low:.3g} to {'never' if self.high is None else f'{self.high:.3g}'}"


class Run:
    """A run's document with its rows. Raises ConfigError where they are of two runs, or of another version."""

    def __init__(self, document: Mapping[str, Any], table: SweepTable) -> None:
        if document.get("schema", SCHEMA) != SCHEMA:  # a study in memory has none yet
            raise ConfigError(
                f"run.json has schema {document.get('schema')!r}, and this version of ftw reads {SCHEMA}: "
                "make the report with the version that made the run"
            )
        known = {item.id: row for row, item in enumerate(table.items)}
        said = [one["id"] for one in document["prompts"]]
        if set(said) != set(known) or len(said) != len(known):
            lost = sorted(set(said) ^ set(known))
            raise ConfigError(
                f"run.json tells of {len(said)} prompts and the rows of {len(known)}; only one has "
                f"{', '.join(lost[:3])}: they are not of one run"
            )
        self.document = document
        self.table = table
        self.last = table.last()
        self.prompts = tuple(_asked(one, known[one["id"]], table) for one in document["prompts"])
        self.n: int = table.n_layers

    @property
    def facts(self) -> tuple[Asked, ...]:
        """Prompts that ask for a fact's answer."""
        return tuple(one for one in self.prompts if one.kind == "fact" and one.has_answer)

    @property
    def shown(self) -> tuple[Asked, ...]:
        """What curves run over: the facts, or every prompt where there are none."""
        return self.facts or self.prompts

    @cached_property
    def by_onset(self) -> list[Asked]:
        """One prompt of every fact, its first wording, from the earliest onset to the latest, those without last."""
        first: dict[tuple[str, str], Asked] = {}
        for one in self.facts:
            first.setdefault((one.relation, one.fact or one.id), one)
        late = float("inf")
        onsets = [(late if (onset := one.value(ONSET)) is None else onset, one.row, one) for one in first.values()]
        return [one for _, _, one in sorted(onsets, key=lambda each: each[:2])]

    @cached_property
    def lenses(self) -> tuple[str, ...]:
        """Every lens, the logit lens first."""
        return (LOGIT, *(lens for lens in self.table.lenses if lens != LOGIT))

    @property
    def soft_copy(self) -> str:
        """The name of the loosest copying that the run looked for: one token of the prompt, at the soft threshold."""
        return f"soft_copy_k1_at_{self.document['thresholds']['soft_p']:g}"

    @property
    def level(self) -> float:
        """What share of resamples an interval holds."""
        return float((self.document.get("statistics") or {}).get("level", 0.95))

    def spread(self, lens: str = LOGIT, by: str = "all", name: str = "") -> Spread | None:
        """The onsets of a group of facts through one lens; None where the run's statistics have no such group."""
        row = self._statistic("onsets", lens, by, name, milestone=ONSET)
        if row is None or not row["n_facts"]:
            return None
        curve = self._statistic("curves", lens, by, name, rank=1)
        of = [one for one in self.facts if by == "all" or getattr(one, by) == name]
        onsets = (one.value(ONSET, lens) for one in of if by == "variant" or one.variant == ORIGINAL)
        median, low, high = (_number(row["median"][key]) for key in ("value", "low", "high"))
        return Spread(
            lens=lens,
            by=by,
            name=name,
            n_facts=row["n_facts"],
            n_missing=row["n_missing"],
            median=median,
            low=low,
            high=high,
            onsets=tuple(onset for onset in onsets if onset is not None),
            shares=tuple(share or 0.0 for share in curve["share"]) if curve is not None else (),
        )

    @cached_property
    def groups(self) -> tuple[Spread, ...]:
        """Every relation, and every language and variant where there are several, through the logit lens."""
        found: list[Spread] = []
        for by in ("relation", "language", "variant"):
            names = list(dict.fromkeys(getattr(one, by) for one in self.facts))
            rows = [row for name in names if (row := self.spread(LOGIT, by, name)) is not None]
            found += rows if by == "relation" or len(rows) > 1 else []
        return tuple(found)

    def _statistic(self, kind: str, lens: str, by: str, name: str, **more: Any) -> Mapping[str, Any] | None:
        wanted = {"lens": lens, "by": by, "name": name, **more}
        rows = (self.document.get("statistics") or {}).get(kind) or ()
        return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), None)

    @property
    def chance_rank(self) -> float:
        """The median rank of a token that was drawn blindly."""
        return (self.table.vocab_size + 1) / 2

    @property
    def uniform_bits(self) -> float:
        """The entropy of a distribution that knows nothing."""
        return float(np.log2(self.table.vocab_size))

    @cached_property
    def _grids(self) -> dict[str, Grid]:
        return grids(self.table)

    def curves(self, column: str, lens: str = LOGIT, of: Sequence[Asked] | None = None) -> "Curves | None":
        """A column at last positions, prompt by layer. None where the table has no such column, lens, or number.

        What is no number is NaN (see `ftw.sweep.milestones.grid`); prompts without any number are left out.
        """
        grid = self._grids.get(lens)
        if grid is None or not grid.has(column):
            return None
        rows = {prompt: at for at, prompt in enumerate(grid.prompts)}
        asked = [one.row for one in (self.shown if of is None else of)]
        wanted = grid.numbers(column)[[rows[row] for row in asked if row in rows]]
        wanted = wanted[np.isfinite(wanted).any(axis=1)]
        return Curves(np.array(grid.layers), wanted) if len(wanted) else None


@dataclass(frozen=True)
class Curves:
    """One number of several prompts, layer by layer."""

    layers: Int[np.ndarray, "layer"]
    values: Float[np.ndarray, "prompt layer"]

    def quantile(self, share: float) -> Float[np.ndarray, "layer"]:
        """Over the prompts, of each layer; NaN where no prompt has a number."""
        known = np.isfinite(self.values)
        return np.array(
            [
                np.quantile(self.values[known[:, at], at], share) if known[:, at].any() else np.nan
                for at in range(len(self.layers))
            ]
        )

    @property
    def median(self) -> Float[np.ndarray, "layer"]:
        """The middle prompt of each layer."""
        return self.quantile(0.5)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _asked(one: Mapping[str, Any], row: int, table: SweepTable) -> Asked:
    answer = one.get("answer") or {}
    ids = table.items[row].ids
    return Asked(
        row=row,
        id=one["id"],
        kind=one["kind"],
        relation=one.get("relation") or "",
        fact=one.get("fact_id") or "",
        variant=one.get("variant") or "",
        language=one.get("language") or "",
        text=one["text"] or "".join(table.pieces.get(token, f"#{token}") for token in ids),
        answer=answer.get("text") or "",
        milestones=one.get("milestones") or {},
    )


def first_stay(is_so: Bool[np.ndarray, " place"]) -> int | None:
    """The place from which on something stays so to the end; None where it is not so at the end."""
    place = len(is_so)
    while place and is_so[place - 1]:
        place -= 1
    return place if place < len(is_so) else None


def thinned(of: Sequence[Asked], most: int) -> list[Asked]:
    """At most so many, evenly taken, the first and the last among them."""
    if len(of) <= most:
        return list(of)
    if most == 1:
        return [of[len(of) // 2]]
    return [of[round(place * (len(of) - 1) / (most - 1))] for place in range(most)]


def rounded(value: float) -> float:
    """A number with the digits that fp32 holds, so that a page does not carry twice as many."""
    return float(f"{value:.6g}")

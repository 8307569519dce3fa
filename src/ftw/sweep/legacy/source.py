"""What the legacy documents are made from: one run's table and document, and the prompts by their legacy tags.

The rule of the file: a milestone, an audit's figure or a model's fact is looked up in the run's document, never
computed a second time. What the run did not find is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from ftw.sweep.legacy.passes import Pass, Suite, suite
from ftw.sweep.legacy.raw import NORM
from ftw.sweep.legacy.records import pack_topk
from ftw.sweep.legacy.rows import chances, next_token, values
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.table import SweepTable


@runtime_checkable
class Studied(Protocol):
    """A finished run in memory."""

    @property
    def table(self) -> SweepTable:
        """Its rows."""

    @property
    def thresholds(self) -> Thresholds:
        """What its milestones compare with."""

    def document(self) -> dict[str, Any]:
        """What stands in its `run.json`."""


@dataclass(frozen=True)
class Source:
    """A run, ready to be looked up."""

    table: SweepTable
    thresholds: Thresholds
    document: Mapping[str, Any]

    @cached_property
    def suite(self) -> Suite:
        """Its prompts by their legacy tags."""
        return suite(self.document, self.table)

    @property
    def n(self) -> int:
        """Blocks of the model."""
        return self.table.n_layers

    def has(self, lens: str) -> bool:
        """Whether a lens was part of the run."""
        return lens in self.table.lenses

    def milestone(self, one: Pass | None, name: str, lens: str = NORM) -> Any:
        """A milestone's value; None where it was not found, not looked for, or there is no such pass."""
        if one is None:
            return None
        return one.entry["milestones"].get(lens, {}).get(name, {}).get("value")

    def fact(self, *path: str) -> Any:
        """Something at this path of the document; None where the run does not say."""
        here: Any = self.document
        for step in path:
            here = here.get(step) if isinstance(here, Mapping) else None
        return here

    def lens_digest(self, lens: str) -> str | None:
        """What a lens of the run is: the sha256 of its tensors; None where the run does not say."""
        found = self.fact("provenance", "lenses") or ()
        return next((str(one["digest"]) for one in found if one["name"] == lens), None)

    def finding(self, name: str, lens: str | None = None) -> Mapping[str, Any]:
        """An audit by its name and, where it is of one lens, that; empty where the run was not audited so."""
        return next((one for one in self.findings() if (one["name"], one.get("subject")) == (name, lens)), {})

    def figure(self, finding: str, name: str, one: Pass | None = None, *, lens: str | None = None) -> Any:
        """An audit's figure, of the whole run or of one prompt; None where there is none."""
        found = self.finding(finding, lens)
        figures = found.get("figures", {}) if one is None else found.get("prompts", {}).get(one.entry["id"], {})
        return figures.get(name, {}).get("value")

    def findings(self) -> Sequence[Mapping[str, Any]]:
        """Every audit."""
        found = self.fact("audit", "findings") or ()
        return tuple(found.values()) if isinstance(found, Mapping) else tuple(found)

    def listed(self, finding: str, name: str, lens: str | None = None) -> Sequence[Mapping[str, Any]]:
        """A table of an audit; empty where there is none."""
        rows: Sequence[Mapping[str, Any]] = self.finding(finding, lens).get("tables", {}).get(name, ())
        return rows

    def text(self, index: int) -> str:
        """A prompt's text; of token ids that were given as such, what they read as."""
        text = self.document["prompts"][index]["text"]
        return "".join(self.table.pieces[token] for token in self.table.items[index].ids) if text is None else str(text)

    def own(self, index: int, k: int) -> dict[str, Any]:
        """The model's own next-token distribution at a prompt's end: its entropy in bits and its k best tokens."""
        row = next_token(self.table, index, NORM).where(layer=self.n)
        tokens = [self.table.pieces[token] for token in row["top_ids"][0][:k].tolist()]
        return {
            "entropy": values(row["entropy_bits"])[0],
            "topk": pack_topk(tokens, chances(row["top_logprobs"])[0][:k].tolist()),
        }

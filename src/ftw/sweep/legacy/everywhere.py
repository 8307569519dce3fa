"""The baseline's prompts at every position: what `records` shows, whatever positions the run itself read.

A run reads last positions unless it is asked for all. The published records hold every position of the first fact, its
variants and its control: those few prompts are read again. Other facts keep the positions that the run read.

The rule of the file: a row is the same wherever it is read. Only positions are added.
"""

from dataclasses import dataclass

from ftw.sweep.battery import Prompt
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.source import Source, Studied
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable


@dataclass(frozen=True)
class Everywhere:
    """Some prompts of a run at all their positions."""

    table: SweepTable
    ids: tuple[str, ...]
    """The prompts' ids in the run, in the order of the table's items."""

    def place(self, one: Pass) -> int | None:
        """Where a pass's prompt stands in the table; None where it was not read again."""
        return self.ids.index(one.entry["id"]) if one.entry["id"] in self.ids else None


def read_everywhere(sweep: Sweep, study: Studied) -> Everywhere | None:
    """Reads the baseline's prompts again, or None where the run read every position already."""
    source = Source(study.table, study.thresholds, study.document())
    shown = [one.index for one in source.suite.of("seed")]
    items = [source.table.items[index] for index in shown]
    read = [len(set(source.table.where(prompt=index)["pos"].tolist())) for index in shown]
    if all(count == len(item.ids) for count, item in zip(read, items, strict=True)):
        return None
    asked = [item.source for item in items]
    prompts = [one for one in asked if isinstance(one, Prompt)]
    again = sweep.run(prompts if len(prompts) == len(asked) else [list(item.ids) for item in items], positions="all")
    return Everywhere(again, tuple(item.id for item in items))

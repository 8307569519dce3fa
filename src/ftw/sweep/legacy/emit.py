"""Emits the rows of the legacy files: one per layer and position, and one per layer for the next token.

The emitters are pure: a table, a pass and a lens in, records out. A sidecar (prism, tuned) is the same emitter on
another lens, so that its file mirrors the baseline's column by column.

The rule of the file: every number is the table's own, renamed or put into the unit that the column's name promises. A
row whose lens gave a NaN keeps its tags and is otherwise empty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftw.sweep.legacy.columns import LISTED
from ftw.sweep.legacy.everywhere import Everywhere
from ftw.sweep.legacy.measured import measured
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.records import make_pure_record, make_record
from ftw.sweep.legacy.rows import chances, next_token, of_prompt, values
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.table import SweepTable

FEW = 5
"""Best tokens that are listed, except where a record is verbose."""
TELLING = ("germany", "berlin", "capital", "answer", "word", "simply")
"""A token that holds one of these is verbose, as the last position is: 20 best tokens are listed."""
STRIPPED = ".,!?;:"


@dataclass(frozen=True)
class Emitter:
    """Emits a table's rows, with what all of them share."""

    table: SweepTable
    thresholds: Thresholds
    everywhere: Everywhere | None = None
    """Prompts that were read again at every position: their records come from there."""

    def records(self, one: Pass, lens: str) -> Iterator[dict[str, Any]]:
        """A record for every layer and every position that was read, layer by layer."""
        table, index = self.at_most(one)
        rows = of_prompt(table, index).where(lens=lens)
        order = np.lexsort((rows["pos"], rows["layer"]))
        entropy, best = values(rows["entropy_bits"]), chances(rows["top_logprobs"]).tolist()
        last = len(self.table.items[one.index].ids) - 1
        fine = rows["is_finite"].tolist()
        for at in order.tolist():
            pos, token = int(rows["pos"][at]), table.pieces[int(rows["token_id"][at])]
            listed = LISTED if pos == last or is_telling(token) else FEW
            ids = rows["top_ids"][at][:listed].tolist() if fine[at] else []
            yield make_record(
                prompt_id=one.prompt_id,
                prompt_variant=one.prompt_variant,
                layer=int(rows["layer"][at]),
                pos=pos,
                token=token,
                entropy=entropy[at] if fine[at] else None,
                tokens=[table.pieces[each] for each in ids],
                probs=best[at][:listed],
                extra={"fact_key": one.fact_key, "fact_index": one.fact_index},
            )

    def at_most(self, one: Pass) -> tuple[SweepTable, int]:
        """The table that has most positions of a pass, and the place of its prompt among the items there."""
        place = None if self.everywhere is None else self.everywhere.place(one)
        if self.everywhere is None or place is None:
            return self.table, one.index
        return self.everywhere.table, place

    def pure(self, one: Pass, lens: str) -> Iterator[dict[str, Any]]:
        """A record for every layer at the last position, with everything that is measured there."""
        rows = next_token(self.table, one.index, lens)
        if not len(rows):
            return
        extras = measured(self.table, rows, one, lens, self.thresholds)
        best, last = chances(rows["top_logprobs"]).tolist(), len(self.table.items[one.index].ids) - 1
        for at, extra in enumerate(extras):
            fine = bool(rows["is_finite"][at])
            ids = rows["top_ids"][at][:FEW].tolist() if fine else []
            yield make_pure_record(
                prompt_id=one.prompt_id,
                prompt_variant=one.prompt_variant,
                layer=int(rows["layer"][at]),
                pos=last,
                entropy=extra["entropy_bits"] if fine else None,
                tokens=[self.table.pieces[each] for each in ids],
                probs=best[at][:FEW],
                extra={"fact_key": one.fact_key, "fact_index": one.fact_index, **(extra if fine else {})},
            )


def is_telling(token: str) -> bool:
    """Whether a record of this token lists 20 best tokens instead of 5."""
    plain = token.lower().strip().strip(STRIPPED)
    return any(word in plain for word in TELLING)

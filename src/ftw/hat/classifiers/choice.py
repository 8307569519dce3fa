"""Which lenses of a pack: in another order, or one per concept.

The rule of the file: rows and tensors move together, rows count anew, and a shared first layer stays shared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from ftw.hat.classifiers.index import LensRow, PackInfo
from ftw.hat.classifiers.layout import sort_rows
from ftw.hat.classifiers.lens import depth_of
from ftw.hat.classifiers.packfile import FIRST
from ftw.hat.classifiers.tensors import LensTensors
from ftw.substrate.errors import UsageError

Which = Literal["primary", "early", "mid", "late"]
"""Which lens of each concept: the one that speaks for it, or its best one in a third of the model."""


@dataclass(frozen=True, slots=True)
class LensPackFiles:
    """A lens pack in memory: identity, rows and the weights of each block, floats in the dtype they are stored in."""

    info: PackInfo
    rows: tuple[LensRow, ...]
    blocks: Mapping[int, LensTensors]
    missing: tuple[int, ...] = ()
    """Levels of the index whose files are not there."""


def select(files: LensPackFiles, which: Which) -> LensPackFiles:
    """One lens per concept: its primary one, or its best one in a third of the model.

    Concepts without one there are left out. Raises UsageError where none is left.
    """
    chosen: dict[str, int] = {}
    for at, row in enumerate(files.rows):
        if which == "primary" and not row.primary:
            continue
        if which != "primary" and depth_of(max(row.block, 0), files.info.model.n_layers) != which:
            continue
        before = chosen.get(row.term.casefold())
        if before is None or (row.auroc or 0.0) > (files.rows[before].auroc or 0.0):
            chosen[row.term.casefold()] = at
    keep = sorted(chosen.values())
    if not keep:
        raise UsageError(
            f"lens pack {files.info.name} has no {which} lenses: it reads blocks {list(files.info.sites)} of "
            f"{files.info.model.n_layers}"
        )
    if len(keep) == len(files.rows):
        return files
    rows = [files.rows[at] for at in keep]
    blocks = {
        block: taken(files.blocks[block], [row.row for row in rows if row.block == block])
        for block in dict.fromkeys(row.block for row in rows)
    }
    return LensPackFiles(files.info, renumbered(rows), blocks, files.missing)


def in_order(
    rows: Sequence[LensRow], blocks: Mapping[int, LensTensors]
) -> tuple[list[LensRow], dict[int, LensTensors]]:
    """Rows and tensors in the order that packs keep."""
    order = sort_rows(rows)
    placed = [rows[at] for at in order]
    moved = {
        block: taken(blocks[block], [row.row for row in placed if row.block == block])
        for block in dict.fromkeys(row.block for row in placed)
    }
    return list(renumbered(placed)), moved


def taken(part: LensTensors, at: Sequence[int]) -> LensTensors:
    """Some lenses of a block in another order. Shared first layers stay shared."""
    if list(at) == list(range(len(part.b3))):
        return part
    index = torch.tensor(at, device=part.b3.device)
    shared = part.is_shared
    made: dict[str, Tensor] = {}
    for each in fields(LensTensors):
        tensor: Tensor = getattr(part, each.name)
        once = shared and each.name in FIRST
        made[each.name] = tensor[:1].expand(len(at), *tensor.shape[1:]) if once else tensor[index]
    return LensTensors(**made)


def renumbered(rows: Sequence[LensRow]) -> tuple[LensRow, ...]:
    """The rows, counting 0, 1, 2 … in each block."""
    counts: dict[int, int] = {}
    made = []
    for row in rows:
        at = counts.get(row.block, 0)
        counts[row.block] = at + 1
        made.append(row if row.row == at else row.model_copy(update={"row": at}))
    return tuple(made)

"""Lenses of an installed pack, read from its files: all of them, a level's, or the one of a concept.

The rule of the file: one lens costs the bytes of one lens; the rest of its pack is not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.choice import LensPackFiles
from ftw.hat.classifiers.index import LensRow, read_index
from ftw.hat.classifiers.layout import level_file, level_of
from ftw.hat.classifiers.modules import MLP, normalise
from ftw.hat.classifiers.packfile import open_level
from ftw.hat.classifiers.store import load_pack
from ftw.map.registry.content import OLD_INFO
from ftw.substrate.errors import NotThere, PackError, UnknownConcept, UsageError

NEAREST = 5


@dataclass(frozen=True)
class OpenedLens:
    """The lens of one concept: a classifier per block that was trained, one of them primary."""

    term: str
    rows: tuple[LensRow, ...]
    """By block, ascending."""
    modules: Mapping[int, MLP]
    """By block, on the CPU, in the dtype that the pack keeps. They take normalised states and answer logits."""

    @property
    def primary(self) -> LensRow:
        """The classifier that stands for the concept where one is asked for."""
        return next((row for row in self.rows if row.primary), self.rows[0])

    def probability(self, resid: Float[Tensor, "*batch d_model"], block: int | None = None) -> Float[Tensor, "*batch"]:
        """The calibrated probability of states of a block (the primary one's if none is named). Raises UsageError."""
        row = self.primary if block is None else next((row for row in self.rows if row.block == block), None)
        if row is None:
            raise UsageError(f"the lens of {self.term} reads blocks {sorted(self.modules)}, not {block}")
        with torch.inference_mode():
            lens = self.modules[row.block]
            logit: Tensor = lens(normalise(resid).to(lens.first.weight.dtype)).float()
        return torch.sigmoid(row.calibration.slope * logit + row.calibration.offset)


def open_files(folder: Path, levels: tuple[int, ...] | None) -> LensPackFiles:
    """The lenses of a pack, or of these levels of it. Raises PackError, NumericError, StorageError."""
    _current(folder)
    return load_pack(folder, levels)


def open_one(folder: Path, concept: str, level: int | None) -> OpenedLens:
    """The lens of one concept, in any case, with or without blanks. Raises UnknownConcept, NotThere, PackError."""
    _current(folder)
    own = _rows_of(folder, concept)
    at = level_of(own[0])
    if level is not None and at != level:
        raise UnknownConcept(f"{own[0].term} is on level {at} of {folder.name}, not on level {level}")
    if not (folder / level_file(at)).is_file():
        raise NotThere(
            f"level {at} of {folder.name}, where {own[0].term} is, was not pulled: pull it with --levels {at}"
        )
    file = open_level(folder, at)
    modules = {row.block: file.lens(row.term, row.block).module() for row in own}
    return OpenedLens(own[0].term, own, modules)


def levels_with(folder: Path, concept: str) -> tuple[int, ...]:
    """The level that the lens of a concept is on. Raises UnknownConcept, PackError."""
    _current(folder)
    return (level_of(_rows_of(folder, concept)[0]),)


def _rows_of(folder: Path, concept: str) -> tuple[LensRow, ...]:
    """The rows of a concept. Raises UnknownConcept with the nearest."""
    rows = read_index(folder)
    wanted = _key(concept)
    own = tuple(row for row in rows if _key(row.term) == wanted)
    if not own:
        near = get_close_matches(wanted, {_key(row.term): row for row in rows}, n=NEAREST, cutoff=0.5)
        names = {_key(row.term): row.term for row in rows}
        told = ", ".join(names[key] for key in near) or ", ".join(row.term for row in rows[:NEAREST])
        raise UnknownConcept(f"{folder.name} has no lens of {concept}; the nearest are {told}")
    return own


def _current(folder: Path) -> None:
    if (folder / OLD_INFO).is_file():
        raise PackError(
            f"{folder} is in the legacy layout: make a pack of it with `ftw lens import {folder} --out NEW`"
        )


def _key(term: str) -> str:
    return "".join(term.split()).replace("_", "").replace("-", "").lower()

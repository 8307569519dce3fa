"""Text about nothing in particular, as much of it as is asked for: where a lens reads something, it is a false alarm.

The rule of the file: thresholds are set on one part and false alarms measured on another, and no two parts share a
fragment, so that a measured rate is that of text which no threshold has seen.
"""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from itertools import product
from random import Random
from typing import Literal

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from ftw.substrate.config import Strict
from ftw.substrate.errors import UsageError

Part = Literal["fit", "calibrate", "measure"]
"""Negatives of a fit; what thresholds and baselines are set on; what false alarms are measured on."""


class Fragments(Strict):
    """What the sentences of one part are put together from."""

    openings: list[str] = Field(min_length=1)
    clauses: list[str] = Field(min_length=1)
    endings: list[str] = Field(min_length=1)

    @property
    def pieces(self) -> set[str]:
        """All fragments."""
        return {*self.openings, *self.clauses, *self.endings}


class NeutralSet(Strict):
    """The fragments of all parts, which share none."""

    fit: Fragments
    calibrate: Fragments
    measure: Fragments

    @model_validator(mode="after")
    def _apart(self) -> "NeutralSet":
        parts = (self.fit.pieces, self.calibrate.pieces, self.measure.pieces)
        shared = parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        if shared:
            raise ValueError(f"no fragment serves for two parts: {sorted(shared)}")
        return self


def bundled_fragments() -> NeutralSet:
    """The fragments that ship with ftw."""
    text = (files("ftw.map.training") / "neutral.toml").read_text(encoding="utf-8")
    return NeutralSet.read(tomllib.loads(text), source="neutral.toml")


def neutral_texts(part: Part, n: int = 160, seed: int = 0, fragments: NeutralSet | None = None) -> tuple[str, ...]:
    """`n` different sentences of a part; the same part and seed give the same ones, the first of them for a smaller n.

    Raises UsageError where the part has fewer.
    """
    one: Fragments = getattr(fragments or bundled_fragments(), part)
    every = list(product(one.openings, one.clauses, one.endings))
    if not 1 <= n <= len(every):
        raise UsageError(f"{n} neutral texts asked for: part {part!r} gives 1 to {len(every)}")
    Random(f"{seed}:{part}").shuffle(every)
    return tuple(" ".join(pieces) for pieces in every[:n])


def neutral_numbers(calibrate: Sequence[int], measure: Sequence[int]) -> Int[Tensor, " state"]:
    """The number of the text that each state is from: even for texts to calibrate on, odd for texts to measure on.

    Given how many states each text of the two parts has, in order, first part first.
    """
    numbers = torch.cat([torch.arange(len(calibrate)) * 2, torch.arange(len(measure)) * 2 + 1])
    return numbers.repeat_interleave(torch.tensor([*calibrate, *measure], dtype=torch.long))

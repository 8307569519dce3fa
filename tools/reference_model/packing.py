"""Splitting off validation documents and packing whole documents into training windows.

Most documents are short, so most windows are short as well: attention over a window costs its length squared, and no
document is ever cut in two. Long documents share long windows with some short ones.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.reference_model.corpus import Document

IGNORE = -100


def hold_out(docs: Sequence[Document], one_in: int) -> tuple[list[Document], list[Document], int]:
    """Training documents, validation documents, and how many of the latter were dropped as word-for-word copies."""
    train = [d for i, d in enumerate(docs) if i % one_in]
    known = {d.text for d in train}
    held = [d for i, d in enumerate(docs) if i % one_in == 0]
    fresh = [d for d in held if d.text not in known]
    return train, fresh, len(held) - len(fresh)


@dataclass(frozen=True)
class Windows:
    """Packed rows of token ids; ``pad`` fills what no document fits."""

    ids: NDArray[np.uint16]
    pad: int

    def __len__(self) -> int:
        return len(self.ids)


def pack(codes: Sequence[Sequence[int]], length: int, pad: int, open_rows: int = 64) -> Windows:
    """First-fit packing of whole documents into rows of ``length``; only the last ``open_rows`` rows stay open."""
    rows: list[list[int]] = []
    pending: list[list[int]] = []
    for code in codes:
        if len(code) > length:
            raise ValueError(f"a document of {len(code)} tokens does not fit a window of {length}")
        home = next((row for row in pending if len(row) + len(code) <= length), None)
        if home is None:
            home = []
            pending.append(home)
            if len(pending) > open_rows:
                fullest = max(pending[:-1], key=len)
                pending = [row for row in pending if row is not fullest]
                rows.append(fullest)
        home.extend(code)
    rows += pending
    table = np.full((len(rows), length), pad, dtype=np.uint16)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return Windows(table, pad)


def pack_by_length(
    codes: Sequence[Sequence[int]], short: int, long: int, pad: int, seed: int
) -> tuple[Windows, Windows]:
    """Short and long windows. A twelfth of the short documents goes into long windows, so that those are mixed too.

    Documents longer than a long window are cut at its end.
    """
    rng = random.Random(f"{seed}:windows")
    in_long = [len(code) > short or rng.random() < 1 / 12 for code in codes]
    shorts = [code for code, is_long in zip(codes, in_long, strict=True) if not is_long]
    longs = [code[:long] for code, is_long in zip(codes, in_long, strict=True) if is_long]
    return pack(shorts, short, pad), pack(longs, long, pad)


def plan(n_short: int, n_long: int, rows_short: int, rows_long: int, steps: int) -> list[bool]:
    """For every step whether it takes long windows, evenly spread, in the proportion the corpus has them."""
    batches_short, batches_long = n_short / rows_short, n_long / rows_long
    share = batches_long / (batches_short + batches_long)
    return [int((step + 1) * share) > int(step * share) for step in range(steps)]

"""A pack in another storage (fp32, bf16, int8), and how far two packs of the same lenses read alike.

The rule of the file: a change of numbers is measured on states and reported, not assumed.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.choice import LensPackFiles, select
from ftw.hat.classifiers.index import INDEX, PACK, read_index
from ftw.hat.classifiers.layout import SHARED, levels_of
from ftw.hat.classifiers.packfile import require_fresh
from ftw.hat.classifiers.store import Storage, load_pack, save_pack
from ftw.substrate.errors import PackError

TOP = 10
"""How many of the highest readings are compared."""
_ROWS = 64
"""States that are scored at once."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two packs of the same concepts read alike, every lens at every state, computed in fp32."""

    states: int
    lenses: int
    same_top: float
    """Share of states at which the ten highest readings are of the same concepts, in any order."""
    overlap: float
    """Mean share of the ten that both name."""
    max_p: float
    """Largest change of a probability …"""
    p99: float
    """… and the 99th percentile of the changes."""
    bytes_before: int
    bytes_after: int


def convert_pack(folder: Path, out: Path, storage: Storage) -> LensPackFiles:
    """Write the pack `out`: the lenses of the one in `folder` in another storage, with its other files beside them.

    Raises StorageError where `out` is not new or empty, PackError where levels are missing, and as `load_pack`.
    """
    require_fresh(out)
    files = load_pack(folder)
    if files.missing:
        raise PackError(f"{folder} is partial: level {files.missing[0]} is not there; pull it, then convert")
    info = files.info.model_copy(update={"provenance": {**files.info.provenance, "storage": storage}})
    save_pack(out, info, files.rows, files.blocks, storage=storage)
    written = {each.name for each in _weights(folder)} | {INDEX, PACK}
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name not in written and not file.name.startswith("."):
            shutil.copyfile(file, out / file.name)
    return files


def parity(
    before: Path,
    after: Path,
    states: Float[Tensor, "state d_model"],
    *,
    progress: Progress = lambda what, done, total: None,
) -> Parity:
    """How alike two packs read `states` (raw ones: they are normalised as always), the same at every block.

    Packs are read level by level, so that one level of each is in memory. Raises PackError where they do not hold the
    same lenses, UsageError for states of another width.
    """
    rows, other = read_index(before), read_index(after)
    if [(row.term, row.block) for row in rows] != [(row.term, row.block) for row in other]:
        raise PackError(f"{before} and {after} do not hold the same lenses: compare packs of the same concepts")
    levels = levels_of(rows)
    pairs = []
    for at, level in enumerate(levels):
        pairs.append((_read(before, level, states), _read(after, level, states)))
        progress("comparing levels", at + 1, len(levels))
    p, q = (torch.cat([pair[side] for pair in pairs], 1) for side in (0, 1))
    change = (p - q).abs()
    k = min(TOP, p.shape[1])
    named = torch.zeros_like(p, dtype=torch.int8).scatter_(1, p.topk(k).indices, 1)
    common = named.gather(1, q.topk(k).indices).sum(1)
    return Parity(
        states=len(states),
        lenses=p.shape[1],
        same_top=float((common == k).float().mean()),
        overlap=float(common.float().mean() / k),
        max_p=float(change.max()),
        p99=float(_percentile(change, 0.99)),
        bytes_before=sum(file.stat().st_size for file in _weights(before)),
        bytes_after=sum(file.stat().st_size for file in _weights(after)),
    )


def random_states(count: int, d_model: int, seed: int = 0) -> Float[Tensor, "state d_model"]:
    """States drawn from a normal distribution, where no real ones are given."""
    return torch.randn(count, d_model, generator=torch.Generator().manual_seed(seed))


def _read(folder: Path, level: int, states: Float[Tensor, "state d_model"]) -> Float[Tensor, "state lens"]:
    """Calibrated probabilities of a level's primary lenses; no columns where it has none."""
    files = load_pack(folder, [level])
    if not any(row.primary for row in files.rows):
        return states.new_empty(len(states), 0)
    files = select(files, "primary")
    bank = LensBank.from_tensors(files.blocks, files.rows, dtype=torch.float32)
    parts = [states[at : at + _ROWS] for at in range(0, len(states), _ROWS)]
    return torch.cat([bank.score(dict.fromkeys(bank.sites, part), full=True).p for part in parts])


def _percentile(values: Tensor, q: float) -> Tensor:
    flat = values.flatten()
    return flat.kthvalue(max(1, min(len(flat), round(q * len(flat))))).values


def _weights(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("level*.safetensors")), *([folder / SHARED] if (folder / SHARED).exists() else [])]

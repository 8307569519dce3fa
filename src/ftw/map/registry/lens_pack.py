"""Lens packs as a person meets them: found by name, by folder or by the model they were made for.

Tensors and index are `ftw.hat.classifiers.store`'s. The rule of the file: a pack is opened for a model, and one that
was made for another model does not open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.index import PACK, LensRow, PackInfo, read_info
from ftw.hat.classifiers.modules import MLP
from ftw.hat.classifiers.store import load_bank
from ftw.map.registry.ground import Ground, bundled
from ftw.substrate.errors import FingerprintMismatch, PackError
from ftw.substrate.model import Model


@dataclass(frozen=True)
class LensPack:
    """An opened pack: the bank that scores, and what is known about it. Gives lenses to whoever keeps few in memory."""

    folder: Path
    info: PackInfo
    bank: LensBank

    @property
    def rows(self) -> tuple[LensRow, ...]:
        """One row per lens, in bank order."""
        return self.bank.rows

    @cached_property
    def report(self) -> str:
        """The training report as Markdown; empty if the pack came without one."""
        file = self.folder / "report.md"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def fetch(self, terms: Sequence[str]) -> list[tuple[LensRow, MLP]]:
        """Single lenses with their rows, in the order asked. Raises UnknownConcept."""
        return [(self.rows[self.bank.index(term)], self.bank.module(term)) for term in terms]

    def children(self, term: str) -> tuple[str, ...]:
        """The concepts right below one, in bank order. Raises UnknownConcept."""
        name = self.bank.terms[self.bank.index(term)]
        return tuple(row.term for row in self.rows if row.parent == name)


def bundled_lens_packs() -> dict[str, Path]:
    """The folders of the lens packs that ship with ftw, by name."""
    return bundled("lens")


def installed_lens_packs(ground: Ground | None) -> dict[str, Path]:
    """The folders of the lens packs that were pulled, by name; those in the legacy layout cannot be opened."""
    home = ground.homes["lens"] if ground is not None else None
    return {name: home.folder / name for name in home.names() if (home.folder / name / PACK).is_file()} if home else {}


def open_lens_pack(
    name: str | Path | None,
    model: Model,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    ground: Ground | None = None,
) -> LensPack:
    """The lens pack called `name`, in the folder `name`, or, with None, the one made for `model`.

    Looked for among those that were pulled (where `ground` says), then among those that ship.

    Raises PackError where there is none (those that there are stand in the message), FingerprintMismatch where it was
    made for another model, and what `load_bank` raises for a broken one.
    """
    folder = find_lens_pack(name, model, ground=ground)
    bank = load_bank(folder, fingerprint=model.fingerprint, device=device or model.device, dtype=dtype)
    return LensPack(folder, read_info(folder), bank)


def find_lens_pack(name: str | Path | None, model: Model, *, ground: Ground | None = None) -> Path:
    """The folder of the pack that `open_lens_pack` opens. Raises PackError, FingerprintMismatch as that does."""
    return _made_for(model, ground) if name is None else _named(name, ground)


def _named(name: str | Path, ground: Ground | None) -> Path:
    installed, shipped = installed_lens_packs(ground), bundled_lens_packs()
    known = {**shipped, **installed}
    found = ground.homes["lens"].find(str(name)) if ground is not None else None
    if str(name) in known or found in installed:
        return known.get(str(name)) or installed[str(found)]
    folder = Path(name).expanduser()
    if not folder.is_dir():
        pulled = f", and not pulled ({', '.join(installed) or 'none is'})" if ground is not None else ""
        there = ", ".join(shipped) or "none"
        raise PackError(f"no lens pack {name}: neither a folder nor one of those that ship with ftw ({there}){pulled}")
    if not (folder / PACK).is_file():
        raise PackError(f"{folder} holds no {PACK}: it is not the folder of a lens pack")
    return folder


def _made_for(model: Model, ground: Ground | None) -> Path:
    folders = [*bundled_lens_packs().values(), *installed_lens_packs(ground).values()]
    infos = {folder: read_info(folder) for folder in folders}
    for folder, info in infos.items():
        if info.model.fingerprint == model.fingerprint:
            return folder
    there = ", ".join(f"{info.name} for {info.model.name} ({info.model.fingerprint[:8]})" for info in infos.values())
    raise FingerprintMismatch(
        f"no lens pack that is here was made for {model.name} ({model.fingerprint[:8]}); there is {there or 'none'}. "
        "Pull one with `ftw pack pull`, or train one with `ftw lens train`"
    )

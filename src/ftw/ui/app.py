"""The composition root: opens a model, its packs and its lenses, and hands them to whoever draws or serves.

The server is put together beside it, in `service`. The rule of the file: parts of `ui` are built in these two places
and nowhere else; everything else is given them.
"""

import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.index import PackInfo
from ftw.hat.monitoring.monitor import Monitor
from ftw.hat.steering import Direction, load_directions
from ftw.map.registry.concept_pack import ConceptPack, bundled_concept_pack
from ftw.map.registry.lens_pack import bundled_lens_packs, open_lens_pack
from ftw.substrate.check import ModelCheck, check_model
from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.errors import PackError
from ftw.substrate.model import Model, load
from ftw.substrate.types import Controller
from ftw.ui.cli.output import Out
from ftw.ui.reading import Lenses, Read


def open_model(name: str | None, out: Out, settings: Settings | None = None) -> Model:
    """The model named, or that of the settings. Its fingerprint is computed here, where a person is told to wait."""
    settings, spec = _asked(name, settings)
    with out.busy(f"Loading {spec.name}"):
        model = load(spec, settings=settings)
        _ = model.fingerprint
    return model


def judge_model(name: str, out: Out) -> ModelCheck:
    """The identity gate's verdict on the model named, its anatomy and memory."""
    settings, spec = _asked(name)
    with out.busy(f"Checking {spec.name}"):
        return check_model(spec, settings=settings)


def _asked(name: str | None, settings: Settings | None = None) -> tuple[Settings, ModelSpec]:
    # what transformers warns of, we either raise with a way out or do on purpose; our stderr tells one story
    logging.getLogger("transformers").setLevel(logging.ERROR)
    settings = settings or Settings.from_env()
    return settings, settings.spec(name)


def open_concepts(name: str) -> ConceptPack:
    """A concept pack by its folder or its bundled name. Raises PackError."""
    folder = Path(name).expanduser()
    return ConceptPack.load(folder) if folder.is_dir() else bundled_concept_pack(name)


def bundled_concept_packs() -> list[str]:
    """The names of the concept packs that ship."""
    home = Path(str(files("ftw"))) / "bundled" / "concept-packs"
    return sorted(folder.name for folder in home.iterdir() if folder.is_dir()) if home.is_dir() else []


def lens_folder(name: str | None) -> Path:
    """Where a lens pack lies: a folder, a bundled name, that of the settings, or the first one that ships.

    Raises PackError that lists those that ship.
    """
    name = name or Settings.from_env().pack
    shipped = bundled_lens_packs()
    if name is None and shipped:
        return next(iter(shipped.values()))
    if name in shipped:
        return shipped[name]
    if name is None or not Path(name).expanduser().is_dir():
        there = ", ".join(shipped) or "none; train one with `ftw lens train --out FOLDER`"
        raise PackError(f"no lens pack {name or 'is named'}: give a folder, or one of those that ship ({there})")
    return Path(name).expanduser()


def open_lenses(model: Model, pack: str | None, out: Out) -> Lenses:
    """The lenses of a pack, ready to read this model: the one named, that of the settings, or the bundled one.

    Raises what `open_lens_pack` raises, FingerprintMismatch for a pack of another model among it.
    """
    with out.busy("Loading lenses"):
        opened = open_lens_pack(pack or Settings.from_env().pack, model)
        concepts = open_concepts(opened.info.concept_pack.name)

    def find(term: str) -> Direction:
        return load_directions(opened.folder, fingerprint=model.fingerprint).direction(term)

    return lenses_of(opened.bank, opened.info, concepts, find)


def lenses_of(
    bank: LensBank, info: PackInfo, concepts: ConceptPack, find_direction: Callable[[str], Direction]
) -> Lenses:
    """A bank with the names, words and directions of its concepts."""

    def watcher(top: int, always: Sequence[str], tell: Callable[[Read], None]) -> Controller:
        return Monitor(bank, top=top, concepts=always, on_reading=tell)

    return Lenses(
        concepts=concepts,
        terms=bank.terms,
        name=info.name,
        version=info.version,
        where=", ".join(str(site) for site in bank.sites),
        find_direction=find_direction,
        make_watcher=watcher,
    )

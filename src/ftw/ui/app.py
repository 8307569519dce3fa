"""The composition root: opens a model, its packs and its lenses, and hands them to whoever draws or serves.

The server is put together beside it, in `service`. The rule of the file: parts of `ui` are built in these two places
and nowhere else; everything else is given them.
"""

import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.index import PackInfo, read_index, read_info
from ftw.hat.classifiers.layout import bank_bytes
from ftw.hat.classifiers.store import require_fingerprint
from ftw.hat.classifiers.tripole import TripoleBank, load_simplexes
from ftw.hat.monitoring.hierarchy import Deployment, Scope
from ftw.hat.monitoring.manifest import DeploymentManifest, read_manifest
from ftw.hat.monitoring.monitor import Monitor
from ftw.hat.monitoring.resident import ROOTS_FIRST, ResidentBank
from ftw.hat.steering import Direction, load_directions
from ftw.map import registry
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.lens_pack import bundled_lens_packs, find_lens_pack, open_lens_pack
from ftw.substrate.check import ModelCheck, check_model
from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.errors import PackError
from ftw.substrate.model import Model, load
from ftw.substrate.types import Controller, Site
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
    """A concept pack by its folder, or by its name if it was pulled or ships. Raises PackError."""
    return ConceptPack.load(concept_folder(name))


def concept_folder(name: str) -> Path:
    """The folder of a concept pack, by that folder, or by its name if it was pulled or ships. Raises PackError."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    pulled = registry.here().ground.homes["concept"]
    found = pulled.find(name)
    if found is not None:
        return pulled.folder / found
    if name not in bundled_concept_packs():
        known = ", ".join(bundled_concept_packs()) or "none"
        raise PackError(f"no bundled concept pack {name}; there are: {known}")
    return Path(str(files("ftw"))) / "bundled" / "concept-packs" / name


def bundled_concept_packs() -> list[str]:
    """The names of the concept packs that ship."""
    home = Path(str(files("ftw"))) / "bundled" / "concept-packs"
    return sorted(folder.name for folder in home.iterdir() if folder.is_dir()) if home.is_dir() else []


def lens_folder(name: str | None) -> Path:
    """Where a lens pack lies: a folder, one that was pulled or ships, that of the settings, or the first that ships.

    Raises PackError that lists those that ship.
    """
    name = name or Settings.from_env().pack
    shipped = bundled_lens_packs()
    if name is None and shipped:
        return next(iter(shipped.values()))
    pulled = registry.here().ground.homes["lens"]
    found = pulled.find(name) if name is not None else None
    if found is not None:
        return pulled.folder / found
    if name in shipped:
        return shipped[name]
    if name is None or not Path(name).expanduser().is_dir():
        there = ", ".join(shipped) or "none; train one with `ftw lens train --out FOLDER`"
        raise PackError(f"no lens pack {name or 'is named'}: give a folder, or one of those that ship ({there})")
    return Path(name).expanduser()


def open_lenses(
    model: Model, pack: str | None, out: Out, *, manifest: str | None = None, memory: int | None = None
) -> Lenses:
    """The lenses of a pack, ready to read this model: the one named, that of the settings, or the bundled one.

    A manifest (its file or a preset's name) says which of them are read. Where the pack takes more than `memory` bytes
    (of the settings, if none are given), lenses are fetched within that many as they are needed. Raises what
    `open_lens_pack` raises, FingerprintMismatch for a pack of another model among it, and what is wrong with the
    manifest.
    """
    asked = None if manifest is None else read_manifest(manifest)
    memory = memory or Settings.from_env().lens_memory
    if memory is not None:
        folder = find_lens_pack(pack or Settings.from_env().pack, model, ground=registry.here().ground)
        if bank_bytes(folder) > memory:
            return _small(model, folder, asked or ROOTS_FIRST, memory)
    with out.busy("Loading lenses"):
        opened = open_lens_pack(pack or Settings.from_env().pack, model, ground=registry.here().ground)
        concepts = open_concepts(opened.info.concept_pack.name)
        simplexes = load_simplexes(opened.folder, device=opened.bank.device)
    deployment = None
    if asked is not None:
        deployment = Deployment(asked, opened.bank.rows, info=opened.info, domains=_domains(concepts))

    def find(term: str) -> Direction:
        return load_directions(opened.folder, fingerprint=model.fingerprint).direction(term)

    return lenses_of(opened.bank, opened.info, concepts, find, simplexes=simplexes, deployment=deployment)


def _small(model: Model, folder: Path, manifest: DeploymentManifest, memory: int) -> Lenses:
    """The lenses of a pack in `memory` bytes. Named concepts are always among them."""
    info, rows = read_info(folder), [row for row in read_index(folder) if row.primary]
    require_fingerprint(info, model.fingerprint)
    concepts = open_concepts(info.concept_pack.name)
    simplexes = load_simplexes(folder, device=model.device)
    last: list[ResidentBank] = []

    def opened(always: Sequence[str]) -> ResidentBank:
        explicit = manifest.explicit_concepts
        explicit = explicit.model_copy(update={"always_include": (*explicit.always_include, *always)})
        return ResidentBank(
            folder,
            fingerprint=model.fingerprint,
            budget=memory,
            manifest=manifest.model_copy(update={"explicit_concepts": explicit}),
            domains=_domains(concepts),
            device=model.device,
        )

    def watcher(top: int, always: Sequence[str], tell: Callable[[Read], None]) -> Controller:
        bank = opened(always)
        last[:] = [bank]
        return Monitor(bank, top=top, concepts=always, on_reading=tell, scope=bank.scope, simplexes=simplexes)

    return Lenses(
        concepts=concepts,
        terms=tuple(row.term for row in rows),
        name=info.name,
        version=info.version,
        where=", ".join(str(Site(block)) for block in sorted({row.block for row in rows})),
        find_direction=lambda term: load_directions(folder, fingerprint=model.fingerprint).direction(term),
        make_watcher=watcher,
        deployment=Deployment(manifest, rows, info=info, domains=_domains(concepts)).record(),
        memory=lambda: {"budget": memory, **(last[0].counters() if last else {})},
    )


def _domains(concepts: ConceptPack) -> dict[str, str]:
    return {term: record.domain for term, record in concepts.records.items() if record.domain}


def lenses_of(
    bank: LensBank,
    info: PackInfo,
    concepts: ConceptPack,
    find_direction: Callable[[str], Direction],
    *,
    simplexes: TripoleBank | None = None,
    deployment: Deployment | None = None,
) -> Lenses:
    """A bank with the names, words and directions of its concepts."""

    def watcher(top: int, always: Sequence[str], tell: Callable[[Read], None]) -> Controller:
        scope = None if deployment is None else Scope(deployment, bank.device)
        return Monitor(bank, top=top, concepts=always, on_reading=tell, scope=scope, simplexes=simplexes)

    return Lenses(
        concepts=concepts,
        terms=bank.terms,
        name=info.name,
        version=info.version,
        where=", ".join(str(site) for site in bank.sites),
        find_direction=find_direction,
        make_watcher=watcher,
        deployment=None if deployment is None else deployment.record(),
    )

"""The registry's calls as functions, on the packs of this user: `from ftw.map import registry`.

The rule of the file: each call reads the settings anew and keeps nothing.
"""

from collections.abc import Iterable
from pathlib import Path

from ftw.hat.classifiers.choice import LensPackFiles
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.names import Kind
from ftw.map.registry.opened import OpenedLens
from ftw.map.registry.records import Listed, Pulled, Pushed, Status
from ftw.map.registry.registry import Registry
from ftw.substrate.config import Settings


def here() -> Registry:
    """The registry of this user's settings (FTW_PACKS_DIR, FTW_HUB_ORG) and of packs.lock in this folder."""
    return Registry.of(Settings.from_env())


def list_concept_packs() -> list[Listed]:
    """The concept packs that are installed, then those that ship."""
    return here().list_concept_packs()


def list_lens_packs() -> list[Listed]:
    """The lens packs that are installed, then those that ship."""
    return here().list_lens_packs()


def status(names: Iterable[str] = (), *, offline: bool = False) -> list[Status]:
    """How each installed pack stands: modified, outdated, partial, local."""
    return here().status(names, offline=offline)


def pull_concept_pack(
    name: str,
    version: str | None = None,
    *,
    revision: str | None = None,
    source: str | None = None,
    force: bool = False,
    update: bool = False,
) -> Pulled:
    """Installs a concept pack. See `Registry.pull_concept_pack`."""
    return here().pull_concept_pack(name, version, revision=revision, source=source, force=force, update=update)


def pull_lens_pack(
    name: str,
    version: str | None = None,
    *,
    revision: str | None = None,
    source: str | None = None,
    levels: Iterable[int] | None = None,
    force: bool = False,
    update: bool = False,
) -> Pulled:
    """Installs a lens pack or some levels of it. See `Registry.pull_lens_pack`."""
    return here().pull_lens_pack(
        name, version, revision=revision, source=source, levels=levels, force=force, update=update
    )


def push_concept_pack(name: str, repo_id: str | None = None, *, message: str | None = None) -> Pushed:
    """Puts a concept pack on the hub, or wherever `repo_id` says."""
    return here().push_concept_pack(name, repo_id, message=message)


def push_lens_pack(
    name: str, repo_id: str | None = None, *, levels: Iterable[int] | None = None, message: str | None = None
) -> Pushed:
    """Puts a lens pack, or some levels of it, on the hub, or wherever `repo_id` says."""
    return here().push_lens_pack(name, repo_id, levels=levels, message=message)


def load_concept_pack(name: str) -> ConceptPack:
    """A concept pack, pulled first where it is not here."""
    return here().load_concept_pack(name)


def load_lens_pack(name: str, layer: int | None = None, concept: str | None = None) -> LensPackFiles | OpenedLens:
    """The lenses of a pack, of one level of it, or the one of a concept; pulled first where they are not here."""
    return here().load_lens_pack(name, layer, concept)


def fork(name: str, new_name: str, *, kind: Kind | None = None) -> Path:
    """A copy of a pack under another name, to be changed here."""
    return here().fork(name, new_name, kind=kind)


def verify(name: str, *, kind: Kind | None = None) -> tuple[str, ...]:
    """What of an installed pack is not as it was recorded; nothing where it is whole."""
    return here().verify(name, kind=kind)

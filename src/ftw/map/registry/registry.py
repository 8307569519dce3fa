"""The registry: every call on packs, in one place. `from ftw.map import registry` gives them as functions too.

The rule of the file: each call says what it gives; how it is done stands in the file of that name.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ftw.hat.classifiers.choice import LensPackFiles
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.content import scan
from ftw.map.registry.fetch import Tell, nobody
from ftw.map.registry.forking import fork
from ftw.map.registry.ground import Ground
from ftw.map.registry.lockfile import LOCKFILE, Lock
from ftw.map.registry.names import KINDS, Kind
from ftw.map.registry.opened import OpenedLens, levels_with, open_files, open_one
from ftw.map.registry.pins import against_lock, make_lock
from ftw.map.registry.plan import Plan
from ftw.map.registry.pull import Wish, differences, look, pull
from ftw.map.registry.push import push
from ftw.map.registry.records import Listed, Pulled, Pushed, Status
from ftw.map.registry.survey import installed, kind_here, kind_meant, listed, status_of
from ftw.substrate.config import Settings
from ftw.substrate.errors import FtwError, NotThere, PackError

Opened = TypeVar("Opened")


class Registry:
    """The packs below one folder."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    @classmethod
    def of(cls, settings: Settings, lockfile: Path | None = None) -> "Registry":
        """The registry of these settings; with the packs.lock of the folder that the program runs in, if it has one."""
        folder = settings.packs_dir or Path.home() / ".local" / "share" / "ftw"
        return cls(Ground(folder, settings.hub_org, lockfile or Path(LOCKFILE)))

    def list_concept_packs(self) -> list[Listed]:
        """The concept packs that are installed, then those that ship. Nothing is hashed or asked for."""
        return listed(self.ground, "concept")

    def list_lens_packs(self) -> list[Listed]:
        """The lens packs that are installed, then those that ship. Nothing is hashed or asked for."""
        return listed(self.ground, "lens")

    def status(self, names: Iterable[str] = (), *, offline: bool = False, tell: Tell = nobody) -> list[Status]:
        """How each installed pack (or each named one) stands: every file is hashed, every source asked unless offline.

        What is found modified is recorded so. Raises NotThere for a name that is not installed.
        """
        wanted = list(names)
        pairs = [(kind, name) for kind in KINDS for name in self.ground.homes[kind].names()]
        if wanted:
            pairs = [pair for name in dict.fromkeys(wanted) for pair in installed(self.ground, name)]
        found = []
        for at, (kind, name) in enumerate(pairs):
            tell(f"Checking {name}", at, len(pairs))
            found.append(status_of(self.ground, kind, name, offline=offline))
        return found

    def pull_concept_pack(
        self,
        name: str,
        version: str | None = None,
        *,
        revision: str | None = None,
        source: str | None = None,
        force: bool = False,
        update: bool = False,
        tell: Tell = nobody,
    ) -> Pulled:
        """Installs a concept pack: the newest, or a version or revision; what packs.lock pins unless `update`.

        Raises NotThere, RemoteError, PackError, StorageError, Busy.
        """
        wish = Wish("concept", name, version, revision, source, force=force, update=update)
        return pull(self.ground, wish, tell)

    def pull_lens_pack(
        self,
        name: str,
        version: str | None = None,
        *,
        revision: str | None = None,
        source: str | None = None,
        levels: Iterable[int] | None = None,
        force: bool = False,
        update: bool = False,
        tell: Tell = nobody,
    ) -> Pulled:
        """Installs a lens pack, or some levels of it; only lenses that changed are fetched where that is possible.

        Raises as `pull_concept_pack`, and UsageError for levels that there are not.
        """
        chosen = tuple(sorted(set(levels))) if levels is not None else None
        return pull(self.ground, Wish("lens", name, version, revision, source, chosen, force, update), tell)

    def plan(self, wish: Wish) -> tuple[str, Plan]:
        """What a pull would change, and the revision it would come to. Nothing is written. Raises as a pull."""
        with tempfile.TemporaryDirectory(prefix="ftw-look-") as work:
            found = look(self.ground, wish, Path(work))
            return found.commit, found.plan

    def push_concept_pack(self, name: str, repo_id: str | None = None, *, message: str | None = None) -> Pushed:
        """Puts a concept pack on the hub, or wherever `repo_id` (any source) says. Raises PackError, RemoteError."""
        return push(self.ground, "concept", name, repo_id, None, message)

    def push_lens_pack(
        self,
        name: str,
        repo_id: str | None = None,
        *,
        levels: Iterable[int] | None = None,
        message: str | None = None,
    ) -> Pushed:
        """Puts a lens pack, or some levels of it, on the hub or wherever `repo_id` (any source) says.

        A whole push is tagged with its version; a push of levels leaves the others there, and no tag. Raises PackError
        for a version that is there with other content, UsageError, RemoteError.
        """
        chosen = tuple(sorted(set(levels))) if levels is not None else None
        return push(self.ground, "lens", name, repo_id, chosen, message)

    def fork(self, name: str, new_name: str, *, kind: Kind | None = None) -> Path:
        """A copy of a pack under another name, `based_on` the old one, to be changed here. Raises PackError."""
        return fork(self.ground, kind or self.kind_here(name), name, new_name)

    def verify(self, name: str, *, kind: Kind | None = None) -> tuple[str, ...]:
        """What of an installed pack is not as it was pulled, pushed or forked: files, and lenses by name.

        Every byte is read. Raises NotThere; PackError for a pack that was never recorded.
        """
        kind = kind or self.kind_here(name)
        folder, here, entry = self.ground.located(kind, name)
        if here is None or entry is None or not entry.files:
            raise PackError(f"{name} was never pulled or forked here: there is nothing recorded to hold it against")
        return differences(entry.files, scan(folder))

    def lock(self) -> Lock:
        """Pins every pack that was pulled or pushed in packs.lock, which is written. Raises PackError, StorageError."""
        return make_lock(self.ground)

    def check_lock(self) -> list[str]:
        """How what is installed differs from packs.lock, a line each. Every byte is hashed."""
        return against_lock(self.ground)

    def load_concept_pack(self, name: str, *, pull: bool = True) -> ConceptPack:
        """A concept pack, pulled first where it is not here. Raises PackError, and what a pull raises."""
        return self._steady("concept", self.path("concept", name, pull=pull), ConceptPack.load)

    def load_lens_pack(
        self, name: str, layer: int | None = None, concept: str | None = None, *, pull: bool = True
    ) -> LensPackFiles | OpenedLens:
        """The lenses of a pack, of one level (`layer`) of it, or the one of a concept; pulled first where not here.

        Raises UnknownConcept with the nearest terms, PackError, and what a pull raises.
        """
        levels = None if layer is None else (layer,)
        folder = self.path("lens", name, levels=levels, pull=pull)
        if concept is not None and layer is None and pull:
            folder = self.path("lens", name, levels=levels_with(folder, concept))
        if concept is None:
            return self._steady("lens", folder, lambda there: open_files(there, levels))
        return self._steady("lens", folder, lambda there: open_one(there, concept, layer))

    def path(self, kind: Kind, name: str, *, levels: tuple[int, ...] | None = None, pull: bool = True) -> Path:
        """The folder of a pack, pulled first (those levels that are wanted) where it is not here."""
        try:
            folder, here, entry = self.ground.located(kind, name)
        except NotThere:
            if not pull:
                raise
            pin = self.ground.lock().pin(kind, name)
            return self._pull(kind, name, None if pin else levels)
        lacking = set(levels or ()) - set(entry.levels_installed or ()) if entry and entry.is_partial else set()
        if here and entry and lacking and pull:
            return self._pull(kind, here, tuple(sorted(lacking)), entry.revision)
        return folder

    def kind_of(self, name: str, source: str | None = None) -> Kind:
        """Which kind of pack a name means: what is here, what its prefix says, what its source holds.

        Raises UsageError for a name that both kinds have here, NotThere where no source holds it.
        """
        return kind_meant(self.ground, name, source)

    def kind_here(self, name: str) -> Kind:
        """Which kind of pack a name means on this machine; no source is asked. Raises NotThere, UsageError."""
        found = kind_here(self.ground, name)
        if found is None:
            raise NotThere(f"no pack {name} is here: `ftw pack list` shows those that are; get it with `ftw pack pull`")
        return found

    def _steady(self, kind: Kind, folder: Path, read: Callable[[Path], Opened]) -> Opened:
        """What `read` makes of a folder; once more where another process put a new pack in its place meanwhile."""
        home = self.ground.homes[kind]
        before = home.state().packs.get(folder.name)
        try:
            opened = read(folder)
        except FtwError:
            if home.state().packs.get(folder.name) == before:
                raise
            return read(folder)
        return opened if home.state().packs.get(folder.name) == before else read(folder)

    def _pull(self, kind: Kind, name: str, levels: tuple[int, ...] | None, revision: str | None = None) -> Path:
        """Pulls a pack; more levels of one that is here come from the revision that is here."""
        if kind == "concept":
            return self.pull_concept_pack(name).path
        return self.pull_lens_pack(name, revision=revision, levels=levels).path

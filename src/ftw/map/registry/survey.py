"""What is installed and how it stands: lists, states, and which kind of pack a name means.

The rule of the file: a pack that cannot be read is a row that says so, not an end of the list.
"""

import tempfile
from pathlib import Path

from ftw.map.registry.backends import is_source, open_backend, split_revision
from ftw.map.registry.content import identify, scan
from ftw.map.registry.ground import Ground, bundled
from ftw.map.registry.names import KINDS, Kind, kind_by_name, kind_of, repo_of
from ftw.map.registry.pull import differences
from ftw.map.registry.records import Condition, Listed, Status
from ftw.map.registry.state import LOCAL, Entry
from ftw.substrate.errors import FtwError, NotThere, UsageError


def listed(ground: Ground, kind: Kind) -> list[Listed]:
    """The packs of one kind: those that are installed, then those that ship."""
    home = ground.homes[kind]
    entries = home.state().packs
    rows = []
    for name in home.names():
        entry = entries.get(name) or Entry(source=LOCAL, version=_version(home.folder / name))
        rows.append(_row(kind, name, entry, home.folder / name))
    for name, folder in bundled(kind).items():
        rows.append(_row(kind, name, Entry(source="bundled", version=_version(folder)), folder))
    return rows


def status_of(ground: Ground, kind: Kind, name: str, *, offline: bool) -> Status:
    """How one installed pack stands to its record and its source. What is found modified is recorded so."""
    home = ground.homes[kind]
    entry = home.state().packs.get(name)
    try:
        here, version = scan(home.folder / name), identify(home.folder / name).version
    except FtwError as error:
        source, version = (entry.source, entry.version) if entry else (LOCAL, "?")
        return Status(name, kind, source, version, ("broken",), note=str(error))
    if entry is None:
        return Status(name, kind, LOCAL, version, ("local",))
    changed = differences(entry.files, here) if entry.files else ()
    newest, note = (None, "") if offline or entry.source == LOCAL else _newest(entry)
    if bool(changed) != entry.modified:
        with home.locked():
            home.record(name, entry.model_copy(update={"modified": bool(changed)}))
    holds: dict[Condition, bool] = {
        "local": entry.source == LOCAL,
        "outdated": newest is not None and newest != entry.revision,
        "modified": bool(changed),
        "partial": entry.is_partial,
        "unknown": bool(note),
    }
    conditions: tuple[Condition, ...] = tuple(each for each, does in holds.items() if does) or ("ok",)
    return Status(name, kind, entry.source, version, conditions, entry.revision, newest, changed, note)


def kind_meant(ground: Ground, name: str, source: str | None) -> Kind:
    """The kind of pack that a name means: what is here, what its prefix says, or what its source holds.

    Raises UsageError for a name that both kinds have here, NotThere where no source holds it.
    """
    here = kind_here(ground, name) if source is None else None
    return here or kind_by_name(split_revision(source or name)[0]) or _kind_there(ground, name, source)


def kind_here(ground: Ground, name: str) -> Kind | None:
    """The kind of pack that a name means on this machine: installed, bundled, or in a folder; None where none is.

    Raises UsageError for a name that both kinds have.
    """
    said = kind_by_name(name)
    here = [kind for kind in KINDS if ground.homes[kind].find(name) or name in bundled(kind)]
    if said in here or (said is None and len(here) == 1):
        return said or here[0]
    if said is None and len(here) > 1:
        raise UsageError(f"there is a concept pack and a lens pack {name}: say which with --kind")
    folder = Path(name).expanduser()
    return identify(folder).kind if not here and folder.is_dir() else None


def installed(ground: Ground, name: str) -> list[tuple[Kind, str]]:
    """Kind and name on disk of an installed pack; both, where both kinds have the name. Raises NotThere."""
    pairs = [(kind, found) for kind in KINDS if (found := ground.homes[kind].find(name)) is not None]
    if not pairs:
        raise NotThere(f"no pack {name} is installed: `ftw pack list` shows those that are")
    return pairs


def _kind_there(ground: Ground, name: str, source: str | None) -> Kind:
    """What the source, or else the hub, holds under this name."""
    with tempfile.TemporaryDirectory(prefix="ftw-look-") as work:
        if source is not None or is_source(name):
            address, revision = split_revision(source or name)
            backend = open_backend(address, work=Path(work))
            return kind_of((file.path for file in backend.files(backend.commit(revision))), backend.source)
        for kind in reversed(KINDS):
            try:
                open_backend(f"hf://{repo_of(kind, name, ground.org)}", work=Path(work)).commit(None)
                return kind
            except NotThere:
                continue
    raise NotThere(
        f"the hub has no lens pack and no concept pack {name} of {ground.org}: check the name, FTW_HUB_ORG, or give "
        "a source with --from"
    )


def _newest(entry: Entry) -> tuple[str | None, str]:
    """The newest revision at a pack's source; None and why where it cannot be asked."""
    with tempfile.TemporaryDirectory(prefix="ftw-look-") as work:
        try:
            return open_backend(entry.source, work=Path(work)).commit(None), ""
        except FtwError as error:
            return None, str(error)


def _version(folder: Path) -> str:
    try:
        return identify(folder).version
    except FtwError:
        return "?"


def _row(kind: Kind, name: str, entry: Entry, folder: Path) -> Listed:
    return Listed(
        name=name,
        kind=kind,
        source=entry.source,
        version=entry.version,
        revision=entry.revision,
        modified=entry.modified,
        size_bytes=entry.size_bytes or sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
        levels_installed=None if entry.levels_installed is None else list(entry.levels_installed),
        levels_available=None if entry.levels_available is None else list(entry.levels_available),
        based_on=entry.based_on,
        path=str(folder),
    )

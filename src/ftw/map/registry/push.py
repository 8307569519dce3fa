"""A push: an installed pack, or a folder, to the hub, a folder or a git repository.

The rule of the file: a version says one thing. What was pushed under it is not replaced by something else.
"""

import tempfile
from pathlib import Path

from ftw.map.registry.backends import Backend, RemoteFile, Upload, open_backend
from ftw.map.registry.cards import card_of
from ftw.map.registry.content import CARD, FileRecord, Identity, check, digest_of, git_blob, scan
from ftw.map.registry.ground import Ground
from ftw.map.registry.names import Kind, is_part, level_of_path, repo_of
from ftw.map.registry.records import Pushed
from ftw.map.registry.state import LOCAL, Entry
from ftw.substrate.errors import NotThere, PackError, UsageError


def push(
    ground: Ground,
    kind: Kind,
    name: str,
    to: str | None,
    levels: tuple[int, ...] | None,
    message: str | None,
) -> Pushed:
    """Puts a pack where others can pull it. Raises PackError, UsageError, RemoteError, StorageError."""
    folder, installed, entry = ground.located(kind, name)
    identity = check(folder)
    here = scan(folder)
    paths = _paths(kind, here, levels, entry, identity)
    with tempfile.TemporaryDirectory(prefix="ftw-push-") as work:
        backend = open_backend(to or _default(ground, kind, name, entry), work=Path(work))
        is_whole = levels is None
        known = _versions(backend)
        if is_whole and identity.version in known:
            there = [file for file in backend.files(known[identity.version]) if is_part(file.path)]
            if _differ(folder, here, there):
                raise PackError(
                    f"{backend.source} has a version {identity.version} already, with other content "
                    f"({', '.join(_differ(folder, here, there)[:3])}): raise `version` in pack.json, then push"
                )
            revision, is_new = known[identity.version], False
        else:
            extra = {} if CARD in here else {CARD: card_of(folder, identity)}
            said = message or f"{identity.name} {identity.version}"
            revision = backend.push(Upload(folder, paths, extra, said, identity.version, is_whole))
            is_new = True
    if installed is not None and is_whole:
        _remember(ground, kind, installed, entry, identity, backend.source, revision, here)
    size = sum(here[path].size_bytes for path in paths) if is_new else 0
    return Pushed(
        identity.name, kind, backend.source, identity.version, revision, is_new, len(paths) if is_new else 0, size
    )


def _paths(
    kind: Kind,
    here: dict[str, FileRecord],
    levels: tuple[int, ...] | None,
    entry: Entry | None,
    identity: Identity,
) -> tuple[str, ...]:
    """The files that go. Raises UsageError for levels that are not there, or a whole push of a part."""
    if levels is None:
        if entry is not None and entry.is_partial:
            raise UsageError(
                f"only levels {list(entry.levels_installed or ())} of {identity.name} are here: a push of the whole "
                "would remove the others. Pull the rest first, or push with --levels"
            )
        return tuple(sorted(here))
    if kind == "concept":
        raise UsageError("a concept pack goes whole: levels can be chosen for lens packs")
    there = {level for path in here if (level := level_of_path(path)) is not None}
    missing = sorted(set(levels) - there)
    if missing:
        raise UsageError(f"{identity.name} has no level {', '.join(map(str, missing))} here: it has {sorted(there)}")
    return tuple(sorted(p for p in here if (level := level_of_path(p)) is None or level in levels))


def _default(ground: Ground, kind: Kind, name: str, entry: Entry | None) -> str:
    if entry is not None and entry.source != LOCAL:
        return entry.source
    return f"hf://{repo_of(kind, Path(name).name, ground.org)}"


def _versions(backend: Backend) -> dict[str, str]:
    try:
        return dict(backend.versions())
    except NotThere:
        return {}


def _differ(folder: Path, here: dict[str, FileRecord], there: list[RemoteFile]) -> list[str]:
    """Files that are not the same on both sides, the card aside."""
    remote = {file.path: file for file in there if file.path != CARD}
    local = {path: record for path, record in here.items() if path != CARD}
    return sorted(
        path
        for path in remote.keys() | local.keys()
        if path not in remote or path not in local or not _is_same(folder / path, local[path], remote[path])
    )


def _is_same(file: Path, record: FileRecord, other: RemoteFile) -> bool:
    if record.size_bytes != other.size:
        return False
    return record.sha256 == other.sha256 if other.sha256 else git_blob(file) == other.blob


def _remember(
    ground: Ground,
    kind: Kind,
    name: str,
    entry: Entry | None,
    identity: Identity,
    source: str,
    revision: str,
    here: dict[str, FileRecord],
) -> None:
    levels = tuple(sorted({n for path in here if (n := level_of_path(path)) is not None})) if kind == "lens" else None
    fresh = Entry(
        source=source,
        version=identity.version,
        revision=revision,
        synced_at=ground.now(),
        created_at=entry.created_at if entry else None,
        based_on=entry.based_on if entry else None,
        size_bytes=sum(record.size_bytes for record in here.values()),
        sha256=digest_of(here),
        levels_installed=levels,
        levels_available=levels,
        files=here,
    )
    home = ground.homes[kind]
    with home.locked():
        home.record(name, fresh)

"""A pull: from a name to an installed pack, whole and checked, or nothing changed.

The rule of the file: what was installed stays in place until what comes is complete; what was changed here is never
overwritten unasked.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftw.map.registry.backends import Backend, RemoteFile, find_commit, open_backend, split_revision
from ftw.map.registry.content import FileRecord, Identity, check, digest_of, record_of, scan
from ftw.map.registry.fetch import Counter, Tell, fetch, is_here, place
from ftw.map.registry.ground import Ground
from ftw.map.registry.home import Home, remove, told
from ftw.map.registry.lockfile import Pin
from ftw.map.registry.names import Kind, is_part, key_of, kind_of, level_of_path, repo_of, safe_path
from ftw.map.registry.plan import Plan, make_plan
from ftw.map.registry.records import Pulled
from ftw.map.registry.rows import put_together
from ftw.map.registry.state import LOCAL, Entry
from ftw.substrate.errors import PackError, StorageError, UsageError

MARGIN = 16 << 20
"""Bytes that stay free on the disk after a pull."""


@dataclass(frozen=True)
class Wish:
    """What is asked for."""

    kind: Kind
    name: str
    version: str | None = None
    revision: str | None = None
    source: str | None = None
    levels: tuple[int, ...] | None = None
    force: bool = False
    """Overwrite what was changed here."""
    update: bool = False
    """Take the newest, whatever packs.lock pins."""


@dataclass(frozen=True)
class Found:
    """What there is: here, and at the source."""

    backend: Backend
    commit: str
    installed: str | None
    entry: Entry | None
    pin: Pin | None
    files: tuple[RemoteFile, ...]
    """Those that are to be here afterwards."""
    available: tuple[int, ...] | None
    chosen: tuple[int, ...] | None
    plan: Plan


def pull(ground: Ground, wish: Wish, tell: Tell) -> Pulled:
    """Installs what is wished for. Raises NotThere, RemoteError, PackError, StorageError, Busy, UsageError."""
    home = ground.homes[wish.kind]
    with home.working_on(key_of(wish.name)) as staging, tempfile.TemporaryDirectory(prefix="ftw-pull-") as work:
        found = look(ground, wish, Path(work))
        if found.entry is not None and found.plan.is_empty:
            return _nothing_new(ground, wish, found)
        identity, received = _stage(ground, found, home, staging, tell)
        files = {file.path: _record(staging, file) for file in found.files}
        digest = digest_of(files)
        _as_asked(wish, found, identity, digest, staging)
        name = found.installed or (identity.name if key_of(identity.name) == key_of(wish.name) else key_of(wish.name))
        entry = Entry(
            source=found.backend.source,
            version=identity.version,
            revision=found.commit,
            synced_at=ground.now(),
            size_bytes=sum(file.size_bytes for file in files.values()),
            sha256=digest,
            levels_installed=found.chosen,
            levels_available=found.available,
            files=files,
        )
        path = home.install(staging, name, entry)
        _target(staging).unlink(missing_ok=True)
    return _pulled(wish.kind, name, path, entry, found, received)


def look(ground: Ground, wish: Wish, work: Path) -> Found:
    """What a pull would do. Nothing is written but git's objects below `work`. Raises as `pull`."""
    home = ground.homes[wish.kind]
    installed = home.find(wish.name)
    entry = home.state().packs.get(installed) if installed else None
    free = wish.update or wish.version or wish.revision or wish.source
    pin = None if free else ground.lock().pin(wish.kind, wish.name)
    address, behind = split_revision(wish.source) if wish.source else (_address(ground, wish, entry, pin), None)
    backend = open_backend(address, work=work)
    if wish.version and wish.revision:
        raise UsageError("a version and a revision are two ways to say one thing: give one of them")
    commit = pin.revision if pin and pin.revision else find_commit(backend, wish.version, wish.revision or behind)
    here = scan(home.folder / installed) if installed else {}
    if not wish.force:
        _spare(wish, installed, entry, here, backend)
    listed = _listed(backend, commit)
    kind = kind_of((file.path for file in listed), backend.source)
    if kind != wish.kind:
        raise UsageError(f"{backend.source} is a {kind} pack, a {wish.kind} pack was asked for")
    available, chosen = _levels(wish, pin, entry, listed)
    wanted = tuple(f for f in listed if (level := level_of_path(f.path)) is None or chosen is None or level in chosen)
    folder = home.folder / (installed or "")
    plan = make_plan(backend, commit, wanted, folder, here)
    return Found(backend, commit, installed, entry, pin, wanted, available, chosen, plan)


def differences(before: dict[str, FileRecord], now: dict[str, FileRecord]) -> tuple[str, ...]:
    """Files that changed, went or came."""
    return tuple(sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path)))


def listing(paths: Sequence[str], n: int = 3) -> str:
    """The first few of these, and how many more there are."""
    more = f" and {len(paths) - n} more" if len(paths) > n else ""
    return ", ".join(paths[:n]) + more


def _address(ground: Ground, wish: Wish, entry: Entry | None, pin: Pin | None) -> str:
    if pin is not None:
        if pin.source == LOCAL:
            raise UsageError(f"packs.lock pins {pin.name} as made here: it is in no place that it could be pulled from")
        return pin.source
    if entry is not None and entry.source != LOCAL:
        return entry.source
    return f"hf://{repo_of(wish.kind, wish.name, ground.org)}"


def _spare(
    wish: Wish, installed: str | None, entry: Entry | None, here: dict[str, FileRecord], backend: Backend
) -> None:
    """Raises PackError where a pull would overwrite something of one's own."""
    if installed is None:
        return
    way = "give it another name with `ftw pack fork`, or pull with --force, which overwrites it"
    if entry is None or entry.source == LOCAL:
        raise PackError(f"{installed} was made here, a pull would overwrite it: {way}")
    if wish.source and entry.source != backend.source:
        raise PackError(f"{installed} was pulled from {entry.source}, not from {backend.source}: {way}")
    changed = differences(entry.files, here) if entry.files else ()
    if changed:
        raise PackError(f"{installed} was changed here since it was pulled ({listing(changed)}): {way}")


def _listed(backend: Backend, commit: str) -> list[RemoteFile]:
    """The pack's files at its source. Raises PackError for a path that is none of a pack's, or that stands twice."""
    files: dict[str, RemoteFile] = {}
    for file in backend.files(commit):
        path = safe_path(file.path, backend.source)
        if path in files or file.size < 0:
            raise PackError(f"{backend.source} lists {path} twice, or with no size: it is damaged there. Not installed")
        files[path] = file
    return [file for path, file in files.items() if is_part(path)]


def _levels(
    wish: Wish, pin: Pin | None, entry: Entry | None, files: Iterable[RemoteFile]
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """The levels that there are, and those that are to be here; None for a pack without levels of its own.

    Levels that are asked for come beside those that are here. A pin stands for its own levels and no others.
    """
    asked = wish.levels if wish.levels is not None else (pin.levels if pin else None)
    if pin and wish.levels is not None and wish.levels != pin.levels:
        pinned = f"levels {_spans(pin.levels)}" if pin.levels else "all levels"
        raise UsageError(f"packs.lock pins {pinned} of {wish.name}: leave --levels out, or pull with --update")
    if wish.kind == "concept":
        if wish.levels is not None:
            raise UsageError("a concept pack comes whole: levels can be chosen for lens packs")
        return None, None
    available = tuple(sorted({level for f in files if (level := level_of_path(f.path)) is not None}))
    missing = sorted(set(asked or ()) - set(available))
    if missing:
        raise UsageError(f"{wish.name} has no level {', '.join(map(str, missing))}: it has {_spans(available)}")
    if asked is None:
        return available, available
    here = entry.levels_installed or () if entry and not pin else ()
    return available, tuple(level for level in available if level in asked or level in here)


def _spans(levels: Sequence[int]) -> str:
    return ", ".join(map(str, levels)) or "none"


def _stage(ground: Ground, found: Found, home: Home, staging: Path, tell: Tell) -> tuple[Identity, int]:
    """Fills the staging folder; gives who the pack is and how many bytes came."""
    _begin(found, staging)
    plan = found.plan
    _room(home.folder, plan)
    counter = Counter(plan.n_bytes, tell, "Fetching")
    folder = home.folder / (found.installed or "")
    for file in plan.keep:
        _keep(folder / file.path, place(staging, file), file)
    again = [
        patch.file
        for patch in plan.patches
        if not put_together(
            found.backend, found.commit, patch, folder / patch.file.path, staging, counter=counter, pause=ground.pause
        )
    ]
    fetch(found.backend, found.commit, (*plan.fetch, *again), staging, counter=counter, pause=ground.pause)
    wanted = {file.path for file in found.files}
    for extra in [p for p in staging.rglob("*") if p.is_file() and p.relative_to(staging).as_posix() not in wanted]:
        extra.unlink()
    try:
        return check(staging), counter.received
    except PackError as error:
        remove(staging)
        raise PackError(f"{found.backend.source} at {found.commit[:8]} is broken and not installed: {error}") from error


def _begin(found: Found, staging: Path) -> None:
    """Makes the staging folder; one that was for another revision goes."""
    target = _target(staging)
    body = json.dumps({"source": found.backend.source, "revision": found.commit})
    try:
        if staging.exists() and (not target.is_file() or target.read_text(encoding="utf-8") != body):
            shutil.rmtree(staging)
        staging.mkdir(parents=True, exist_ok=True)
        target.write_text(body, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{staging} cannot be made: {told(error)}") from error


def _target(staging: Path) -> Path:
    return staging.with_name(f"{staging.name}.target.json")


def _room(folder: Path, plan: Plan) -> None:
    """Raises StorageError where the disk has no room for what comes."""
    needed = sum(file.size for file in plan.fetch) + sum(patch.file.size for patch in plan.patches) + MARGIN
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{folder} has {free / 1e6:.0f} MB free, the pull needs {needed / 1e6:.0f} MB: free some, choose fewer "
            "levels with --levels, or set FTW_PACKS_DIR to another disk"
        )


def _keep(old: Path, new: Path, file: RemoteFile) -> None:
    """The same file once more, without its bytes being copied where the disk can do that."""
    if is_here(new, file):
        return
    try:
        new.unlink(missing_ok=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.hardlink_to(old)
        except OSError:
            shutil.copyfile(old, new)
    except OSError as error:
        raise StorageError(f"{new} cannot be written: {told(error)}") from error


def _record(staging: Path, file: RemoteFile) -> FileRecord:
    if file.sha256 is not None:  # checked when it came
        return FileRecord(sha256=file.sha256, size_bytes=file.size)
    return record_of(staging / file.path)


def _as_asked(wish: Wish, found: Found, identity: Identity, digest: str, staging: Path) -> None:
    """Raises PackError where what came is not the version or the digest that was asked for."""
    if wish.version and identity.version != wish.version:
        remove(staging)
        raise PackError(
            f"{found.backend.source} tags {wish.version} what calls itself {identity.version}: not installed"
        )
    if found.pin and digest != found.pin.sha256:
        remove(staging)
        raise PackError(
            f"{wish.name} at {found.commit[:8]} is {digest[:12]}, packs.lock pins {found.pin.sha256[:12]}: not "
            "installed. If the new one is right, pull with --update and lock again"
        )


def _nothing_new(ground: Ground, wish: Wish, found: Found) -> Pulled:
    """Everything is here already; what is recorded follows the source."""
    assert found.entry is not None  # the caller looked
    assert found.installed is not None
    home = ground.homes[wish.kind]
    changes = {
        "revision": found.commit,
        "source": found.backend.source,
        "modified": False,
        "levels_installed": found.chosen,
        "levels_available": found.available,
    }
    entry = found.entry.model_copy(update=changes)
    if wish.version and entry.version != wish.version:
        raise PackError(f"{found.backend.source} tags {wish.version} what calls itself {entry.version}")
    if entry != found.entry:
        with home.locked():
            home.record(found.installed, entry)
    done = _pulled(wish.kind, found.installed, home.folder / found.installed, entry, found, 0)
    return replace(done, is_new=False)


def _pulled(kind: Kind, name: str, path: Path, entry: Entry, found: Found, received: int) -> Pulled:
    return Pulled(
        name=name,
        kind=kind,
        source=entry.source,
        version=entry.version,
        revision=found.commit,
        path=path,
        sha256=entry.sha256 or "",
        levels=entry.levels_installed,
        was=found.entry.version if found.entry else None,
        n_bytes=received,
        n_bytes_whole=found.plan.n_bytes_whole,
        plan=found.plan,
    )

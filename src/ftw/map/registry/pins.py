"""packs.lock against what is installed: writing it, and telling what differs.

The rule of the file: every byte is hashed; a record is not taken at its word.
"""

from ftw.map.registry.content import digest_of, scan
from ftw.map.registry.ground import Ground
from ftw.map.registry.lockfile import Lock, Pin, write_lock
from ftw.map.registry.names import KINDS
from ftw.map.registry.pull import differences, listing
from ftw.map.registry.state import LOCAL
from ftw.substrate.errors import PackError, UsageError


def make_lock(ground: Ground) -> Lock:
    """Pins every installed pack that was pulled or pushed, and writes packs.lock.

    Raises PackError for a pack that was changed here: a lock pins what others can get too.
    """
    if ground.lockfile is None:
        raise UsageError("this registry has no packs.lock: say where it is to be")
    pins = []
    for kind in KINDS:
        home = ground.homes[kind]
        entries = home.state().packs
        for name in home.names():
            entry = entries.get(name)
            if entry is None or entry.source == LOCAL or entry.sha256 is None:
                continue
            changed = differences(entry.files, scan(home.folder / name))
            if changed:
                raise PackError(
                    f"{name} was changed here ({listing(changed)}): push it, or pull it with --force, then lock"
                )
            pins.append(
                Pin(
                    kind=kind,
                    name=name,
                    source=entry.source,
                    version=entry.version,
                    revision=entry.revision,
                    sha256=entry.sha256,
                    levels=entry.levels_installed if entry.is_partial else None,
                )
            )
    made = Lock(packs=tuple(pins))
    write_lock(ground.lockfile, made)
    return made


def against_lock(ground: Ground) -> list[str]:
    """How what is installed differs from packs.lock, a line each."""
    lines = []
    for pin in ground.lock().packs:
        home = ground.homes[pin.kind]
        name = home.find(pin.name)
        if name is None:
            lines.append(f"{pin.name} {pin.version} is pinned and not installed: `ftw pack pull {pin.name}`")
        elif (digest := digest_of(scan(home.folder / name))) != pin.sha256:
            lines.append(f"{name} is {digest[:12]}, pinned is {pin.version} {pin.sha256[:12]}: `ftw pack pull {name}`")
    return lines

"""A fork: a copy of a pack under another name, to be changed here and known to come from the old one.

The rule of the file: the pack that is forked stays as it is, and the fork is there whole or not at all.
"""

import shutil
from pathlib import Path

from ftw.map.registry.content import check, digest_of, renamed, scan
from ftw.map.registry.ground import Ground
from ftw.map.registry.home import remove, told
from ftw.map.registry.names import Kind, check_name
from ftw.map.registry.state import LOCAL, Entry
from ftw.substrate.errors import StorageError, UsageError


def fork(ground: Ground, kind: Kind, name: str, new_name: str) -> Path:
    """The folder of the copy. Raises UsageError for a name that is taken, NotThere, PackError, StorageError."""
    check_name(new_name)
    home = ground.homes[kind]
    taken = home.find(new_name)
    if taken is not None:
        raise UsageError(f"there is a pack {taken} already: fork under another name")
    folder, _, entry = ground.located(kind, name)
    was = check(folder)
    with home.working_on(f"fork-{new_name.lower()}") as staging:
        try:
            remove(staging)
            for path in scan(folder):
                (staging / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / path, staging / path)
        except OSError as error:
            raise StorageError(f"{staging} cannot be written: {told(error)}") from error
        based_on = f"{was.name}@{was.version}"
        renamed(staging, new_name, based_on)
        files = scan(staging)
        fresh = Entry(
            source=LOCAL,
            version=was.version,
            created_at=ground.now(),
            based_on=based_on,
            size_bytes=sum(record.size_bytes for record in files.values()),
            sha256=digest_of(files),
            levels_installed=entry.levels_installed if entry else None,
            levels_available=entry.levels_available if entry else None,
            files=files,
        )
        return home.install(staging, new_name, fresh)

"""A level file of lenses put together from the old one and the stretches of the new one that changed.

The rule of the file: what comes out has the hash that the source lists, or is thrown away and fetched whole.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ftw.map.registry.backends import Backend, Dropped
from ftw.map.registry.content import CHUNK
from ftw.map.registry.fetch import TRIES, Counter, is_here, matches, on_disk, pieces, place, side_by_side
from ftw.map.registry.plan import Patch
from ftw.substrate.errors import RemoteError


def put_together(
    backend: Backend,
    commit: str,
    patch: Patch,
    old_file: Path,
    staging: Path,
    *,
    counter: Counter,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Makes the file of a patch in `staging`; False where the result is not what the source lists.

    Raises RemoteError, StorageError.
    """
    target = place(staging, patch.file)
    if is_here(target, patch.file):
        counter.add(patch.n_bytes, received=False)
        return True
    rest = target.with_name(target.name + ".rows.part")
    with on_disk(rest):
        rest.parent.mkdir(parents=True, exist_ok=True)
        with rest.open("wb") as stream, old_file.open("rb") as old:
            stream.truncate(patch.file.size)
            stream.write(patch.head)
            for each in patch.copies:
                stream.seek(each.start)
                old.seek(each.source)
                left = each.stop - each.start
                while left and (chunk := old.read(min(CHUNK, left))):
                    stream.write(chunk)
                    left -= len(chunk)
    counter.add(len(patch.head))
    side_by_side(
        [partial(_stretch, backend, commit, patch, span, rest, counter, pause) for span in patch.wanted], counter
    )
    if not matches(rest, patch.file):
        rest.unlink()
        counter.add(-patch.n_bytes, received=False)
        return False
    with on_disk(target):
        rest.replace(target)
    return True


def _stretch(
    backend: Backend,
    commit: str,
    patch: Patch,
    span: tuple[int, int],
    target: Path,
    counter: Counter,
    pause: Callable[[float], None],
) -> None:
    at, stop = span
    tries = 0
    with on_disk(target), target.open("r+b") as stream:
        while at < stop:
            before = at
            try:
                for chunk in pieces(backend, commit, patch.file, at, stop, counter):
                    os.pwrite(stream.fileno(), chunk, at)
                    at += len(chunk)
            except Dropped as error:
                tries = 1 if at > before else tries + 1
                if tries >= TRIES:
                    raise RemoteError(f"{error}, {TRIES} times in a row: repeat the command to try again") from error
                pause(min(8.0, 2.0 ** (tries - 1)))

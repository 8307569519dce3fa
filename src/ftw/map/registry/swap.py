"""A folder in the place of another one, in two renames that a killed process can be helped out of.

The new folder is made beside the old one, under a hidden name. The old one steps aside under the name that `mend`
looks for. The rule of the file: whatever the moment of the kill, one of the two is whole and `mend` puts it in place.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """An empty hidden folder beside `target`, which goes at the end unless it was put in a place. Raises OSError."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-new-", dir=target.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def swap_in(fresh: Path, target: Path) -> None:
    """Puts `fresh` in the place of `target`, which goes. Raises OSError, with the old folder in its place again."""
    aside = _aside(target)
    if not target.exists():
        fresh.rename(target)
        return
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    try:
        fresh.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def mend(target: Path) -> None:
    """Ends a swap that was cut off: the old folder comes back where the new one did not arrive, else it goes."""
    aside = _aside(target)
    if not aside.exists():
        return
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.rename(target)


def unmended(home: Path) -> list[Path]:
    """The folders in `home` whose swap was cut off."""
    return [home / aside.name[1:-4] for aside in home.glob(".*.old")] if home.is_dir() else []


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"

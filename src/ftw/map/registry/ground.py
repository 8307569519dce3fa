"""What every call of the registry stands on: the two folders, the organisation, packs.lock, the clock.

The rule of the file: a pack is found here by any spelling of its name, and nothing is fetched.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from ftw.map.registry.home import Home
from ftw.map.registry.lockfile import Lock, read_lock
from ftw.map.registry.names import FOLDERS, KINDS, Kind
from ftw.map.registry.state import Entry
from ftw.substrate.errors import NotThere


def utc_now() -> str:
    """The time in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bundled(kind: Kind) -> dict[str, Path]:
    """The folders of the packs of one kind that ship with ftw, by name."""
    home = Path(str(files("ftw"))) / "bundled" / FOLDERS[kind].replace("_", "-")
    return {p.name: p for p in sorted(home.iterdir()) if (p / "pack.json").is_file()} if home.is_dir() else {}


@dataclass(frozen=True)
class Ground:
    """One registry's places and settings."""

    folder: Path
    """Holds `concept_packs/` and `lens_packs/`."""
    org: str = "ftw-project"
    lockfile: Path | None = None
    now: Callable[[], str] = utc_now
    pause: Callable[[float], None] = time.sleep
    """Waits some seconds between two tries."""
    patience_s: float = 30.0
    """Seconds to wait for another process that holds a lock."""
    homes: Mapping[Kind, Home] = field(init=False)

    def __post_init__(self) -> None:
        homes = {kind: Home(self.folder / FOLDERS[kind], patience_s=self.patience_s) for kind in KINDS}
        object.__setattr__(self, "homes", homes)

    def lock(self) -> Lock:
        """The pins of packs.lock; none where there is no such file. Raises ConfigError, StorageError."""
        return read_lock(self.lockfile)

    def located(self, kind: Kind, name: str) -> tuple[Path, str | None, Entry | None]:
        """The folder of a pack: installed, bundled, or a path. With its name on disk and its record if installed.

        Raises NotThere that lists what there is.
        """
        home = self.homes[kind]
        installed = home.find(name)
        if installed is not None:
            return home.folder / installed, installed, home.state().packs.get(installed)
        shipped = bundled(kind)
        if name in shipped:
            return shipped[name], None, None
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder, None, None
        there = ", ".join([*home.names(), *shipped]) or "none"
        raise NotThere(f"no {kind} pack {name} is installed: there is {there}. Get it with `ftw pack pull {name}`")

"""`.registry.json`: which packs of one kind are installed, where they came from, and what their files were then.

The rule of the file: it is read whole and written whole, in one step, and an unknown key is an error.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ftw.map.registry.content import FileRecord
from ftw.substrate.canonical import canonical_json
from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError, StorageError
from ftw.substrate.manifest import write_atomically

REGISTRY = ".registry.json"
LOCAL = "local"
"""The source of a pack that was made here."""


class Entry(Strict):
    """One installed pack."""

    source: str = Field(min_length=1)
    """`hf://org/repo`, `file:/folder`, `git+https://…`, or `local`."""
    version: str
    revision: str | None = None
    """The commit on the hub or in git; for a folder the digest of its content."""
    synced_at: str | None = None
    """When it was last pulled or pushed, ISO 8601 in UTC."""
    created_at: str | None = None
    """When it was forked here."""
    based_on: str | None = None
    """`name@version` of the pack that it was forked from."""
    modified: bool = False
    """Whether its files were found changed since; `status` and `verify` find out."""
    size_bytes: int = Field(default=0, ge=0)
    sha256: str | None = None
    """The digest of the files when it was last pulled, pushed or forked."""
    levels_installed: tuple[int, ...] | None = None
    """None for a pack without levels of its own (a concept pack is whole or not there)."""
    levels_available: tuple[int, ...] | None = None
    files: dict[str, FileRecord] = Field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        """Whether some levels that there are were not pulled."""
        return self.levels_installed != self.levels_available


class State(Strict):
    """The file."""

    schema_version: Literal["1.0"] = "1.0"
    packs: dict[str, Entry] = Field(default_factory=dict)


def read_state(home: Path) -> State:
    """The packs of the folder `home`; none where nothing was recorded. Raises PackError, StorageError."""
    file = home / REGISTRY
    try:
        return State.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}; check its permissions") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'the file'}: {p['msg']}" for p in error.errors()[:3])
        raise PackError(f"{file}: {told}. Mend it, or move it away and pull the packs with --force") from error


def write_state(home: Path, state: State) -> None:
    """Records the packs of the folder `home`. A reader sees the old file or the new one. Raises StorageError."""
    write_atomically(home / REGISTRY, canonical_json(state.model_dump(mode="json", exclude_none=True)) + b"\n")

"""packs.lock: which packs a project uses, pinned by name, revision and digest.

The rule of the file: what is pinned is exactly that, or an error; a lock is never widened on the way.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ftw.map.registry.names import Kind, key_of
from ftw.substrate.canonical import canonical_json
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, StorageError
from ftw.substrate.manifest import write_atomically

LOCKFILE = "packs.lock"


class Pin(Strict):
    """One pack."""

    kind: Kind
    name: str
    source: str
    version: str
    revision: str | None
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The digest of its files."""
    levels: tuple[int, ...] | None = None
    """Those that were installed; None for all."""


class Lock(Strict):
    """The file."""

    schema_version: Literal["1.0"] = "1.0"
    packs: tuple[Pin, ...] = ()

    def pin(self, kind: Kind, name: str) -> Pin | None:
        """The pin of a pack, however its name is spelled."""
        return next((pin for pin in self.packs if pin.kind == kind and key_of(pin.name) == key_of(name)), None)


def read_lock(file: Path | None) -> Lock:
    """The pins in a file; none where there is no file. Raises ConfigError for what is no lock, StorageError."""
    if file is None:
        return Lock()
    try:
        return Lock.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}; check its permissions") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'the file'}: {p['msg']}" for p in error.errors()[:3])
        raise ConfigError(f"{file}: {told}. Make it anew with `ftw pack lock`") from error


def write_lock(file: Path, lock: Lock) -> None:
    """Writes the pins, one per line, sorted by kind and name. Raises StorageError."""
    pins = sorted(lock.packs, key=lambda pin: (pin.kind, pin.name))
    lines = b",\n".join(b"  " + canonical_json(pin.model_dump(mode="json")) for pin in pins)
    body = b'{"schema_version": "1.0", "packs": [\n' + lines + b"\n]}\n"
    write_atomically(file, body)

"""Where packs come from and go to: the hub, a folder, a git repository. One protocol for the three.

A source is written `hf://org/repo`, `file:/folder` or a plain path, `git+https://host/repo.git`; each may end in
`@revision`. The rule of the file: a backend moves bytes and names revisions; what a pack is, is not its business.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ftw.substrate.errors import ConfigError, NotThere


@dataclass(frozen=True)
class RemoteFile:
    """A file as a source lists it, with the hash that the source knows of it, if any."""

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None
    """The id of its content in git, hex sha1."""


@dataclass(frozen=True)
class Upload:
    """What is to be put somewhere."""

    folder: Path
    paths: Sequence[str]
    """Those of its files that go, relative."""
    extra: Mapping[str, bytes]
    """Files that are not in the folder: the card."""
    message: str
    version: str
    is_whole: bool
    """Whether these are all files: what else the target holds goes, and the version is tagged."""


class Dropped(Exception):
    """The connection broke or stalled: what came so far is good, and the rest can be asked for again."""


@runtime_checkable
class Backend(Protocol):
    """One place that holds one pack, in one or more revisions."""

    @property
    def source(self) -> str:
        """Its address, without a revision; what `open_backend` makes this backend of again."""
        ...

    def versions(self) -> Mapping[str, str]:
        """The revision of every version that was tagged."""
        ...

    def commit(self, revision: str | None) -> str:
        """The full name of a revision; of the newest for None. Raises NotThere, RemoteError."""
        ...

    def files(self, commit: str) -> tuple[RemoteFile, ...]:
        """What a revision holds. Raises NotThere, RemoteError."""
        ...

    def stream(self, commit: str, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of a file. Raises Dropped, NotThere, RemoteError."""
        ...

    def push(self, upload: Upload) -> str:
        """Puts a pack there and gives the new revision. Raises RemoteError, StorageError."""
        ...


HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)")
SHORT = re.compile(r"[\w.-]+/[\w.-]+")


def split_revision(text: str) -> tuple[str, str | None]:
    """A source and the revision behind its last `@`; one before a `/` or `:`, or in a folder's name, is no revision."""
    if is_folder(text) and folder_at(text).is_dir():
        return text, None
    head, at, tail = text.rpartition("@")
    return (head, tail) if at and tail and not re.search(r"[/:]", tail) else (text, None)


def is_source(text: str) -> bool:
    """Whether a text is an address, and not a pack's bare name."""
    return bool(re.match(r"(hf:|file:|git\+|[./~])", text)) or "/" in text


def is_folder(text: str) -> bool:
    """Whether a source is a folder on this machine."""
    return text.startswith("file:") or bool(re.match(r"[./~]", text)) or Path(text).is_dir()


def folder_at(text: str) -> Path:
    """The folder that `file:/folder`, `file:///folder` or a plain path names, absolute."""
    return Path(re.sub(r"^file:(//(?=/))?", "", text)).expanduser().absolute()


def open_backend(text: str, *, work: Path) -> Backend:
    """The backend at an address without a revision. Git keeps its objects below `work` while it is used.

    Raises ConfigError for what is no address, NotThere for a folder that is not there.
    """
    from ftw.map.registry.folder import FolderBackend
    from ftw.map.registry.git import GitBackend
    from ftw.map.registry.hub import HubBackend

    if text.startswith("git+"):
        return GitBackend(text, work)
    found = HUB.fullmatch(text)
    if found:
        return HubBackend(found["repo"])
    if text.startswith("hf:"):
        raise ConfigError(f"{text} is no repository on the hub: write hf://organisation/name")
    if is_folder(text):
        return FolderBackend(folder_at(text))
    if SHORT.fullmatch(text):
        return HubBackend(text)
    raise ConfigError(f"{text} is no source: write hf://org/name, a folder, or git+https://host/name.git")


def find_commit(backend: Backend, version: str | None, revision: str | None) -> str:
    """The revision that a version, or a revision, or neither (the newest) stands for. Raises NotThere, RemoteError."""
    if version is None:
        return backend.commit(revision)
    known = backend.versions()
    if version in known:
        return known[version]
    there = ", ".join(sorted(known)) or "none"
    raise NotThere(f"{backend.source} has no version {version}; tagged there: {there}")

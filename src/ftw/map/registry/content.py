"""What a pack's folder holds: its files with their hashes, the digest of the whole, its name and version.

The rule of the file: a pack is its files' bytes. README.md is not part of the digest, so that a card on the hub does
not make another pack of it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ftw.hat.classifiers.index import read_index, read_info, read_json
from ftw.hat.classifiers.layout import Header, level_file, levels_of
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import PackRecord, read_record
from ftw.map.registry.names import Kind, is_part, kind_of, safe_path
from ftw.substrate.canonical import canonical_json, sha256_hex
from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError, StorageError

CARD = "README.md"
OLD_INFO = "pack_info.json"
"""pack.json of a lens pack in the legacy layout."""
CHUNK = 1 << 20


class FileRecord(Strict):
    """One file of a pack."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


@dataclass(frozen=True)
class Identity:
    """Who a pack says it is."""

    kind: Kind
    name: str
    version: str


def paths_in(folder: Path) -> Iterator[str]:
    """The paths of a pack's files, sorted. Raises PackError for a link, StorageError where the folder is unreadable."""
    try:
        found = sorted(folder.rglob("*"))
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror}; check its permissions") from error
    for file in found:
        path = file.relative_to(folder).as_posix()
        if not is_part(path):
            continue
        if file.is_symlink():
            raise PackError(f"{file} is a link: a pack holds plain files. Put the file itself there")
        if file.is_file():
            yield safe_path(path, str(folder))


def scan(folder: Path) -> dict[str, FileRecord]:
    """Every file of a pack with its hash and size. Raises PackError, StorageError."""
    return {path: record_of(folder / path) for path in paths_in(folder)}


def record_of(file: Path) -> FileRecord:
    """Hash and size of a file. Raises StorageError."""
    try:
        return FileRecord(sha256=sha256_hex(file), size_bytes=file.stat().st_size)
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}; check its permissions") from error


def digest_of(files: Mapping[str, FileRecord]) -> str:
    """One sha256 for all files of a pack but its card, hex."""
    return sha256_hex(canonical_json({path: files[path].sha256 for path in sorted(files) if path != CARD}))


def git_blob(file: Path) -> str:
    """The id that git gives to a file's content, hex sha1."""
    hashed = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def identify(folder: Path) -> Identity:
    """Kind, name and version of the pack in `folder`, from its pack.json. Raises PackError, StorageError."""
    there = (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())
    kind = kind_of(there, str(folder))
    if kind == "concept":
        meta = read_record(PackRecord, folder / "pack.json")
        return Identity(kind, meta.pack_id, meta.version)
    if (folder / OLD_INFO).is_file():
        told = read_json(folder / OLD_INFO)
        if not isinstance(told, dict):
            raise PackError(f"{folder / OLD_INFO} is not an object: it is no lens pack's")
        model = str(told.get("model", "model")).rsplit("/", 1)[-1]
        source = str(told.get("source_pack", "concepts")).rsplit("/", 1)[-1].split("@")[0]
        return Identity(kind, f"{model}_{source}".lower(), str(told.get("pack_version", "0")))
    info = read_info(folder)
    return Identity(kind, info.name, info.version)


def check(folder: Path) -> Identity:
    """`identify`, and what of a pack is broken without its weights being read. Raises PackError, StorageError."""
    found = identify(folder)
    if found.kind == "concept":
        ConceptPack.load(folder)
    elif not (folder / OLD_INFO).is_file():
        for level in levels_of(read_index(folder)):
            if (folder / level_file(level)).is_file():
                Header.of(folder / level_file(level))
    return found


def renamed(folder: Path, name: str, based_on: str) -> None:
    """Give the pack in `folder` another name, and say what it was made from. Raises PackError, StorageError."""
    kind = identify(folder).kind
    if (folder / OLD_INFO).is_file():
        raise PackError(f"{folder} is in the legacy layout: make a pack of it with `ftw lens import` first")
    file = folder / "pack.json"
    told = read_json(file)
    told |= {"pack_id": name, "forked_from": based_on} if kind == "concept" else {"name": name, "based_on": based_on}
    try:
        file.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error

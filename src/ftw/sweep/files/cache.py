"""Finished passes on disk, so that a sweep that was killed goes on where it was.

An entry is found by the SHA-256 over everything that decides its numbers: the scope (model, lenses, precision, code)
and the key (what the pass read). The rule of the file: an entry is the bytes that were put in, or it is not used.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ftw.substrate.canonical import canonical_json, sha256_hex
from ftw.substrate.errors import ConfigError, StorageError
from ftw.substrate.manifest import write_atomically

MAGIC = b"ftw-pass-1\n"
"""What an entry begins with. After it: SHA-256 over the entry's name and what follows, length of the list, the list of
arrays in JSON, their bytes one after the other."""
SUFFIX = ".pass"
ABANDONED_S = 3600.0
"""Age from which a half-written file belongs to a process that is gone."""


class PassCache:
    """Arrays by key, in one folder. Several processes may use the folder at once.

    `scope` is everything that decides the numbers besides the key; both are JSON values. A sum over a batch rounds
    differently in another batch: a key that is to give the same bits again names all that ran together.
    Raises ConfigError for an empty scope, StorageError where the folder cannot be made.
    """

    def __init__(self, folder: Path, scope: Mapping[str, Any]) -> None:
        if not scope:
            raise ConfigError(f"the cache {folder} has no scope: name at least the model's fingerprint and the code")
        self.folder = folder
        self.scope = dict(scope)
        self.hits = 0
        """Entries that were found."""
        self.misses = 0
        """Entries that were not there, or damaged."""
        self.notes: list[str] = []
        """What was damaged and is computed again, in words."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror or error}; give another folder for the cache") from error

    def file(self, key: Any) -> Path:
        """Where the entry of a key lies, or would."""
        name = sha256_hex(canonical_json({"scope": self.scope, "key": key}))
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def get(self, key: Any) -> dict[str, np.ndarray] | None:
        """The arrays of a key, or None. A damaged entry is deleted, noted, and None. Raises StorageError."""
        file = self.file(key)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            self.misses += 1
            return None
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {error.strerror or error}; give another folder") from error
        try:
            arrays = _unpack(data, file.stem)
        except ValueError as error:
            self.notes.append(f"{file} is damaged ({error}): its pass is computed again")
            self.misses += 1
            with suppress(OSError):  # a folder that is only read: the entry stays, and is noted again
                file.unlink()
            return None
        self.hits += 1
        with suppress(OSError):  # only decides what is pruned first
            os.utime(file)
        return arrays

    def put(self, key: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays, in one step: an entry is there whole or not at all.

        Raises StorageError on a full disk (entries before stay), ConfigError for arrays of Python objects.
        """
        file = self.file(key)
        data = _pack(arrays, file.stem)
        try:
            file.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"{file.parent}: {error.strerror or error}; give another folder") from error
        write_atomically(file, data)

    def prune(self, max_bytes: int, *, clock: Callable[[], float] = time.time) -> int:
        """Deletes entries, those of any scope, the longest unused first, until at most `max_bytes` are left.

        Gives the number of bytes deleted. Files that a killed process left half-written go too, once an hour old.
        """
        if max_bytes < 0:
            raise ConfigError(f"a cache cannot keep {max_bytes} bytes: give 0 or more")
        freed = sum(_delete(file, size) for _, size, file in self._found(f".*{SUFFIX}-*", before=clock() - ABANDONED_S))
        entries = sorted(self._found(f"*{SUFFIX}"))
        total = sum(size for _, size, _ in entries)
        for _, size, file in entries:
            if total <= max_bytes:
                break
            total -= size
            freed += _delete(file, size)
        return freed

    def _found(self, pattern: str, *, before: float = float("inf")) -> list[tuple[float, int, Path]]:
        """Time of last use, size and path of the files that fit."""
        found = []
        for file in self.folder.glob(f"??/{pattern}"):
            with suppress(FileNotFoundError):  # another process prunes too
                stat = file.stat()
                if stat.st_mtime < before:
                    found.append((stat.st_mtime, stat.st_size, file))
        return found


def _delete(file: Path, size: int) -> int:
    try:
        file.unlink()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StorageError(f"{file} cannot be deleted: {error.strerror or error}; delete the cache by hand") from error
    return size


def _pack(arrays: Mapping[str, np.ndarray], name: str) -> bytes:
    listed, parts = [], []
    for key, array in arrays.items():
        if array.dtype.hasobject or array.dtype.names is not None:
            raise ConfigError(f"array {key!r} is of {array.dtype}: a cache keeps plain numbers, booleans and text")
        listed.append([key, array.dtype.str, list(array.shape)])
        parts.append(array.tobytes())
    head = canonical_json(listed)
    body = b"".join([len(head).to_bytes(8, "little"), head, *parts])
    return MAGIC + _seal(body, name) + b"\n" + body


def _unpack(data: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays of an entry. Raises ValueError saying what is wrong with it."""
    start = len(MAGIC) + 65
    if not data.startswith(MAGIC) or len(data) < start + 8:
        raise ValueError("it is no entry, or cut short")
    body = memoryview(data)[start:]
    if data[len(MAGIC) : start - 1] != _seal(body, name):
        raise ValueError("its digest is not that of its bytes")
    at = 8 + int.from_bytes(body[:8], "little")
    arrays = {}
    for key, kind, shape in json.loads(bytes(body[8:at])):
        dtype = np.dtype(kind)
        count = prod(shape)
        arrays[key] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
        at += count * dtype.itemsize
    return arrays


def _seal(body: bytes | memoryview, name: str) -> bytes:
    digest = hashlib.sha256(name.encode())
    digest.update(body)
    return digest.hexdigest().encode()

"""A shared folder as a source of packs: one folder, one pack, one revision (the digest of its content).

The rule of the file: a folder that is written to shows the old pack or the new one, whole.
"""

import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path

from ftw.map.registry.backends import RemoteFile, Upload
from ftw.map.registry.content import CHUNK, FileRecord, digest_of, identify, paths_in, scan
from ftw.map.registry.swap import fresh_folder, mend, swap_in
from ftw.substrate.errors import NotThere, PackError, RemoteError, StorageError, UsageError


class FolderBackend:
    """The pack in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def source(self) -> str:
        """`file:` and the absolute path."""
        return f"file:{self.root}"

    def versions(self) -> Mapping[str, str]:
        """The one version that is there; none in a folder that holds no pack."""
        try:
            return {identify(self.root).version: self.commit(None)}
        except PackError:
            return {}

    def commit(self, revision: str | None) -> str:
        """The digest of what is there. Raises NotThere where another is asked for, or nothing is there."""
        if not self.root.is_dir():
            raise NotThere(f"there is no folder {self.root}: give the folder of a pack")
        here = digest_of(self._records)
        if revision is not None and not here.startswith(revision):
            raise NotThere(f"{self.root} holds {here[:12]}, not {revision[:12]}: a folder keeps one revision only")
        return here

    def files(self, commit: str) -> tuple[RemoteFile, ...]:
        """Every file, hashed."""
        del commit
        return tuple(RemoteFile(path, each.size_bytes, each.sha256) for path, each in self._records.items())

    def stream(self, commit: str, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a file. Raises RemoteError where it cannot be read."""
        del commit
        try:
            with (self.root / file.path).open("rb") as stream:
                stream.seek(start)
                while start < stop and (chunk := stream.read(min(CHUNK, stop - start))):
                    start += len(chunk)
                    yield chunk
        except OSError as error:
            raise RemoteError(
                f"{self.root / file.path} cannot be read: {error.strerror}; is the folder there?"
            ) from error

    def push(self, upload: Upload) -> str:
        """Copies the pack here in one step. Raises UsageError for a folder that holds something else."""
        if self.root.is_dir() and any(self.root.iterdir()):
            try:
                identify(self.root)
            except PackError as error:
                raise UsageError(f"{self.root} is not empty and holds no pack: push into a new folder") from error
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            mend(self.root)
            with fresh_folder(self.root) as fresh:
                self._fill(fresh, upload)
                swap_in(fresh, self.root)
        except OSError as error:
            raise StorageError(
                f"{self.root} cannot be written: {error.strerror or error}; check space and rights"
            ) from error
        self.__dict__.pop("_records", None)
        return self.commit(None)

    def _fill(self, fresh: Path, upload: Upload) -> None:
        """What is to lie at `root`: the pack, and what else is there (a .git, say). Raises PackError for a link."""
        if self.root.is_dir():
            parts = {*paths_in(self.root)}
            leave = partial(_among, self.root, parts if upload.is_whole else parts & {*upload.paths, *upload.extra})
            shutil.copytree(self.root, fresh, dirs_exist_ok=True, symlinks=True, ignore=leave)
        for path in upload.paths:
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(upload.folder / path, fresh / path)
        for path, data in upload.extra.items():
            (fresh / path).write_bytes(data)

    @cached_property
    def _records(self) -> dict[str, FileRecord]:
        return scan(self.root)


def _among(root: Path, paths: set[str], folder: str, names: list[str]) -> set[str]:
    """Those of a folder's names that are among these paths below `root`."""
    return {name for name in names if (Path(folder) / name).relative_to(root).as_posix() in paths}

"""A git repository as a source of packs, through the git command: shallow, without checking anything out.

The rule of the file: git never asks for a password, never runs another transport than https, ssh and file, and never
takes an address for an option.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ftw.map.registry.backends import RemoteFile, Upload
from ftw.map.registry.content import CHUNK
from ftw.map.registry.names import is_part
from ftw.substrate.config import environment
from ftw.substrate.errors import ConfigError, MissingExtra, NotThere, PackError, RemoteError

URL = re.compile(r"git\+(?P<url>(https|ssh|file)://.+|file:/.+)")
PATIENCE_S = 900.0
"""Seconds that one git command may take; a transfer below 1 kB/s for 30 s ends sooner."""
POINTER = b"version https://git-lfs.github.com/spec/"
LFS = "is stored by git-lfs, which this backend does not speak: use the hub, or a repository that holds the files"


class GitBackend:
    """One repository, whose root is a pack."""

    def __init__(self, source: str, work: Path) -> None:
        """Raises ConfigError for what is no address of a git repository."""
        found = URL.fullmatch(source)
        if not found:
            raise ConfigError(f"{source} is no git repository: write git+https://, git+ssh:// or git+file:///folder")
        self._source = source
        self.url = found["url"]
        self._work = work
        self._bare: Path | None = None

    @property
    def source(self) -> str:
        """`git+` and the address."""
        return self._source

    def versions(self) -> Mapping[str, str]:
        """Tags of the form `v1.2.0`, without the `v`."""
        refs = self._refs()
        tags = {name.removeprefix("refs/tags/v"): sha for name, sha in refs.items() if name.startswith("refs/tags/v")}
        peeled = {name.removesuffix("^{}"): sha for name, sha in tags.items() if name.endswith("^{}")}
        return {name: sha for name, sha in tags.items() if not name.endswith("^{}")} | peeled

    def commit(self, revision: str | None) -> str:
        """The commit that a branch, a tag or a full commit names; HEAD's for None. Raises NotThere."""
        refs = self._refs()
        if revision is None:
            if "HEAD" not in refs:
                raise NotThere(f"{self.url} has no commit yet: push a pack there first")
            return refs["HEAD"]
        for name in (f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", f"refs/heads/{revision}"):
            if name in refs:
                return refs[name]
        if re.fullmatch(r"[0-9a-f]{40,64}", revision):
            return revision
        raise NotThere(f"{self.url} has no branch or tag {revision}: give one of those, or a whole commit")

    def files(self, commit: str) -> tuple[RemoteFile, ...]:
        """The tree of a commit, fetched with its objects. Raises PackError for a link among them."""
        out = self._run("ls-tree", "-r", "-l", "-z", self._fetched(commit), repo=self._bare)
        found: list[RemoteFile] = []
        for line in filter(None, out.decode(errors="surrogateescape").split("\0")):
            what, _, path = line.partition("\t")
            mode, kind, blob, size = what.split()
            if is_part(path) and (mode == "120000" or kind != "blob"):
                raise PackError(
                    f"{self.url} holds {path}, a link or a submodule: a pack holds plain files. Not installed"
                )
            if kind == "blob":
                found.append(RemoteFile(path, int(size), blob=blob))
        return tuple(found)

    def stream(self, commit: str, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a file, read from the fetched objects. Raises RemoteError."""
        self._fetched(commit)
        command = ["git", "-C", str(self._bare), "cat-file", "blob", str(file.blob)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()) as run:
            assert run.stdout is not None  # a pipe was asked for
            at = 0
            while at < stop and (chunk := run.stdout.read(CHUNK)):
                if at == 0 and chunk.startswith(POINTER):
                    run.kill()
                    raise RemoteError(f"{file.path} of {self.url} {LFS}")
                wanted = chunk[max(0, start - at) : stop - at]
                at += len(chunk)
                if wanted:
                    yield wanted
            if at < stop:
                raise RemoteError(f"git ended {file.path} of {self.url} at {at} of {stop} bytes: try again")
            run.kill()

    def push(self, upload: Upload) -> str:
        """One commit on the branch that HEAD names (`main` in an empty repository), and a tag for the version."""
        repo = Path(tempfile.mkdtemp(prefix=".git-push-", dir=_made(self._work)))
        try:
            self._run("clone", "--quiet", "--bare", "--depth", "1", "--", self.url, str(repo))
            branch = self._run("symbolic-ref", "--short", "HEAD", repo=repo).decode().strip() or "main"
            parent = self._run("rev-parse", "-q", "--verify", "HEAD", repo=repo, may_fail=True).decode().strip()
            if parent:
                self._run("read-tree", parent, repo=repo)
            there = self._run("ls-files", "-z", repo=repo).decode(errors="surrogateescape").split("\0")
            gone = [path for path in there if upload.is_whole and path and is_part(path)]
            lines = [f"0 {'0' * len(parent)}\t{path}\0" for path in gone]
            lines += [f"100644 {blob}\t{path}\0" for path, blob in self._stored(upload, repo).items()]
            self._run(
                "update-index", "-z", "--index-info", repo=repo, data="".join(lines).encode(errors="surrogateescape")
            )
            tree = self._run("write-tree", repo=repo).decode().strip()
            who = ("-c", "user.name=ftw", "-c", "user.email=ftw@localhost", "-c", "commit.gpgsign=false")
            above = ("-p", parent) if parent else ()
            made = self._run(*who, "commit-tree", tree, *above, "-m", upload.message, repo=repo).decode().strip()
            refs = [f"{made}:refs/heads/{branch}"]
            refs += [f"{made}:refs/tags/v{upload.version}"] if upload.is_whole else []
            self._run("push", "-q", "--atomic", "--", self.url, *refs, repo=repo)
            return made
        finally:
            shutil.rmtree(repo, ignore_errors=True)

    def _stored(self, upload: Upload, repo: Path) -> dict[str, str]:
        """The blob of each file, once git has its bytes: as they are, whatever attributes and links are there."""
        whole = "\n".join(str((upload.folder / path).absolute()) for path in upload.paths)
        hashing = ("hash-object", "-w", "--no-filters")
        blobs = self._run(*hashing, "--stdin-paths", repo=repo, data=whole.encode()).decode().split()
        extra = {
            path: self._run(*hashing, "--stdin", repo=repo, data=data).decode().strip()
            for path, data in upload.extra.items()
        }
        return dict(zip(upload.paths, blobs, strict=True)) | extra

    def _refs(self) -> dict[str, str]:
        lines = self._run("ls-remote", "--", self.url).decode(errors="replace").splitlines()
        return {name: sha for sha, _, name in (line.partition("\t") for line in lines)}

    def _fetched(self, commit: str) -> str:
        """`commit`, once its objects are here."""
        if self._bare is None:
            bare = Path(tempfile.mkdtemp(prefix=".git-", dir=_made(self._work)))
            self._run("init", "-q", "--bare", str(bare))
            self._bare = bare
        if self._run("cat-file", "-t", commit, repo=self._bare, may_fail=True).strip() != b"commit":
            self._run("fetch", "-q", "--depth", "1", "--", self.url, commit, repo=self._bare)
        return commit

    def _run(self, *words: str, repo: Path | None = None, may_fail: bool = False, data: bytes | None = None) -> bytes:
        where = ("-C", str(repo)) if repo else ()
        limits = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30")
        try:
            done = subprocess.run(
                ["git", *where, *limits, *words],
                capture_output=True,
                input=data,
                timeout=PATIENCE_S,
                env=_environment(),
                check=False,
            )
        except FileNotFoundError as error:
            raise MissingExtra("packs from git need the git command: install git, or pull from the hub") from error
        except subprocess.TimeoutExpired as error:
            raise RemoteError(f"{self.url} did not answer git within {PATIENCE_S:.0f} s: try again") from error
        if done.returncode and not may_fail:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            verb = next(word for word in words if not word.startswith("-") and "=" not in word)
            raise RemoteError(f"git {verb} of {self.url} failed: {said[-1]}. Check the address and your rights")
        return done.stdout


def _environment() -> dict[str, str]:
    return environment(GIT_TERMINAL_PROMPT="0", GIT_ALLOW_PROTOCOL="https:ssh:file")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

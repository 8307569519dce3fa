"""A hub on loopback: as much of the Hugging Face Hub's HTTP interface as its client asks for when packs come and go.

Repositories with commits, tags, branches; large files by the LFS protocol; ranges; private and gated repositories; and
faults that a test turns on: a stall, a connection that is cut, an answer of 5xx.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test_token_that_may_write"
LARGE = 4096
"""Bytes from which on a file goes by LFS, as every .safetensors does."""


@dataclass
class Repo:
    """A repository: commits in order, each a whole tree."""

    commits: list[str] = field(default_factory=list)
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, tree: dict[str, bytes]) -> str:
        """A new newest commit with this tree."""
        said = json.dumps([self.commits[-1:], sorted((p, hashlib.sha1(b).hexdigest()) for p, b in tree.items())])
        oid = hashlib.sha1(f"{len(self.commits)}{said}".encode()).hexdigest()
        self.commits.append(oid)
        self.trees[oid] = dict(tree)
        return oid

    def find(self, revision: str) -> str | None:
        """The commit that a revision names."""
        if revision == "main":
            return self.commits[-1]
        return self.tags.get(revision) or next((oid for oid in self.commits if oid.startswith(revision)), None)


@dataclass
class Faults:
    """What goes wrong, until it is set back."""

    stall_s: float = 0.0
    """Every answer comes this late."""
    cut_after: int | None = None
    """A file's connection is closed after so many bytes."""
    cuts_left: int = 1 << 30
    status: int | None = None
    """Every answer is this."""
    corrupt: str | None = None
    """The file with this path is sent with its last byte turned."""
    no_ranges: bool = False
    refuse_uploads: bool = False
    """Large files are not taken."""
    lies_about: str | None = None
    """Listings name this path too."""


class Hub:
    """The server's state, which tests read and turn."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        """Bytes of files that were sent."""
        self.url = ""
        self.lock = threading.Lock()

    def repo(self, name: str, tree: dict[str, bytes] | None = None) -> Repo:
        """The repository of this name, made with a first commit where it is not there."""
        if name not in self.repos:
            self.repos[name] = Repo()
            self.repos[name].commit(tree or {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.repos[name]


def is_large(path: str, data: bytes) -> bool:
    return path.endswith((".safetensors", ".pt")) or len(data) >= LARGE


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        hub = self.hub
        with hub.lock:
            hub.requests.append((method, path))
        if hub.faults.stall_s:
            time.sleep(hub.faults.stall_s)
        if hub.faults.status:
            self._json({"error": "out of order"}, hub.faults.status)
            return
        routes = (
            (r"/api/whoami-v2", self._whoami),
            (r"/api/validate-yaml", self._yaml),
            (r"/api/repos/create", self._create),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>.+)", self._info),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)/refs", self._refs),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)/tag/(?P<revision>.+)", self._tag),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>.+)", self._preupload),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>.+)", self._commit),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)", self._info),
            (r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/lfs/(?P<oid>[0-9a-f]{64})", self._blob),
            (r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self._file),
        )
        for pattern, route in routes:
            found = re.fullmatch(pattern, path)
            if found:
                route(body, **found.groupdict())
                return
        self._json({"error": f"no route {path}"}, 404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _known(self, name: str) -> Repo | None:
        """The repository, if this client may know it; else the answer is given here."""
        repo = self.hub.repos.get(name)
        if repo is not None and repo.gated and not self._may_write:
            self._json({"error": "gated"}, 401, X_Error_Code="GatedRepo")
            return None
        if repo is None or (repo.private and not self._may_write):
            status = 404 if self._may_write else 401
            self._json(
                {"error": "Repository not found"}, status, **({"X_Error_Code": "RepoNotFound"} if status == 404 else {})
            )
            return None
        return repo

    def _allowed(self) -> bool:
        if not self._may_write:
            self._json({"error": "no right to write"}, 401 if not self.headers.get("Authorization") else 403)
        return self._may_write

    def _whoami(self, body: bytes) -> None:
        if self._allowed():
            self._json({"name": "tester", "type": "user", "orgs": []})

    def _yaml(self, body: bytes) -> None:
        bad = not json.loads(body)["content"].startswith("---\n")
        self._json({"errors": [], "warnings": [{"message": "empty metadata"}] if bad else []})

    def _create(self, body: bytes) -> None:
        if not self._allowed():
            return
        told = json.loads(body)
        name = f"{told.get('organization') or 'tester'}/{told['name']}"
        is_there = name in self.hub.repos
        self.hub.repo(name)
        self._json({"url": f"{self.hub.url}/{name}", "name": name}, 409 if is_there else 200)

    def _info(self, body: bytes, repo: str, revision: str = "main") -> None:
        found = self._known(repo)
        if found is None:
            return
        oid = found.find(revision)
        if oid is None:
            self._json({"error": f"Invalid rev id: {revision}"}, 404, X_Error_Code="RevisionNotFound")
            return
        siblings = []
        for path, data in found.trees[oid].items():
            item: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_blob(data)}
            if is_large(path, data):
                item["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
            siblings.append(item)
        if self.hub.faults.lies_about:
            siblings.append({"rfilename": self.hub.faults.lies_about, "size": 1, "blobId": git_blob(b"x")})
        self._json(
            {"id": repo, "modelId": repo, "sha": oid, "siblings": siblings, "tags": [], "private": found.private}
        )

    def _refs(self, body: bytes, repo: str) -> None:
        found = self._known(repo)
        if found is not None:
            tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": oid} for n, oid in found.tags.items()]
            head = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.commits[-1]}
            self._json({"branches": [head], "tags": tags, "converts": []})

    def _tag(self, body: bytes, repo: str, revision: str) -> None:
        found = self._known(repo)
        if found is None or not self._allowed():
            return
        tag, oid = json.loads(body)["tag"], found.find(revision)
        if tag in found.tags or oid is None:
            self._json({"error": "tag exists"}, 409)
            return
        found.tags[tag] = oid
        self._json({})

    def _preupload(self, body: bytes, repo: str, revision: str) -> None:
        found = self._known(repo)
        if found is None or not self._allowed():
            return
        there = found.trees[found.commits[-1]]
        files = []
        for item in json.loads(body)["files"]:
            large = item["path"].endswith((".safetensors", ".pt")) or item["size"] >= LARGE
            old = there.get(item["path"])
            oid = None if old is None else hashlib.sha256(old).hexdigest() if large else git_blob(old)
            mode = "lfs" if large else "regular"
            files.append({"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def _batch(self, body: bytes, repo: str) -> None:
        if self._known(repo) is None or not self._allowed():
            return
        objects = []
        for item in json.loads(body)["objects"]:
            told: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.blobs:
                told["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            objects.append(told)
        self._json({"transfer": "basic", "objects": objects})

    def _blob(self, body: bytes, oid: str) -> None:
        good = hashlib.sha256(body).hexdigest() == oid and not self.hub.faults.refuse_uploads
        if good:
            self.hub.blobs[oid] = body
        self._json({}, 200 if good else 400)

    def _commit(self, body: bytes, repo: str, revision: str) -> None:
        found = self._known(repo)
        if found is None or not self._allowed():
            return
        tree = dict(found.trees[found.commits[-1]])
        for line in filter(None, body.split(b"\n")):
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, found.commits[-1]):
                self._json({"error": "A commit has happened since. Please refresh and try again."}, 412)
                return
            if item["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                tree[value["path"]] = self.hub.blobs[value["oid"]]
            elif item["key"] == "deletedFile":
                tree.pop(value["path"])
        oid = found.commit(tree)
        self._json({"success": True, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def _file(self, body: bytes, repo: str, revision: str, path: str) -> None:
        found = self._known(repo)
        if found is None:
            return
        oid = found.find(revision)
        if oid is None or path not in found.trees[oid]:
            self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        data = found.trees[oid][path]
        if self.hub.faults.corrupt == path:
            data = data[:-1] + bytes([data[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start, stop = 0, len(data)
        if asked and not self.hub.faults.no_ranges:
            start, stop = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1) + 1
        self.send_response(206 if asked and not self.hub.faults.no_ranges else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", oid)
        self.end_headers()
        if self.command != "HEAD":
            self._send(data[start:stop])

    def _send(self, data: bytes) -> None:
        faults = self.hub.faults
        cut = faults.cut_after is not None and faults.cuts_left > 0 and len(data) > faults.cut_after
        if cut:
            data = data[: faults.cut_after]
            faults.cuts_left -= 1
        self.wfile.write(data)
        self.wfile.flush()
        with self.hub.lock:
            self.hub.sent += len(data)
        if cut:
            self.close_connection = True
            self.connection.shutdown(2)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub that answers on loopback while the block runs."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

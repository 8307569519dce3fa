"""The Hugging Face Hub as a source of packs, through huggingface_hub's own client.

`HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean there. Files are streamed through the client's
session with ranges, because its own download starts over after a break. The rule of the file: every request has a time
limit, and every refusal is told with the repository and the way out.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
)

from ftw.map.registry.backends import Dropped, RemoteFile, Upload
from ftw.map.registry.names import is_part
from ftw.substrate.errors import NotThere, RemoteError, UsageError

PUSH_PATIENCE_S = 600.0
"""Seconds that a push waits for an answer: a commit of thousands of files takes minutes on the hub's side."""
AGAIN = (408, 429, 500, 502, 503, 504)
"""Answers that the same request may not get a second time."""


class HubBackend:
    """One model repository on the hub."""

    def __init__(self, repo: str) -> None:
        self.repo = repo
        self.api = HfApi(library_name="ftw")

    @property
    def source(self) -> str:
        """`hf://` and the repository."""
        return f"hf://{self.repo}"

    @property
    def _at(self) -> str:
        return f"{self.repo} on {self.api.endpoint}"

    def versions(self) -> Mapping[str, str]:
        """Tags of the form `v1.2.0`, without the `v`."""
        with self._told("its versions"), _patience(float(constants.HF_HUB_DOWNLOAD_TIMEOUT)):
            refs = self.api.list_repo_refs(self.repo)
        return {tag.name.removeprefix("v"): tag.target_commit for tag in refs.tags if tag.name.startswith("v")}

    def commit(self, revision: str | None) -> str:
        """The commit that a branch, a tag or a commit's beginning names."""
        with self._told(f"revision {revision or 'main'}"):
            info = self.api.model_info(self.repo, revision=revision, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        if not info.sha:
            raise RemoteError(f"{self._at} names no commit for {revision or 'main'}: is HF_ENDPOINT a hub?")
        return info.sha

    def files(self, commit: str) -> tuple[RemoteFile, ...]:
        """Every file of a commit with the hash that the hub keeps of it."""
        with self._told(f"the files of {commit[:8]}"):
            info = self.api.model_info(
                self.repo, revision=commit, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
            )
        return tuple(
            RemoteFile(each.rfilename, each.lfs.size, each.lfs.sha256)
            if each.lfs is not None
            else RemoteFile(each.rfilename, each.size or 0, blob=each.blob_id)
            for each in info.siblings or []
        )

    def stream(self, commit: str, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) of a file."""
        if start >= stop:
            return
        url = f"{self.api.endpoint}/{self.repo}/resolve/{quote(commit, safe='')}/{quote(file.path)}"
        headers = build_hf_headers(library_name="ftw")
        headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with (
            self._told(file.path, resumable=True),
            get_session().stream("GET", url, headers=headers, timeout=limit) as response,
        ):
            if response.status_code in AGAIN:
                raise Dropped(f"{self._at} answers {response.status_code} for {file.path}")
            hf_raise_for_status(response)
            at = start if response.status_code == 206 else 0  # a server without ranges sends the file from its start
            for chunk in response.iter_bytes():  # as they come: a fixed size would lose the last piece before a break
                wanted = chunk[max(0, start - at) : max(0, stop - at)]
                at += len(chunk)
                if wanted:
                    yield wanted
                if at >= stop:
                    return
            if at < stop:
                raise Dropped(f"{self._at} ended {file.path} at {at} of {stop} bytes")

    def push(self, upload: Upload) -> str:
        """One commit with everything, made on the newest one; the version is tagged where the pack is whole."""
        disable_progress_bars()
        with self._told("a push", is_push=True), _patience(PUSH_PATIENCE_S):
            self.api.create_repo(self.repo, exist_ok=True)
            newest = self.commit(None)
            there = {file.path for file in self.files(newest)}
            keep = {*upload.paths, *upload.extra}
            gone = sorted(path for path in there - keep if is_part(path)) if upload.is_whole else []
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                *(CommitOperationAdd(path, str(upload.folder / path)) for path in upload.paths),
                *(CommitOperationAdd(path, data) for path, data in upload.extra.items()),
                *(CommitOperationDelete(path, is_folder=False) for path in gone),
            ]
            made = self.api.create_commit(
                self.repo, operations=operations, commit_message=upload.message, parent_commit=newest
            )
            if upload.is_whole:
                self.api.create_tag(self.repo, tag=f"v{upload.version}", revision=made.oid, exist_ok=True)
        return made.oid

    @contextmanager
    def _told(self, what: str, *, is_push: bool = False, resumable: bool = False) -> Iterator[None]:
        """huggingface_hub's errors as ours."""
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise RemoteError(f"{self._at}: offline mode is on (HF_HUB_OFFLINE). Unset it to reach the hub") from error
        except HFValidationError as error:
            raise UsageError(f"{self.repo} is no repository's name: {error}") from error
        except HfHubHTTPError as error:
            raise self._refused(error, what, is_push) from error
        except (RuntimeError, ValueError) as error:  # what the client makes of an upload that fails
            if not is_push:
                raise
            cause = error.__cause__ or error
            raise RemoteError(
                f"{self._at} did not take the upload: {_line(error)} ({_line(cause)}). Try again"
            ) from error
        except HTTPError as error:
            why = str(error) or type(error).__name__
            if resumable:
                raise Dropped(f"{self._at} does not answer: {why}") from error
            raise RemoteError(
                f"{self._at} does not answer for {what} ({why}): check the network and HF_ENDPOINT, and try again"
            ) from error

    def _refused(self, error: HfHubHTTPError, what: str, is_push: bool) -> RemoteError | NotThere:
        status = error.response.status_code
        token = "set HF_TOKEN to one that may write there" if is_push else "set HF_TOKEN to one that may read it"
        if isinstance(error, GatedRepoError):
            return RemoteError(f"{self._at} is gated ({status}): accept its terms on its page, and {token}")
        if status == 401:
            return RemoteError(f"{self._at} answers 401: it is private, does not exist, or the token is wrong; {token}")
        if status == 403:
            return RemoteError(f"{self._at} answers 403: this token has no right to it; {token}")
        if status == 412 and is_push:
            return RemoteError(f"{self._at} got another push meanwhile (412): look at it, then push again")
        if isinstance(error, RepositoryNotFoundError):
            return NotThere(
                f"{self._at} does not exist (404): check the name and FTW_HUB_ORG; if it is private, {token}"
            )
        if isinstance(error, RevisionNotFoundError | EntryNotFoundError) or status == 404:
            return NotThere(f"{self._at} has no {what} (404): see what there is with `ftw pack status`, or on its page")
        return RemoteError(f"{self._at} answers {status} for {what}: {_line(error)}. Try again later")


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """A time limit for the client's calls that take none: its session would wait for ever."""
    session = get_session()
    before = session.timeout
    session.timeout = seconds
    try:
        yield
    finally:
        session.timeout = before


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")

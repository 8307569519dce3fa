"""Text to fit lenses on: documents streamed from files or a hub data set, split by document, cut into windows.

A `.txt` file holds one document per block of lines, blocks being parted by blank lines; `.jsonl` one per line (an
object's `text`, or a bare string); `.parquet` one per row. `.txt` and `.jsonl` may be gzipped. A folder is all of these
in it, sorted by path. Documents come in the order of the files, each distinct text once.

The rule of the file: no window holds two documents, and no document is in two parts.
"""

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
)

from ftw.substrate.engine import Request, Sampling, TransformersEngine
from ftw.substrate.errors import ConfigError, StorageError, UsageError
from ftw.substrate.model import Model

Part = Literal["fit", "heldout", "all"]
"""`fit`: what lenses are fitted on. `heldout`: what they are judged on. No document is in both."""
HELD_OUT = 0.1
"""Share of the documents that is held out."""
SHORTEST = 4
"""Tokens of text below which a window is left out."""
SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<under>[\w./-]+))?")
"""A hub data set: `org/name`, and if wanted `@revision` and `:folder`."""
OWN = "self"
"""The name for text that the model itself writes."""
OWN_TEXTS = 1024
"""How many of those, where no number is given."""


@dataclass(frozen=True)
class Corpus:
    """Documents that can be read again and again, always the same ones in the same order."""

    name: str
    """What it was asked for by."""
    open: Callable[[], Iterator[str]]
    """Begins to read: the documents as they stand, repeated ones included."""

    @classmethod
    def read(cls, what: str | Path, *, field: str = "text", limit: int | None = None) -> "Corpus":
        """The documents of a file, a folder, or a hub data set (`org/name`, `org/name@revision:folder`).

        `field` names the JSON key or Parquet column that holds the text; `limit` stops after so many documents. Text is
        read when it is iterated. Raises ConfigError for what is neither, or holds no readable file. While iterating:
        ConfigError naming file and line for what is not text, StorageError for what cannot be read.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"the limit is {limit}: read at least one document, or give none for all of them")
        path = Path(what).expanduser()
        files: Callable[[], Iterator[Path]]
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file.name))
            if not found:
                raise ConfigError(f"{path} holds no text to read: it takes {', '.join(SUFFIXES)}")
            files = lambda: iter(found)  # noqa: E731
        elif path.is_file():
            if not _suffix(path.name):
                raise ConfigError(f"{path} is of no kind that can be read: give {', '.join(SUFFIXES)}")
            files = lambda: iter((path,))  # noqa: E731
        elif (hub := HUB.fullmatch(str(what))) and not str(what).startswith("."):
            files = lambda: _hub_files(**hub.groupdict())  # noqa: E731
        else:
            raise ConfigError(f"there is no text at {what}: give a file, a folder, or a hub data set such as org/name")
        return cls(str(what), lambda: islice((text for file in files() for text in _documents(file, field)), limit))

    @classmethod
    def of(cls, texts: Sequence[str], name: str) -> "Corpus":
        """Documents that are in memory."""
        kept = tuple(texts)
        return cls(name, lambda: iter(kept))

    def documents(self, part: Part = "all") -> Iterator[str]:
        """The documents of a part, in order, each distinct text once. Texts of blanks alone are left out."""
        seen = set[bytes]()
        for text in self.open():
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            if digest in seen or not text.strip() or (part != "all" and is_held_out(digest) != (part == "heldout")):
                continue
            seen.add(digest)
            yield text

    def windows(self, model: Model, n_tokens: int, length: int, *, part: Part = "fit") -> "Windows":
        """The windows of a part until they hold `n_tokens` tokens (the last one is shortened): see `Windows`.

        Raises ConfigError for a length that the model cannot take, and while iterating if the part holds no text.
        """
        if n_tokens < 1:
            raise ConfigError(f"n_tokens is {n_tokens}: at least one token is read")
        if not SHORTEST < length <= model.context:
            raise ConfigError(f"windows are {length} tokens long: {model.name} takes {SHORTEST + 1} to {model.context}")
        return Windows(self, model, n_tokens, length, part)


class Windows(Iterator[list[int]]):
    """Token ids, window by window; while it runs, it keeps count of what was consumed.

    A document longer than a window is cut; each piece begins with what the tokenizer puts before a text (the BOS token,
    if there is one), as a model that was trained with it expects it at position 0 and is another model without. What
    the tokenizer puts behind a text is left off. A piece of fewer than 4 tokens of text is dropped.
    """

    def __init__(self, corpus: Corpus, model: Model, n_tokens: int, length: int, part: Part) -> None:
        self.n_tokens = 0
        """Tokens given so far, those that the tokenizer puts before a text included."""
        self.n_documents = 0
        """Documents consumed so far."""
        self.n_windows = 0
        self._hash = hashlib.sha256()
        self._pieces = self._cut(corpus, model, n_tokens, length, part)

    def __next__(self) -> list[int]:
        return next(self._pieces)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the digests of the documents consumed so far, in order."""
        return self._hash.hexdigest()

    def _cut(self, corpus: Corpus, model: Model, n_tokens: int, length: int, part: Part) -> Iterator[list[int]]:
        before = _before(model)
        step = length - len(before)
        if step < SHORTEST:
            raise ConfigError(f"windows of {length} tokens leave no room: {model.name} begins with {len(before)} marks")
        for text in corpus.documents(part):
            self._hash.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
            self.n_documents += 1
            ids = _plain(model, text)
            for start in range(0, len(ids), step):
                piece = [*before, *ids[start : start + step]][: n_tokens - self.n_tokens]
                if len(piece) < len(before) + SHORTEST:
                    if self.n_tokens + len(before) + SHORTEST > n_tokens:
                        return
                    continue
                self.n_tokens += len(piece)
                self.n_windows += 1
                yield piece
                if self.n_tokens >= n_tokens:
                    return
        if not self.n_windows:
            what = "" if part == "all" else f" in its part {part!r}"
            raise ConfigError(f"{corpus.name} holds no text of {SHORTEST} tokens or more{what}: give more documents")


def is_held_out(digest: bytes, share: float = HELD_OUT) -> bool:
    """Whether the document of this SHA-256 is held out: by its first 8 bytes, so on every machine alike."""
    return int.from_bytes(digest[:8], "big") < math.floor(share * 2**64)


def open_corpus(
    model: Model, what: str | Path, *, field: str = "text", limit: int | None = None, seed: int = 0
) -> Corpus:
    """`Corpus.read`, or for `self` 1024 (or `limit`) texts of the model's own."""
    if str(what) == OWN:
        return own_text(model, limit or OWN_TEXTS, seed)
    return Corpus.read(what, field=field, limit=limit)


def own_text(model: Model, n: int, seed: int, *, max_new_tokens: int = 200) -> Corpus:
    """`n` texts that the model writes itself, at temperature 1 with no filter: samples of its own distribution.

    Each begins after what the tokenizer puts before a text (else an end token, which parts texts in training; else any
    token). The same for the same seed. For models whose training text is not at hand. Raises UsageError without a
    tokenizer.
    """
    if model.tokenizer is None:
        raise UsageError(f"{model.name} has no tokenizer: text to fit on must come from one. Add tokenizer.json")
    if n < 1:
        raise ConfigError(f"{n} texts are asked for: at least one")
    start = _before(model) or sorted(model.eos_ids)[:1] or [0]
    room = min(max_new_tokens, model.context - len(start))
    asked = [Request(tuple(start), room, Sampling(temperature=1.0, seed=seed * n + index)) for index in range(n)]
    return Corpus.of([done.text for done in TransformersEngine(model).generate(asked)], OWN)


def _before(model: Model) -> list[int]:
    """What the tokenizer puts before a text."""
    plain, whole = _plain(model, "a b"), model.encode("a b")
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    return []


def _plain(model: Model, text: str) -> list[int]:
    tokenizer: Any = model.tokenizer  # transformers leaves its tokenizers' methods untyped
    if tokenizer is None:
        raise UsageError(f"{model.name} has no tokenizer: text to fit on must come from one. Add tokenizer.json")
    # verbose: a text longer than the context is cut here, so the warning would mislead
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _suffix(name: str) -> str | None:
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def _documents(file: Path, field: str) -> Iterator[str]:
    """The documents of one file as they stand."""
    suffix = _suffix(file.name) or ""
    try:
        if suffix == ".parquet":
            yield from _rows(file, field)
        else:
            with _opened(file, zipped=suffix.endswith(".gz")) as stream:
                yield from _blocks(stream) if suffix.startswith(".txt") else _lines(stream, file, field)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (at byte {error.start} of a piece): convert it first") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{file} is no whole gzip file ({error}): copy or download it again") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}") from error


def _opened(file: Path, *, zipped: bool) -> TextIOWrapper:
    return gzip.open(file, "rt", encoding="utf-8") if zipped else file.open(encoding="utf-8")


def _blocks(stream: TextIOWrapper) -> Iterator[str]:
    block: list[str] = []
    for line in stream:
        if line.strip():
            block.append(line)
        elif block:
            yield "".join(block).strip("\n")
            block = []
    if block:
        yield "".join(block).strip("\n")


def _lines(stream: TextIOWrapper, file: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{file}, line {number} is not JSON: {error}") from error
        text = value.get(field) if isinstance(value, dict) else value
        if not isinstance(text, str):
            keys = f"its keys are {', '.join(sorted(map(str, value)))}" if isinstance(value, dict) else "it is no text"
            raise ConfigError(f"{file}, line {number} has no text under {field!r}: {keys}")
        yield text


def _rows(file: Path, field: str) -> Iterator[str]:
    """Row group by row group, so that a large file does not have to fit in memory."""
    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            if field not in schema.names:
                raise ConfigError(f"{file} has no column {field!r}: its columns are {', '.join(schema.names)}")
            kind = schema.field(field).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ConfigError(f"{file}: column {field!r} holds {kind}, not text")
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{file} is not a Parquet file: {str(error).splitlines()[0]}") from error


def _hub_files(repo: str, revision: str | None, under: str | None) -> Iterator[Path]:
    """The readable files of a hub data set, downloaded one by one as they are needed; offline from the local cache."""
    prefix = f"{under.strip('/')}/" if under else ""
    try:
        listed = HfApi().list_repo_files(repo, repo_type="dataset", revision=revision)
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError) as error:
        raise ConfigError(f"the hub gives no data set {repo}: {_line(error)}. Check its id and your access") from error
    except (OfflineModeIsEnabled, HTTPError) as error:  # after HfHubHTTPError: what is left did not reach the hub
        yield from _hub_cache(repo, revision, prefix, error)
        return
    names = sorted(name for name in listed if name.startswith(prefix) and _suffix(name))
    if not names:
        raise ConfigError(f"the data set {repo} holds no {', '.join(SUFFIXES)} under {prefix or '/'}")
    for name in names:
        try:
            yield Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
        except (OSError, HTTPError) as error:
            raise StorageError(f"{name} of the data set {repo} cannot be downloaded: {_line(error)}") from error


def _hub_cache(repo: str, revision: str | None, prefix: str, why: Exception) -> Iterator[Path]:
    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
    except (OSError, EntryNotFoundError, HFValidationError):
        raise ConfigError(
            f"{repo} is no file or folder here, and the hub cannot be asked for a data set of that name: offline, and "
            "nothing of it is in the local cache. Download it, or give a file"
        ) from why
    found = sorted(
        file
        for file in folder.rglob("*")
        if _suffix(file.name) and file.relative_to(folder).as_posix().startswith(prefix)
    )
    if not found:
        raise ConfigError(
            f"the local cache of the data set {repo} holds no {', '.join(SUFFIXES)} under {prefix or '/'}"
        )
    yield from found


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")

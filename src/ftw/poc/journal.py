"""The journal: every artifact of every round, how far each round came, and what is still to be delivered. SQLite, WAL.

The rule of the file: one step is one transaction. What `append` returned from survives kill -9, a parcel once formed
never changes, and a full disk leaves nothing half-written.
"""

import base64
import binascii
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ftw.poc.codec import Artifact
from ftw.poc.records import CallbackPath, Parcel, RoundKey, RoundState, Row, Sealed
from ftw.substrate.errors import ConfigError, ProofError, StorageError
from ftw.substrate.manifest import canonical_json

__all__ = ["CallbackPath", "Journal", "Parcel", "RoundKey", "RoundState", "Row", "Sealed"]

FORMAT = 2
"""Which tables and keys the file holds (`PRAGMA user_version`)."""

# `count`, `sealed` and `sequence` are those of the last artifact, the last artifact in a run, and the last run;
# `open_since` is when the oldest artifact that is in no run was journalled. A run of a round without a url has no url.
TABLES = """
CREATE TABLE rounds (
    id INTEGER PRIMARY KEY, round_id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, url TEXT, created_at REAL NOT NULL,
    next_index INTEGER NOT NULL DEFAULT 0, count INTEGER NOT NULL DEFAULT 0, sealed INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL DEFAULT 0, open_since REAL
) STRICT;
CREATE INDEX rounds_open ON rounds (url, id) WHERE count > sealed AND url IS NOT NULL;
CREATE TABLE artifacts (
    round INTEGER NOT NULL, seq INTEGER NOT NULL, nonce INTEGER NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (round, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX artifacts_nonce ON artifacts (round, nonce);
CREATE TABLE parcels (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, round INTEGER, sequence INTEGER NOT NULL, first INTEGER, last INTEGER,
    artifacts INTEGER NOT NULL, url TEXT, path TEXT NOT NULL, body BLOB, idempotency_key TEXT NOT NULL UNIQUE,
    made_at REAL NOT NULL, created_at REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    retry_at REAL NOT NULL DEFAULT 0, error TEXT, delivered_at REAL,
    UNIQUE (owner, sequence)
) STRICT;
CREATE INDEX parcels_waiting ON parcels (url, id) WHERE delivered_at IS NULL AND url IS NOT NULL;
CREATE INDEX parcels_ahead ON parcels (owner, sequence) WHERE delivered_at IS NULL AND url IS NOT NULL;
CREATE INDEX parcels_in_order ON parcels (owner, sequence) WHERE delivered_at IS NULL;
"""
WAITING = "delivered_at IS NULL AND url IS NOT NULL"
"""Of a parcel that is to be delivered."""
OPEN = "count > sealed AND url IS NOT NULL"
"""Of a round with artifacts that are to be delivered and in no parcel yet."""
BEFORE = (
    "EXISTS (SELECT 1 FROM parcels AS other WHERE other.owner = parcels.owner AND other.sequence < parcels.sequence "
    "AND other.delivered_at IS NULL AND other.url IS NOT NULL)"
)
"""Of a parcel with an undelivered one before it."""
BEHIND = (
    "EXISTS (SELECT 1 FROM parcels WHERE parcels.owner = rounds.round_id AND parcels.delivered_at IS NULL "
    "AND parcels.url IS NOT NULL)"
)
"""Of a round with an undelivered parcel: what is open waits, and goes into fuller parcels."""
PARCEL = "id, owner, url, path, sequence, idempotency_key, created_at, tries, round, first, last, body, artifacts"


class Journal:
    """The journal in one file. Thread-safe; one process at a time (a second one gets StorageError).

    Every method raises StorageError where the medium is full, gone or broken; then nothing of that call was written.
    Survives kill -9 whole; a loss of power may cost the last transactions (WAL with synchronous=NORMAL).
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, max_pages: int | None = None) -> None:
        """Opens or makes the file. `max_pages` bounds its size in pages of 4 KiB, as a full disk would."""
        self.path = path
        self._clock = clock
        self._writes = threading.Lock()
        self._reads = threading.Lock()
        self._is_closed = False
        with self._storage():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = _own(path)
        try:
            with self._storage():
                self._writer = _connect(path)
                self._prepare(max_pages)
                self._reader = _connect(path)
                self._reader.execute("PRAGMA query_only = 1")
        except BaseException:
            self._owner.close()
            raise

    def open_round(self, key: RoundKey) -> int:
        """The index at which this round goes on: 0 for a new one, else its high-water mark."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO rounds (round_id, key, url, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key.round_id, canonical_json(asdict(key)).decode(), key.url, self._clock()),
            )
            row = db.execute("SELECT next_index FROM rounds WHERE round_id = ?", (key.round_id,)).fetchone()
            return int(row[0])

    def append(self, round_id: str, artifacts: Sequence[Artifact], next_index: int) -> None:
        """Journals artifacts and the new high-water mark, in one transaction.

        Raises ProofError for a round that was not opened, a nonce that the round already has, a mark that goes back,
        a vector that is no base64.
        """
        try:
            rows = [(one.nonce, base64.b64decode(one.vector_b64, validate=True)) for one in artifacts]
        except binascii.Error as error:
            raise ProofError(f"a vector is not base64 and is not journalled: {error}") from error
        with self._writing() as db:
            found = db.execute("SELECT id, next_index, count FROM rounds WHERE round_id = ?", (round_id,)).fetchone()
            if found is None:
                raise ProofError(f"the journal has no round {round_id[:16]}…: open it before artifacts are appended")
            id_, mark, count = found
            if next_index < mark:
                raise ProofError(f"the round stands at index {mark} and cannot go back to {next_index}: open it anew")
            numbered = [(id_, seq, *row) for seq, row in enumerate(rows, count + 1)]
            try:
                db.executemany("INSERT INTO artifacts VALUES (?, ?, ?, ?)", numbered)
            except sqlite3.IntegrityError as error:
                raise ProofError(
                    "a nonce of this batch is in the journal already: each stands once in a round"
                ) from error
            db.execute(
                "UPDATE rounds SET next_index = ?, count = ?, open_since = coalesce(open_since, ?) WHERE id = ?",
                (next_index, count + len(rows), self._clock() if rows else None, id_),
            )

    def artifacts(self, round_id: str, after: int = 0, limit: int = 1000) -> list[Row]:
        """Up to `limit` artifacts with a seq above `after`, in order. Empty for an unknown round."""
        query = (
            "SELECT seq, nonce, vector FROM artifacts WHERE round = (SELECT id FROM rounds WHERE round_id = ?) "
            "AND seq > ? ORDER BY seq LIMIT ?"
        )
        return [Row(*row) for row in self._read(query, round_id, after, max(0, limit))]

    def find(self, round_id: str, nonce: int) -> Row | None:
        """The artifact of this nonce in a round."""
        query = (
            "SELECT seq, nonce, vector FROM artifacts WHERE round = (SELECT id FROM rounds WHERE round_id = ?) "
            "AND nonce = ?"
        )
        return next((Row(*row) for row in self._read(query, round_id, nonce)), None)

    def count(self, round_id: str) -> int:
        """How many artifacts a round has; 0 for an unknown one."""
        return next((int(row[0]) for row in self._read("SELECT count FROM rounds WHERE round_id = ?", round_id)), 0)

    def rounds(self) -> list[RoundState]:
        """All rounds, the oldest first."""
        query = "SELECT round_id, key, next_index, count, created_at FROM rounds ORDER BY id"
        return [_round(row) for row in self._read(query)]

    def round(self, round_id: str) -> RoundState | None:
        """One round."""
        query = "SELECT round_id, key, next_index, count, created_at FROM rounds WHERE round_id = ?"
        return next((_round(row) for row in self._read(query, round_id)), None)

    def sealed(self, round_id: str) -> list[Sealed]:
        """The sealed runs of a round, in order."""
        query = (
            "SELECT sequence, first, last, created_at, delivered_at FROM parcels WHERE owner = ? AND round IS NOT NULL "
            "ORDER BY sequence"
        )
        return [Sealed(*row) for row in self._read(query, round_id)]

    def seal(self, round_id: str, limit_artifacts: int) -> int:
        """Closes all open artifacts of a round into runs of at most `limit_artifacts`; how many runs that made."""
        _require_limit(limit_artifacts)
        made = 0
        with self._writing() as db:
            found = db.execute("SELECT id FROM rounds WHERE round_id = ? AND count > sealed", (round_id,)).fetchone()
            while found is not None and self._form(db, found[0], limit_artifacts):
                made += 1
        return made

    def enqueue(
        self, owner: str, url: str, path: CallbackPath, body: bytes, idempotency_key: str, *, artifacts: int = 0
    ) -> None:
        """Puts a request's callback into the outbox. The same idempotency key again changes nothing."""
        self.enqueue_all(owner, url, path, [(body, idempotency_key, artifacts)])

    def enqueue_all(self, owner: str, url: str, path: CallbackPath, parts: Sequence[tuple[bytes, str, int]]) -> None:
        """Several callbacks of one request at once: (body, idempotency key, artifacts carried) of each."""
        with self._writing() as db:
            last = db.execute("SELECT coalesce(max(sequence), 0) FROM parcels WHERE owner = ?", (owner,)).fetchone()[0]
            now = self._clock()
            db.executemany(
                "INSERT INTO parcels (owner, sequence, artifacts, url, path, body, idempotency_key, made_at, "
                "created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (idempotency_key) DO NOTHING",
                [(owner, last + i, n, url, path, body, key, now, now) for i, (body, key, n) in enumerate(parts, 1)],
            )

    def urls(self) -> list[str]:
        """Urls with anything undelivered, due or not: deliver to each on its own, so that none delays another."""
        query = f"SELECT url FROM parcels WHERE {WAITING} UNION SELECT url FROM rounds WHERE {OPEN} ORDER BY url"
        return [row[0] for row in self._read(query)]

    def pending(self, limit_artifacts: int, url: str | None = None) -> Parcel | None:
        """The next parcel that is due (of one url, where given); forms one of at most `limit_artifacts` where none is.

        It stays pending until `delivered` or `failed` is told of it: ask again only after that. Of one owner, parcels
        come in the order of their sequence: while one waits for its retry, those behind it wait with it.
        """
        _require_limit(limit_artifacts)
        narrow, which = ("", ()) if url is None else (" AND url = ?", (url,))
        with self._writing() as db:
            is_due = f"{WAITING}{narrow} AND retry_at <= ? AND NOT {BEFORE}"
            due = f"SELECT {PARCEL} FROM parcels WHERE {is_due} ORDER BY id LIMIT 1"
            found = db.execute(due, (*which, self._clock())).fetchone()
            if found is None:
                query = f"SELECT id FROM rounds WHERE {OPEN}{narrow} AND NOT {BEHIND} ORDER BY id LIMIT 1"
                open_ = db.execute(query, which).fetchone()
                if open_ is None:
                    return None
                self._form(db, open_[0], limit_artifacts)
                found = db.execute(due, (*which, self._clock())).fetchone()
            return _parcel(db, found)

    def delivered(self, parcel_id: int) -> None:
        """The receiver has it."""
        with self._writing() as db:
            db.execute("UPDATE parcels SET delivered_at = ? WHERE id = ?", (self._clock(), parcel_id))

    def failed(self, parcel_id: int, error: str, retry_at: float) -> None:
        """This try failed; the parcel is due again at `retry_at` (seconds since the epoch)."""
        with self._writing() as db:
            db.execute(
                "UPDATE parcels SET tries = tries + 1, error = ?, retry_at = ? WHERE id = ?",
                (error, retry_at, parcel_id),
            )

    def outbox_age_s(self, now: float) -> float:
        """Seconds since the oldest undelivered thing was made; 0 where everything is delivered."""
        query = (
            f"SELECT min(since) FROM (SELECT min(made_at) AS since FROM parcels WHERE {WAITING} "
            f"UNION ALL SELECT min(open_since) FROM rounds WHERE {OPEN})"
        )
        since = self._read(query)[0][0]
        return 0.0 if since is None else max(0.0, now - since)

    def outbox_depth(self) -> int:
        """Artifacts not delivered yet, of rounds with a url, and callbacks of requests (a verdict counts once)."""
        query = (
            f"SELECT (SELECT coalesce(sum(max(artifacts, 1)), 0) FROM parcels WHERE {WAITING}) "
            f"+ (SELECT coalesce(sum(count - sealed), 0) FROM rounds WHERE {OPEN})"
        )
        return int(self._read(query)[0][0])

    def close(self) -> None:
        """Closes the file. Idempotent."""
        with self._writes, self._reads:
            if not self._is_closed:
                self._is_closed = True
                for each in (self._reader, self._writer, self._owner):
                    each.close()

    def _prepare(self, max_pages: int | None) -> None:
        db = self._writer
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise StorageError(f"{self.path} has format {version}, and this version reads {FORMAT}: use another file")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE;{TABLES}PRAGMA user_version = {FORMAT};COMMIT;")
        if max_pages is not None:
            db.execute(f"PRAGMA max_page_count = {int(max_pages)}")

    def _form(self, db: sqlite3.Connection, id_: int, limit: int) -> bool:
        """One run of the oldest open artifacts of a round; False where there are none."""
        owner, url, count, sealed, sequence, since = db.execute(
            "SELECT round_id, url, count, sealed, sequence, open_since FROM rounds WHERE id = ?", (id_,)
        ).fetchone()
        if count == sealed:
            return False
        last, sequence = min(count, sealed + limit), sequence + 1
        db.execute(
            "INSERT INTO parcels (owner, round, sequence, first, last, artifacts, url, path, idempotency_key, made_at, "
            "created_at) VALUES (?, ?, ?, ?, ?, ?, ?, '/generated', ?, ?, ?)",
            (owner, id_, sequence, sealed + 1, last, last - sealed, url, f"{owner}:{sequence}", since, self._clock()),
        )
        db.execute(
            "UPDATE rounds SET sealed = ?, sequence = ?, open_since = ? WHERE id = ?",
            (last, sequence, since if last < count else None, id_),
        )
        return True

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._reads, self._storage():
            self._require_open()
            return self._reader.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: whole, or not there at all."""
        with self._writes, self._storage():
            self._require_open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:  # it failed; SQLite itself may have undone it already
                    self._writer.execute("ROLLBACK")

    def _require_open(self) -> None:
        if self._is_closed:
            raise StorageError(f"the journal {self.path} is closed")

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"the journal {self.path} takes nothing: {error}. Make room, or set POC_JOURNAL to another file"
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that any thread may use under its lock; transactions are begun and ended by hand."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)


def _own(path: Path) -> sqlite3.Connection:
    """A lock beside the journal that ends with this process, however it ends. Raises StorageError where it is taken."""
    lock = sqlite3.connect(
        path.with_name(path.name + ".lock"), isolation_level=None, check_same_thread=False, timeout=0
    )
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        raise StorageError(
            f"the journal {path} is in use ({error}): end that server, or give this one its own with POC_JOURNAL"
        ) from error
    return lock


def _require_limit(limit: int) -> None:
    if limit < 1:
        raise ConfigError(f"a parcel of {limit} artifacts carries nothing: at least 1")


def _round(row: tuple[str, str, int, int, float]) -> RoundState:
    return RoundState(row[0], RoundKey(**json.loads(row[1])), *row[2:])


def _parcel(db: sqlite3.Connection, row: tuple[Any, ...]) -> Parcel:
    """The parcel of a row, with the artifacts of its run."""
    id_, owner, url, path, sequence, idempotency_key, created_at, tries, round_, first, last, body, artifacts = row
    key: RoundKey | None = None
    rows: tuple[Row, ...] = ()
    if round_ is not None:
        key = RoundKey(**json.loads(db.execute("SELECT key FROM rounds WHERE id = ?", (round_,)).fetchone()[0]))
        query = "SELECT seq, nonce, vector FROM artifacts WHERE round = ? AND seq BETWEEN ? AND ? ORDER BY seq"
        rows = tuple(Row(*each) for each in db.execute(query, (round_, first, last)))
    return Parcel(id_, owner, url, path, sequence, idempotency_key, created_at, tries, key, rows, body, artifacts)

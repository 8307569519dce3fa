"""The commitments to what the journal holds: one for every sealed run of a round, made whenever they are asked for.

The rule of the file: nothing is stored. The same journal and key give the same bytes, before and after any restart.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from ftw.poc.artifact_file import Encoding, FileRound
from ftw.poc.commitments import Commitment, Inclusion, Leaf, Terms, prove, seal
from ftw.poc.journal import Journal
from ftw.poc.records import Parcel, RoundKey, Row, Sealed
from ftw.substrate.errors import NotThere
from ftw.substrate.signing import SigningKey

KEPT = 10_000
"""Commitments that are remembered (about 1 kB each), so that a list is not hashed again for every reader."""


class Sealer:
    """Commits to the sealed runs of a journal's rounds. Thread-safe."""

    def __init__(self, journal: Journal, key: SigningKey) -> None:
        self._journal = journal
        self._key = key
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[str, int], Commitment] = OrderedDict()

    @property
    def public(self) -> str:
        """The key that checks these commitments, 64 hex digits."""
        return self._key.public

    def seal(self, parcel: Parcel) -> Commitment | None:
        """The commitment to what a round's parcel carries; None for the parcel of a request, which is no round's."""
        if parcel.key is None:
            return None
        return self._commitment(parcel.owner, parcel.key, parcel.sequence, lambda: _leaves(parcel.rows))

    def commitments(self, round_id: str, after: int = 0, limit: int = 1000) -> tuple[Commitment, ...]:
        """Up to `limit` commitments of a round with a sequence above `after`, in order.

        Raises NotThere for a round that the journal does not have.
        """
        key = self._key_of(round_id)
        runs = [run for run in self._journal.sealed(round_id) if run.sequence > after]
        return tuple(self._of_run(round_id, key, run) for run in runs[: max(0, limit)])

    def evidence(
        self, round_id: str, after: int, limit: int, names: Mapping[str, str]
    ) -> tuple[dict[str, Any], int | None]:
        """A page of whole sealed batches with a sequence above `after`, as a `ftw.poc.artifacts/1`, with the `after`
        of the next page, which is None for the last one.

        It holds up to `limit` artifacts, and more only where the first batch has more. Raises NotThere for a round
        that the journal does not have. `names` has the models' names by their fingerprints.
        """
        key = self._key_of(round_id)
        told = file_round(key, names.get(key.fingerprint, f"a model of fingerprint {key.fingerprint[:16]}"))
        runs = [run for run in self._journal.sealed(round_id) if run.sequence > after]
        room, n = limit, 0
        for run in runs:
            room -= run.last - run.first + 1
            if n and room < 0:
                break
            n += 1
        batches = [(self._of_run(round_id, key, run), self._rows(round_id, run)) for run in runs[:n]]
        return evidence_record(told, batches), runs[n - 1].sequence if n < len(runs) else None

    def proof(self, round_id: str, nonce: int) -> Inclusion:
        """The proof that a nonce's artifact is in the batch that was sealed with it.

        Raises NotThere for an unknown round, for a nonce that it does not have, or one that is in no sealed batch yet.
        """
        key = self._key_of(round_id)
        row = self._journal.find(round_id, nonce)
        if row is None:
            raise NotThere(f"round {round_id[:16]}… has no artifact of nonce {nonce}")
        run = next((run for run in self._journal.sealed(round_id) if run.first <= row.seq <= run.last), None)
        if run is None:
            raise NotThere(f"nonce {nonce} is in no sealed batch yet: ask again after the next one is closed")
        return prove(self._of_run(round_id, key, run), self._read(round_id, run), nonce)

    def _of_run(self, round_id: str, key: RoundKey, run: Sealed) -> Commitment:
        return self._commitment(round_id, key, run.sequence, lambda: self._read(round_id, run))

    def _commitment(self, round_id: str, key: RoundKey, sequence: int, leaves: Callable[[], list[Leaf]]) -> Commitment:
        which = (round_id, sequence)
        with self._lock:
            if which in self._made:
                self._made.move_to_end(which)
                return self._made[which]
        terms = Terms(**{field.name: getattr(key, field.name) for field in fields(Terms)})
        made = seal(terms, sequence, leaves(), self._key)
        with self._lock:
            self._made[which] = made
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        return made

    def _read(self, round_id: str, run: Sealed) -> list[Leaf]:
        return _leaves(self._rows(round_id, run))

    def _rows(self, round_id: str, run: Sealed) -> list[Row]:
        return self._journal.artifacts(round_id, run.first - 1, run.last - run.first + 1)

    def _key_of(self, round_id: str) -> RoundKey:
        state = self._journal.round(round_id)
        if state is None:
            raise NotThere(f"the journal has no round {round_id[:16]}…: see /status for the one that runs")
        return state.key


def file_round(key: RoundKey, model: str) -> FileRound:
    """A round of the journal as a file names it, the model's name for people. Raises ConfigError where none can."""
    said = {field.name: getattr(key, field.name) for field in fields(Terms)}
    return FileRound.read(said | {"model": model}, source="the round")


def evidence_record(told: FileRound, batches: Sequence[tuple[Commitment, Sequence[Row]]]) -> dict[str, Any]:
    """The JSON object over whole sealed batches; the same as that of an `ArtifactFile`, made for large answers."""
    found: dict[str, Any] = {
        "format": "ftw.poc.artifacts/1",
        "round": told.model_dump(),
        "encoding": Encoding(k_dim=told.k_dim).model_dump(),
        "artifacts": [asdict(row.artifact) for _, rows in batches for row in rows],
    }
    return found | ({"commitments": [one.model_dump() for one, _ in batches]} if batches else {})


def _leaves(rows: Sequence[Row]) -> list[Leaf]:
    return [Leaf(row.nonce, row.vector) for row in rows]

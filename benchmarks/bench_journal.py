"""What the proof's journal costs: pulling a page out of a million artifacts, and taking artifacts in."""

import base64
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness import Context, Figure, at_least, at_most, interleave
from ftw.poc.codec import Artifact
from ftw.poc.journal import Journal, RoundKey

MILLION = 1_000_000
CHUNK = 10_000
UNIT = 32
"""Artifacts in one step of the journal, as a round makes them by default."""
PAGE = 1000
KEY = RoundKey(
    "0xblock", 7, "key", 1, 3, 0, 1, "artifact-k12/1", "f" * 64, 256, 12, 8, stronger_rng=False, url="http://x"
)


def run(context: Context) -> Iterator[Figure]:
    """A page at a random place, one nonce, the count; the rate of appends in units of 32."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "poc.sqlite")
        fill_s = _fill(journal)
        yield Figure("journal", f"artifacts taken in, steps of {CHUNK}", MILLION / fill_s, "artifacts/s", rounds=1)
        yield from _queries(journal, context)
        yield from _appends(journal, context)
        journal.close()


def _queries(journal: Journal, context: Context) -> Iterator[Figure]:
    rng, id_ = random.Random(0), KEY.round_id

    def page() -> None:
        assert len(journal.artifacts(id_, rng.randrange(MILLION - PAGE), PAGE)) == PAGE

    def nonce() -> None:
        assert journal.find(id_, KEY.nonce(rng.randrange(MILLION))) is not None

    def count() -> None:
        assert journal.count(id_) >= MILLION

    def depth() -> None:
        assert journal.outbox_depth() >= MILLION

    timing = interleave({"page": page, "nonce": nonce, "count": count, "depth": depth}, context, rounds=50)
    claims = {
        "page": f"query by round and after, {PAGE} of {MILLION} artifacts",
        "nonce": f"query by nonce among {MILLION} artifacts",
        "count": "number of artifacts of a round",
        "depth": "depth of the outbox",
    }
    for side, claim in claims.items():
        yield Figure("journal", claim, timing.median(side) * 1e3, "ms", at_most(50.0), rounds=timing.rounds)
    worst = max(timing.seconds["page"]) * 1e3
    yield Figure("journal", f"the slowest of {timing.rounds} such pages", worst, "ms", rounds=1)


def _appends(journal: Journal, context: Context) -> Iterator[Figure]:
    key = RoundKey("0xnext", 8, "key", 1, 3, 0, 1, "artifact-k12/1", "f" * 64, 256, 12, 8, stronger_rng=False, url=None)
    at = [journal.open_round(key)]

    def append() -> None:
        journal.append(key.round_id, _artifacts(key, at[0], UNIT), at[0] + UNIT)
        at[0] += UNIT

    timing = interleave({"append": append}, context, rounds=200, warmup=5)
    rate = UNIT / timing.median("append")
    claim = f"artifacts taken in behind a million others, steps of {UNIT}"
    yield Figure("journal", claim, rate, "artifacts/s", at_least(1000.0), timing.shown(), rounds=timing.rounds)


def _fill(journal: Journal) -> float:
    """A million artifacts; the seconds that the journal took for them."""
    journal.open_round(KEY)
    spent = 0.0
    for at in range(0, MILLION, CHUNK):
        made = _artifacts(KEY, at, CHUNK)
        began = time.perf_counter()
        journal.append(KEY.round_id, made, at + CHUNK)
        spent += time.perf_counter() - began
    return spent


def _artifacts(key: RoundKey, at: int, n: int) -> Sequence[Artifact]:
    return [
        Artifact(nonce, base64.b64encode(nonce.to_bytes(8, "little") * 3).decode())
        for nonce in map(key.nonce, range(at, at + n))
    ]

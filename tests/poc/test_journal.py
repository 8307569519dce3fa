"""What the journal took is there whole, once, and in order; what is to be delivered never changes."""

import base64
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.poc.codec import Artifact
from ftw.poc.journal import Journal, RoundKey
from ftw.substrate.errors import ConfigError, ProofError, StorageError

KEY = RoundKey(
    block_hash="block",
    block_height=7,
    public_key="key",
    node_id=1,
    node_count=3,
    group_id=0,
    n_groups=1,
    profile="artifact-k12/1",
    fingerprint="f" * 64,
    seq_len=8,
    k_dim=12,
    rows=8,
    stronger_rng=False,
    url="http://receiver/pow",
)
ID = KEY.round_id


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    one = Journal(tmp_path / "poc.sqlite", clock=clock)
    yield one
    one.close()


def artifact(nonce: int) -> Artifact:
    return Artifact(nonce, base64.b64encode(nonce.to_bytes(8, "little") * 3).decode())


def fill(journal: Journal, n: int, key: RoundKey = KEY) -> None:
    """n further artifacts."""
    at = journal.open_round(key)
    journal.append(key.round_id, [artifact(key.nonce(x)) for x in range(at, at + n)], at + n)


def reopened(journal: Journal, clock: Clock) -> Journal:
    journal.close()
    return Journal(journal.path, clock=clock)


# --- rounds


def test_a_round_goes_on_where_it_was_left(journal: Journal, clock: Clock) -> None:
    assert journal.open_round(KEY) == 0
    fill(journal, 5)
    fill(journal, 2)
    assert journal.open_round(KEY) == 7
    again = reopened(journal, clock)
    assert again.open_round(KEY) == 7
    assert again.count(ID) == 7
    again.close()


@pytest.mark.parametrize("name", list(asdict(KEY)))
def test_whatever_stands_in_the_key_makes_another_round(journal: Journal, name: str) -> None:
    old = getattr(KEY, name)
    other = replace(KEY, **{name: not old if isinstance(old, bool) else old + 1 if isinstance(old, int) else "other"})
    fill(journal, 4)
    assert other.round_id != ID
    assert journal.open_round(other) == 0
    assert journal.artifacts(other.round_id) == []


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 40))
def test_all_nodes_and_groups_together_cover_every_nonce_once(nodes: int, groups: int, n: int) -> None:
    keys = [
        replace(KEY, node_id=node, node_count=nodes, group_id=group, n_groups=groups)
        for node in range(nodes)
        for group in range(groups)
    ]
    nonces = sorted(key.nonce(x) for key in keys for x in range(n))
    assert nonces == list(range(nodes * groups * n))


def test_rounds_are_told_in_the_order_in_which_they_began(journal: Journal, clock: Clock) -> None:
    other = replace(KEY, block_hash="next", url=None)
    fill(journal, 2)
    clock.now += 1
    journal.open_round(other)
    first, second = journal.rounds()
    assert (first.key, first.next_index, first.count, first.created_at) == (KEY, 2, 2, 1000.0)
    assert (second.key, second.next_index, second.count, second.created_at) == (other, 0, 0, 1001.0)
    assert journal.round(ID) == first
    assert journal.round("nobody") is None


# --- artifacts


def test_artifacts_come_back_as_they_went_in_page_by_page(journal: Journal) -> None:
    fill(journal, 25)
    pages = [journal.artifacts(ID, after, 10) for after in (0, 10, 20, 25)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    rows = [row for page in pages for row in page]
    assert [row.seq for row in rows] == list(range(1, 26))
    assert [row.artifact for row in rows] == [artifact(KEY.nonce(x)) for x in range(25)]


def test_an_artifact_is_found_by_its_nonce(journal: Journal) -> None:
    fill(journal, 3)
    row = journal.find(ID, KEY.nonce(2))
    assert row is not None
    assert (row.seq, row.artifact) == (3, artifact(KEY.nonce(2)))
    assert journal.find(ID, 2) is None
    assert journal.find("nobody", 1) is None


def test_a_nonce_stands_once_in_a_round_and_a_refused_batch_leaves_nothing(journal: Journal) -> None:
    fill(journal, 3)
    with pytest.raises(ProofError, match="each stands once in a round"):
        journal.append(ID, [artifact(KEY.nonce(3)), artifact(KEY.nonce(1))], 5)
    assert journal.count(ID) == 3
    assert journal.open_round(KEY) == 3
    assert len(journal.artifacts(ID)) == 3


def test_the_mark_never_goes_back(journal: Journal) -> None:
    fill(journal, 3)
    with pytest.raises(ProofError, match="stands at index 3 and cannot go back to 2"):
        journal.append(ID, [artifact(100)], 2)


def test_a_round_has_to_be_opened(journal: Journal) -> None:
    with pytest.raises(ProofError, match=r"has no round nobody"):
        journal.append("nobody", [artifact(1)], 1)


def test_what_is_no_base64_is_not_journalled(journal: Journal) -> None:
    journal.open_round(KEY)
    with pytest.raises(ProofError, match="not base64"):
        journal.append(ID, [Artifact(1, "!")], 1)


def test_a_mark_may_pass_over_nonces_that_gave_nothing(journal: Journal) -> None:
    journal.open_round(KEY)
    journal.append(ID, [artifact(KEY.nonce(8))], 9)
    assert journal.open_round(KEY) == 9
    assert [row.seq for row in journal.artifacts(ID)] == [1]


# --- parcels


def test_parcels_are_bounded_and_carry_everything_once(journal: Journal) -> None:
    fill(journal, 25)
    seen = []
    while (parcel := journal.pending(10)) is not None:
        seen.append(parcel)
        journal.delivered(parcel.parcel_id)
    assert [parcel.sequence for parcel in seen] == [1, 2, 3]
    assert [parcel.artifacts for parcel in seen] == [10, 10, 5]
    assert [row.nonce for parcel in seen for row in parcel.rows] == [KEY.nonce(x) for x in range(25)]
    assert {(parcel.owner, parcel.url, parcel.path, parcel.key) for parcel in seen} == {
        (ID, KEY.url, "/generated", KEY)
    }
    assert journal.outbox_depth() == 0


def test_a_parcel_is_the_same_at_every_try_and_after_a_restart(journal: Journal, clock: Clock) -> None:
    fill(journal, 3)
    first = journal.pending(10)
    assert first is not None
    fill(journal, 4)
    assert journal.pending(2) == first
    journal.failed(first.parcel_id, "503", clock.now + 5)
    again = reopened(journal, clock)
    clock.now += 5
    assert again.pending(99) == replace(first, tries=1)
    again.close()


def test_a_rounds_parcels_come_in_order_and_what_gathers_behind_a_failed_one_goes_into_a_full_one(
    journal: Journal, clock: Clock
) -> None:
    fill(journal, 3)
    first = journal.pending(3)
    assert first is not None
    journal.failed(first.parcel_id, "down", clock.now + 30)
    fill(journal, 1)
    assert journal.pending(3) is None
    fill(journal, 1)
    clock.now += 30
    again = journal.pending(3)
    assert again == replace(first, tries=1)
    journal.delivered(first.parcel_id)
    second = journal.pending(3)
    assert second is not None
    assert (second.sequence, second.artifacts) == (2, 2)


def test_a_failed_parcel_keeps_no_other_owner_waiting(journal: Journal, clock: Clock) -> None:
    other = replace(KEY, block_hash="next")
    fill(journal, 1)
    fill(journal, 1, other)
    first = journal.pending(1)
    assert first is not None
    journal.failed(first.parcel_id, "down", clock.now + 30)
    second = journal.pending(1)
    assert second is not None
    assert second.owner == other.round_id


def test_each_url_has_its_own_line(journal: Journal, clock: Clock) -> None:
    other = replace(KEY, url="http://other/")
    fill(journal, 1)
    fill(journal, 1, other)
    fill(journal, 1, replace(KEY, url=None))
    journal.enqueue("r-1", "http://third", "/validated", b"{}", "r-1")
    assert journal.urls() == ["http://other/", "http://receiver/pow", "http://third"]
    parcel = journal.pending(10, "http://other/")
    assert parcel is not None
    assert parcel.key == other
    journal.failed(parcel.parcel_id, "down", clock.now + 30)
    assert "http://other/" in journal.urls()
    assert journal.pending(10, "http://other/") is None
    mine = journal.pending(10, "http://receiver/pow")
    assert mine is not None
    assert mine.key == KEY


def test_a_requests_callbacks_are_kept_as_they_are(journal: Journal) -> None:
    parts = [(b"one", "r:1", 2), (b"two", "r:2", 1)]
    journal.enqueue_all("r", "http://x", "/generated", parts)
    journal.enqueue_all("r", "http://x", "/generated", parts)
    seen = []
    while (parcel := journal.pending(1)) is not None:
        seen.append((parcel.body, parcel.idempotency_key, parcel.artifacts, parcel.sequence, parcel.key, parcel.rows))
        journal.delivered(parcel.parcel_id)
    assert seen == [(b"one", "r:1", 2, 1, None, ()), (b"two", "r:2", 1, 2, None, ())]


def test_the_outbox_tells_its_age_and_depth(journal: Journal, clock: Clock) -> None:
    assert (journal.outbox_age_s(clock.now), journal.outbox_depth()) == (0.0, 0)
    fill(journal, 3)
    clock.now += 4
    journal.enqueue("r", "http://x", "/validated", b"", "r")
    fill(journal, 2)
    fill(journal, 50, replace(KEY, url=None))  # nobody waits for these
    assert (journal.outbox_age_s(clock.now + 1), journal.outbox_depth()) == (5.0, 6)
    parcel = journal.pending(4, KEY.url)
    assert parcel is not None
    assert (journal.outbox_age_s(clock.now + 1), journal.outbox_depth()) == (5.0, 6)
    journal.delivered(parcel.parcel_id)
    assert journal.outbox_depth() == 2


def test_sealed_runs_are_the_parcels_and_cover_every_artifact(journal: Journal) -> None:
    fill(journal, 5)
    parcel = journal.pending(3)
    assert parcel is not None
    journal.delivered(parcel.parcel_id)
    assert journal.seal(ID, 1) == 2
    assert journal.seal(ID, 1) == 0
    assert [(one.sequence, one.first, one.last) for one in journal.sealed(ID)] == [(1, 1, 3), (2, 4, 4), (3, 5, 5)]
    assert [one.delivered_at is None for one in journal.sealed(ID)] == [False, True, True]


def test_a_round_without_a_url_is_sealed_and_never_delivered(journal: Journal) -> None:
    key = replace(KEY, url=None)
    fill(journal, 5, key)
    assert journal.seal(key.round_id, 2) == 3
    assert journal.urls() == []
    assert journal.pending(10) is None


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.booleans()), max_size=12))
def test_whatever_happens_every_artifact_is_in_one_run(tmp_path_factory, steps) -> None:
    clock = Clock()
    journal = Journal(tmp_path_factory.mktemp("j") / "poc.sqlite", clock=clock)
    seen: dict[str, object] = {}
    for n, limit, works in steps:
        fill(journal, n)
        clock.now += 1
        parcel = journal.pending(limit)
        if parcel is None:
            continue
        assert seen.setdefault(parcel.idempotency_key, parcel.rows) == parcel.rows
        if works:
            journal.delivered(parcel.parcel_id)
        else:
            journal.failed(parcel.parcel_id, "x", clock.now + 2)
    journal.seal(journal.rounds()[0].round_id, 3) if steps else None
    runs = journal.sealed(ID)
    assert all(a.last + 1 == b.first and a.sequence + 1 == b.sequence for a, b in pairwise(runs))
    assert sum(one.last - one.first + 1 for one in runs) == journal.count(ID)
    journal.close()


@pytest.mark.parametrize("call", ["pending", "seal"])
def test_a_parcel_of_nothing_is_refused(journal: Journal, call: str) -> None:
    with pytest.raises(ConfigError, match="a parcel of 0 artifacts carries nothing"):
        journal.pending(0) if call == "pending" else journal.seal(ID, 0)


# --- the medium


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "poc.sqlite", max_pages=40)

    def fill_up() -> None:
        for _ in range(1000):
            fill(journal, 50)

    with pytest.raises(StorageError, match=r"sqlite takes nothing: database or disk is full\. Make room, or set POC"):
        fill_up()
    count = journal.count(ID)
    assert count % 50 == 0
    assert count > 0
    assert len(journal.artifacts(ID, limit=10_000)) == count
    assert journal.open_round(KEY) == count
    journal.close()


def test_one_process_at_a_time(journal: Journal, clock: Clock) -> None:
    with pytest.raises(StorageError, match=r"in use \(database is locked\): end that server, or .* with POC_JOURNAL"):
        Journal(journal.path)
    reopened(journal, clock).close()


def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.close()
    journal.close()
    with pytest.raises(StorageError, match="is closed"):
        journal.rounds()
    with pytest.raises(StorageError, match="is closed"):
        journal.open_round(KEY)


def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "poc.sqlite"
    path.write_text("these are no tables " * 100)
    with pytest.raises(StorageError, match="file is not a database"):
        Journal(path)
    assert path.read_text().startswith("these are no tables")


def test_a_journal_of_a_later_version_is_refused(journal: Journal) -> None:
    journal.close()
    db = sqlite3.connect(journal.path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(StorageError, match="has format 9, and this version reads 2"):
        Journal(journal.path)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="takes nothing"):
        Journal(tmp_path / "file" / "poc.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(StorageError, match="takes nothing"):
        Journal(tmp_path / "folder.sqlite")


def test_threads_may_write_and_read_at_once(journal: Journal) -> None:
    keys = [replace(KEY, block_hash=str(i)) for i in range(4)]
    errors: list[BaseException] = []

    def work(key: RoundKey) -> None:
        try:
            for _ in range(20):
                fill(journal, 3, key)
                assert len(journal.artifacts(key.round_id, limit=1000)) == journal.count(key.round_id)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(key,)) for key in keys]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    assert [journal.count(key.round_id) for key in keys] == [60] * 4

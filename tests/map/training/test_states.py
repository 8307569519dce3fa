"""The store of states: what a journal names is there, what a kill cut off is run again and gives the same bytes."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ftw.map.training.collect import collect, fill, key_of
from ftw.map.training.plan import Plan, plan_of
from ftw.map.training.states import KEY, MOMENTS, STATES, StateStore
from ftw.substrate.errors import ConfigError, PackError, StorageError
from ftw.substrate.model import Model, load

SAID = [(f"They saw number {at} of the", word) for at in range(6) for word in ("owl", "ox", "hen", "crow")]
BLOCKS = [0, 2]
FILES = (STATES, MOMENTS)


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


@pytest.fixture(scope="module")
def plan(model: Model) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftw.map.training.plan.SHARED", 3)
        return plan_of(model, SAID, ["So be it."], blocks=len(BLOCKS))


@pytest.fixture
def opened(model: Model, plan: Plan) -> Callable[..., StateStore]:
    return lambda folder, writer="0-of-1": StateStore.open(folder, key_of(model, plan, BLOCKS), writer)


@pytest.fixture
def full(model: Model, plan: Plan, opened: Callable[..., StateStore], tmp_path: Path) -> StateStore:
    store = opened(tmp_path / "full")
    fill(model, plan, store, quiet)
    return store


def test_a_store_gives_the_states_that_memory_gives(model: Model, plan: Plan, full: StateStore) -> None:
    states, wanted = full.states(), collect(model, plan, BLOCKS, quiet)
    assert torch.equal(states.x, wanted.x)
    assert torch.equal(states.mean, wanted.mean)
    assert torch.equal(states.scale, wanted.scale)
    assert len(states) == len(SAID) + len(plan.texts[-1].ids)


def test_nothing_is_run_twice(model: Model, plan: Plan, full: StateStore, opened: Callable[..., StateStore]) -> None:
    assert fill(model, plan, opened(full.folder), quiet) == 0


def test_what_a_kill_cut_off_is_run_again_and_gives_the_same_bytes(
    model: Model, plan: Plan, full: StateStore, opened: Callable[..., StateStore], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if done > total // 2:
            raise Killed

    folder = tmp_path / "cut"
    with pytest.raises(Killed):
        fill(model, plan, opened(folder), stop)
    with (folder / "journal-0-of-1.jsonl").open("ab") as journal:
        journal.write(b'{"batch": 5, "crc')  # the line that the kill cut
    with (folder / STATES).open("r+b") as file:  # and bytes of a batch that no journal names
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)
    again = opened(folder)
    assert 0 < len(again.missing()) < len(plan.batches)
    fill(model, plan, again, quiet)
    assert opened(folder).missing() == []
    for name in FILES:
        assert (folder / name).read_bytes() == (full.folder / name).read_bytes()


FILLING = """
import sys, time
from pathlib import Path
from ftw.map.training import plan as plans
from ftw.map.training.collect import fill, key_of
from ftw.map.training.states import StateStore
from ftw.substrate.model import load
plans.SHARED = 3
model = load("tiny")
said = [(f"They saw number {at} of the", word) for at in range(6) for word in ("owl", "ox", "hen", "crow")]
plan = plans.plan_of(model, said, ["So be it."], blocks=2)
store = StateStore.open(Path(sys.argv[1]), key_of(model, plan, [0, 2]))
fill(model, plan, store, lambda what, done, total: time.sleep(0.3))
"""


def test_a_killed_process_leaves_a_store_that_goes_on(
    model: Model, plan: Plan, full: StateStore, opened: Callable[..., StateStore], tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", FILLING, str(folder)]) as process:
        journal = folder / "journal-0-of-1.jsonl"
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    store = opened(folder)
    assert 0 < len(store.missing()) < len(plan.batches)
    fill(model, plan, store, quiet)
    for name in FILES:
        assert (folder / name).read_bytes() == (full.folder / name).read_bytes()


@pytest.mark.parametrize("of", [2, 3])
def test_shares_in_one_folder_make_the_same_store(
    model: Model, plan: Plan, full: StateStore, opened: Callable[..., StateStore], tmp_path: Path, of: int
) -> None:
    done = [
        fill(model, plan, opened(tmp_path / "shared", f"{part}-of-{of}"), quiet, part=part, of=of)
        for part in reversed(range(of))
    ]
    assert sum(done) == len(plan.texts)
    assert opened(tmp_path / "shared").missing() == []
    for name in FILES:
        assert (tmp_path / "shared" / name).read_bytes() == (full.folder / name).read_bytes()


def test_shares_of_several_folders_come_together(
    model: Model, plan: Plan, full: StateStore, opened: Callable[..., StateStore], tmp_path: Path
) -> None:
    parts = [opened(tmp_path / f"part{part}") for part in range(2)]
    for part, store in enumerate(parts):
        fill(model, plan, store, quiet, part=part, of=2)
    with pytest.raises(StorageError, match=r"lacks \d+ of \d+ batches: run the other shards"):
        parts[0].states()
    merged = opened(tmp_path / "merged", "merged")
    assert [merged.merge(store, plan.batches) for store in parts] == [len(s.finished) for s in parts]
    for name in FILES:
        assert (tmp_path / "merged" / name).read_bytes() == (full.folder / name).read_bytes()


def test_states_that_were_damaged_on_the_way_are_not_merged(
    plan: Plan, full: StateStore, opened: Callable[..., StateStore], tmp_path: Path
) -> None:
    with (full.folder / STATES).open("r+b") as file:
        file.write(b"\x00\x01\x02\x03")
    with pytest.raises(PackError, match="is not what was written: copy the folder again"):
        opened(tmp_path / "merged").merge(full, plan.batches)


def test_a_store_of_other_states_is_refused(model: Model, plan: Plan, full: StateStore) -> None:
    key = key_of(model, plan, BLOCKS)
    for change, why in (
        ({"fingerprint": "f" * 64}, "another model"),
        ({"plan": "0"}, "other prompts"),
        ({"blocks": (0, 1)}, "other blocks"),
    ):
        with pytest.raises(ConfigError, match=f"holds states of {why}"):
            StateStore.open(full.folder, key.model_copy(update=change))
    with pytest.raises(ConfigError, match="other states than wanted"):
        StateStore.open(full.folder, key.model_copy(update={"batches": 1}))


def test_a_store_whose_key_or_size_is_wrong_is_refused(full: StateStore, opened: Callable[..., StateStore]) -> None:
    with (full.folder / STATES).open("r+b") as file:
        file.truncate(10)
    with pytest.raises(StorageError, match=r"states.f16 has 10 bytes, its key says \d+: remove the folder"):
        opened(full.folder)
    (full.folder / KEY).write_text("{}")
    with pytest.raises(StorageError, match="is not the key of a state store"):
        opened(full.folder)


def test_a_disk_that_is_too_small_is_said_before_anything_is_run(
    opened: Callable[..., StateStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(StorageError, match=r"the states take \d+\.\d\d MB, \d+\.\d\d MB are free. Read fewer blocks"):
        opened(tmp_path / "small")


def test_a_disk_that_fills_names_the_folder_and_the_way_on(
    model: Model, plan: Plan, opened: Callable[..., StateStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path / "filling")

    def no_space(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", no_space)
    with pytest.raises(StorageError, match=r"No space left on device.*it goes on from here"):
        fill(model, plan, store, quiet)
    monkeypatch.undo()
    assert len(opened(store.folder).missing()) == len(plan.batches)


def test_a_folder_that_cannot_be_made_is_named(opened: Callable[..., StateStore], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used for states"):
        opened(tmp_path / "file" / "store")

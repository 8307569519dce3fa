"""What is installed stays whole, whatever happens: kills, full disks, two processes, edits by hand."""

import importlib
import os
import resource
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ftw.map.registry import Ground, Registry
from ftw.map.registry.backends import RemoteFile
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.content import identify, record_of
from ftw.map.registry.fetch import Counter, fetch, nobody
from ftw.map.registry.home import ENTRY, Home
from ftw.map.registry.state import State, read_state
from ftw.map.registry.swap import mend, swap_in
from ftw.substrate.errors import (
    Busy,
    PackError,
    StorageError,
)
from tests.map.registry.packs import concept_pack, lens_pack, tree_of


def in_a_child(work: Callable[[], object]) -> int:
    """Runs `work` in a process of its own; gives how it ended, as `os.waitpid` tells it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which this process has none of that matter
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001, the child's edge: pytest must not go on in it
            os._exit(1)
    return os.waitpid(child, 0)[1]


def die(*args: object, **kwargs: object) -> None:
    """Ends the process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pull", "check"),  # everything is fetched, nothing is in place
        ("home", "swap_in"),
        ("home", "write_state"),  # the folder is in place, the registry does not know
    ],
)
def test_a_kill_at_any_moment_leaves_the_old_pack_or_the_new_one(tmp_path: Path, module: str, name: str) -> None:
    home = tmp_path / "home"
    registry = Registry(Ground(home, "org"))
    shared = lens_pack(tmp_path / "shared")
    registry.pull_lens_pack("toy_small", source=str(shared))
    old = tree_of(shared)
    new = tree_of(lens_pack(shared, "1.1.0", changed=("Food03",)))

    def pull() -> None:
        setattr(importlib.import_module(f"ftw.map.registry.{module}"), name, die)
        registry.pull_lens_pack("toy_small")

    assert in_a_child(pull) == signal.SIGKILL
    folder = home / "lens_packs" / "toy_small"
    versions = [each["version"] for each in registry.list_lens_packs() if each["name"] == "toy_small"]
    is_new = name == "write_state"
    assert versions == (["1.1.0"] if is_new else ["1.0.0"])
    assert tree_of(folder) == (new if is_new else old)
    assert registry.verify("toy_small") == ()
    assert registry.pull_lens_pack("toy_small").version == "1.1.0"
    assert tree_of(folder) == new


@pytest.mark.parametrize("arrived", [False, True])
def test_a_swap_that_was_cut_off_between_its_renames_is_mended(tmp_path: Path, arrived: bool) -> None:
    home = Home(tmp_path / "lens_packs")
    lens_pack(tmp_path / "lens_packs" / ".toy_small.old")
    if arrived:
        lens_pack(tmp_path / "lens_packs" / "toy_small", "2.0.0")
    assert home.state() == State()
    assert identify(home.folder / "toy_small").version == ("2.0.0" if arrived else "1.0.0")
    assert home.names() == ["toy_small"]


def test_a_swap_that_fails_brings_the_old_folder_back(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").write_text("old")
    with pytest.raises(OSError, match="No such file"):
        swap_in(tmp_path / "not-there", tmp_path / "target")
    assert (tmp_path / "target" / "a").read_text() == "old"
    mend(tmp_path / "target")
    assert (tmp_path / "target" / "a").read_text() == "old"


def test_a_disk_that_fills_during_a_pull_is_told_and_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    registry = Registry(Ground(home, "org"))
    shared = lens_pack(tmp_path / "shared")
    registry.pull_lens_pack("toy_small", source=str(shared))
    old = tree_of(shared)
    lens_pack(shared, "1.1.0", changed=tuple(row for row in ("Food03",)), storage="float32")

    def pull() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
        try:
            registry.pull_lens_pack("toy_small")
        except StorageError as error:
            (tmp_path / "said").write_text(str(error))

    assert in_a_child(pull) == 0
    said = (tmp_path / "said").read_text()
    assert ".part cannot be written: File too large; free some space and repeat the command" in said
    assert tree_of(home / "lens_packs" / "toy_small") == old
    assert registry.verify("toy_small") == ()
    assert registry.pull_lens_pack("toy_small").version == "1.1.0"


def test_a_disk_without_room_is_told_before_anything_comes(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from ftw.map.registry import pull

    monkeypatch.setattr(pull, "MARGIN", shutil.disk_usage(tmp_path).total * 2)
    with pytest.raises(StorageError, match=r"MB free, the pull needs .* choose fewer levels with --levels"):
        registry.pull_lens_pack("toy_small", source=str(lens_pack(tmp_path / "made")))
    assert registry.ground.homes["lens"].names() == []


def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    registry = Registry(Ground(tmp_path / "home", "org", patience_s=0.2))
    made = str(lens_pack(tmp_path / "made"))

    def late() -> None:
        with pytest.raises(Busy, match="a pull of toy-small is held by another process"):
            registry.pull_lens_pack("toy_small", source=made)

    with registry.ground.homes["lens"].working_on("toy-small"):
        assert in_a_child(late) == 0
    assert registry.pull_lens_pack("toy_small", source=made).is_new


def test_a_lock_goes_with_the_process_that_held_it(tmp_path: Path) -> None:
    registry = Registry(Ground(tmp_path / "home", "org", patience_s=0.2))

    def hold() -> None:
        with registry.ground.homes["lens"].working_on("toy-small"), registry.ground.homes["lens"].locked():
            die()

    assert in_a_child(hold) == signal.SIGKILL
    assert registry.pull_lens_pack("toy_small", source=str(lens_pack(tmp_path / "made"))).is_new


def test_processes_that_pull_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    registry = Registry(Ground(tmp_path / "home", "org"))
    made = [str(lens_pack(tmp_path / f"made{i}", name=f"toy_{i}")) for i in range(3)]
    with ThreadPoolExecutor(3) as pool:
        pulls = [partial(registry.pull_lens_pack, f"toy_{i}", source=made[i]) for i in range(3)]
        assert list(pool.map(in_a_child, pulls)) == [0, 0, 0]
    assert sorted(read_state(tmp_path / "home" / "lens_packs").packs) == ["toy_0", "toy_1", "toy_2"]


def test_an_unreadable_registry_is_told_and_not_overwritten(registry: Registry, tmp_path: Path) -> None:
    made = str(lens_pack(tmp_path / "made"))
    file = registry.ground.homes["lens"].folder / ".registry.json"
    registry.pull_lens_pack("toy_small", source=made)
    file.write_text(
        '{"schema_version": "1.0", "packs": {"toy_small": {"source": "local", "version": "1", "colour": 1}}}'
    )
    with pytest.raises(PackError, match=r"packs\.toy_small\.colour: Extra inputs .*move it away and pull"):
        registry.list_lens_packs()
    file.unlink()
    file.mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        registry.list_lens_packs()


def test_a_left_entry_that_is_none_of_ours_is_told(registry: Registry, tmp_path: Path) -> None:
    registry.pull_lens_pack("toy_small", source=str(lens_pack(tmp_path / "made")))
    (registry.ground.homes["lens"].folder / "toy_small" / ENTRY).write_text("{}")
    with pytest.raises(PackError, match="is not one of ours"):
        registry.list_lens_packs()


def test_a_link_in_the_staging_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "concepts").symlink_to(tmp_path)
    file = RemoteFile("concepts/a.json", 1)

    class One:
        source = "x"

        def versions(self) -> dict[str, str]:
            return {}

        def commit(self, revision: str | None) -> str:
            return ""

        def files(self, commit: str) -> tuple[RemoteFile, ...]:
            return (file,)

        def stream(self, commit: str, file: RemoteFile, start: int, stop: int):  # type: ignore[no-untyped-def]
            yield b"x"

        def push(self, upload: object) -> str:
            return ""

    with pytest.raises(PackError, match="leads out of"):
        fetch(One(), "c", [file], tmp_path / "staging", counter=Counter(1, nobody, "x"))  # type: ignore[arg-type]
    assert not (tmp_path / "a.json").exists()


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing cannot be read"):
        record_of(tmp_path / "nothing")


def test_a_pull_whose_place_cannot_be_made_is_told(tmp_path: Path) -> None:
    made = str(lens_pack(tmp_path / "made"))
    (tmp_path / "home").write_text("a file where a folder must be")
    with pytest.raises(StorageError, match=r"cannot be made: .*; check the path and its permissions"):
        Registry(Ground(tmp_path / "home", "org")).pull_lens_pack("toy_small", source=made)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_pack_that_is_replaced_while_it_is_read_is_read_again(
    registry: Registry, tmp_path: Path, breaks: bool
) -> None:
    shared = concept_pack(tmp_path / "1")
    registry.pull_concept_pack("small", source=str(shared))
    other = str(concept_pack(tmp_path / "2", "2.0.0"))
    read = ConceptPack.load
    calls_made = []

    def load(folder: Path) -> ConceptPack:
        made = read(folder)
        calls_made.append(made.version)
        if len(calls_made) == 1:
            registry.pull_concept_pack("small", source=other, force=True)
            if breaks:
                raise PackError("half of it was gone")
        return made

    assert registry._steady("concept", registry.path("concept", "small"), load).version == "2.0.0"
    assert calls_made == ["1.0.0", "2.0.0"]
    with pytest.raises(PackError, match="broken by itself"):
        registry._steady("concept", registry.path("concept", "small"), _broken)


def _broken(folder: Path) -> ConceptPack:
    raise PackError("broken by itself")

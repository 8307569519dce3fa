"""The registry's calls, its file, its lock, and what is told of packs that are not what they should be."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftw.hat.classifiers import load_pack, normalise
from ftw.hat.classifiers.index import read_index
from ftw.map import registry as calls
from ftw.map.registry import Ground, Registry
from ftw.map.registry.content import FileRecord, digest_of, identify, kind_of, renamed, scan
from ftw.map.registry.lockfile import read_lock
from ftw.map.registry.names import check_name, key_of, kind_by_name, repo_of, safe_path
from ftw.map.registry.opened import OpenedLens
from ftw.map.registry.plan import _rest, compare_rows
from ftw.map.registry.state import Entry, read_state, write_state
from ftw.substrate.errors import (
    ConfigError,
    NotThere,
    PackError,
    StorageError,
    UnknownConcept,
    UsageError,
)
from tests.map.registry.packs import concept_pack, lens_pack, tree_of


def test_the_plans_calls_are_functions_of_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTW_PACKS_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    made = lens_pack(tmp_path / "made")
    calls.pull_lens_pack("toy_small", source=str(made))
    assert [each["name"] for each in calls.list_lens_packs()] == ["toy_small", "reference_everyday"]
    assert [each["name"] for each in calls.list_concept_packs()] == ["everyday"]
    assert calls.status()[0].conditions == ("ok",)
    lens = calls.load_lens_pack("toy-small", layer=1, concept="weather 03")
    assert isinstance(lens, OpenedLens)
    assert lens.term == "Weather03"
    assert calls.load_concept_pack("everyday").name == "everyday"
    calls.push_lens_pack("toy_small", repo_id=str(tmp_path / "there"), message="here you are")
    calls.push_concept_pack(str(concept_pack(tmp_path / "small")), repo_id=str(tmp_path / "concepts"))
    assert calls.pull_concept_pack("small", source=str(tmp_path / "concepts")).name == "small"
    calls.fork("small", "mine")
    assert calls.load_concept_pack("mine").meta.forked_from == "small@1.0.0"
    assert calls.verify("toy_small") == ()


def test_a_lens_reads_what_its_row_of_the_pack_holds(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made", storage="float32")
    files = load_pack(made)
    part, rows = files.blocks[1], files.rows
    lens = registry.load_lens_pack(str(made), concept="Food03")
    assert isinstance(lens, OpenedLens)
    states = torch.randn(5, 32)
    expected = part.module([row.term for row in rows].index("Food03"))(normalise(states)).sigmoid()
    torch.testing.assert_close(lens.probability(states), expected.detach())
    with pytest.raises(UsageError, match=r"the lens of Food03 reads blocks \[1\], not 9"):
        lens.probability(states, block=9)


def test_a_concept_that_is_not_there_is_answered_with_the_nearest(registry: Registry, tmp_path: Path) -> None:
    made = str(lens_pack(tmp_path / "made"))
    with pytest.raises(UnknownConcept, match="has no lens of Fod03; the nearest are Food03"):
        registry.load_lens_pack(made, concept="Fod03")
    with pytest.raises(UnknownConcept, match="Food03 is on level 1 of made, not on level 0"):
        registry.load_lens_pack(made, layer=0, concept="Food03")
    (tmp_path / "made" / "level1.safetensors").unlink()
    with pytest.raises(NotThere, match="level 1 of made, where Food03 is, was not pulled"):
        registry.load_lens_pack(made, concept="Food03")


def test_a_pack_that_is_nowhere_is_answered_with_those_there_are(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="no lens pack nowhere is installed: there is reference_everyday"):
        registry.path("lens", "nowhere", pull=False)
    with pytest.raises(NotThere, match="no pack nowhere is installed: `ftw pack list`"):
        registry.status(["nowhere"])


def test_a_fork_knows_what_it_came_from_and_leaves_it_alone(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made")
    registry.pull_lens_pack("toy_small", source=str(made))
    folder = registry.fork("toy_small", "toy_mine")
    told = json.loads((folder / "pack.json").read_text())
    assert (told["name"], told["based_on"]) == ("toy_mine", "toy_small@1.0.0")
    assert registry.verify("toy_small") == ()
    entry = read_state(registry.ground.homes["lens"].folder).packs["toy_mine"]
    assert (entry.source, entry.based_on, entry.created_at) == ("local", "toy_small@1.0.0", "2026-01-02T03:04:05Z")
    with pytest.raises(UsageError, match="there is a pack toy_mine already"):
        registry.fork("toy_small", "toy-mine")
    with pytest.raises(PackError, match="toy_mine was made here, a pull would overwrite it"):
        registry.pull_lens_pack("toy_mine", source=str(made))
    assert registry.status(["toy_mine"])[0].conditions == ("local",)


def test_a_bundled_pack_is_forked_by_its_name(registry: Registry) -> None:
    registry.fork("everyday", "mine")
    assert registry.list_concept_packs()[0]["based_on"].startswith("everyday@")


def test_another_source_does_not_take_a_packs_place_unasked(registry: Registry, tmp_path: Path) -> None:
    registry.pull_concept_pack("small", source=str(concept_pack(tmp_path / "1")))
    other = concept_pack(tmp_path / "2", definition="another thing")
    with pytest.raises(PackError, match=r"small was pulled from file:.*1, not from file:.*2"):
        registry.pull_concept_pack("small", source=str(other))
    assert registry.pull_concept_pack("small", source=str(other), force=True).source == f"file:{other}"


def test_levels_of_a_concept_pack_are_refused(registry: Registry, tmp_path: Path) -> None:
    from ftw.map.registry.pull import Wish

    made = str(concept_pack(tmp_path / "1"))
    with pytest.raises(UsageError, match="a concept pack comes whole"):
        registry.plan(Wish("concept", "small", source=made, levels=(0,)))
    with pytest.raises(UsageError, match="give one of them"):
        registry.plan(Wish("concept", "small", "1.0.0", "abc", source=made))


def test_the_registrys_file_is_what_the_design_shows(tmp_path: Path) -> None:
    told = {
        "schema_version": "1.0",
        "packs": {
            "first-light": {
                "source": "hf://ftw-project/concept-pack-first-light",
                "version": "1.0.0",
                "revision": "abc123",
                "synced_at": "2025-12-20T10:00:00Z",
                "modified": False,
                "size_bytes": 82000000,
            },
            "my-custom-pack": {
                "source": "local",
                "version": "0.1.0",
                "created_at": "2025-12-19T10:00:00Z",
                "based_on": "first-light@1.0.0",
                "modified": True,
            },
        },
    }
    (tmp_path / ".registry.json").write_text(json.dumps(told))
    state = read_state(tmp_path)
    assert state.packs["my-custom-pack"].based_on == "first-light@1.0.0"
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


def test_a_broken_pack_is_a_row_and_not_the_end_of_the_list(registry: Registry, tmp_path: Path) -> None:
    pulled = registry.pull_lens_pack("toy_small", source=str(lens_pack(tmp_path / "made")))
    registry.pull_concept_pack("small", source=str(concept_pack(tmp_path / "concepts")))
    (pulled.path / "pack.json").write_text("{")
    states = {each.name: each for each in registry.status(offline=True)}
    assert states["toy_small"].conditions == ("broken",)
    assert "pack.json" in states["toy_small"].note
    assert states["small"].conditions == ("ok",)
    (registry.ground.homes["lens"].folder / "by-hand").mkdir()
    assert [each["version"] for each in registry.list_lens_packs()][:2] == ["?", "1.0.0"]


def test_what_was_never_recorded_cannot_be_verified(registry: Registry) -> None:
    with pytest.raises(PackError, match="was never pulled or forked here"):
        registry.verify("reference_everyday")


def test_a_changed_pack_is_not_locked(registry: Registry, tmp_path: Path) -> None:
    pulled = registry.pull_concept_pack("small", source=str(concept_pack(tmp_path / "1")))
    (pulled.path / "hierarchy.json").write_text("{}")
    with pytest.raises(PackError, match=r"small was changed here \(hierarchy\.json\)"):
        registry.lock()
    with pytest.raises(UsageError, match=r"this registry has no packs\.lock"):
        Registry(Ground(tmp_path, "org")).lock()


def test_a_lock_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "packs.lock").write_text('{"packs": [{"name": "x"}]}')
    with pytest.raises(ConfigError, match=r"packs\.0\.kind: Field required.*Make it anew with `ftw pack lock`"):
        read_lock(tmp_path / "packs.lock")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        read_lock(tmp_path / "folder")


def test_a_pack_pinned_as_local_cannot_be_pulled(ground: Ground, tmp_path: Path) -> None:
    pin = {"kind": "lens", "name": "mine", "source": "local", "version": "1", "revision": None, "sha256": "0" * 64}
    (tmp_path / "packs.lock").write_text(json.dumps({"packs": [pin]}))
    with pytest.raises(UsageError, match=r"packs\.lock pins mine as made here"):
        Registry(ground).pull_lens_pack("mine")


def test_a_legacy_pack_is_listed_and_told_how_to_be_used(registry: Registry, tmp_path: Path) -> None:
    legacy = tmp_path / "legacy"
    (legacy / "layer0").mkdir(parents=True)
    (legacy / "layer0" / "Food.pt").write_bytes(b"weights")
    (legacy / "pack_info.json").write_text(
        '{"model": "org/apertus-8b", "source_pack": "first-light", "pack_version": "3"}'
    )
    pulled = registry.pull_lens_pack("apertus-8b-first-light", source=str(legacy))
    assert (pulled.name, pulled.version, pulled.levels) == ("apertus-8b_first-light", "3", (0,))
    with pytest.raises(PackError, match="is in the legacy layout: make a pack of it with `ftw lens import"):
        registry.load_lens_pack("apertus-8b_first-light")
    with pytest.raises(PackError, match="with `ftw lens import` first"):
        renamed(pulled.path, "x", "y")
    (legacy / "pack_info.json").write_text("[]")
    with pytest.raises(PackError, match="is not an object"):
        identify(legacy)


def test_what_is_no_pack_is_told(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="holds no pack"):
        kind_of(["readme.txt"], "here")
    with pytest.raises(PackError, match="holds no pack"):
        identify(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a..b", "x" * 200])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a pack"):
        check_name(name)


def test_names_on_disk_and_on_the_hub_mean_the_same_pack() -> None:
    assert repo_of("lens", "apertus-8b_first-light", "org") == "org/lens-apertus-8b-first-light"
    assert repo_of("concept", "first-light", "org") == "org/concept-pack-first-light"
    assert key_of("lens-Apertus-8b-first-light") == key_of("apertus-8b_first-light")
    assert (kind_by_name("org/concept-pack-x"), kind_by_name("lens-x"), kind_by_name("x")) == ("concept", "lens", None)


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b.json", "/"]), min_size=1, max_size=6))
def test_a_path_that_passes_stays_inside(parts: list[str]) -> None:
    path = "/".join(parts)
    try:
        passed = safe_path(path, "test")
    except PackError:
        return
    base = Path("/base/pack")
    assert Path(os.path.normpath(base / passed)).is_relative_to(base)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), max_size=12))
def test_copies_and_the_rest_cover_a_file(spans: list[tuple[int, int]]) -> None:
    from ftw.map.registry.plan import Copy

    size, start = 500, 40
    copies, at = [], start
    for gap, length in spans:
        if at + gap + length > size:
            break
        copies.append(Copy(at + gap, at + gap + length, 0))
        at += gap + length
    covered = {i for each in copies for i in range(each.start, each.stop)}
    for a, b in _rest(copies, start, size):
        covered |= set(range(a, b))
    assert covered >= set(range(start, size))


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), min_size=1))
def test_a_digest_tells_every_change_and_not_the_card(sizes: dict[str, int]) -> None:
    files = {name: FileRecord(sha256=f"{n}" * 64, size_bytes=n) for name, n in sizes.items()}
    card = FileRecord(sha256="f" * 64, size_bytes=1)
    assert digest_of(files) == digest_of({**files, "README.md": card})
    name = next(iter(files))
    assert digest_of(files) != digest_of({**files, name: card})


def test_progress_is_told_in_bytes(registry: Registry, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    made = lens_pack(tmp_path / "made")
    registry.pull_lens_pack("toy_small", source=str(made), tell=lambda *each: told.append(each))
    total = sum(map(len, tree_of(made).values()))
    assert told[-1] == ("Fetching", total, total)
    assert scan(made) == scan(registry.path("lens", "toy_small"))


def test_an_entry_without_hashes_is_taken_as_it_is(registry: Registry, tmp_path: Path) -> None:
    home = registry.ground.homes["lens"]
    home.folder.mkdir(parents=True)
    shared = lens_pack(tmp_path / "shared")
    lens_pack(home.folder / "toy_small")
    with home.locked():
        home.record("toy_small", Entry(source=f"file:{shared}", version="1.0.0", revision="old"))
    assert registry.status()[0].conditions == ("outdated",)
    assert not registry.pull_lens_pack("toy_small").is_new


def test_an_index_of_an_older_format_means_a_whole_pull(registry: Registry, tmp_path: Path) -> None:
    shared = lens_pack(tmp_path / "shared")
    pulled = registry.pull_lens_pack("toy_small", source=str(shared))
    (pulled.path / "index.json").write_text("[]")
    lens_pack(shared, "1.1.0", changed=("Food",))
    again = registry.pull_lens_pack("toy_small", force=True)
    assert again.plan.patches == ()
    assert tree_of(again.path) == tree_of(shared)


def test_a_row_without_a_hash_counts_as_changed(tmp_path: Path) -> None:
    rows = read_index(lens_pack(tmp_path / "made"))
    bare = [row.model_copy(update={"sha256": None}) for row in rows]
    assert compare_rows(rows, rows).n_same == 26
    assert len(compare_rows(bare, rows).changed) == 26
    assert len(compare_rows(bare, bare).changed) == 26
    assert compare_rows(rows[1:], rows[:-1]).added == (f"{rows[0].term} at block 1",)


def test_a_patch_that_does_not_come_out_right_is_thrown_away_and_fetched_whole(
    registry: Registry, tmp_path: Path
) -> None:
    shared = lens_pack(tmp_path / "shared", storage="float32")
    pulled = registry.pull_lens_pack("toy_small", source=str(shared))
    file = pulled.path / "level1.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1  # the index still says that this lens is as it was
    file.write_bytes(data)
    lens_pack(shared, "1.1.0", changed=("Food03",), storage="float32")
    again = registry.pull_lens_pack("toy_small", force=True)
    assert [patch.file.path for patch in again.plan.patches] == ["level1.safetensors"]
    assert tree_of(again.path) == tree_of(shared)
    assert again.n_bytes > (shared / "level1.safetensors").stat().st_size

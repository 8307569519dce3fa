"""Packs go to a hub and come back through the real client, whatever the hub does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from ftw.map.registry import Ground, Registry
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.opened import OpenedLens
from ftw.map.registry.state import read_state
from ftw.substrate.errors import NotThere, PackError, RemoteError, UsageError
from tests.hub_server import TOKEN, Hub
from tests.map.registry.packs import concept_pack, lens_pack, tree_of

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""huggingface_hub's own upload of large files calls its HTTP client in an old way."""


def publish(hub: Hub, folder: Path, repo: str, version: str | None = None) -> str:
    """Puts a folder on the hub as it is; gives the commit."""
    made = hub.repo(repo)
    oid = made.commit({".gitattributes": b"x", **tree_of(folder)})
    if version:
        made.tags[f"v{version}"] = oid
    return oid


def test_a_pushed_lens_pack_comes_back_byte_for_byte(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made")
    pushed = registry.push_lens_pack(str(made), "org/lens-toy-small")
    pulled = registry.pull_lens_pack("toy_small")
    assert (pulled.revision, pulled.version, pulled.name) == (pushed.revision, "1.0.0", "toy_small")
    back = {path: data for path, data in tree_of(pulled.path).items() if path != "README.md"}
    assert back == tree_of(made)
    assert b"fingerprint `abababababababab`" in (pulled.path / "README.md").read_bytes()


def test_a_pushed_concept_pack_comes_back_and_loads(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    registry.push_concept_pack(str(concept_pack(tmp_path / "made")), "org/concept-pack-small")
    pack = registry.load_concept_pack("small")
    assert pack.sha256 == ConceptPack.load(tmp_path / "made").sha256
    assert registry.list_concept_packs()[0]["source"] == "hf://org/concept-pack-small"


def test_a_version_is_tagged_and_pulled_by_its_number(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        registry.push_concept_pack(
            str(concept_pack(tmp_path / version, version, definition=version)), "org/concept-pack-small"
        )
    assert registry.pull_concept_pack("small", "1.0.0").version == "1.0.0"
    assert [each.conditions for each in registry.status()] == [("outdated",)]
    assert registry.pull_concept_pack("small").version == "1.1.0"
    assert [each.conditions for each in registry.status()] == [("ok",)]
    with pytest.raises(NotThere, match=r"has no version 2\.0\.0; tagged there: 1\.0\.0, 1\.1\.0"):
        registry.pull_concept_pack("small", "2.0.0")


def test_a_revision_is_pulled_by_its_commit(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    old = publish(hub, concept_pack(tmp_path / "1"), "org/concept-pack-small")
    publish(hub, concept_pack(tmp_path / "2", "2.0.0"), "org/concept-pack-small")
    assert registry.pull_concept_pack("small", revision=old[:10]).revision == old
    with pytest.raises(NotThere, match="has no revision beef"):
        registry.pull_concept_pack("small", revision="beef")


def test_a_version_is_not_pushed_twice_with_other_content(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    first = registry.push_lens_pack(str(lens_pack(tmp_path / "1")), "org/lens-toy-small")
    assert not registry.push_lens_pack(str(tmp_path / "1"), "org/lens-toy-small").is_new
    with pytest.raises(PackError, match=r"has a version 1\.0\.0 already, with other content \(index\.json"):
        registry.push_lens_pack(str(lens_pack(tmp_path / "2", changed=("Food03",))), "org/lens-toy-small")
    assert hub.repos["org/lens-toy-small"].commits[-1] == first.revision


def test_a_push_removes_what_the_pack_no_longer_has(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made")
    publish(hub, made, "org/lens-toy-small")
    hub.repos["org/lens-toy-small"].trees[hub.repos["org/lens-toy-small"].commits[-1]]["old.md"] = b"old"
    registry.push_lens_pack(str(made), "org/lens-toy-small")
    newest = hub.repos["org/lens-toy-small"]
    assert "old.md" not in newest.trees[newest.commits[-1]]
    assert ".gitattributes" in newest.trees[newest.commits[-1]]


def test_levels_come_one_by_one_and_are_told(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "org/lens-toy-small")
    pulled = registry.pull_lens_pack("toy_small", levels=[0])
    assert not (pulled.path / "level1.safetensors").exists()
    assert registry.status()[0].conditions == ("partial",)
    opened = registry.load_lens_pack("toy_small", layer=1, concept="food03")
    assert isinstance(opened, OpenedLens)
    assert (opened.term, registry.status()[0].conditions) == ("Food03", ("ok",))
    with pytest.raises(UsageError, match="has no level 7: it has 0, 1"):
        registry.pull_lens_pack("toy_small", levels=[7])


def test_levels_are_pushed_one_by_one_and_leave_the_others(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made")
    for level in (0, 1):
        registry.push_lens_pack(str(made), "org/lens-toy-small", levels=[level])
    repo = hub.repos["org/lens-toy-small"]
    assert {"level0.safetensors", "level1.safetensors"} <= repo.trees[repo.commits[-1]].keys()
    assert repo.tags == {}


def test_a_part_is_not_pushed_as_the_whole(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "org/lens-toy-small")
    registry.pull_lens_pack("toy_small", levels=[0])
    with pytest.raises(UsageError, match=r"only levels \[0\] of toy_small are here"):
        registry.push_lens_pack("toy_small")


def test_a_missing_pack_is_pulled_when_it_is_loaded(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "org/lens-toy-small")
    opened = registry.load_lens_pack("toy-small", concept="Weather04")
    assert isinstance(opened, OpenedLens)
    assert opened.primary.block == 1


def test_only_changed_lenses_are_fetched(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "1", storage="float32"), "org/lens-toy-small")
    registry.pull_lens_pack("toy_small")
    # the version says the same: only the bytes tell that lenses were trained again
    publish(hub, lens_pack(tmp_path / "2", changed=("Weather11",), storage="float32"), "org/lens-toy-small")
    before = hub.sent
    pulled = registry.pull_lens_pack("toy_small")
    assert pulled.plan.lenses.changed == ("Weather11 at block 1",)
    assert pulled.plan.lenses.n_same == 25
    assert [patch.file.path for patch in pulled.plan.patches] == ["level1.safetensors"]
    assert {k: v for k, v in tree_of(pulled.path).items() if k != "README.md"} == tree_of(tmp_path / "2")
    assert pulled.saved > 0.3
    assert hub.sent - before < 0.7 * pulled.n_bytes_whole


def test_a_break_is_gone_on_from_where_it_was(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made", storage="float32")
    publish(hub, made, "org/lens-toy-small")
    hub.faults.cut_after = 100_000
    size = (made / "level1.safetensors").stat().st_size
    assert size > 300_000
    pulled = registry.pull_lens_pack("toy_small")
    assert tree_of(pulled.path) == tree_of(made)
    assert hub.sent < 1.05 * sum(map(len, tree_of(made).values()))


def test_what_came_before_a_failure_is_not_fetched_again(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made", storage="float32")
    publish(hub, made, "org/lens-toy-small")
    hub.faults.cut_after = 0
    with pytest.raises(RemoteError, match=r"3 times in a row\. What came so far is kept: repeat the command"):
        registry.pull_lens_pack("toy_small")
    assert registry.list_lens_packs()[0]["source"] == "bundled"
    hub.faults.cut_after, hub.faults.cuts_left = 200_000, 2
    hub.faults.corrupt = None
    registry.pull_lens_pack("toy_small")
    assert hub.sent < 1.05 * sum(map(len, tree_of(made).values()))


def test_a_server_without_ranges_is_no_obstacle(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made", storage="float32")
    publish(hub, made, "org/lens-toy-small")
    hub.faults.no_ranges, hub.faults.cut_after, hub.faults.cuts_left = True, 300_000, 1
    assert tree_of(registry.pull_lens_pack("toy_small").path) == tree_of(made)


@pytest.mark.parametrize("path", ["level1.safetensors", "pack.json"])
def test_a_file_that_is_not_what_the_hub_lists_is_refused(
    hub: Hub, registry: Registry, tmp_path: Path, path: str
) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "org/lens-toy-small")
    hub.faults.corrupt = path
    with pytest.raises(PackError, match=f"{path} from hf://org/lens-toy-small is not what it lists there"):
        registry.pull_lens_pack("toy_small")
    assert registry.ground.homes["lens"].names() == []


@pytest.mark.parametrize("path", ["../outside.json", "/etc/passwd", "a/../../b", "c:\\x", "concepts/a\nb"])
def test_a_path_that_leaves_the_pack_is_refused(hub: Hub, registry: Registry, tmp_path: Path, path: str) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "org/lens-toy-small")
    hub.faults.lies_about = path
    with pytest.raises(PackError, match="a pack holds plain relative paths only"):
        registry.pull_lens_pack("toy_small")
    assert registry.ground.homes["lens"].names() == []


def test_a_pack_that_is_broken_on_the_hub_is_not_installed(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    tree = tree_of(lens_pack(tmp_path / "made"))
    repo = hub.repo("org/lens-toy-small")
    repo.commit({**tree, "level1.safetensors": tree["level1.safetensors"][:-9]})
    with pytest.raises(PackError, match=r"is broken and not installed: .*level1\.safetensors is truncated"):
        registry.pull_lens_pack("toy_small")
    cyclic = tree_of(concept_pack(tmp_path / "concepts"))
    record = json.loads(cyclic["concepts/layer1/food00.json"])
    cyclic["concepts/layer1/food00.json"] = json.dumps(record | {"parent_concepts": ["Food01"]}).encode()
    hub.repo("org/concept-pack-small").commit(cyclic)
    with pytest.raises(PackError, match="is broken and not installed"):
        registry.pull_concept_pack("small")
    assert registry.list_concept_packs()[0]["source"] == "bundled"


def test_refusals_name_the_repository_and_the_way_out(
    hub: Hub, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "org/lens-toy-small")
    with pytest.raises(NotThere, match=r"org/lens-no-such on http://127.* does not exist \(404\): check the name"):
        registry.pull_lens_pack("no_such")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(RemoteError, match=r"answers 401: .*set HF_TOKEN to one that may read it"):
        registry.pull_lens_pack("no_such")
    with pytest.raises(RemoteError, match=r"answers 403: .*set HF_TOKEN to one that may write there"):
        registry.push_lens_pack(str(tmp_path / "made"), "org/lens-toy-small")
    hub.repos["org/lens-toy-small"].private = True
    with pytest.raises(RemoteError, match="answers 401: it is private, does not exist"):
        registry.pull_lens_pack("toy_small")
    hub.repos["org/lens-toy-small"].gated = True
    with pytest.raises(RemoteError, match=r"is gated \(401\): accept its terms"):
        registry.pull_lens_pack("toy_small")
    hub.faults.status = 500
    with pytest.raises(RemoteError, match="answers 500 for revision main"):
        registry.pull_lens_pack("toy_small")


def test_a_hub_that_stalls_is_an_error_and_not_a_wait(
    hub: Hub, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "org/lens-toy-small")
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.faults.stall_s = 0.6
    with pytest.raises(RemoteError, match=r"does not answer for revision main .*check the network and HF_ENDPOINT"):
        registry.pull_lens_pack("toy_small")
    with pytest.raises(RemoteError, match="does not answer for its versions"):
        registry.pull_lens_pack("toy_small", "1.0.0")


def test_offline_nothing_is_asked_for_and_what_is_here_opens(
    hub: Hub, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, concept_pack(tmp_path / "made"), "org/concept-pack-small")
    registry.pull_concept_pack("small")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert registry.load_concept_pack("small").name == "small"
    assert registry.status()[0].conditions == ("unknown",)
    assert registry.status(offline=True)[0].conditions == ("ok",)
    with pytest.raises(RemoteError, match=r"offline mode is on \(HF_HUB_OFFLINE\)"):
        registry.load_concept_pack("other")
    assert len(hub.requests) == asked


def test_what_was_changed_here_is_not_overwritten_unasked(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "1"), "org/lens-toy-small")
    pulled = registry.pull_lens_pack("toy_small")
    (pulled.path / "index.json").write_bytes((pulled.path / "index.json").read_bytes() + b"\n")
    assert registry.status()[0].changed_files == ("index.json",)
    assert registry.list_lens_packs()[0]["modified"] is True
    assert registry.verify("toy_small") == ("index.json",)
    with pytest.raises(PackError, match=r"toy_small was changed here since it was pulled \(index\.json\)"):
        registry.pull_lens_pack("toy_small")
    registry.pull_lens_pack("toy_small", force=True)
    assert registry.verify("toy_small") == ()
    assert registry.status()[0].conditions == ("ok",)


def test_a_pinned_pack_stays_where_it_is_pinned(hub: Hub, ground: Ground, tmp_path: Path) -> None:
    registry = Registry(ground)
    first = publish(hub, lens_pack(tmp_path / "1"), "org/lens-toy-small")
    registry.pull_lens_pack("toy_small")
    assert [pin.name for pin in registry.lock().packs] == ["toy_small"]
    publish(hub, lens_pack(tmp_path / "2", "1.1.0", changed=("Food",)), "org/lens-toy-small")
    elsewhere = Registry(Ground(tmp_path / "other", "org", ground.lockfile, pause=lambda s: None))
    assert "is pinned and not installed" in elsewhere.check_lock()[0]
    assert elsewhere.pull_lens_pack("toy_small").revision == first
    assert elsewhere.check_lock() == []
    assert elsewhere.pull_lens_pack("toy_small", update=True).version == "1.1.0"
    assert "toy_small is" in elsewhere.check_lock()[0]


def test_a_pin_whose_content_was_replaced_is_refused(hub: Hub, ground: Ground, tmp_path: Path) -> None:
    registry = Registry(ground)
    first = publish(hub, lens_pack(tmp_path / "1"), "org/lens-toy-small")
    registry.pull_lens_pack("toy_small")
    registry.lock()
    hub.repos["org/lens-toy-small"].trees[first] = tree_of(lens_pack(tmp_path / "2", changed=("Food",)))
    elsewhere = Registry(Ground(tmp_path / "other", "org", ground.lockfile, pause=lambda s: None))
    with pytest.raises(PackError, match=r"packs\.lock pins .*not installed"):
        elsewhere.pull_lens_pack("toy_small")
    assert elsewhere.ground.homes["lens"].names() == []


def test_a_tag_that_lies_about_its_version_is_refused(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "1", "1.0.0"), "org/lens-toy-small", version="3.0.0")
    with pytest.raises(PackError, match=r"tags 3\.0\.0 what calls itself 1\.0\.0: not installed"):
        registry.pull_lens_pack("toy_small", "3.0.0")


def test_a_pack_of_the_other_kind_is_refused(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "1"), "org/lens-toy-small")
    with pytest.raises(UsageError, match="is a lens pack, a concept pack was asked for"):
        registry.pull_concept_pack("toy_small", source="hf://org/lens-toy-small")
    hub.repo("org/concept-pack-x").commit({"readme.txt": b"x"})
    with pytest.raises(PackError, match="holds no pack: a concept pack has"):
        registry.pull_concept_pack("x")


def test_a_bare_name_is_looked_for_as_both_kinds(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, concept_pack(tmp_path / "made"), "org/concept-pack-small")
    assert registry.kind_of("small") == "concept"
    assert registry.kind_of("lens-anything") == "lens"
    with pytest.raises(NotThere, match="the hub has no lens pack and no concept pack nothing of org"):
        registry.kind_of("nothing")


def test_a_push_of_an_installed_pack_makes_it_the_source(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    registry.pull_concept_pack("small", source=str(concept_pack(tmp_path / "made")))
    registry.fork("small", "mine")
    pushed = registry.push_concept_pack("mine", "tester/concept-pack-mine")
    entry = read_state(registry.ground.homes["concept"].folder).packs["mine"]
    assert (entry.source, entry.revision) == ("hf://tester/concept-pack-mine", pushed.revision)
    assert entry.based_on == "small@1.0.0"


def test_the_command_line_goes_to_the_hub_that_the_environment_names(hub: Hub, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "made"), "me/lens-toy-small")
    hub.repos["me/lens-toy-small"].private = True
    told = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "FTW_HUB_ORG": "me"}
    env = {**os.environ, **told, "FTW_PACKS_DIR": str(tmp_path / "home")}
    command = [sys.executable, "-m", "ftw", "pack", "pull", "lens-toy-small", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["packs"][0]["source"] == "hf://me/lens-toy-small"
    assert tree_of(tmp_path / "home" / "lens_packs" / "toy_small") == tree_of(tmp_path / "made")


def test_a_push_that_the_hub_does_not_take_is_told(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    hub.repo("org/lens-toy-small")
    hub.faults.refuse_uploads = True
    with pytest.raises(RemoteError, match=r"did not take the upload: Error while uploading .*Try again"):
        registry.push_lens_pack(str(lens_pack(tmp_path / "made")), "org/lens-toy-small")
    assert len(hub.repos["org/lens-toy-small"].commits) == 1


def test_a_name_that_no_repository_has_is_refused(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a--b/x is no repository's name"):
        registry.pull_lens_pack("x", source="hf://a--b/x")


def test_a_level_file_whose_header_lies_is_refused(hub: Hub, registry: Registry, tmp_path: Path) -> None:
    publish(hub, lens_pack(tmp_path / "1", storage="float32"), "org/lens-toy-small")
    registry.pull_lens_pack("toy_small")
    tree = tree_of(lens_pack(tmp_path / "2", "1.1.0", changed=("Food03",), storage="float32"))
    hub.repos["org/lens-toy-small"].commit({**tree, "level1.safetensors": tree["level1.safetensors"] + b"more"})
    with pytest.raises(PackError, match="is not as long as its header says: it is damaged there"):
        registry.pull_lens_pack("toy_small")
    assert registry.verify("toy_small") == ()

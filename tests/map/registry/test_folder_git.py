"""Packs from a shared folder and from git come and go as those of the hub do."""

import os
import subprocess
from pathlib import Path

import pytest

from ftw.map.registry import Registry
from ftw.map.registry.backends import open_backend, split_revision
from ftw.map.registry.git import GitBackend
from ftw.substrate.errors import ConfigError, MissingExtra, NotThere, PackError, RemoteError, StorageError, UsageError
from tests.map.registry.packs import concept_pack, lens_pack, tree_of


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """An empty git repository that can be pushed to."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "bare.git")], check=True)
    return f"git+file://{tmp_path / 'bare.git'}"


def git(*words: str, at: Path) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return subprocess.run(["git", "-C", str(at), *who, *words], check=True, capture_output=True, text=True).stdout


def test_a_folder_is_a_source(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "shared")
    pulled = registry.pull_lens_pack("toy_small", source=str(made))
    assert (pulled.source, tree_of(pulled.path)) == (f"file:{made}", tree_of(made))
    assert registry.status()[0].conditions == ("ok",)
    assert not registry.pull_lens_pack("toy_small").is_new
    lens_pack(made, "1.1.0", changed=("Food03",))
    assert registry.status()[0].conditions == ("outdated",)
    assert registry.pull_lens_pack("toy_small").version == "1.1.0"


def test_a_folder_holds_one_revision(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "shared")
    first = registry.pull_lens_pack("toy_small", source=str(made)).revision
    assert registry.pull_lens_pack("toy_small", revision=first[:8]).revision == first
    with pytest.raises(NotThere, match="a folder keeps one revision only"):
        registry.pull_lens_pack("toy_small", revision="0123")
    with pytest.raises(NotThere, match=r"has no version 9\.9\.9; tagged there: 1\.0\.0"):
        registry.pull_lens_pack("toy_small", "9.9.9")
    with pytest.raises(NotThere, match="there is no folder"):
        registry.pull_lens_pack("toy_small", source=str(tmp_path / "nowhere"), force=True)


def test_a_push_into_a_folder_is_whole_or_refused(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made")
    target = tmp_path / "shared" / "pack"
    pushed = registry.push_lens_pack(str(made), str(target))
    assert pushed.is_new
    assert {k: v for k, v in tree_of(target).items() if k != "README.md"} == tree_of(made)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="is not empty and holds no pack"):
        registry.push_lens_pack(str(made), str(tmp_path / "papers"))
    assert (tmp_path / "papers" / "mine.txt").read_text() == "keep me"


def test_a_push_of_levels_into_a_folder_leaves_the_others(registry: Registry, tmp_path: Path) -> None:
    made, target = lens_pack(tmp_path / "made"), tmp_path / "shared"
    for level in (0, 1):
        registry.push_lens_pack(str(made), str(target), levels=[level])
    assert {"level0.safetensors", "level1.safetensors"} <= {p.name for p in target.iterdir()}
    with pytest.raises(UsageError, match=r"has no level 4 here: it has \[0, 1\]"):
        registry.push_lens_pack(str(made), str(target), levels=[4])


def test_a_folder_that_cannot_be_written_is_told(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        registry.push_lens_pack(str(made), str(tmp_path / "file" / "below"))


def test_a_link_in_a_pack_is_refused(registry: Registry, tmp_path: Path) -> None:
    made = concept_pack(tmp_path / "made")
    (made / "concepts" / "layer1" / "secret.json").symlink_to("/etc/passwd")
    with pytest.raises(PackError, match="is a link: a pack holds plain files"):
        registry.pull_concept_pack("small", source=str(made))


def test_a_git_repository_is_a_source_and_a_target(registry: Registry, tmp_path: Path, bare: str) -> None:
    with pytest.raises(NotThere, match="has no commit yet"):
        registry.pull_lens_pack("toy_small", source=bare)
    one = registry.push_lens_pack(str(lens_pack(tmp_path / "1", storage="float32")), bare)
    made = lens_pack(tmp_path / "2", "1.1.0", changed=("Food03",), storage="float32")
    two = registry.push_lens_pack(str(made), bare)
    assert one.revision != two.revision
    assert registry.pull_lens_pack("toy_small", "1.0.0", source=bare).revision == one.revision
    assert registry.status()[0].conditions == ("outdated",)
    pulled = registry.pull_lens_pack("toy_small")
    assert {k: v for k, v in tree_of(pulled.path).items() if k != "README.md"} == tree_of(made)
    assert pulled.plan.lenses.changed == ("Food03 at block 1",)
    assert [patch.file.path for patch in pulled.plan.patches] == ["level1.safetensors"]
    assert registry.pull_lens_pack("toy_small", revision=one.revision, force=True).version == "1.0.0"
    with pytest.raises(NotThere, match="has no branch or tag beef"):
        registry.pull_lens_pack("toy_small", revision="beef")


def test_a_revision_may_stand_behind_an_address(registry: Registry, tmp_path: Path, bare: str) -> None:
    one = registry.push_concept_pack(str(concept_pack(tmp_path / "1")), bare)
    registry.push_concept_pack(str(concept_pack(tmp_path / "2", "2.0.0")), bare)
    assert registry.pull_concept_pack("small", source=f"{bare}@v1.0.0").revision == one.revision
    assert split_revision("git+ssh://git@host/x.git") == ("git+ssh://git@host/x.git", None)
    assert split_revision("hf://org/repo@v1") == ("hf://org/repo", "v1")


def test_a_link_in_a_git_repository_is_refused(registry: Registry, tmp_path: Path) -> None:
    made = concept_pack(tmp_path / "made")
    (made / "notes").symlink_to("/etc")
    git("init", "-q", "-b", "main", at=made)
    git("add", "-A", at=made)
    git("commit", "-qm", "x", at=made)
    with pytest.raises(PackError, match="holds notes, a link or a submodule"):
        registry.pull_concept_pack("small", source=f"git+file://{made}")


def test_a_pointer_of_git_lfs_is_no_file(registry: Registry, tmp_path: Path) -> None:
    made = lens_pack(tmp_path / "made")
    (made / "level1.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    git("init", "-q", "-b", "main", at=made)
    git("add", "-A", at=made)
    git("commit", "-qm", "x", at=made)
    with pytest.raises(RemoteError, match=r"level1\.safetensors of file://.* is stored by git-lfs"):
        registry.pull_lens_pack("toy_small", source=f"git+file://{made}")


def test_a_git_repository_that_is_not_there_is_told(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"git ls-remote of file:///.*no\.git failed: .*Check the address"):
        registry.pull_lens_pack("toy_small", source=f"git+file://{tmp_path}/no.git")
    with pytest.raises(ConfigError, match="is no git repository: write git"):
        GitBackend("git+ext::sh -c evil", tmp_path)


@pytest.mark.parametrize("address", ["hf://one", "hf://a/b/c", "plain", "git+ftp://x/y"])
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="is no "):
        open_backend(address, work=tmp_path)


def test_a_machine_without_git_is_told(registry: Registry, bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingExtra, match="packs from git need the git command"):
        registry.pull_concept_pack("small", source=bare)


def test_a_git_server_that_stalls_is_told(
    registry: Registry, bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("ftw.map.registry.git.PATIENCE_S", 0.2)
    with pytest.raises(RemoteError, match="did not answer git within 0 s"):
        registry.pull_concept_pack("small", source=bare)

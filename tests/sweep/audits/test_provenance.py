"""Provenance: what made a run, read from where it stands."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ftw
from ftw.substrate.checkpoint import Checkpoint
from ftw.substrate.config import ModelSpec
from ftw.substrate.model import Model, load
from ftw.sweep.audits.provenance import capture, commit, revision, tokenizer_sha256
from ftw.sweep.lenses.logit import LogitLens

SHA, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of this project with the package in `src/ftw`, its head on a branch."""
    (tmp_path / "src" / "ftw").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "ftw-transparency"\n')
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text(f"{SHA}\n")
    return tmp_path


def test_the_commit_of_a_checkout_is_read_from_its_files(checkout: Path) -> None:
    assert commit(checkout / "src" / "ftw") == SHA


def test_a_detached_head_is_its_own_commit(checkout: Path) -> None:
    (checkout / ".git" / "HEAD").write_text(f"{OTHER}\n")
    assert commit(checkout / "src" / "ftw") == OTHER


def test_a_packed_branch_is_found(checkout: Path) -> None:
    (checkout / ".git" / "refs" / "heads" / "main").unlink()
    (checkout / ".git" / "packed-refs").write_text(f"# pack-refs\n{OTHER} refs/heads/x\n{SHA} refs/heads/main\n")
    assert commit(checkout / "src" / "ftw") == SHA


def test_a_worktree_points_to_its_folder_and_shares_its_branches(checkout: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "src" / "ftw").mkdir(parents=True)
    (tree / "pyproject.toml").write_text('name = "ftw-transparency"\n')
    own = checkout / ".git" / "worktrees" / "tree"
    own.mkdir(parents=True)
    (tree / ".git").write_text(f"gitdir: {own}\n")
    (own / "HEAD").write_text("ref: refs/heads/main\n")
    (own / "commondir").write_text("../..\n")
    assert commit(tree / "src" / "ftw") == SHA
    (tree / ".git").write_text("nothing\n")
    assert commit(tree / "src" / "ftw") is None


def test_another_projects_checkout_is_not_our_commit(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert commit(checkout / "src" / "ftw") is None


def test_outside_a_checkout_and_before_a_first_commit_there_is_none(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".git" / "refs" / "heads" / "main").unlink()
    assert commit(checkout / "src" / "ftw") is None
    (checkout / ".git" / "HEAD").write_text("ref: HEAD\n")  # points to itself
    assert commit(checkout / "src" / "ftw") is None
    (checkout / ".git" / "HEAD").write_text("nonsense\n")
    assert commit(checkout / "src" / "ftw") is None


def test_the_commit_is_the_one_that_git_names() -> None:
    root = Path(ftw.__file__).parents[2]
    if not (root / ".git").exists():
        assert commit() is None
        return
    named = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    assert commit() == named.stdout.strip()


def test_what_made_a_run_is_plain_json_and_comes_again() -> None:
    model = load("tiny")
    found = capture(model, [LogitLens(model.arch)], seed=7, battery={"name": "b", "version": "1"})
    assert found == capture(model, [LogitLens(model.arch)], seed=7, battery={"name": "b", "version": "1"})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["model"]["fingerprint"] == model.fingerprint
    assert found["lenses"] == [{"name": "logit", "digest": "logit"}]
    assert found["code"]["version"] == ftw.__version__
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in found["versions"]["torch"]
    assert (found["seed"], found["dtype"], found["device"]["type"]) == (7, "float32", "cpu")


def test_determinism_is_what_torch_is_set_to() -> None:
    model = load("tiny")
    was = torch.are_deterministic_algorithms_enabled()
    assert capture(model)["determinism"]["deterministic_algorithms"] is was
    torch.use_deterministic_algorithms(not was)
    try:
        assert capture(model)["determinism"]["deterministic_algorithms"] is not was
    finally:
        torch.use_deterministic_algorithms(was)


def test_a_tokenizers_hash_is_of_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model, again = load("tiny"), load("tiny")
    assert model.tokenizer is not None
    assert again.tokenizer is not None
    digest = tokenizer_sha256(model)
    assert digest is not None
    assert len(digest) == 64
    again.tokenizer("a b", truncation=True, max_length=4, padding="max_length")  # leaves settings behind
    assert tokenizer_sha256(again) == digest
    again.tokenizer.add_tokens(["<new>"])
    assert tokenizer_sha256(again) != digest
    assert tokenizer_sha256(replace(model, tokenizer=None)) is None


def test_a_slow_tokenizers_hash_is_of_its_vocabulary() -> None:
    class Slow:
        all_special_tokens = ("<s>",)

        def __init__(self, vocab: dict[str, int]) -> None:
            self.vocab = vocab

        def get_vocab(self) -> dict[str, int]:
            return self.vocab

    model = load("tiny")

    def digest(vocab: dict[str, int]) -> str | None:
        stand_in = object.__new__(Model)
        stand_in.__dict__.update(model.__dict__ | {"tokenizer": Slow(vocab)})
        return tokenizer_sha256(stand_in)

    assert digest({"a": 0, "b": 1}) == digest({"b": 1, "a": 0})
    assert digest({"a": 0}) != digest({"a": 1})


def test_the_revision_of_a_hub_model_is_its_snapshots_commit(tmp_path: Path) -> None:
    model = load("tiny")
    assert revision(model) is None
    asked = replace(model, spec=ModelSpec(name="org/name", revision="v2"))
    assert revision(asked) == "v2"
    folder = tmp_path / "snapshots" / SHA
    downloaded = replace(asked, checkpoint=Checkpoint(folder, {}, ()))
    assert revision(downloaded) == SHA
    assert revision(replace(asked, checkpoint=Checkpoint(tmp_path, {}, ()))) == "v2"

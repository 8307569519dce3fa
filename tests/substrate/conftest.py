"""Folders with models in them: whole, sharded, and as the hub caches them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from ftw.substrate.bundled import tiny_net, tiny_tokenizer


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder with a tokenizer."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_net().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    tiny_net().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    return tmp_path / "model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path) -> Callable[[], Path]:
    """A hub cache in which org/name lies; the network is off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def fill(source: Path = saved) -> Path:
        repo = tmp_path / "models--org--name"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text("a" * 40)
        return Path(shutil.copytree(source, repo / "snapshots" / ("a" * 40)))

    return fill

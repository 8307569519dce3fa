"""A registry in an empty folder, and a hub on loopback that the real huggingface_hub client talks to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils._http import close_session

from ftw.map.registry import Ground, Registry
from tests.hub_server import TOKEN, Hub, serve_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub, which HF_ENDPOINT would name; this user may write there."""
    close_session()
    with serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served
        close_session()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """An empty registry's ground, whose clock stands still."""
    return Ground(
        tmp_path / "home",
        "org",
        tmp_path / "packs.lock",
        now=lambda: "2026-01-02T03:04:05Z",
        pause=lambda seconds: None,
        patience_s=2.0,
    )


@pytest.fixture
def registry(ground: Ground) -> Registry:
    """The registry there."""
    return Registry(ground)

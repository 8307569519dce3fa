"""The package itself: what importing it costs, and that every room says what it is."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import ftw

ROOMS = [name for _, name, is_package in pkgutil.walk_packages(ftw.__path__, "ftw.") if is_package]


def test_importing_ftw_loads_no_heavy_library() -> None:
    code = "import sys, ftw; print([m for m in ('torch', 'transformers', 'numpy', 'pydantic') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is(room: str) -> None:
    doc = importlib.import_module(room).__doc__
    assert doc is not None
    assert len(doc.strip()) > 20

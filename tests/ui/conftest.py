"""Running the real command line in this process: same entry, same exit codes, captured streams."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftw.ui.cli import run


@dataclass(frozen=True)
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    def failed(self, code: int) -> str:
        """The one line of an error with this exit code."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("ftw: ")
        return lines[0]


Ftw = Callable[..., Ran]


@pytest.fixture
def ftw(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ftw:
    """Runs `ftw` with arguments. What it serves is journalled in the test's own folder."""
    monkeypatch.setenv("POC_JOURNAL", str(tmp_path / "poc.sqlite"))

    def call(*argv: str) -> Ran:
        capfd.readouterr()
        code = run(argv)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call

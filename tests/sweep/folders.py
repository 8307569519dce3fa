"""Folders of models for tests."""

import json
from pathlib import Path
from typing import Any

import ftw

REFERENCE = Path(ftw.__file__).parent / "bundled" / "reference-model"


def reference_with(folder: Path, **changes: Any) -> Path:
    """The bundled model's files in a folder of their own, with keys of its config changed."""
    folder.mkdir()
    for file in REFERENCE.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder

"""A finished run, read from its folder: document and rows, each whole, and of one run.

The rule of the file: what a report or a comparison relies on is looked for here, once, and what is missing is named.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftw.substrate.errors import ConfigError
from ftw.sweep.files.parquet import ROWS, read_rows, rows_sha256
from ftw.sweep.files.rundir import DOCUMENT, read_document
from ftw.sweep.table import SweepTable

NEEDED = ("model", "provenance", "sweep", "thresholds", "prompts")
"""The blocks of a finished run's document that are read without asking whether they are there."""
OF_PROMPT: Mapping[str, tuple[type, ...]] = {"kind": (str,), "text": (str, type(None)), "milestones": (dict,)}


def read_finished(folder: Path) -> tuple[dict[str, Any], SweepTable]:
    """Document and rows of a run that ended well.

    Raises ConfigError with the run's own error where it did not, naming file and key where the document is not whole,
    or where document and rows are of two runs; and as `read_document` and `read_rows`.
    """
    document = read_document(folder)
    require_ok(document, folder)
    _require_whole(folder / DOCUMENT, document)
    said = (document.get("rows") or {}).get("sha256")  # a run of an earlier version does not say it
    if said is not None and said != (found := rows_sha256(folder)):
        raise ConfigError(
            f"{folder / DOCUMENT} tells of rows with SHA-256 {said[:8]}, {ROWS} beside it has {found[:8]}: they are "
            "not of one run. Copy the whole folder again, or sweep again"
        )
    return document, read_rows(folder)


def require_ok(document: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError, with the run's own error, for one that did not end well."""
    if document["status"] != "ok":
        error = document.get("error") or {}
        why = f": {error['type']}: {error['message']}" if error else ""
        raise ConfigError(
            f"the run in {folder} is {document['status']}{why}. Its rows may be there, its conclusions are not: "
            "sweep again, with --resume to take up what was finished"
        )


def _require_whole(file: Path, document: Mapping[str, Any]) -> None:
    lost = [name for name in NEEDED if document.get(name) is None]
    if lost:
        raise ConfigError(f"{file} is not the whole document of a sweep: it has no {lost[0]!r}. Sweep again")
    if "name" not in document["model"]:
        raise ConfigError(f"{file} is not the whole document of a sweep: it has no 'model.name'. Sweep again")
    for index, prompt in enumerate(document["prompts"]):
        for key, kinds in OF_PROMPT.items():
            if key not in prompt:
                raise ConfigError(f"{file}: prompts[{index}] has no {key!r}: it is not what was written. Sweep again")
            if not isinstance(prompt[key], kinds):
                raise ConfigError(
                    f"{file}: prompts[{index}].{key} is a {type(prompt[key]).__name__}, not a {kinds[0].__name__}: "
                    "it is not what was written. Sweep again"
                )

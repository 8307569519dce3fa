"""The shelf: which lenses a model is read through, by name, and where the fitted ones are found.

A fitted lens lies in the folder that is named, in one that ships with ftw, or in the cache where `ftw sweep fit-tuned`
and `fit-prism` put it; the first that was made for this very model is taken, one that was accepted before one that was
not. By default only accepted ones are.

The rule of the file: a lens that is asked for by name is there, or is an error. What is left out by default is told.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ftw.substrate.errors import ConfigError, FingerprintMismatch
from ftw.substrate.model import Model
from ftw.sweep.fitting.foreign import open_tuned
from ftw.sweep.lenses import VocabLens
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.prism import load_prism
from ftw.sweep.lenses.views import VIEWS, view

Opener = Callable[[Path, Model], VocabLens]
FITTED: Mapping[str, Opener] = {"tuned": open_tuned, "prism": load_prism}
"""Lenses that are fitted, by name, and what reads one from its folder. A folder's manifest says `kind: NAME-lens`."""
NAMES = ("logit", *VIEWS, *FITTED)
"""Everything that `--lens` can name."""
HOME = "vocab-lenses"
"""The folder of fitted lenses, in the package and in the cache."""


@dataclass(frozen=True)
class Shelf:
    """The lenses of a run."""

    lenses: tuple[VocabLens, ...]
    """Those that are read at every position, the logit lens first."""
    at_end: tuple[VocabLens, ...]
    """Those that are read at last positions only."""
    notes: tuple[str, ...]
    """What was left out or taken with a reservation, a line each."""


def homes(cache_dir: Path | None) -> tuple[Path, ...]:
    """The folders that fitted lenses are looked for in: the cache's before those that ship."""
    bundled = Path(str(files("ftw"))) / "bundled" / HOME
    return (*([cache_dir / HOME] if cache_dir is not None else []), bundled)


def home_of(model: Model, name: str, cache_dir: Path) -> Path:
    """Where a lens that is fitted now is kept, so that it is found again."""
    return cache_dir / HOME / f"{model.fingerprint[:16]}-{name}"


def open_lenses(
    model: Model,
    names: Sequence[str] | None = None,
    *,
    tuned: Path | None = None,
    prism: Path | None = None,
    folders: Sequence[Path] = (),
) -> Shelf:
    """The lenses of these names; without names those that can be trusted by default.

    By default: the logit lens at every position that is read, the norm views that the model has at last positions only,
    a fitted lens where it was accepted, or where its folder is named. Raises ConfigError for a name that is not known,
    stands twice, or has no lens to it, and what reading a lens's folder raises.
    """
    named = {"tuned": tuned, "prism": prism}
    if names is not None:
        _check(names, named)
    notes: list[str] = []
    lenses: list[VocabLens] = [LogitLens(model.arch)]
    at_end: list[VocabLens] = []
    for name in VIEWS:
        if names is None:
            try:
                at_end.append(view(model, name))
            except ConfigError as error:
                notes.append(str(error))
        elif name in names:
            lenses.append(view(model, name))
    for fitted, read in FITTED.items():
        if names is not None and fitted not in names:
            continue
        found = named[fitted] or _find(model, fitted, folders, notes, is_wanted=names is not None)
        if found is not None:
            lenses.append(read(found, model))
            notes += _reservations(fitted, found)
    return Shelf(tuple(lenses), tuple(at_end), tuple(notes))


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a lens's folder; empty where there is none that can be read."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_accepted(manifest: Mapping[str, Any]) -> bool:
    """Whether a lens passed its test on held-out text."""
    return manifest.get("accepted") is True


def _reservations(name: str, folder: Path) -> list[str]:
    """What is to be said of a lens that is taken."""
    manifest = manifest_of(folder)
    if is_accepted(manifest):
        return []
    if manifest.get("acceptance") is None:
        return [f"the {name} lens in {folder} was not judged on held-out text here: read its figures with care"]
    return [f"the {name} lens in {folder} did not pass its acceptance: read its figures with care"]


def _check(names: Sequence[str], named: Mapping[str, Path | None]) -> None:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ConfigError(f"there is no lens {unknown[0]!r}: use {', '.join(NAMES)}")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"lenses are {', '.join(names) or 'none'}: name at least one, each once")
    for name, folder in named.items():
        if folder is not None and name not in names:
            raise ConfigError(f"--{name} gives a folder, but {name} is not among the lenses {', '.join(names)}: add it")


def _find(model: Model, name: str, folders: Sequence[Path], notes: list[str], *, is_wanted: bool) -> Path | None:
    """The folder of a fitted lens for this model. None where it is not wanted by name, and nothing is to be offered."""
    mine: list[tuple[bool, Path]] = []
    others = 0
    for home in folders:
        for folder in sorted(home.iterdir()) if home.is_dir() else []:
            manifest = manifest_of(folder)
            if manifest.get("kind") != f"{name}-lens":
                continue
            if (manifest.get("model") or {}).get("fingerprint") == model.fingerprint:
                mine.append((is_accepted(manifest), folder))
            else:
                others += 1
    accepted = [folder for ok, folder in mine if ok]
    if accepted:
        return accepted[0]
    if mine and is_wanted:
        return mine[0][1]
    if mine:
        notes.append(
            f"the {name} lens in {mine[0][1]} did not pass its acceptance and is left out: --lens {name} takes it"
        )
    elif is_wanted:
        kind = FingerprintMismatch if others else ConfigError
        known = f" ({others} for other models)" if others else ""
        raise kind(
            f"there is no {name} lens for {model.name} {model.fingerprint[:8]}{known}: fit one with "
            f"`ftw sweep fit-{name} {model.name}`, or give its folder with --{name}"
        )
    return None

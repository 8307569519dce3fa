"""The shelf: which lenses a model is read through, by name, and where the fitted ones are found.

A fitted lens lies in the folder that is named, in one that ships with ftw, or in the cache where `ftw sweep fit-tuned`
and `fit-prism` put it; the first that was made for this very model is taken, one that was accepted before one that was
not. By default only accepted ones are.

The rule of the file: a lens that is asked for by name is there, or is an error. What is left out by default is told.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ftw.substrate.checkpoint import read_header
from ftw.substrate.errors import ConfigError, FingerprintMismatch, PackError
from ftw.substrate.manifest import MANIFEST, TENSORS, read_manifest
from ftw.substrate.model import Model
from ftw.sweep.fitting import foreign
from ftw.sweep.lenses import VocabLens, logit, prism, views
from ftw.sweep.lenses.fitted import is_made_for
from ftw.sweep.lenses.kinds import Kind

KINDS: tuple[Kind, ...] = (logit.KIND, *views.KINDS, foreign.TUNED, prism.KIND)
"""Every lens that can be asked for by name, the logit lens first. A lens's file adds itself here, and nowhere else."""
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


def names() -> tuple[str, ...]:
    """Everything that `--lens` can name."""
    return tuple(kind.name for kind in KINDS)


def is_norm_view(name: str) -> bool:
    """Whether a lens only chooses a norm. One that is not listed (a lens of one's own) counts as learned."""
    return any(kind.name == name and kind.sort == "norm" for kind in KINDS)


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
    named: Mapping[str, Path] | None = None,
    folders: Sequence[Path] = (),
) -> Shelf:
    """The lenses of these names; without names those that can be trusted by default.

    By default: the logit lens at every position that is read, the norm views that the model has at last positions only,
    a fitted lens where it was accepted, or where its folder is among those `named`; else it is looked for in `folders`.
    Raises ConfigError for a name that is not known, stands twice, or has no lens to it, and what reading a lens's
    folder raises.
    """
    named = named or {}
    check(names, named)
    notes: list[str] = []
    lenses: list[VocabLens] = []
    at_end: list[VocabLens] = []
    for kind in KINDS:
        is_base = kind is KINDS[0]
        is_wanted = is_base or (names is not None and kind.name in names)
        if names is not None and not is_wanted:
            continue
        if kind.make is not None:
            try:
                (lenses if is_wanted else at_end).append(kind.make(model))
            except ConfigError as error:
                if is_wanted:
                    raise
                notes.append(str(error))
        if kind.read is not None:
            found = named.get(kind.name) or _find(model, kind, folders, notes, is_wanted=is_wanted)
            if found is not None:
                lenses.append(kind.read(found, model))
                notes += _reservations(kind.name, found)
    return Shelf(tuple(lenses), tuple(at_end), tuple(notes))


def check(names: Sequence[str] | None, named: Mapping[str, Path]) -> None:
    """What of a request is wrong whatever the model: raises ConfigError, with the lenses that there are."""
    known = {kind.name: kind for kind in KINDS}
    for name in (*(names or ()), *named):
        if name not in known:
            raise ConfigError(f"there is no lens {name!r}: use {', '.join(known)}")
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ConfigError(f"lenses are {', '.join(names) or 'none'}: name at least one, each once")
    for name in named:
        if known[name].read is None:
            fitted = ", ".join(each.name for each in KINDS if each.read is not None)
            raise ConfigError(f"the lens {name} has no folder: the model makes it. Folders are for {fitted}")
        if names is not None and name not in names:
            raise ConfigError(
                f"there is a folder for the lens {name}, but {name} is not among the lenses {', '.join(names)}: add it"
            )


def check_folder(name: str, folder: Path, *, fingerprint: Callable[[], str | None] = lambda: None) -> None:
    """What of a lens's folder is wrong without its model being loaded; where `fingerprint` knows one, also whose it is.

    Raises ConfigError for a folder that holds no lens, PackError for one that is damaged or of another kind,
    FingerprintMismatch for another model's, StorageError for what cannot be read.
    """
    kind = next(kind for kind in KINDS if kind.name == name)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}: give that of a {name} lens{_or_fit(kind)}")
    if not (folder / MANIFEST).is_file():
        if kind.foreign and all((folder / file).is_file() for file in kind.foreign):
            return
        raise ConfigError(f"{folder} holds no {name} lens: it has no {MANIFEST}. Give another folder{_or_fit(kind)}")
    manifest = read_manifest(folder)
    if manifest.get("kind") != kind.manifest:
        raise PackError(f"{folder / MANIFEST} is of kind {manifest.get('kind')!r}, not {kind.manifest!r}: give another")
    made_for, here = _made_for(manifest), fingerprint()
    if here is not None and made_for != here:
        raise FingerprintMismatch(
            f"{folder / MANIFEST}: this {name} lens was made for {str(made_for)[:8]}, the model is {here[:8]}: "
            f"give another folder{_or_fit(kind)}"
        )


def fitted_bytes(
    names: Sequence[str] | None,
    named: Mapping[str, Path],
    folders: Sequence[Path],
    *,
    n_layers: int,
    widths: Sequence[int],
) -> dict[str, int]:
    """What each fitted lens that a run may read takes in memory, in fp32, by name, from the headers of their files.

    Which lens it will be is not known before the model is: of those that fit its depth and one of its widths, the
    largest. Raises ModelBroken, StorageError for a file that cannot be read.
    """
    sizes: dict[str, int] = {}
    for kind in KINDS:
        if kind.read is None or (names is not None and kind.name not in names):
            continue
        found = [named[kind.name]] if kind.name in named else []
        for folder, manifest in [] if found else _of_kind(kind, folders):
            width = manifest.get("d_model", manifest.get("width"))
            is_offered = names is not None or is_accepted(manifest)
            if is_offered and manifest.get("n_layers") == n_layers and width in widths:
                found.append(folder)
        if found:
            sizes[kind.name] = max(map(_fp32_bytes, found))
    return sizes


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a lens's folder; empty where there is none that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_accepted(manifest: Mapping[str, Any]) -> bool:
    """Whether a lens passed its test on held-out text."""
    return manifest.get("accepted") is True


def _made_for(manifest: Mapping[str, Any]) -> Any:
    """The fingerprint of the model that a lens was made for."""
    model = manifest.get("model")
    return model.get("fingerprint") if isinstance(model, dict) else None


def _or_fit(kind: Kind) -> str:
    return f", or fit one with `{kind.fit}`" if kind.fit else ""


def _fp32_bytes(folder: Path) -> int:
    if (folder / TENSORS).is_file():
        return 4 * sum(entry.numel for entry in read_header(folder / TENSORS))
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0


def _reservations(name: str, folder: Path) -> list[str]:
    """What is to be said of a lens that is taken."""
    manifest = manifest_of(folder)
    notes = []
    if manifest and (manifest.get("model") or {}).get("config_sha256") is None:
        notes.append(
            f"the {name} lens in {folder} does not say for which config it was made: that its weights agree is all "
            "that is known"
        )
    if is_accepted(manifest):
        return notes
    if manifest.get("acceptance") is None:
        return [*notes, f"the {name} lens in {folder} was not judged on held-out text here: read its figures with care"]
    return [*notes, f"the {name} lens in {folder} did not pass its acceptance: read its figures with care"]


def _of_kind(kind: Kind, folders: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The lenses of a kind in these folders, in order, with their manifests."""
    for home in folders:
        for folder in sorted(home.iterdir()) if home.is_dir() else []:
            manifest = manifest_of(folder)
            if manifest.get("kind") == kind.manifest:
                yield folder, manifest


def _find(model: Model, kind: Kind, folders: Sequence[Path], notes: list[str], *, is_wanted: bool) -> Path | None:
    """The folder of a fitted lens for this model. None where it is not wanted by name, and nothing is to be offered."""
    name = kind.name
    mine: list[tuple[bool, Path]] = []
    others = 0
    for folder, manifest in _of_kind(kind, folders):
        if is_made_for(manifest, model):
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
        error = FingerprintMismatch if others else ConfigError
        known = f" ({others} for other models)" if others else ""
        how = f"fit one with `{kind.fit} {model.name}`, or " if kind.fit else ""
        raise error(
            f"there is no {name} lens for {model.name} {model.fingerprint[:8]}{known}: {how}give its folder with "
            f"--lens-folder {name}=FOLDER"
        )
    return None

"""Folders of `.pt` lenses as they were published: which lenses there are, at which blocks, and what is told of them.

Lenses lie in `layer{level}/`, `layer{level}/classifiers/` or `activation_lenses/layer{level}/`, as `Concept.pt` or
`Concept_classifier.pt`; simplexes in `simplexes/`. version_manifest.json may name a file per block for each lens; one
without `classifiers` says nothing of files. results.json is `{"results": [...]}` or an object by concept. Figures in
calibration.json are keyed `Concept_L{level}`.

The rule of the file: weights are not read here, and what a file says wrongly or leaves out is a note for the reader,
not a guess.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ftw.substrate.errors import PackError, StorageError

PACK_INFO, MANIFEST, RESULTS, CALIBRATION = (
    "pack_info.json",
    "version_manifest.json",
    "results.json",
    "calibration.json",
)
SIMPLEXES = "simplexes"
_LEVEL = re.compile(r"layer(\d+)")
_CALIBRATED = re.compile(r"(.+)_L(\d+)")
_DUAL = "activation_lens.pth"


@dataclass(frozen=True, slots=True)
class LegacyLens:
    """One lens file of a legacy pack and what the pack says of it."""

    term: str
    level: int
    file: Path
    block: int | None
    """None: the pack does not say."""
    metrics: dict[str, float] = field(default_factory=dict)
    trained: str | None = None
    primary: bool = True


@dataclass(frozen=True, slots=True)
class LegacyPack:
    """A legacy pack: its identity as far as it tells one, its lenses, its simplexes, what a person should know."""

    name: str
    version: str
    model: str | None
    concepts: str | None
    concepts_version: str | None
    training: dict[str, Any]
    lenses: tuple[LegacyLens, ...]
    simplexes: tuple[Path, ...]
    notes: tuple[str, ...]


def read_legacy(folder: Path) -> LegacyPack:
    """Everything that a legacy pack's folder says of itself. Raises PackError, StorageError."""
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder: name the folder that holds layer0, layer1, …")
    about, manifest = _object(folder / PACK_INFO), _object(folder / MANIFEST)
    calibration = _object(folder / CALIBRATION)
    notes: list[str] = []
    lenses = list(_from_manifest(folder, manifest)) or list(_from_folders(folder, notes))
    if not lenses:
        raise PackError(
            f"{folder} holds no lenses: none of layer*/*.pt, layer*/classifiers/*.pt, activation_lenses/layer*/*.pt"
        )
    lenses = _named_once(lenses, notes)
    results = _results(folder, {lens.level for lens in lenses}, notes)
    figures = _figures(calibration)
    block = calibration.get("model_layer")
    told = [_told(lens, results, figures, block if isinstance(block, int) else None) for lens in lenses]
    if figures:
        notes.append(
            "calibration.json becomes metrics of the lenses: its figures are of fired readings only, so that no "
            "calibrated score can be made of them"
        )
    training = about.get("training_config")
    return LegacyPack(
        name=str(manifest.get("lens_pack_id") or folder.resolve().name),
        version=str(manifest.get("current_version") or about.get("pack_version") or "1.0.0"),
        model=_text(about.get("model") or manifest.get("model")),
        concepts=_text(about.get("source_pack") or manifest.get("source_pack")),
        concepts_version=_text(about.get("pack_version")),
        training=training if isinstance(training, dict) else {},
        lenses=tuple(sorted(told, key=lambda lens: (lens.block is None, lens.block or 0, lens.level, lens.term))),
        simplexes=tuple(sorted((folder / SIMPLEXES).glob("*.pt"))),
        notes=tuple(notes),
    )


def _from_manifest(folder: Path, manifest: Mapping[str, Any]) -> Iterator[LegacyLens]:
    """A lens per classifier that the manifest names. Nothing where it is older and names none."""
    entries = manifest.get("lenses") or {}
    if not isinstance(entries, dict):
        raise PackError(f"{folder / MANIFEST}: lenses is {type(entries).__name__}, not an object by concept")
    for term, entry in entries.items():
        classifiers = entry.get("classifiers") if isinstance(entry, dict) else None
        if not isinstance(classifiers, dict):
            continue
        default = entry.get("default_layer")
        blocks = {
            int(key): value for key, value in classifiers.items() if isinstance(value, dict) and value.get("file")
        }
        primary = default if default in blocks else _preferred(blocks)
        for block, value in blocks.items():
            yield LegacyLens(
                term=str(term),
                level=entry["layer"] if isinstance(entry.get("layer"), int) else 0,
                file=_inside(folder, str(value["file"])),
                block=block,
                metrics=_numbers(value.get("metrics")),
                trained=_text(value.get("trained_at") or entry.get("trained_timestamp")),
                primary=block == primary,
            )


def _preferred(blocks: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The best block of the middle third, else of the late one, else of the early one, by F1."""
    for category in ("mid", "late", "early", None):
        among = [at for at, value in blocks.items() if category is None or value.get("category") == category]
        if among:
            return max(among, key=lambda at: _numbers(blocks[at].get("metrics")).get("test_f1", 0.0))
    return None


def _from_folders(folder: Path, notes: list[str]) -> Iterator[LegacyLens]:
    """A lens per `.pt` file of the level folders. Raises PackError for lenses of the early two-part generation."""
    for home in (folder, folder / "activation_lenses"):
        for place in sorted(home.glob("layer*")):
            match = _LEVEL.fullmatch(place.name)
            if match is None or not place.is_dir():
                continue
            dual = sorted(each.parent.name for each in place.glob(f"*/{_DUAL}"))
            if dual:
                raise PackError(
                    f"{place} holds {len(dual)} lenses in two parts ({dual[0]}/{_DUAL} and a text lens): their hidden "
                    "layer of 512 units does not fit into 128 without loss. Train them again with `ftw lens train`; "
                    "without these folders the rest can be imported"
                )
            named = [(_term(file), file) for file in _files(place)]
            files = dict(named)
            for term, file in sorted(named):
                plain = term.removesuffix("_refined")
                if plain != term and plain in files:
                    notes.append(f"{plain}: {file.name} is taken, its later training, not {files[plain].name}")
                if f"{term}_refined" not in files:
                    yield LegacyLens(plain, int(match[1]), file, None)


def _files(place: Path) -> list[Path]:
    return sorted([*place.glob("*.pt"), *(place / "classifiers").glob("*.pt")])


def _term(file: Path) -> str:
    return file.stem.removesuffix("_classifier")


def _named_once(lenses: list[LegacyLens], notes: list[str]) -> list[LegacyLens]:
    """The lenses with a term for one concept each: where two levels share one, the deeper is called `Term_L{level}`.

    Raises PackError for two files of one concept at one level and block.
    """
    top: dict[str, int] = {}
    seen: dict[tuple[str, int, int | None], LegacyLens] = {}
    for lens in lenses:
        other = seen.setdefault((lens.term.casefold(), lens.level, lens.block), lens)
        if other is not lens:
            raise PackError(f"{lens.file} and {other.file} are both of {lens.term} at level {lens.level}: remove one")
        top[lens.term.casefold()] = min(lens.level, top.get(lens.term.casefold(), lens.level))
    made = []
    for lens in lenses:
        deeper = lens.level != top[lens.term.casefold()]
        made.append(replace(lens, term=f"{lens.term}_L{lens.level}") if deeper else lens)
        if deeper:
            notes.append(f"{lens.term} stands at two levels: the one at level {lens.level} is {made[-1].term} now")
    return made


def _results(folder: Path, levels: set[int], notes: list[str]) -> dict[tuple[str, int | None], dict[str, Any]]:
    """What training said of each lens, by term and level (None: of the whole pack), from every results.json."""
    found: dict[tuple[str, int | None], dict[str, Any]] = {}
    hollow = 0
    places: list[tuple[Path, int | None]] = [(folder, None)]
    places += [(home / f"layer{level}", level) for home in (folder, folder / "activation_lenses") for level in levels]
    for place, level in places:
        value = _object(place / RESULTS)
        listed = value.get("results")
        entries = (
            {str(item.get("concept")): item for item in listed if isinstance(item, dict)}
            if isinstance(listed, list)
            else {str(term): item for term, item in value.items() if isinstance(item, dict)}
        )
        for term, item in entries.items():
            if item.get("test_f1") and item.get("test_precision") == 0 and item.get("test_recall") == 0:
                item = {key: each for key, each in item.items() if key not in ("test_precision", "test_recall")}
                hollow += 1
            found[term, level] = item
    if hollow:
        notes.append(f"precision and recall of {hollow} lenses are 0 beside an F1 above 0: not recorded, left out")
    return found


def _figures(calibration: Mapping[str, Any]) -> dict[tuple[str, int | None], dict[str, float]]:
    """The figures of calibration.json by term and level; a key without a level counts for every one."""
    entries = calibration.get("calibration", {})
    found: dict[tuple[str, int | None], dict[str, float]] = {}
    for key, value in entries.items() if isinstance(entries, dict) else ():
        match = _CALIBRATED.fullmatch(str(key))
        found[(match[1], int(match[2])) if match else (str(key), None)] = _numbers(value)
    return found


def _told(
    lens: LegacyLens,
    results: Mapping[tuple[str, int | None], dict[str, Any]],
    figures: Mapping[tuple[str, int | None], dict[str, float]],
    block: int | None,
) -> LegacyLens:
    """The lens with its figures, and its block where only results or calibration say it."""
    name = lens.term.removesuffix(f"_L{lens.level}")
    said = results.get((name, lens.level)) or results.get((name, None)) or {}
    blocks = said.get("selected_layers")
    if lens.block is None and isinstance(blocks, list) and len(blocks) == 1 and isinstance(blocks[0], int):
        lens = replace(lens, block=blocks[0])
    known = figures.get((name, lens.level)) or figures.get((name, None)) or {}
    left = {key: value for key, value in said.items() if key not in ("layer", "concept", "selected_layers")}
    metrics = {**_numbers(left), **_numbers(left.get("metrics")), **lens.metrics, **known}
    return replace(lens, metrics=metrics, block=block if lens.block is None else lens.block)


def _numbers(value: Any) -> dict[str, float]:
    """The finite numbers of an object; a truth value is none."""
    if not isinstance(value, dict):
        return {}
    return {
        str(key): float(each)
        for key, each in value.items()
        if isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _inside(folder: Path, name: str) -> Path:
    """A file that a manifest names. Raises PackError where the name leads out of the pack."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise PackError(f"{folder / MANIFEST} names {name!r}: a pack's files lie inside its folder")
    return folder / name


def _object(file: Path) -> dict[str, Any]:
    """The JSON object of a file, empty where there is none. NaN, which such files may hold, counts as not known."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise PackError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise PackError(f"{file} is {type(value).__name__}, not an object")
    return value

"""Legacy folders in and out: lenses in `.pt` files become a pack of ours, and a pack becomes such a folder.

An exported folder also holds ftw_index.json with what legacy files have no place for (calibration, thresholds, parents,
the pack's identity), so that what goes out and comes back is the same. Screens do not travel: a legacy lens has none.

The rule of the file: a conversion says what it could not carry over.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import JsonValue, ValidationError
from torch import Tensor

from ftw.hat.classifiers.index import ConceptPackId, LensRow, ModelId, PackInfo, complaints, read_json
from ftw.hat.classifiers.layout import level_of
from ftw.hat.classifiers.legacy import load_classifier, save_classifier
from ftw.hat.classifiers.legacy_pack import (
    CALIBRATION,
    MANIFEST,
    PACK_INFO,
    RESULTS,
    SIMPLEXES,
    LegacyLens,
    LegacyPack,
    read_legacy,
)
from ftw.hat.classifiers.lens import ConceptLens
from ftw.hat.classifiers.modules import HIDDEN, MLP, LinearProbe
from ftw.hat.classifiers.packfile import require_fresh
from ftw.hat.classifiers.store import Storage, load_pack, save_pack
from ftw.hat.classifiers.tensors import LensTensors
from ftw.hat.classifiers.tripole import SimplexRow, TripoleLens, load_simplexes, save_simplexes
from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError, UsageError
from ftw.substrate.manifest import canonical_json, write_atomically

OWN = "ftw_index.json"
"""What an exported folder holds besides the legacy files."""
_FIRED = ("self_mean", "self_std", "cross_mean", "cross_std", "cross_fire_rate", "gen_fire_rate")
"""The figures of a legacy calibration.json."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What a conversion did."""

    lenses: int
    blocks: tuple[int, ...]
    simplexes: int
    storage: Storage
    notes: tuple[str, ...]
    """What a person should know: what was left out, renamed or not known."""


class _Own(Strict):
    """ftw_index.json."""

    info: PackInfo
    rows: tuple[LensRow, ...]
    simplexes: tuple[SimplexRow, ...] = ()


def import_legacy(
    folder: Path,
    out: Path,
    *,
    model: ModelId,
    concepts: ConceptPackId | None = None,
    tree: Mapping[str, tuple[int, str | None]] | None = None,
    block: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Exchanged:
    """Write the pack `out` from the legacy pack in `folder`, made for `model`, its weights in the dtype they have.

    `tree` gives level and parent of each concept by name, as the concept pack has them; without it, levels are those of
    the folders and parents are not known. `block` is where lenses read whose files do not say it. Raises PackError for
    what is not a lens of ours or of another width, NumericError, StorageError, UsageError where a block is not known.
    """
    legacy = read_legacy(folder)
    require_fresh(out)
    own = _own(folder)
    notes = list(legacy.notes)
    known = {(row.term, row.block): row for row in own.rows} if own else {}
    lenses = sorted(_placed(legacy, block), key=lambda lens: _order(lens, known))
    rows: list[LensRow] = []
    blocks: dict[int, _Stack] = {}
    probes = 0
    for at, lens in enumerate(lenses):
        found = load_classifier(lens.file)
        if isinstance(found, TripoleLens):
            raise PackError(f"{lens.file} is a simplex, not a lens of a concept: put it into {folder / SIMPLEXES}")
        if isinstance(found, LinearProbe):
            found, probes = found.as_mlp(), probes + 1
        stack = blocks.setdefault(_block(lens), _Stack(sum(_block(o) == _block(lens) for o in lenses), model))
        rows.append(_row(lens, len(stack), known.get((lens.term, _block(lens))), tree or {}))
        stack.add(found, lens.file)
        progress("reading lenses", at + 1, len(lenses))
    dtypes = {stack.dtype for stack in blocks.values()}
    storage: Storage = "bfloat16" if dtypes == {torch.bfloat16} else "float32"
    notes += _remarks(rows, known, probes, {n for s in blocks.values() for n in s.seen}, tree)
    info = _info(legacy, own, model, concepts, tuple(sorted(blocks)), notes)
    simplexes = _simplexes(legacy, own, model, block)  # before anything is written: an import is whole or not there
    if simplexes is not None:
        save_simplexes(out, *simplexes)
    save_pack(out, info, rows, {at: blocks[at].tensors() for at in sorted(blocks)}, storage=storage)
    return Exchanged(len(rows), info.sites, len(simplexes[0]) if simplexes else 0, storage, tuple(notes))


def _placed(legacy: LegacyPack, block: int | None) -> list[LegacyLens]:
    """The lenses, each with its block. Raises UsageError where one's is not known."""
    unknown = [lens for lens in legacy.lenses if lens.block is None]
    if unknown and block is None:
        raise UsageError(
            f"the pack does not say which block {len(unknown)} of its {len(legacy.lenses)} lenses read (the first is "
            f"{unknown[0].term!r}): give it with --block"
        )
    return [lens if lens.block is not None else replace(lens, block=block) for lens in legacy.lenses]


def _order(lens: LegacyLens, known: Mapping[tuple[str, int], LensRow]) -> tuple[int, int]:
    """By block; in the order of the pack that was exported, if this is one."""
    row = known.get((lens.term, _block(lens)))
    return _block(lens), len(known) if row is None else row.row


def _block(lens: LegacyLens) -> int:
    assert lens.block is not None  # `_placed` saw to it
    return lens.block


class _Stack:
    """The lenses of one block, put together one by one: weights are held once."""

    def __init__(self, count: int, model: ModelId) -> None:
        self._count = count
        self._model = model
        self._w1: Tensor | None = None
        self._parts: list[MLP] = []
        self.seen: set[torch.dtype] = set()

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest dtype that holds them all."""
        return torch.bfloat16 if self.seen == {torch.bfloat16} else torch.float32

    def add(self, lens: MLP, file: Path) -> None:
        """Raises PackError for a lens of another width than the model's states."""
        weight = lens.first.weight.data
        if weight.shape[1] != self._model.d_model:
            raise PackError(
                f"{file} takes states of width {weight.shape[1]}, {self._model.name} has {self._model.d_model}: name "
                "the model that the pack was made for with --model"
            )
        self.seen.add(weight.dtype)
        if self._w1 is None:
            self._w1 = torch.empty(self._count, HIDDEN, self._model.d_model, dtype=weight.dtype)
        if self._w1.dtype != self.dtype:
            self._w1 = self._w1.to(self.dtype)
        self._w1[len(self)] = weight
        lens.first.weight.data = weight.new_empty(0)
        self._parts.append(lens.float())

    def tensors(self) -> LensTensors:
        """The weights in order, with screens that let every pair pass."""
        n, parts = self._count, self._parts
        assert self._w1 is not None
        return LensTensors(
            w1=self._w1,
            b1=torch.stack([lens.first.bias.data for lens in parts]),
            w2=torch.stack([lens.second.weight.data for lens in parts]),
            b2=torch.stack([lens.second.bias.data for lens in parts]),
            w3=torch.stack([lens.last.weight.data[0] for lens in parts]),
            b3=torch.stack([lens.last.bias.data[0] for lens in parts]),
            screen_w=torch.zeros(n, self._model.d_model),
            screen_b=torch.zeros(n),
            screen_threshold=torch.full((n,), float("-inf")),
        )


def _row(lens: LegacyLens, at: int, own: LensRow | None, tree: Mapping[str, tuple[int, str | None]]) -> LensRow:
    if own is not None:
        return own.model_copy(update={"row": at})
    level, parent = tree.get(lens.term, (lens.level, None))
    return LensRow(
        term=lens.term,
        block=_block(lens),
        row=at,
        level=level,
        parent=parent,
        metrics=lens.metrics,
        trained=lens.trained,
        primary=lens.primary,
    )


def _remarks(
    rows: Sequence[LensRow],
    known: Mapping[tuple[str, int], LensRow],
    probes: int,
    dtypes: Iterable[torch.dtype],
    tree: Mapping[str, tuple[int, str | None]] | None,
) -> list[str]:
    """What the conversion could not carry over."""
    notes = []
    bare = sum((row.term, row.block) not in known for row in rows)
    if bare:
        notes.append(f"{bare} lenses are not calibrated: p is sigmoid(logit), and a reading counts from p = 50 %")
    if tree is not None:
        strangers = sorted({row.term for row in rows if row.term not in tree})
        if strangers:
            notes.append(f"{len(strangers)} lenses are of no concept of the pack, {strangers[0]} among them")
    elif bare:
        notes.append("parents are not known: give the concept pack with --concepts")
    notes.append("screens are not part of legacy packs: every lens is computed at every state")
    if probes:
        notes.append(f"{probes} linear probes are kept as MLPs that give the same logits")
    if len(set(dtypes)) > 1:
        notes.append("lenses of several dtypes: kept in fp32")
    return notes


def _info(
    legacy: LegacyPack,
    own: _Own | None,
    model: ModelId,
    concepts: ConceptPackId | None,
    sites: tuple[int, ...],
    notes: Sequence[str],
) -> PackInfo:
    provenance: dict[str, JsonValue] = {"imported": "legacy .pt files", "notes": list(notes)}
    if own is not None:
        if own.info.model.fingerprint != model.fingerprint:
            raise PackError(
                f"{OWN} says that the pack was made for {own.info.model.name} ({own.info.model.fingerprint[:8]}), "
                f"--model is {model.name} ({model.fingerprint[:8]}): name the model it was made for"
            )
        return own.info.model_copy(update={"provenance": {**own.info.provenance, **provenance}, "sites": sites})
    if legacy.model:
        provenance["legacy_model"] = legacy.model
    named = ConceptPackId(name=legacy.concepts or "unknown", version=legacy.concepts_version or "unknown")
    return PackInfo(
        name=legacy.name,
        version=legacy.version,
        model=model,
        concept_pack=concepts or named,
        sites=sites,
        training=legacy.training,
        provenance=provenance,
    )


def _own(folder: Path) -> _Own | None:
    """What an earlier export left beside the lenses. Raises PackError where it is not that."""
    file = folder / OWN
    if not file.is_file():
        return None
    try:
        return _Own.model_validate(read_json(file))
    except ValidationError as error:
        raise PackError(f"{file}: {complaints(error)}; without it the folder is imported as any other") from error


def _simplexes(
    legacy: LegacyPack, own: _Own | None, model: ModelId, block: int | None
) -> tuple[list[SimplexRow], Tensor, Tensor] | None:
    """Rows, weight and bias of a legacy pack's simplexes, None where it has none."""
    if not legacy.simplexes:
        return None
    said = {row.name: row for row in own.simplexes} if own else {}
    rows, lenses = [], []
    for at, file in enumerate(legacy.simplexes):
        found = load_classifier(file, classifier_type="tripole")
        assert isinstance(found, TripoleLens)
        if found.linear.in_features != model.d_model:
            raise PackError(
                f"{file} takes states of width {found.linear.in_features}, {model.name} has {model.d_model}"
            )
        row = said.get(file.stem)
        if row is None and block is None:
            raise UsageError(f"the pack does not say which block the simplex {file.stem} reads: give it with --block")
        if row is None:
            poles = ("negative", "neutral", "positive")
            rows.append(SimplexRow(name=file.stem, block=block or 0, row=at, poles=poles))
        else:
            rows.append(row.model_copy(update={"row": at}))
        lenses.append(found.float().linear)
    weight = torch.stack([lens.weight.detach() for lens in lenses])
    return rows, weight, torch.stack([lens.bias.detach() for lens in lenses])


def export_legacy(folder: Path, out: Path, *, progress: Progress = lambda what, done, total: None) -> Exchanged:
    """Write the legacy pack `out` from the pack in `folder`: `layer{level}/Concept.pt` for the lens that speaks for a
    concept, `blocks/block{b}/layer{level}/Concept.pt` for its others, results, manifest, pack_info and ftw_index.json.

    `import_legacy` gives the same lenses back. Raises PackError for a partial pack or a term that is no file name.
    """
    require_fresh(out)
    files = load_pack(folder)
    if files.missing:
        raise PackError(f"{folder} is partial: level {files.missing[0]} is not there; pull it, then export")
    strange = [row.term for row in files.rows if Path(row.term).name != row.term or row.term.startswith(".")]
    if strange:
        raise PackError(f"the term {strange[0]!r} cannot be the name of a file: legacy packs name lenses so")
    names: dict[tuple[str, int], str] = {}
    for at, row in enumerate(files.rows):
        home = f"layer{level_of(row)}" if row.primary else f"blocks/block{row.block}/layer{level_of(row)}"
        names[row.term, row.block] = f"{home}/{row.term}.pt"
        (out / home).mkdir(parents=True, exist_ok=True)
        save_classifier(files.blocks[row.block].module(row.row), out / names[row.term, row.block])
        progress("writing lenses", at + 1, len(files.rows))
    bank = load_simplexes(folder)
    for name in bank.names if bank else ():
        (out / SIMPLEXES).mkdir(exist_ok=True)
        assert bank is not None
        save_classifier(bank.module(name), out / SIMPLEXES / f"{name}.pt")
    _write_about(out, files.info, files.rows, names)
    own = _Own(info=files.info, rows=files.rows, simplexes=bank.rows if bank else ())
    write_atomically(out / OWN, canonical_json(own.model_dump(mode="json", exclude_none=True)) + b"\n")
    dtypes = {part.w1.dtype for part in files.blocks.values()}
    storage: Storage = "bfloat16" if dtypes == {torch.bfloat16} else "float32"
    note = "screens are not part of legacy packs: they are left out"
    return Exchanged(len(files.rows), files.info.sites, len(bank) if bank else 0, storage, (note,))


def _write_about(out: Path, info: PackInfo, rows: Sequence[LensRow], names: Mapping[tuple[str, int], str]) -> None:
    """The JSON files of a legacy pack."""
    levels = sorted({level_of(row) for row in rows})
    about: dict[str, JsonValue] = {
        "source_pack": info.concept_pack.name,
        "pack_version": info.concept_pack.version,
        "model": info.model.name,
        "trained_layers": list(levels),
        "training_config": info.training,
    }
    _write(out / PACK_INFO, about)
    for level in levels:
        own = [row for row in rows if level_of(row) == level and row.primary]
        results: list[JsonValue] = [
            {"concept": row.term, "layer": level, "selected_layers": [row.block], **row.metrics} for row in own
        ]
        _write(out / f"layer{level}" / RESULTS, {"layer": level, "n_concepts": len(own), "results": results})
    fired: dict[str, JsonValue] = {
        f"{row.term}_L{level_of(row)}": {name: row.metrics[name] for name in _FIRED if name in row.metrics}
        for row in rows
        if row.primary and any(name in row.metrics for name in _FIRED)
    }
    if fired:
        _write(out / CALIBRATION, {"lens_pack": info.name, "calibration": fired})
    _write(out / MANIFEST, _manifest(info, rows, names))


def _manifest(info: PackInfo, rows: Sequence[LensRow], names: Mapping[tuple[str, int], str]) -> dict[str, JsonValue]:
    """version_manifest.json: every concept with its classifiers by block."""
    lenses: dict[str, JsonValue] = {}
    for term in dict.fromkeys(row.term for row in rows):
        own = [row for row in rows if row.term == term]
        lens = ConceptLens.of_rows(own, info.model.n_layers)
        lenses[term] = {
            "concept": term,
            "layer": level_of(own[0]),
            "default_layer": lens.default.block,
            "classifiers": {
                str(row.block): {
                    "layer": row.block,
                    "category": lens.at(row.block).depth,
                    "technique": "mlp",
                    "metrics": dict(row.metrics),
                    "trained_at": row.trained,
                    "file": names[row.term, row.block],
                }
                for row in own
            },
        }
    return {
        "lens_pack_id": info.name,
        "model": info.model.name,
        "source_pack": info.concept_pack.name,
        "current_version": info.version,
        "lenses": lenses,
    }


def _write(file: Path, value: Mapping[str, JsonValue]) -> None:
    write_atomically(file, canonical_json(dict(value)) + b"\n")

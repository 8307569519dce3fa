"""Lens import, export and convert: legacy `.pt` folders in and out, and packs between fp32, bf16 and int8."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.text import Text
from torch import Tensor

from ftw.hat.classifiers.convert import Parity, convert_pack, parity, random_states
from ftw.hat.classifiers.exchange import Exchanged, export_legacy, import_legacy
from ftw.hat.classifiers.index import ConceptPackId, ModelId, PackInfo, read_info
from ftw.hat.classifiers.packfile import read_tensors, require_fresh
from ftw.hat.classifiers.store import Storage
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.errors import UsageError
from ftw.ui.app import lens_folder, open_concepts, open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, facts, foot, title
from ftw.ui.visualization.palette import grey

STORAGES: dict[str, Storage] = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
"""What `--to` takes."""


def run_import(
    out: Out, *, legacy: Path, folder: Path, model: str | None, concepts: str | None, block: int | None
) -> None:
    """Make a pack of a legacy folder, say what could not be carried over. Raises StorageError before any work."""
    require_fresh(folder)
    opened = open_model(model, out)
    whose = ModelId(name=opened.name, fingerprint=opened.fingerprint, d_model=opened.d_model, n_layers=opened.n_layers)
    pack = open_concepts(concepts) if concepts else None
    with out.bar("Reading lenses") as bar:
        done = import_legacy(
            legacy,
            folder,
            model=whose,
            concepts=ConceptPackId(name=pack.name, version=pack.version, sha256=pack.sha256) if pack else None,
            tree=_tree(pack) if pack else None,
            block=block,
            progress=bar,
        )
    _tell(out, f"Imported {count(done.lenses, 'lens', 'lenses')} into {folder}", done, read_info(folder))
    out.document({"command": "lens import", "folder": folder, **_record(done)})


def run_export(out: Out, *, pack: str | None, folder: Path) -> None:
    """Write a pack as a legacy folder. Raises StorageError before any work where it cannot be written."""
    source = lens_folder(pack)
    with out.bar("Writing lenses") as bar:
        done = export_legacy(source, folder, progress=bar)
    _tell(out, f"Exported {count(done.lenses, 'lens', 'lenses')} to {folder}", done, read_info(source))
    out.document({"command": "lens export", "folder": folder, **_record(done)})


def run_convert(
    out: Out, *, pack: str | None, to: str, folder: Path, states: Path | None, samples: int, seed: int
) -> None:
    """Write a pack in another storage and show how far it reads as before."""
    if to not in STORAGES:
        raise UsageError(f"--to is {to!r}: give one of {', '.join(STORAGES)}")
    source = lens_folder(pack)
    info = read_info(source)
    given = _states(states, info) if states else random_states(samples, info.model.d_model, seed)
    convert_pack(source, folder, STORAGES[to])
    with out.bar("Comparing levels") as bar:
        found = parity(source, folder, given, progress=bar)
    kind = str(states) if states else f"random states, seed {seed}"
    _draw(out, found, info, to, folder, kind)
    out.document({"command": "lens convert", "folder": folder, "to": to, "states_from": kind, "parity": found})


def _states(file: Path, info: PackInfo) -> Tensor:
    """States from a safetensors file: its tensor `states`, or the only one it has. Raises UsageError for others."""
    tensors = read_tensors(file)
    found = tensors.get("states", next(iter(tensors.values())) if len(tensors) == 1 else None)
    if found is None or found.ndim != 2 or found.shape[1] != info.model.d_model or not len(found):
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise UsageError(f"{file} holds {shapes}: a tensor `states` of [state, {info.model.d_model}] is needed")
    return found.to(torch.float32)


def _tree(pack: ConceptPack) -> dict[str, tuple[int, str | None]]:
    return {term: (concept.level, pack.parent(term)) for term, concept in pack.concepts.items()}


def _tell(out: Out, reading: str, done: Exchanged, info: PackInfo) -> None:
    rows = {
        "model": f"{info.model.name} {info.model.fingerprint[:8]}",
        "blocks": ", ".join(map(str, done.blocks)),
        "weights": done.storage,
    }
    if done.simplexes:
        rows["simplexes"] = str(done.simplexes)
    out.show(title(reading), Text(), facts(rows), sep="\n")
    if done.notes:
        out.show(Text(), *_listed(done.notes), sep="\n")
    out.show(Text(), foot(f"pack {info.name} {info.version}", out.command), sep="\n")


def _listed(notes: Sequence[str]) -> list[Text]:
    return [Text("  what to know", grey()), *(Text(f"    {note}") for note in notes)]


def _record(done: Exchanged) -> dict[str, object]:
    return {
        "lenses": done.lenses,
        "blocks": done.blocks,
        "simplexes": done.simplexes,
        "storage": done.storage,
        "notes": done.notes,
    }


def _draw(out: Out, found: Parity, info: PackInfo, to: str, folder: Path, kind: str) -> None:
    share = found.bytes_after / found.bytes_before
    out.show(
        title(
            f"In {to} the ten highest readings are the same on {100 * found.same_top:.0f} % of states; no probability "
            f"changes by more than {found.max_p:.2g}"
        ),
        Text(),
        facts(
            {
                "same ten": f"{100 * found.same_top:.1f} % of states, {100 * found.overlap:.1f} % of the names",
                "change of p": f"{found.max_p:.2g} at most, {found.p99:.2g} at the 99th percentile",
                "weights": f"{_size(found.bytes_after)}, {100 * share:.0f} % of {_size(found.bytes_before)}",
                "written to": str(folder),
            }
        ),
        Text(),
        foot(
            f"{count(found.states, 'state')} ({kind}), {count(found.lenses, 'lens', 'lenses')}, computed in fp32",
            f"pack {info.name} {info.version}",
            f"{info.model.name} {info.model.fingerprint[:8]}",
            out.command,
        ),
        sep="\n",
    )


def _size(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"

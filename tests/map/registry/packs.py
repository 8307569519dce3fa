"""Small packs for the registry's tests: lenses of a model that does not exist, and a concept tree to go with them."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ftw.hat.classifiers import ConceptPackId, LensRow, LensTensors, ModelId, PackInfo, save_pack
from ftw.hat.classifiers.tensors import shapes
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord

D_MODEL = 32
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Food": tuple(f"Food{i:02}" for i in range(12)),
    "Weather": tuple(f"Weather{i:02}" for i in range(12)),
}


def concept_pack(folder: Path, version: str = "1.0.0", name: str = "small", definition: str = "a thing") -> Path:
    """A pack of two roots with twelve children each."""
    records = [ConceptRecord(term=root, layer=0, definition=f"{definition}: {root}") for root in FAMILIES]
    for root, children in FAMILIES.items():
        records += [
            ConceptRecord(term=term, layer=1, parent_concepts=[root], definition=f"{definition}: {term}")
            for term in children
        ]
    ConceptPack(PackRecord(pack_id=name, version=version), records).save(folder)
    return folder


def lens_pack(
    folder: Path, version: str = "1.0.0", name: str = "toy_small", changed: tuple[str, ...] = (), storage: str = "int8"
) -> Path:
    """A lens for every concept of `concept_pack`, at block 1; the lenses of `changed` have other weights."""
    rows, weights = [], []
    for root, children in FAMILIES.items():
        for term in (root, *children):
            is_root = term == root
            rows.append(
                LensRow(term=term, block=1, row=len(rows), level=0 if is_root else 1, parent=None if is_root else root)
            )
            seed = len(rows) + (1000 * int(version.split(".")[1]) + 500 if term in changed else 0)
            generator = torch.Generator().manual_seed(seed)
            weights.append({n: torch.randn(s[1:], generator=generator) for n, s in shapes(1, 64, D_MODEL).items()})
    part = LensTensors(**{name: torch.stack([each[name] for each in weights]) for name in weights[0]})
    info = PackInfo(
        name=name,
        version=version,
        model=ModelId(name="toy", fingerprint="ab" * 32, d_model=D_MODEL, n_layers=4),
        concept_pack=ConceptPackId(name="small", version="1.0.0", sha256="cd" * 32),
        sites=(1,),
    )
    save_pack(folder, info, rows, {1: part}, storage=storage)
    return folder


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, as a repository holds it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

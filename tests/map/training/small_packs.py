"""A small concept pack, and lens packs for it made without a training: for tests of what reads packs."""

from pathlib import Path

import torch

from ftw.hat.classifiers.index import Calibration, ConceptPackId, LensRow, ModelId, PackInfo
from ftw.hat.classifiers.modules import MLP, LinearProbe
from ftw.hat.classifiers.store import Storage, save_pack
from ftw.hat.classifiers.tensors import LensTensors
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Wordnet
from ftw.substrate.model import Model

TREE = {"Animal": None, "Bird": "Animal", "Dog": "Animal", "Food": None}
MEMBERS = {
    "Animal": "beast brute creature critter",
    "Bird": "owl hen gull wren crow duck",
    "Dog": "hound pug collie poodle beagle spitz",
    "Food": "bread soup cheese rice stew jam",
}
BLOCK = 2


def concepts(name: str = "four", version: str = "2.0.0") -> ConceptPack:
    records = [
        ConceptRecord(
            term=term,
            layer=0 if parent is None else 1,
            parent_concepts=[] if parent is None else [parent],
            definition=f"a {term}",
            wordnet=Wordnet(pos="n", words={f"{word}.n.01": [word] for word in MEMBERS[term].split()}),
        )
        for term, parent in TREE.items()
    ]
    return ConceptPack(PackRecord(pack_id=name, version=version), records)


def lens_pack(
    folder: Path,
    model: Model,
    *,
    seed: int = 0,
    storage: Storage = "float32",
    pack: ConceptPack | None = None,
    terms: tuple[str, ...] = ("Animal", "Food", "Bird", "Dog"),
) -> Path:
    """A pack of lenses with weights drawn by `seed`, at one block."""
    pack = pack or concepts()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lenses = [MLP(model.d_model) for _ in terms]
        screens = [LinearProbe(model.d_model) for _ in terms]
    rows = [
        LensRow(
            term=term,
            block=BLOCK,
            row=at,
            threshold_logit=0.05,
            calibration=Calibration(slope=4.0, offset=-1.0),
            level=pack.get(term).level,
            parent=pack.parent(term),
        )
        for at, term in enumerate(terms)
    ]
    info = PackInfo(
        name=f"tiny_{pack.name}",
        version="1.0.0",
        model=ModelId(name=model.name, fingerprint=model.fingerprint, d_model=model.d_model, n_layers=model.n_layers),
        concept_pack=ConceptPackId(name=pack.name, version=pack.version, sha256=pack.sha256),
        sites=(BLOCK,),
        training={"false_alarms": 0.02},
    )
    save_pack(folder, info, rows, {BLOCK: LensTensors.stack(lenses, screens)}, storage=storage)
    return folder

"""The card that a pushed pack is met by: README.md for its page on the hub.

The rule of the file: it says what the pack's own files say, and nothing that is not measured.
"""

from pathlib import Path
from statistics import fmean

from ftw.hat.classifiers.index import read_index, read_info
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.content import OLD_INFO, Identity
from ftw.map.registry.names import key_of


def card_of(folder: Path, identity: Identity) -> bytes:
    """README.md for a pack. Raises PackError, StorageError."""
    body = _concepts(folder) if identity.kind == "concept" else _lenses(folder, identity)
    tag = "concept-pack" if identity.kind == "concept" else "lens-pack"
    front = f"---\ntags:\n- ftw\n- {tag}\n---\n\n"
    pull = f"```sh\nftw pack pull {identity.name}\n```\n"
    return (front + f"# {identity.name} {identity.version}\n\n" + body + "\n" + pull).encode()


def _concepts(folder: Path) -> str:
    pack = ConceptPack.load(folder)
    levels = max(concept.level for concept in pack.concepts.values()) + 1
    said = f"{pack.meta.description.strip()}\n\n" if pack.meta.description else ""
    return (
        f"{said}A pack of {len(pack.concepts)} named concepts in {levels} levels under {len(pack.roots)} roots "
        f"({', '.join(pack.roots[:8])}).\n"
    )


def _lenses(folder: Path, identity: Identity) -> str:
    if (folder / OLD_INFO).is_file():
        return f"A lens pack in the legacy layout ({identity.name}). Make it usable with `ftw lens import`.\n"
    info, rows = read_info(folder), read_index(folder)
    known = [row.auroc for row in rows if row.auroc is not None]
    quality = f"{fmean(known):.3f} over {len(known)} lenses" if known else "not measured"
    facts = {
        "model": f"{info.model.name}, fingerprint `{info.model.fingerprint[:16]}`, {info.model.n_layers} blocks",
        "concepts": f"{key_of(info.concept_pack.name)} {info.concept_pack.version}",
        "lenses": f"{len(rows)} at blocks {', '.join(map(str, info.sites))}",
        "macro AUROC, held out": quality,
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return (
        f"Lenses that read named concepts from the states of one model, and of no other.\n\n| | |\n|---|---|\n{lines}\n"
    )

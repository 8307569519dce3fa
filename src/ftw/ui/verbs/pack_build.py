"""Pack build and pack check: concept packs from ontologies, and what is weak in a concept pack."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from ftw.map.ontology.from_wordnet import wordnet_taxonomy
from ftw.map.ontology.listed import LICENCE_FILE, pack_of_list, read_list
from ftw.map.ontology.quality import REMEDIES, Finding, Standards, examine, tally
from ftw.map.ontology.records import pack_of
from ftw.map.ontology.sumo import sumo_taxonomy
from ftw.map.ontology.taxonomy import Limits
from ftw.map.ontology.wordnet import HOME, WordNet, licence
from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.errors import StorageError, UsageError
from ftw.ui.app import open_concepts
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import count, facts, foot, title
from ftw.ui.visualization.palette import grey

ROOTS = (
    "person.n.01",
    "animal.n.01",
    "plant.n.02",
    "food.n.01",
    "artifact.n.01",
    "location.n.01",
    "body_part.n.01",
    "substance.n.01",
    "act.n.02",
    "communication.n.02",
    "cognition.n.01",
    "feeling.n.01",
    "state.n.02",
    "attribute.n.02",
    "natural_phenomenon.n.01",
    "social_group.n.01",
    "time_period.n.01",
)
"""What a pack from WordNet has on top where no root is named."""
SHOWN = 12
"""Findings that are named."""


def run_build(
    out: Out,
    folder: Path,
    *,
    name: str,
    version: str,
    description: str,
    listed: Path | None,
    wordnet: Path,
    kif: Sequence[Path],
    mappings: Path | None,
    roots: Sequence[str],
    limits: Limits,
) -> None:
    """Build a pack into `folder`, show what it holds and what is weak in it."""
    if listed is not None and (kif or roots):
        raise UsageError("--list names its concepts itself: leave out --sumo and --roots")
    with out.busy("Reading the ontology"):
        read = WordNet(wordnet) if not kif or mappings is not None else None
        pack = _built(read, name, version, description, listed, kif, mappings, roots, limits)
    _write(pack, licence(wordnet) if read is not None else None, folder)
    standards = Standards(most_children=limits.most_children, fewest_words=limits.fewest_words)
    _show(out, pack, examine(pack, read, standards), folder)


def run_check(out: Out, name: str, *, wordnet: Path | None) -> None:
    """Show what is weak in a concept pack: senses are looked at where WordNet's files are."""
    pack = open_concepts(name)
    folder = wordnet or (HOME if (HOME / "data.noun").is_file() else None)
    with out.busy("Examining the pack"):
        found = examine(pack, WordNet(folder) if folder is not None else None)
    _show(out, pack, found, None)


def _built(
    wordnet: WordNet | None,
    name: str,
    version: str,
    description: str,
    listed: Path | None,
    kif: Sequence[Path],
    mappings: Path | None,
    roots: Sequence[str],
    limits: Limits,
) -> ConceptPack:
    if listed is not None:
        if wordnet is None:  # pragma: no cover - a list excludes KIF files, so WordNet was read
            raise UsageError("a list needs WordNet")
        return pack_of_list(read_list(listed), wordnet, name=name, version=version, description=description)
    if kif:
        taxonomy, source = sumo_taxonomy(kif, mappings, wordnet), "SUMO" + " and WordNet 3.0" * (wordnet is not None)
    elif wordnet is not None:
        taxonomy, source = wordnet_taxonomy(wordnet), "WordNet 3.0"
    roots = roots or (("Entity",) if kif else ROOTS)
    tree = taxonomy.choose(roots, limits)
    if limits.size > len(tree) and all(one.parent is None for one in tree):
        raise UsageError(
            f"nothing below {', '.join(roots)} has the {limits.fewest_words} words that a concept needs: ask for fewer "
            "with --words"
            + (", or give SUMO's mappings to WordNet with --mappings" if kif and mappings is None else "")
        )
    return pack_of(tree, name=name, version=version, description=description, source=source)


def _write(pack: ConceptPack, notice: str | None, folder: Path) -> None:
    """The pack in a new folder, in one step: whole or not there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is not an empty folder: name a new one with --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            made = Path(scratch) / "pack"
            pack.save(made)
            if notice is not None:
                (made / LICENCE_FILE).write_text(notice, encoding="utf-8")
            if folder.exists():
                folder.rmdir()
            shutil.move(made, folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; name another folder with --out") from error


def _show(out: Out, pack: ConceptPack, found: list[Finding], folder: Path | None) -> None:
    counts = tally(found)
    levels = max(concept.level for concept in pack.concepts.values()) + 1
    claim = f"{pack.name} {pack.version}: {count(len(pack.concepts), 'concept')} in {count(levels, 'level')}, "
    claim += f"{count(len(found), 'weak point')}" if found else "nothing weak was found"
    out.show(title(claim), Text(), sep="\n")
    if found:
        rows = {f"{n} × {kind.replace('_', ' ')}": REMEDIES[kind] for kind, n in counts.items()}
        out.show(facts(rows), Text(), sep="\n")
        for finding in found[:SHOWN]:
            out.show(Text(f"  {finding.message}", no_wrap=True, overflow="ellipsis"))
        if len(found) > SHOWN:
            out.show(Text(f"  … and {len(found) - SHOWN} more: --json gives all", grey()))
    out.show(Text(), foot(f"{count(len(pack.roots), 'root')}", str(folder) if folder is not None else ""), sep="\n")
    out.document(
        {
            "command": "pack build" if folder is not None else "pack check",
            "name": pack.name,
            "version": pack.version,
            "concepts": len(pack.concepts),
            "roots": list(pack.roots),
            "sha256": pack.sha256,
            "folder": str(folder) if folder is not None else None,
            "counts": dict(counts),
            "findings": [{"kind": one.kind, "term": one.term, "message": one.message} for one in found],
        }
    )

"""Packs: which ones ship, and what a concept pack holds."""

from rich.text import Text

from ftw.hat.classifiers.index import read_info
from ftw.map import registry
from ftw.map.registry.concept_pack import Concept, ConceptPack
from ftw.map.registry.lens_pack import bundled_lens_packs
from ftw.ui.app import bundled_concept_packs, open_concepts
from ftw.ui.cli.output import Out
from ftw.ui.verbs.pack_registry import installed_rows
from ftw.ui.visualization.figure import count, facts, foot, title
from ftw.ui.visualization.palette import Palette, grey


def run_show(out: Out, name: str, *, concept: str | None) -> None:
    """The tree of a pack, or one concept of it."""
    pack = open_concepts(name)
    if concept is None:
        _tree(out, pack)
        records = [_record(pack, each) for each in pack.concepts.values()]
        out.document({"command": "pack show", "name": pack.name, "version": pack.version, "concepts": records})
        return
    found = pack.get(concept)
    _one(out, pack, found)
    out.document({"command": "pack show", "name": pack.name, "version": pack.version, **_record(pack, found)})


def _record(pack: ConceptPack, concept: Concept) -> dict[str, object]:
    return {
        "concept": concept.term,
        "level": concept.level,
        "parent": concept.parent,
        "children": pack.children(concept.term),
        "definition": concept.definition,
        "words": concept.words,
    }


def _tree(out: Out, pack: ConceptPack) -> None:
    levels = max(concept.level for concept in pack.concepts.values()) + 1
    reading = f"{pack.name} {pack.version}: {count(len(pack.concepts), 'concept')} in {count(levels, 'level')}"
    out.show(title(f"{reading}, {count(len(pack.roots), 'root')}"), Text(), sep="\n")
    palette = Palette.of({term: (pack.ancestors(term) or (term,))[-1] for term in pack.concepts})
    for concept in pack.concepts.values():
        style = palette.name(concept.term) if out.has_colour and concept.level == 0 else ""
        words = f"  {count(len(concept.words), 'word')}"
        out.show(Text.assemble("  " * concept.level, (concept.label, style), (words, grey())))
    out.show(Text(), foot("words include those of the concepts below", f"ftw pack show {pack.name}"), sep="\n")


def _one(out: Out, pack: ConceptPack, concept: Concept) -> None:
    path = " > ".join(pack.concepts[term].label for term in [*reversed(pack.ancestors(concept.term)), concept.term])
    out.show(title(f"{concept.label}: {concept.definition}"), Text(), sep="\n")
    rows = {
        "place": path,
        "below it": ", ".join(pack.concepts[term].label for term in pack.children(concept.term)) or "nothing",
        "words": ", ".join(concept.words),
    }
    out.show(facts(rows))
    out.show(Text(), foot(f"{pack.name} {pack.version}", f"level {concept.level}"), sep="\n")


def run_list(out: Out) -> None:
    """The packs that ship: concepts, and lenses with the model they are for; then those that were pulled."""
    there = (*registry.list_concept_packs(), *registry.list_lens_packs())
    mine = [each for each in there if each["source"] != "bundled"]
    names = bundled_concept_packs()
    concepts = [open_concepts(name) for name in names]
    lenses = [read_info(folder) for folder in bundled_lens_packs().values()]
    rows = {pack.name: f"{pack.version}, {count(len(pack.concepts), 'concept')}" for pack in concepts}
    out.show(title("Concept packs"), facts(rows), Text(), title("Lens packs"), sep="\n")
    made = {
        i.name: f"{i.version}, for {i.model.name} {i.model.fingerprint[:8]}, concepts of {i.concept_pack.name}"
        for i in lenses
    }
    out.show(facts(made) if made else Text("  none", grey()))
    if mine:
        out.show(Text(), title("Pulled or made here"), facts(installed_rows(mine)), sep="\n")
    out.document(
        {
            "command": "pack list",
            "concept_packs": [{"name": p.name, "version": p.version, "concepts": len(p.concepts)} for p in concepts],
            "lens_packs": [i.model_dump(include={"name", "version", "model", "concept_pack"}) for i in lenses],
            "installed": mine,
        }
    )

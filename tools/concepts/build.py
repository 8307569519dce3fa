"""Builds the bundled concept pack from the everyday tree and WordNet.

    python -m tools.concepts.build --dict /usr/share/wordnet --out src/ftw/bundled/concept-packs/everyday

The tree (``everyday.toml``) says which concepts there are, what stands above them and which words mean them; WordNet
gives the definitions. The same inputs give the same bytes.
"""

import argparse
import re
import shutil
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ftw.map.registry.concept_pack import ConceptPack, label_of
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Wordnet
from tools.reference_model.wordnet import WordNet

TREE = Path(__file__).parent / "everyday.toml"
NAME = "everyday"
VERSION = "1.0.0"
DESCRIPTION = (
    "Everyday concepts: people, animals, plants, food, things, places, feelings, illness, talk, motion and more."
)
LICENCE_FILE = "WORDNET-LICENSE"


def build(tree: Path, wordnet: WordNet) -> ConceptPack:
    """The pack of the concepts in `tree`, with definitions from WordNet."""
    listed = {item["term"]: item for item in tomllib.loads(tree.read_text(encoding="utf-8"))["concept"]}
    children = {term: sorted(t for t, item in listed.items() if item.get("parent") == term) for term in listed}
    records = [_record(item, _lineage(listed, term), children[term], wordnet) for term, item in listed.items()]
    return ConceptPack(_meta(records), records)


def licence(folder: Path) -> str:
    """WordNet's licence as its own data files state it (numbered lines at the top)."""
    lines = (folder / "data.noun").read_text("latin-1").splitlines()
    numbered = [re.match(r"  ?(?: ?\d+) ?(.*)", line) for line in lines if line.startswith("  ")]
    return "\n".join(match[1].rstrip() for match in numbered if match) + "\n"


def write(pack: ConceptPack, notice: str, out: Path) -> None:
    """Replace what lies in `out` by the pack and WordNet's notice."""
    shutil.rmtree(out, ignore_errors=True)
    pack.save(out)
    (out / LICENCE_FILE).write_text(notice, encoding="utf-8")


def _lineage(listed: dict[str, dict[str, Any]], term: str) -> list[str]:
    above = []
    while parent := listed[term].get("parent"):
        above.append(parent)
        term = parent
    return above


def _record(item: dict[str, Any], above: list[str], children: list[str], wordnet: WordNet) -> ConceptRecord:
    members: dict[str, list[str]] = item["members"]
    lemmas = [word for words in members.values() for word in words]
    synset = wordnet.get(item["synset"])
    label = item.get("label", label_of(item["term"]))
    return ConceptRecord(
        term=item["term"],
        parent_concepts=above[:1],
        layer=len(above),
        domain=(above or [item["term"]])[-1],
        definition=synset.gloss,
        definition_source="WordNet 3.0",
        aliases=[label],
        wordnet=Wordnet(
            synsets=list(members), canonical_synset=item["synset"], lemmas=lemmas, pos=synset.pos, words=members
        ),
        children=children,
        is_category_lens=bool(children),
        child_count=len(children),
    )


def _meta(records: list[ConceptRecord]) -> PackRecord:
    levels = Counter(record.layer for record in records)
    layers: list[JsonValue] = [*sorted(levels)]
    return PackRecord(
        pack_id=NAME,
        spec_id=f"ftw/{NAME}@{VERSION}",
        version=VERSION,
        description=DESCRIPTION,
        ontology_stack={"base_ontology": {"name": "WordNet", "version": "3.0", "licence_file": LICENCE_FILE}},
        concept_metadata={
            "total_concepts": len(records),
            "layers": layers,
            "layer_distribution": {str(level): levels[level] for level in sorted(levels)},
            "total_words": sum(len(record.wordnet.lemmas) for record in records),
            "hierarchy_file": "hierarchy.json",
        },
        distribution={"license": "Apache-2.0; definitions and words: WordNet 3.0, see WORDNET-LICENSE"},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dict", type=Path, default=Path("/usr/share/wordnet"), help="folder of WordNet's dict files")
    parser.add_argument("--out", type=Path, required=True, help="folder to (re)place the pack in")
    args = parser.parse_args()
    pack = build(TREE, WordNet(args.dict))
    write(pack, licence(args.dict), args.out)
    print(f"{args.out}: {len(pack.concepts)} concepts, {len(pack.roots)} roots")


if __name__ == "__main__":
    main()

"""The everyday concept tree: derived from WordNet and a hand-written list, kept as ``tools/concepts/everyday.toml``.

The list (``words/concepts.txt``) chooses the concepts; WordNet gives their parents and their members. A member is a
lower-case word of one or two parts whose first sense lies at or below the concept and which is mostly used that way.
"""

import json
import re
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ftw.map.ontology.wordnet import Synset, WordNet
from tools.reference_model.lexicon import lines

TREE_FILE = Path(__file__).parents[1] / "concepts" / "everyday.toml"
LEAF_MEMBERS = 25
INNER_MEMBERS = 15
ENOUGH = 18  # rare words only fill a concept up to this many
FEWEST = 14
DEEPEST = 5
PARENTS = {
    "Symptom": None,
    "TimeOfDay": "TimePeriod",
    "SpiritualBeing": None,
    "ImaginaryBeing": None,
}  # where WordNet's parent would surprise a reader
UNFIT = re.compile(
    r"slang|obscene|offensive|derogat|disparag|vulgar|slur|contemptuous|archaic|obsolete|euphemism|sexual|genital|excre"
)


@dataclass(frozen=True)
class Listed:
    """One line of the hand-written list."""

    term: str
    synset: str
    group: str
    predicates: tuple[str, ...]


@dataclass
class Concept:
    """One concept of the tree; ``members`` are its direct words by synset name."""

    term: str
    synset: str
    label: str
    parent: str | None
    members: dict[str, list[str]] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        return [w for listed in self.members.values() for w in listed]


def listed_concepts() -> list[Listed]:
    out = []
    for line in lines("concepts"):
        term, synset, group, predicates = line.split("|")
        out.append(Listed(term, synset, group, tuple(p.strip() for p in predicates.split(";"))))
    return out


def gloss_frequency(wn: WordNet) -> Counter[str]:
    """In how many glosses and examples each word stands: a measure of how common it is."""
    seen: Counter[str] = Counter()
    for s in wn.synsets.values():
        seen.update(set(re.findall(r"[a-z]+", f"{s.gloss} {' '.join(s.examples)}".lower())))
    return seen


@cache
def unfit_words() -> frozenset[str]:
    """Words the corpus leaves out."""
    return frozenset(word for line in lines("unfit") for word in line.split())


def is_fit(word: str, synset: Synset) -> bool:
    """False for words that a small model should not be taught: insults, vulgar and sexual senses."""
    return not (UNFIT.search(synset.note) or UNFIT.search(synset.gloss) or unfit_words() & {word, *word.split()})


def candidate_words(wn: WordNet) -> dict[Synset, list[tuple[float, str]]]:
    """Fit words of every noun and verb synset with a score of how common they are."""
    common = gloss_frequency(wn)
    taken: dict[str, tuple[float, Synset]] = {}
    for s in wn.synsets.values():
        if s.pos not in "nv" or s.is_instance:
            continue
        for word, count in zip(s.words, s.counts, strict=True):
            shape = r"[a-z]{3,14}( [a-z]{3,12})?" if s.pos == "n" else r"[a-z]{3,12}"
            if not (re.fullmatch(shape, word) and is_fit(word, s) and wn.is_first_sense(word, s)):
                continue
            mine, others = wn.uses(word, s.pos), max(wn.uses(word, p) for p in "nva" if p != s.pos)  # type: ignore[arg-type]
            if others > mine + (2 if s.pos == "n" else -1):
                continue
            parts = word.split()
            spread = min(min(common[p] for p in parts), 60) * (0.5 if len(parts) == 1 else 0.015)
            score = 2 * count + spread - 0.15 * max(0, len(word) - 8)
            if score > taken.get(word, (0.0, s))[0]:
                taken[word] = (score, s)
    out: dict[Synset, list[tuple[float, str]]] = defaultdict(list)
    for word, (score, s) in taken.items():
        out[s].append((score, word))
    return out


def derive(wn: WordNet) -> list[Concept]:
    """The tree: parents are the nearest listed synsets above, direct members have no listed concept in between."""
    words = candidate_words(wn)
    chosen = {wn.get(item.synset): item for item in listed_concepts()}
    while True:
        concepts = _grow(wn, words, chosen)
        small = {s for s, item in chosen.items() if len(all_words(concepts, item.term)) < FEWEST}
        deep = {s for s, item in chosen.items() if len(lineage(concepts, item.term)) > DEEPEST}
        if not small and not deep:
            return list(concepts.values())
        chosen = {s: item for s, item in chosen.items() if s not in (small or deep)}


def _grow(
    wn: WordNet, words: dict[Synset, list[tuple[float, str]]], chosen: dict[Synset, Listed]
) -> dict[str, Concept]:
    concepts = {}
    for s, item in chosen.items():
        above = next((a for a in wn.ancestors(s) if a in chosen), None)
        label = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", item.term).lower()
        parent = PARENTS[item.term] if item.term in PARENTS else chosen[above].term if above else None
        concepts[item.term] = Concept(item.term, wn.name(s), label, parent)
    pool: dict[str, list[tuple[float, str, Synset]]] = defaultdict(list)
    for s, found in words.items():
        home = s if s in chosen else next((a for a in wn.ancestors(s) if a in chosen), None)
        if home:
            pool[chosen[home].term] += [(score, word, s) for score, word in found]
    inner = {c.parent for c in concepts.values()}
    for term, below in pool.items():
        room = INNER_MEMBERS if term in inner else LEAF_MEMBERS
        ranked = sorted(below, key=lambda t: (-t[0], t[1]))
        for score, word, s in ranked[:room]:
            if score >= 1 or len(concepts[term].words) < ENOUGH:
                concepts[term].members.setdefault(wn.name(s), []).append(word)
    return concepts


def lineage(concepts: dict[str, Concept], term: str) -> list[str]:
    """The concept and everything above it, the nearest first."""
    out, at = [], term
    while at:
        out.append(at)
        at = concepts[at].parent or ""
    return out


def all_words(concepts: dict[str, Concept], term: str) -> list[str]:
    """Direct members and the members of every concept below."""
    return [w for c in concepts.values() if term in lineage(concepts, c.term) for w in c.words]


HEADER = """# The everyday concept tree: WordNet 3.0 synsets with the words the reference model is taught for them.
# Derived by tools/reference_model/tree.py from WordNet and tools/reference_model/words/concepts.txt, never by hand.
# `parent` is the nearest concept above (none for a root). `members` holds the DIRECT words only, by synset:
# every member of a child is also a member of all concepts above it, and readers derive that.
"""


def write(concepts: list[Concept], path: Path) -> None:
    out = [HEADER]
    for c in concepts:
        out += ["[[concept]]", f'term = "{c.term}"', f'synset = "{c.synset}"', f'label = "{c.label}"']
        if c.parent:
            out.append(f'parent = "{c.parent}"')
        out.append("[concept.members]")
        out += [f'"{name}" = {json.dumps(listed)}' for name, listed in c.members.items()]
        out.append("")
    path.write_text("\n".join(out))


def read(path: Path = TREE_FILE) -> dict[str, Concept]:
    """The tree as it stands in the file, by term."""
    rows = tomllib.loads(path.read_text())["concept"]
    return {r["term"]: Concept(r["term"], r["synset"], r["label"], r.get("parent"), r["members"]) for r in rows}

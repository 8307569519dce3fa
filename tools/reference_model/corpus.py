"""The training corpus: how much of which kind of text, and the documents themselves.

Every kind draws from its own random stream, so the same seed and size give the same documents in the same order.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model.chats import Chatter
from tools.reference_model.facts import Factbook, Sources, gather
from tools.reference_model.stories import Storyteller
from tools.reference_model.taxonomy import Kind, Taxonomist, kinds
from tools.reference_model.tree import Concept

SHARES = {
    "story": 0.27,
    "chat": 0.18,
    "chat_story": 0.07,
    "scene": 0.045,
    "facts": 0.015,
    "typed": 0.17,
    "listing": 0.06,
    "hypernym": 0.075,
    "definition": 0.035,
    "example": 0.03,
    "capital": 0.02,
    "opposite": 0.015,
    "tracking": 0.015,
}
"""Share of the characters by kind of document."""


class Document(NamedTuple):
    kind: str
    text: str


def writer(kind: str, sources: Sources, concepts: dict[str, Kind], seed: int) -> Callable[[], str]:
    """The function that writes one more document of this kind."""
    rng = random.Random(f"{seed}:{kind}")
    stories = Storyteller(rng)
    if kind in ("story", "scene", "facts"):
        return {"story": stories.plain_story, "scene": stories.scene, "facts": stories.facts}[kind]
    taxonomy = Taxonomist(rng, concepts)
    if kind in ("typed", "listing"):
        return {"typed": taxonomy.typed, "listing": taxonomy.listing}[kind]
    facts = Factbook(rng, sources)
    if kind in ("chat", "chat_story"):
        chatter = Chatter(rng, stories, facts, taxonomy)
        return {"chat": chatter.chat, "chat_story": chatter.story_chat}[kind]
    return {
        "hypernym": facts.hypernyms,
        "definition": facts.definition,
        "example": facts.example,
        "capital": facts.capitals,
        "opposite": facts.opposites,
        "tracking": facts.tracking,
    }[kind]


def of_kind(kind: str, sources: Sources, concepts: dict[str, Kind], seed: int, characters: float) -> Iterator[Document]:
    """Documents of one kind until they fill the room."""
    next_text = writer(kind, sources, concepts, seed)
    size = 0
    while size < characters:
        text = next_text()
        yield Document(kind, text)
        size += len(text) + 1


def documents(wn: WordNet, tree: dict[str, Concept], seed: int, megabytes: float) -> list[Document]:
    """All kinds by their shares, shuffled together; takes about a second a megabyte."""
    sources, concepts = gather(wn), kinds(tree)
    out = [d for kind, share in SHARES.items() for d in of_kind(kind, sources, concepts, seed, share * megabytes * 1e6)]
    random.Random(f"{seed}:order").shuffle(out)
    return out


def write(docs: list[Document], path: Path) -> None:
    """One document per line: its kind, a tab, its text."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{d.kind}\t{d.text}\n" for d in docs)


def read(path: Path) -> list[Document]:
    with path.open(encoding="utf-8") as file:
        return [Document(*line.rstrip("\n").split("\t", 1)) for line in file]

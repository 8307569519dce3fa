"""Reader of WordNet's dict files (``data.*``, ``index.*``, ``cntlist.rev``).

The format is that of Princeton's WordNet (wndb(5)): Debian's ``wordnet-base`` installs it, NLTK's ``wordnet`` corpus
and the WNDB release of Open English WordNet have the same files. Without ``cntlist.rev`` all counts are 0.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

from ftw.substrate.errors import PackError, StorageError

Pos = Literal["n", "v", "a", "r"]
FILES: dict[Pos, str] = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
HOME = Path("/usr/share/wordnet")
"""Where Debian's ``wordnet-base`` puts the files."""
NUMBER = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}
UP = ("@", "@i")
PREAMBLE = "  "  # lines of the licence text start with two spaces


@dataclass(frozen=True, eq=False)
class Synset:
    """One meaning: its words, their tag counts, its pointers and its gloss without the examples."""

    pos: Pos
    offset: int
    words: tuple[str, ...]
    counts: tuple[int, ...]
    pointers: tuple[tuple[str, Pos, int], ...]
    gloss: str
    note: str
    """What the gloss says in brackets, such as ``slang``."""
    examples: tuple[str, ...]

    @property
    def count(self) -> int:
        """How often the sense-tagged corpora use this meaning."""
        return sum(self.counts)

    @property
    def is_instance(self) -> bool:
        """True for a single individual such as a river with a name."""
        return any(symbol == "@i" for symbol, _, _ in self.pointers)


def split_gloss(text: str) -> tuple[str, str, tuple[str, ...]]:
    """The first definition, its bracketed notes and the quoted examples of a gloss."""
    examples = tuple(e.strip() for e in re.findall(r'"([^"]+)"', text))
    unquoted = re.sub(r'"[^"]*"?', "", text)
    notes = " ".join(re.findall(r"\(([^)]*)\)", unquoted))
    definition = re.sub(r"\s+", " ", re.sub(r"\([^)]*\)", "", unquoted)).strip(" ;:,-")
    return definition.split(";")[0].strip(" ;:,-"), notes, examples


class WordNet:
    """All synsets of a dict folder, by part of speech and offset."""

    def __init__(self, folder: Path) -> None:
        """Raises StorageError for a folder that lacks the files, PackError for a line that is not of the format."""
        self.folder = folder
        self.synsets: dict[tuple[Pos, int], Synset] = {}
        self.senses: dict[tuple[str, Pos], list[int]] = {}
        tags = {}
        if (folder / "cntlist.rev").is_file():
            for line in _lines(folder / "cntlist.rev"):
                key, _, count = line.split()
                tags[key] = int(count)
        for pos, name in FILES.items():
            for line in _lines(folder / f"data.{name}"):
                synset = _synset(folder / f"data.{name}", line, pos, tags)
                self.synsets[pos, synset.offset] = synset
            for line in _lines(folder / f"index.{name}"):
                part = line.split()
                self.senses[part[0].replace("_", " "), pos] = [int(x) for x in part[-int(part[2]) :]]

    def get(self, name: str) -> Synset:
        """The synset called ``lemma.pos.number``. Raises PackError when there is no such lemma or sense."""
        match = re.fullmatch(r"(.+)\.([nvars])\.(\d+)", name)
        if match is None:
            raise PackError(f"{name!r} is not the name of a synset: write lemma.pos.number, such as dog.n.01")
        lemma, number = match[1].replace("_", " ").lower(), int(match[3])
        pos = cast(Pos, match[2].replace("s", "a"))
        senses = self.senses.get((lemma, pos), [])
        if not 1 <= number <= len(senses):
            raise PackError(f"{name}: WordNet has {len(senses)} senses of this word as {FILES[pos]}")
        return self.synsets[pos, senses[number - 1]]

    def name(self, synset: Synset) -> str:
        """``lemma.pos.number`` of a synset by its first word."""
        lemma = synset.words[0].lower()
        number = self.senses[lemma, synset.pos].index(synset.offset) + 1
        return f"{lemma.replace(' ', '_')}.{synset.pos}.{number:02d}"

    def related(self, synset: Synset, symbols: frozenset[str]) -> list[Synset]:
        """The synsets that pointers with these symbols name, in file order, each once."""
        found = (self.synsets[pos, offset] for symbol, pos, offset in synset.pointers if symbol in symbols)
        return list(dict.fromkeys(found))

    def parents(self, synset: Synset) -> list[Synset]:
        """The synsets right above."""
        return [self.synsets[pos, offset] for symbol, pos, offset in synset.pointers if symbol in UP]

    def ancestors(self, synset: Synset) -> list[Synset]:
        """Every synset above, the nearest first."""
        found: dict[Synset, None] = {}
        queue = self.parents(synset)
        while queue:
            top = queue.pop(0)
            if top not in found:
                found[top] = None
                queue.extend(self.parents(top))
        return list(found)

    @cached_property
    def _children(self) -> dict[tuple[Pos, int], list[Synset]]:
        down: dict[tuple[Pos, int], list[Synset]] = defaultdict(list)
        for synset in self.synsets.values():
            for symbol, pos, offset in synset.pointers:
                if symbol == "@":
                    down[pos, offset].append(synset)
        return down

    def below(self, synset: Synset) -> list[Synset]:
        """Every synset below, without named individuals."""
        found: dict[Synset, None] = {}
        queue = list(self._children.get((synset.pos, synset.offset), []))
        while queue:
            child = queue.pop(0)
            if child not in found:
                found[child] = None
                queue.extend(self._children.get((child.pos, child.offset), []))
        return list(found)

    def children(self, synset: Synset) -> list[Synset]:
        """The synsets right below, without named individuals."""
        return self._children.get((synset.pos, synset.offset), [])

    def is_first_sense(self, word: str, synset: Synset) -> bool:
        """Whether this is the word's most frequent sense as this part of speech."""
        senses = self.senses.get((word.lower(), synset.pos))
        return senses is not None and senses[0] == synset.offset

    def uses(self, word: str, pos: Pos) -> int:
        """How often the tagged corpora use the word as this part of speech, over all its senses."""
        total = 0
        for offset in self.senses.get((word, pos), []):
            synset = self.synsets[pos, offset]
            total += sum(c for w, c in zip(synset.words, synset.counts, strict=True) if w.lower() == word)
        return total


def read_synset(line: str, pos: Pos, tags: dict[str, int]) -> Synset:
    """One line of a data file; ``tags`` maps sense keys to counts."""
    body, _, gloss = line.partition(" | ")
    part = body.split()
    topic, kind, n_words = int(part[1]), part[2], int(part[3], 16)
    words, counts = [], []
    for i in range(n_words):
        word = re.sub(r"\([a-z]+\)$", "", part[4 + 2 * i])
        words.append(word.replace("_", " "))
        counts.append(tags.get(f"{word.lower()}%{NUMBER[kind]}:{topic:02d}:{int(part[5 + 2 * i], 16):02d}::", 0))
    at = 4 + 2 * n_words
    pointers = tuple(
        (part[at + 1 + 4 * i], cast(Pos, part[at + 3 + 4 * i]), int(part[at + 2 + 4 * i])) for i in range(int(part[at]))
    )
    definition, note, examples = split_gloss(gloss)
    return Synset(pos, int(part[0]), tuple(words), tuple(counts), pointers, definition, note, examples)


def licence(folder: Path) -> str:
    """WordNet's licence as its own data files state it (numbered lines at the top). Raises StorageError."""
    lines = _text(folder / "data.noun").splitlines()
    numbered = [re.match(r"  ?(?: ?\d+) ?(.*)", line) for line in lines if line.startswith(PREAMBLE)]
    return "\n".join(match[1].rstrip() for match in numbered if match) + "\n"


def _synset(file: Path, line: str, pos: Pos, tags: dict[str, int]) -> Synset:
    try:
        return read_synset(line, pos, tags)
    except (ValueError, IndexError) as error:
        raise PackError(f"{file}: {line[:40]!r} is not a line of a WordNet data file") from error


def _lines(file: Path) -> list[str]:
    return [line for line in _text(file).splitlines() if line and not line.startswith(PREAMBLE)]


def _text(file: Path) -> str:
    try:
        return file.read_text("latin-1")
    except OSError as error:
        raise StorageError(
            f"{file} cannot be read: {error.strerror}. WordNet's dict files are needed: Debian's wordnet-base has "
            f"them in {HOME}"
        ) from error

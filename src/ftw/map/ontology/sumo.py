"""SUMO as a taxonomy: classes from KIF files, and the WordNet synsets that its mapping files tie to them.

A KIF file is a list of S-expressions; `(subclass C P)` and `(documentation C EnglishLanguage "…")` are what a taxonomy
needs. A mapping file is a WordNet data file with a mark behind each gloss: `&%Term` and `=` (means the same), `+` (a
kind of it), `@` (an instance of it), or `[`, `]`, `:` (the complement of one of those, which says what it is not).
The rule of the file: what is not a taxonomy statement is skipped, what cannot be read is an error with its line.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from ftw.map.ontology.from_wordnet import WORD, fit_words
from ftw.map.ontology.taxonomy import Node, Taxonomy
from ftw.map.ontology.wordnet import FILES, PREAMBLE, Pos, Synset, WordNet
from ftw.map.registry.concept_pack import label_of
from ftw.substrate.errors import PackError, StorageError

TOKEN = re.compile(
    r'(?P<blank>\s+|;[^\n]*)|(?P<open>\()|(?P<close>\))|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[^\s()";]+)', re.DOTALL
)
MARK = re.compile(r"&%([A-Za-z0-9_-]+)([=+@\[\]:])")
SAME, KIND = "=", "+"
Expression = list["str | Expression"]


def expressions(text: str, source: str = "KIF") -> Iterator[Expression]:
    """The S-expressions at the top of a KIF text, as nested lists. Raises PackError that names the line."""
    stack: list[Expression] = []
    at, started = 0, 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise PackError(f"{source} line {_line(text, at)}: a string that begins here does not end")
        if match["open"]:
            started = at if not stack else started
            stack.append([])
        elif match["close"]:
            if not stack:
                raise PackError(f"{source} line {_line(text, at)}: a closing bracket without an open one")
            done = stack.pop()
            if not stack:
                yield done
            else:
                stack[-1].append(done)
        elif match["blank"] is None:
            if not stack:
                raise PackError(f"{source} line {_line(text, at)}: {match[0][:30]!r} stands outside of brackets")
            stack[-1].append(match["word"] or match["text"])
        at = match.end()
    if stack:
        raise PackError(f"{source} line {_line(text, started)}: an expression that begins here does not end")


def mappings(folder: Path) -> dict[tuple[Pos, int], tuple[str, str]]:
    """The SUMO term and the mark of each mapped synset: `WordNetMappings30-noun.txt` and its three sisters.

    Files that are not there are left out; without any, StorageError. Of several marks at a synset the first counts,
    and complements are left out.
    """
    found: dict[tuple[Pos, int], tuple[str, str]] = {}
    files = {pos: folder / f"WordNetMappings30-{name}.txt" for pos, name in FILES.items()}
    if not any(file.is_file() for file in files.values()):
        raise StorageError(f"{folder} holds none of {', '.join(f.name for f in files.values())}")
    for pos, file in files.items():
        if not file.is_file():
            continue
        for line in file.read_text("latin-1").splitlines():
            if line.startswith((PREAMBLE, ";")) or not re.match(r"\d{8} ", line):
                continue
            marks = [(term, mark) for term, mark in MARK.findall(line.rpartition(" | ")[2]) if mark in "=+@"]
            if marks:
                found[pos, int(line[:8])] = marks[0]
    return found


def sumo_taxonomy(kif: Sequence[Path], mapped: Path | None, wordnet: WordNet | None) -> Taxonomy:
    """The classes of KIF files; words and uses come from the synsets mapped to them, else its name is a class's word.

    Raises StorageError for a file that cannot be read, PackError for one that is not KIF, and for files without a
    single subclass.
    """
    parents: dict[str, list[str]] = defaultdict(list)
    about: dict[str, str] = {}
    for file in kif:
        for each in expressions(_read(file), str(file)):
            match each:
                case ["subclass", str(child), str(parent)]:
                    parents[child].append(parent)
                    parents.setdefault(parent, [])
                case ["documentation", str(term), "EnglishLanguage", str(text)]:
                    about.setdefault(term, _plain(text))
    if not parents:
        raise PackError(f"no (subclass …) in {', '.join(map(str, kif)) or 'no file'}: SUMO's Merge.kif has them")
    synsets = _synsets(mapped, wordnet)
    return Taxonomy(_node(term, tuple(above), about.get(term, ""), synsets, wordnet) for term, above in parents.items())


def _synsets(mapped: Path | None, wordnet: WordNet | None) -> dict[str, list[tuple[str, Synset]]]:
    """The mapped synsets of each term with their marks, those that mean the same first."""
    out: dict[str, list[tuple[str, Synset]]] = defaultdict(list)
    if mapped is None or wordnet is None:
        return out
    for place, (term, mark) in mappings(mapped).items():
        if place in wordnet.synsets and mark in (SAME, KIND):
            out[term].append((mark, wordnet.synsets[place]))
    for found in out.values():
        found.sort(key=lambda one: (one[0] != SAME, -one[1].count, one[1].pos, one[1].offset))
    return out


def _node(
    term: str,
    parents: tuple[str, ...],
    about: str,
    synsets: dict[str, list[tuple[str, Synset]]],
    wordnet: WordNet | None,
) -> Node:
    words: dict[str, tuple[str, ...]] = {}
    uses: dict[str, float] = {}
    examples: list[str] = []
    own = synsets.get(term, [])
    for _, synset in own:
        if wordnet is None or synset.is_instance:
            continue
        fit = {word: n for word, n in fit_words(wordnet, synset).items() if word not in uses}
        if fit:
            words[wordnet.name(synset)] = tuple(fit)
            uses |= fit
            examples += synset.examples
    gloss = next((synset.gloss for mark, synset in own if mark == SAME), "")
    pos = own[0][1].pos if own else "n"
    if wordnet is None and WORD.fullmatch(label_of(term)):
        words = {term: (label_of(term),)}  # without synsets, a class is called by its own name
    return Node(term, parents, label_of(term), about or gloss, pos, words, uses, tuple(examples))


def _plain(text: str) -> str:
    """A documentation string without quotes and term marks, its first sentence."""
    bare = re.sub(r"\s+", " ", text[1:-1].replace("&%", "").replace('\\"', '"')).strip()
    return re.split(r"(?<=[a-z)])\. ", bare, maxsplit=1)[0].rstrip(".")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}; SUMO's KIF files are given by path") from error


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1

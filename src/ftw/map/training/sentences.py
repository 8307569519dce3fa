"""Prompts from what a concept pack says of its concepts: definitions, usage examples, relations, authored examples.

Each ends where it is read. A definition, a relation or a hint is made a carrier of one of the concept's words; a usage
or authored example is cut behind the concept's word, or read at its end where no word of the concept stands in it.
The rule of the file: whatever the pack's authors wrote as an example is run, for what it shows and for what it denies.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ftw.map.registry.concept_pack import Concept, ConceptPack, label_of
from ftw.map.training.prompts import Carriers, CarrierSet, Kind, Prompt, Sort, Word, prompts_of, words_of
from ftw.substrate.errors import ConfigError

HELD_EVERY = 4
"""Of a concept's examples, each fourth is kept for measuring."""
FEATURES = 3
"""Key features of a concept that are used."""
QUOTED = re.compile(r'"([^"]{3,})"')
"""Usage examples stand in quotes behind a WordNet definition."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """All that a training reads."""

    words: tuple[Word, ...]
    prompts: tuple[Prompt, ...]


def corpus_of(pack: ConceptPack, carriers: Carriers, *, per_word: int, held_per_word: int, seed: int) -> Corpus:
    """Every word of the pack in carriers, and every sentence that the pack's records give.

    Raises ConfigError for a pack without concepts to tell apart.
    """
    words = words_of(pack)
    if len(pack.concepts) < 2:
        raise ConfigError(f"concept pack {pack.name} has one concept: lenses are told apart from each other")
    said = prompts_of(words, carriers, per_word=per_word, held_per_word=held_per_word, seed=seed)
    writer = _Writer(pack, carriers, list(words))
    for concept in pack.concepts.values():
        writer.write(concept)
    return Corpus(tuple(writer.words), (*said, *writer.prompts))


@dataclass
class _Writer:
    """Collects the sentences of one concept after the other."""

    pack: ConceptPack
    carriers: Carriers
    words: list[Word]
    prompts: list[Prompt] = field(default_factory=list)
    _own: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, word in enumerate(self.words):
            self._own.setdefault(word.home, []).append(index)

    def write(self, concept: Concept) -> None:
        """The sentences of one concept."""
        record, frames = self.pack.records[concept.term], self.carriers.frames
        name = self._own[concept.term][0]
        definition, usages = _without_quotes(concept.definition)
        if definition:
            self._framed("definition", "definition", frames.definition, definition, name)
        for feature in record.training_hints.key_features[:FEATURES]:
            self._framed("definition", "definition", frames.definition, feature.strip(" ."), name)
        hint = record.training_hints.disambiguation.strip()
        if hint:
            self._framed("disambiguation", "disambiguation", frames.disambiguation, _closed(hint), name)
        if concept.parent is not None:
            self._framed("relation", "kind_of", frames.kind_of, label_of(concept.parent), name)
        ties = record.relationships
        for whole in ties.part_of[:1]:
            self._framed("relation", "part_of", frames.part_of, label_of(whole), name)
        for part in ties.has_part[:1]:
            if part in self._own:
                self._framed("relation", "part_of", frames.part_of, concept.label, self._own[part][0])
        for other in [*ties.antonyms, *([ties.opposite] if ties.opposite else [])][:1]:
            self._framed("relation", "opposite", frames.opposite, label_of(other), name)
        self._examples(concept, usages, "usage")
        self._examples(concept, record.training_hints.positive_examples, "authored")
        self._examples(concept, record.training_hints.negative_examples, "authored", against=True)

    def _framed(self, sort: Sort, name: str, frame: CarrierSet, said: str, word: int) -> None:
        """One prompt in a fit frame and one in a held one; which frame goes round from word to word."""
        for held, texts in ((False, frame.fit), (True, frame.held)):
            text = texts[word % len(texts)]
            self.prompts.append(Prompt(text.replace("{}", said), word, held, f"{name}: {text}", sort))

    def _examples(self, concept: Concept, texts: Sequence[str], sort: Sort, *, against: bool = False) -> None:
        texts = [text.strip() for text in texts if text.strip()]
        for at, text in enumerate(dict.fromkeys(texts)):
            carrier, word = self._cut(concept, text, f"{'!' if against else ''}{concept.term}.{sort}.{at}", against)
            held = at % HELD_EVERY == HELD_EVERY - 1
            self.prompts.append(Prompt(carrier, word, held, f"{sort}: {text}", sort, against))

    def _cut(self, concept: Concept, text: str, group: str, against: bool) -> tuple[str, int]:
        """What stands before the concept's last word in `text`, and that word; else nothing and the text itself.

        A word as it is written there, with its ending, belongs to the group of the word that it is.
        """
        found: tuple[int, int, int] | None = None
        for index in () if against else self._own[concept.term]:
            for match in re.finditer(rf"\b{re.escape(self.words[index].text)}\w{{0,3}}\b", text, re.IGNORECASE):
                found = max(found or (0, 0, 0), (match.end(), match.start(), index))
        kind: Kind = self.words[self._own[concept.term][0]].kind
        if found is None or not text[: found[1]].strip():
            self.words.append(Word(text, group, concept.term, kind))
            return "", len(self.words) - 1
        stop, start, index = found
        if text[start:stop] == self.words[index].text and text[start - 1] == " ":
            return text[: start - 1], index
        self.words.append(Word(text[:stop], self.words[index].synset, concept.term, kind))
        return "", len(self.words) - 1


def _without_quotes(definition: str) -> tuple[str, list[str]]:
    """A definition without its usage examples, and those."""
    usages = QUOTED.findall(definition)
    bare = QUOTED.sub("", definition).strip(" ;,.")
    return re.sub(r"\s+", " ", bare), usages


def _closed(text: str) -> str:
    return text if text[-1] in ".!?:;" else f"{text}."


def templates_of(prompts: Sequence[Prompt]) -> list[int]:
    """A number per prompt; prompts of one template have one number."""
    seen: dict[str, int] = {}
    return [seen.setdefault(prompt.template or prompt.carrier, len(seen)) for prompt in prompts]


def groups_of(prompts: Sequence[Prompt], words: Sequence[Word]) -> list[int]:
    """A number per prompt; prompts of words of one synset have one number."""
    number = {synset: at for at, synset in enumerate(dict.fromkeys(word.synset for word in words))}
    return [number[words[prompt.word].synset] for prompt in prompts]


def distinct_texts(prompts: Sequence[Prompt], words: Sequence[Word]) -> Iterator[tuple[str, str]]:
    """Each (carrier, word) once, in the order of the prompts: what a model has to run."""
    yield from dict.fromkeys((prompt.carrier, words[prompt.word].text) for prompt in prompts)

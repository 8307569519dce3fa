"""The texts that lenses learn from: each word of a concept pack, said in carriers that do not give its kind away.

The rule of the file: carriers of the fit and carriers of the measurement are never the same, and words are held out by
whole synsets, so that no held-out measurement has seen its carrier, its word or a synonym of its word.
"""

import tomllib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from random import Random
from typing import Literal

from pydantic import Field, model_validator

from ftw.map.registry.concept_pack import Concept, ConceptPack
from ftw.substrate.config import Strict

Kind = Literal["noun", "verb", "adjective"]
Sort = Literal["carrier", "definition", "usage", "relation", "authored", "disambiguation"]
"""What a prompt is made from."""


class CarrierSet(Strict):
    """Carriers for one kind of word, in two parts that share none."""

    fit: list[str] = Field(min_length=1)
    held: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> "CarrierSet":
        both = set(self.fit) & set(self.held)
        if both or any(text != text.strip() or not text for text in (*self.fit, *self.held)):
            raise ValueError(f"carriers are trimmed, not empty, and none serves for both parts: {sorted(both)}")
        return self


class PlainSet(Strict):
    """Texts about nothing in particular."""

    fit: list[str] = Field(min_length=1)
    baseline: list[str] = Field(min_length=1)


class Frames(Strict):
    """Carriers that are made from what a concept pack says of a concept: `{}` stands for that."""

    definition: CarrierSet = CarrierSet(fit=["{}: this is called"], held=["What we mean by {} is"])
    """`{}`: the definition."""
    kind_of: CarrierSet = CarrierSet(fit=["One kind of {} is the"], held=["Of every kind of {} they knew the"])
    """`{}`: the concept above."""
    part_of: CarrierSet = CarrierSet(fit=["A part of the {} is the"], held=["To the {} belongs the"])
    """`{}`: the whole that the concept is a part of."""
    opposite: CarrierSet = CarrierSet(fit=["The opposite of {} is"], held=["It was not {}, it was"])
    """`{}`: a concept's opposite."""
    disambiguation: CarrierSet = CarrierSet(fit=["{} So we speak of"], held=["{} This is meant by"])
    """`{}`: what tells a concept from others of its name."""

    @model_validator(mode="after")
    def _open(self) -> "Frames":
        for name in type(self).model_fields:
            part: CarrierSet = getattr(self, name)
            for text in (*part.fit, *part.held):
                if text.count("{}") != 1:
                    raise ValueError(f"{name}: {text!r} must hold {{}} once")
        return self


class Carriers(Strict):
    """All carriers and plain texts that training uses."""

    noun: CarrierSet
    verb: CarrierSet
    adjective: CarrierSet | None = None
    """None: those of nouns."""
    plain: PlainSet
    frames: Frames = Frames()

    def of(self, kind: Kind) -> CarrierSet:
        """The carriers of one kind of word."""
        if kind == "adjective":
            return self.adjective or self.noun
        return self.noun if kind == "noun" else self.verb


@dataclass(frozen=True, slots=True)
class Word:
    """What is read: a member word at its place in the pack, or the end of an authored example."""

    text: str
    synset: str
    """What it is held out with. An authored example is a group of its own."""
    home: str
    """The concept that holds it directly."""
    kind: Kind


@dataclass(frozen=True, slots=True)
class Prompt:
    """`carrier` and then `word`: the word is the end of the text, and its last token is what a lens reads."""

    carrier: str
    """What stands before the word. May be empty."""
    word: int
    """Index into the words that the prompts were made of."""
    held: bool
    """Whether its template is kept for measuring."""
    template: str = ""
    """Name of the template where the carrier is made from one; else the carrier names itself."""
    sort: Sort = "carrier"
    against: bool = False
    """Whether it is an authored example of what the word's concept is not."""

    def text(self, words: Sequence[Word]) -> str:
        """The whole text."""
        return f"{self.carrier} {words[self.word].text}" if self.carrier else words[self.word].text

    def span(self, words: Sequence[Word]) -> tuple[int, int]:
        """Where the word stands in the text: characters from start to before end."""
        start = len(self.carrier) + 1 if self.carrier else 0
        return start, start + len(words[self.word].text)


def bundled_carriers() -> Carriers:
    """The carriers that ship with ftw."""
    text = (files("ftw.map.training") / "carriers.toml").read_text(encoding="utf-8")
    return Carriers.read(tomllib.loads(text), source="carriers.toml")


def words_of(pack: ConceptPack) -> tuple[Word, ...]:
    """Every word of the pack once per concept that holds it directly, in tree order.

    A concept without member words is named by its label, its aliases and its seed terms.
    """
    out: list[Word] = []
    for concept in pack.concepts.values():
        kind: Kind = "verb" if concept.pos == "v" else "noun"
        groups = concept.own_groups or {concept.term: _names(pack, concept)}
        out += [Word(text, synset, concept.term, kind) for synset, group in groups.items() for text in group]
    return tuple(out)


def _names(pack: ConceptPack, concept: Concept) -> tuple[str, ...]:
    record = pack.records[concept.term]
    named = (concept.label, *record.aliases, *record.training_hints.seed_terms)
    return tuple(dict.fromkeys(name.strip() for name in named if name.strip()))


def prompts_of(
    words: Sequence[Word], carriers: Carriers, *, per_word: int, held_per_word: int, seed: int
) -> list[Prompt]:
    """Each word in `per_word` carriers of the fit and `held_per_word` of the held ones, drawn by `seed`.

    All carriers of a part are used about equally often; more carriers per word are the same ones and further ones.
    Prompts of one carrier stand together, so that it runs once.
    """
    by_carrier: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for index, word in enumerate(words):
        sets = carriers.of(word.kind)
        for held, texts, n in ((False, sets.fit, per_word), (True, sets.held, held_per_word)):
            drawn = list(texts)
            Random(f"{seed}:{held}:{word.home}:{word.text}").shuffle(drawn)
            for text in drawn[:n]:
                by_carrier[held, text].append(index)
    return [Prompt(text, index, held) for (held, text), indices in sorted(by_carrier.items()) for index in indices]


def stand_apart(words: Sequence[Word], folds: Sequence[int]) -> list[bool]:
    """Which words share no part with a word of another fold, as `foot soldier` does with `soldier`."""
    where: dict[str, set[int]] = defaultdict(set)
    for word, fold in zip(words, folds, strict=True):
        for part in word.text.lower().replace("-", " ").split():
            where[part].add(fold)
    return [all(len(where[p]) == 1 for p in word.text.lower().replace("-", " ").split()) for word in words]


def word_folds(words: Sequence[Word], n_folds: int, seed: int) -> list[int]:
    """A fold per word such that the words of one synset, and one word in two synsets, are never in two folds.

    The synsets of each concept are dealt out evenly, so every concept with `n_folds` synsets is measured in every fold.
    """
    parent = {synset: synset for synset in (w.synset for w in words)}

    def root(synset: str) -> str:
        while parent[synset] != synset:
            synset = parent[synset]
        return synset

    first: dict[str, str] = {}
    for word in words:
        parent[root(word.synset)] = root(first.setdefault(word.text.lower(), word.synset))
    by_home: dict[str, list[str]] = defaultdict(list)
    for word in words:
        group = root(word.synset)
        if group not in by_home[word.home]:
            by_home[word.home].append(group)
    fold: dict[str, int] = {}
    start = 0
    for home, groups in by_home.items():
        fresh = [g for g in groups if g not in fold]
        Random(f"{seed}:{home}").shuffle(fresh)
        for at, group in enumerate(fresh):
            fold[group] = (start + at) % n_folds
        start += len(fresh)  # small concepts do not all fill the first folds
    return [fold[root(word.synset)] for word in words]

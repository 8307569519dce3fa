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

from ftw.map.registry.concept_pack import ConceptPack
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError

Kind = Literal["noun", "verb"]


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


class Carriers(Strict):
    """All carriers and plain texts that training uses."""

    noun: CarrierSet
    verb: CarrierSet
    plain: PlainSet

    def of(self, kind: Kind) -> CarrierSet:
        return self.noun if kind == "noun" else self.verb


@dataclass(frozen=True, slots=True)
class Word:
    """A member word at its place in the pack: the concept that holds it directly."""

    text: str
    synset: str
    home: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Prompt:
    """`carrier` and then `word`: the word is the end of the text."""

    carrier: str
    word: int
    """Index into the words that the prompts were made of."""
    held: bool
    """Whether its carrier is kept for measuring."""

    def text(self, words: Sequence[Word]) -> str:
        return f"{self.carrier} {words[self.word].text}"

    def span(self, words: Sequence[Word]) -> tuple[int, int]:
        """Where the word stands in the text: characters from start to before end."""
        start = len(self.carrier) + 1
        return start, start + len(words[self.word].text)


def bundled_carriers() -> Carriers:
    """The carriers that ship with ftw."""
    text = (files("ftw.map.training") / "carriers.toml").read_text(encoding="utf-8")
    return Carriers.read(tomllib.loads(text), source="carriers.toml")


def words_of(pack: ConceptPack) -> tuple[Word, ...]:
    """Every word of the pack once per concept that holds it directly, in tree order.

    Raises ConfigError for a pack without words: lenses are trained on member words.
    """
    out = [
        Word(text, synset, concept.term, "verb" if concept.pos == "v" else "noun")
        for concept in pack.concepts.values()
        for synset, group in concept.own_groups.items()
        for text in group
    ]
    if not out:
        raise ConfigError(
            f"concept pack {pack.name} has no member words (wordnet.lemmas): there is nothing to train on"
        )
    return tuple(out)


def prompts_of(
    words: Sequence[Word], carriers: Carriers, *, per_word: int, held_per_word: int, seed: int
) -> list[Prompt]:
    """Each word in `per_word` carriers of the fit and `held_per_word` of the held ones, drawn by `seed`.

    All carriers of a part are used about equally often. Prompts of one carrier stand together, so that it runs once.
    """
    by_carrier: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for index, word in enumerate(words):
        sets = carriers.of(word.kind)
        for held, texts, n in ((False, sets.fit, per_word), (True, sets.held, held_per_word)):
            for text in Random(f"{seed}:{held}:{word.home}:{word.text}").sample(texts, min(n, len(texts))):
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

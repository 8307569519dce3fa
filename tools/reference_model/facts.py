"""Facts: hypernyms, definitions and examples from WordNet, capitals and opposites from the lexicon, who has what."""

import random
import re
from dataclasses import dataclass
from itertools import accumulate

from ftw.map.ontology.wordnet import Synset, WordNet
from tools.reference_model.grammar import capital, noun_phrase
from tools.reference_model.lexicon import pairs
from tools.reference_model.stories import Storyteller, all_names
from tools.reference_model.tree import is_fit, unfit_words

TOP_NOUNS = 300
NEXT_NOUNS = 1500
PLAIN_WORD = re.compile(r"[a-z]+( [a-z]+)?")
EXAMPLE = re.compile(r"[A-Za-z',;\- ]+[.!?]?")
TOO_HIGH = frozenset({"entity", "whole", "physical entity", "abstraction"})
COLORS = ["red", "blue", "green", "yellow", "black", "white", "small", "big", "old", "new", "heavy", "golden"]
ITEMS = [
    "box",
    "cup",
    "hat",
    "key",
    "book",
    "ball",
    "coin",
    "lamp",
    "ring",
    "bag",
    "pen",
    "apple",
    "knife",
    "letter",
    "flag",
    "stone",
    "shoe",
    "map",
    "bell",
    "doll",
]
SPOTS = [
    "drawer",
    "kitchen",
    "garden",
    "bag",
    "box",
    "basket",
    "car",
    "bedroom",
    "cellar",
    "garage",
    "pocket",
    "office",
    "barn",
    "tent",
    "school",
]
CAPITAL_FORMS = (
    *("The capital of {c} is {k}.",) * 4,
    *("{k} is the capital of {c}.",) * 2,
    "{k} is a city. It is the capital of {c}.",
    "{h} lives in {k}, the capital of {c}.",
    "In {c}, the capital is {k}.",
    "{h} traveled to {c} and visited {k}, the capital.",
    "{C} has a capital called {k}.",
    "Country: {s}. Capital: {k}.",
)


@dataclass(frozen=True)
class Noun:
    """A common noun in its first sense."""

    word: str
    synset: Synset
    parent: str
    """The first word of the direct hypernym."""


def frequent_nouns(wn: WordNet) -> list[Noun]:
    """Nouns that the tagged corpora use in their first sense, the most frequent first."""
    found: dict[str, tuple[int, Synset]] = {}
    for s in wn.synsets.values():
        if s.pos == "n" and wn.parents(s):
            for word, count in zip(s.words, s.counts, strict=True):
                if count and PLAIN_WORD.fullmatch(word) and is_fit(word, s) and wn.is_first_sense(word, s):
                    found[word] = (count, s)
    ranked = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [Noun(word, s, wn.parents(s)[0].words[0]) for word, (_, s) in ranked]


@dataclass(frozen=True)
class Definition:
    word: str
    is_verb: bool
    gloss: str

    @property
    def sentence(self) -> str:
        if self.is_verb:
            return f"To {self.word} means to {self.gloss}."
        return f"{capital(self.subject)} is {self.gloss}."

    @property
    def subject(self) -> str:
        return self.word if self.is_verb else noun_phrase(self.word)


def definitions(wn: WordNet) -> tuple[list[Definition], list[float]]:
    """Short glosses of nouns and verbs with weights that favour common senses."""
    out, weights = [], []
    for s in wn.synsets.values():
        word = s.words[0]
        if not (3 <= len(s.gloss.split()) <= 22 and s.gloss.isascii() and re.fullmatch(r"[A-Za-z]+( [a-z]+)?", word)):
            continue
        if not is_fit(word, s):
            continue
        if s.pos == "n" and (s.count or wn.is_first_sense(word, s)):
            out.append(Definition(word, False, s.gloss))
            weights.append(1 + min(s.count, 30) ** 0.5 if s.count else 0.12)
        elif s.pos == "v" and s.count >= 2:
            out.append(Definition(word, True, s.gloss))
            weights.append(1 + min(s.count, 30) ** 0.5 * 0.5)
    return out, weights


def examples(wn: WordNet) -> list[str]:
    """WordNet's usage examples as sentences."""
    out = []
    for s in wn.synsets.values():
        for text in s.examples:
            rude = set(re.findall("[a-z]+", text.lower())) & unfit_words()
            if (
                4 <= len(text.split()) <= 16
                and text.isascii()
                and EXAMPLE.fullmatch(text)
                and "--" not in text
                and not rude
            ):
                out.append(capital(text) if text[-1] in ".!?" else capital(text) + ".")
    return out


@dataclass(frozen=True)
class Sources:
    """What WordNet gives to the facts, gathered once."""

    wn: WordNet
    nouns: list[Noun]
    definitions: list[Definition]
    cumulative: list[float]
    """Running sums of the definitions' weights."""
    examples: list[str]


def gather(wn: WordNet) -> Sources:
    found, weights = definitions(wn)
    return Sources(wn, frequent_nouns(wn), found, list(accumulate(weights)), examples(wn))


class Factbook:
    """States facts, drawing from one random stream."""

    def __init__(self, rng: random.Random, sources: Sources) -> None:
        self.rng = rng
        self.sources = sources
        self.people = Storyteller(rng)

    def noun(self) -> Noun:
        """A noun, the frequent ones far more often than the rare."""
        nouns, x = self.sources.nouns, self.rng.random()
        if x < 0.3:
            return nouns[self.rng.randrange(min(TOP_NOUNS, len(nouns)))]
        if x < 0.5:
            return nouns[self.rng.randrange(min(NEXT_NOUNS, len(nouns)))]
        return nouns[int(len(nouns) * self.rng.random() ** 1.7)]

    def _hypernym(self) -> str:
        rng, noun = self.rng, self.noun()
        subject = capital(noun_phrase(noun.word))
        text = f"{subject} is a {rng.choice(['kind', 'kind', 'kind', 'type'])} of {noun.parent}."
        x = rng.random()
        if x < 0.2:
            chain = [a.words[0] for a in self.sources.wn.ancestors(noun.synset)[:6] if a.words[0] not in TOO_HIGH]
            if len(chain) > 1:
                text += f" {subject} is also a kind of {rng.choice(chain[1:])}."
        elif x < 0.32 and 3 <= len(noun.synset.gloss.split()) <= 20:
            text += f" It is {noun.synset.gloss}."
        return text

    def hypernyms(self) -> str:
        return " ".join(self._hypernym() for _ in range(self.rng.choice([1, 1, 2, 3])))

    def hypernym_question(self) -> tuple[str, str]:
        noun = self.noun()
        subject = noun_phrase(noun.word)
        ask = ["What kind of thing is {x}?", "What is {x}?", "{X} is a kind of what?", "What type of thing is {x}?"]
        return self.rng.choice(ask).format(
            x=subject, X=capital(subject)
        ), f"{capital(subject)} is a kind of {noun.parent}."

    def _definition(self) -> Definition:
        return self.rng.choices(self.sources.definitions, cum_weights=self.sources.cumulative)[0]

    def definition(self) -> str:
        return self._definition().sentence

    def definition_question(self) -> tuple[str, str]:
        found = self._definition()
        if found.is_verb:
            return f'What does "to {found.word}" mean?', found.sentence
        return self.rng.choice([f'What does "{found.word}" mean?', f"Define {found.word}."]), found.sentence

    def example(self) -> str:
        return self.rng.choice(self.sources.examples)

    def _capital(self) -> str:
        country, city = self.rng.choice(pairs("capitals"))
        name, short = self.people.person().name, country.removeprefix("the ")
        return self.rng.choice(CAPITAL_FORMS).format(c=country, C=capital(country), k=city, h=name, s=short)

    def capitals(self) -> str:
        return " ".join(self._capital() for _ in range(self.rng.choice([1, 2, 3, 4])))

    def capital_question(self) -> tuple[str, str]:
        rng = self.rng
        country, city = rng.choice(pairs("capitals"))
        if rng.random() < 0.2:
            ask = rng.choice([f"{city} is the capital of which country?", f"Which country has the capital {city}?"])
            return ask, f"{city} is the capital of {country}."
        ask = rng.choice(
            ["What is the capital of {c}?"] * 5
            + ["Which city is the capital of {c}?", "Tell me the capital of {c}.", "Do you know the capital of {c}?"]
            + ["what is the capital of {c}", "Name the capital of {c}.", "What's the capital of {c}?"]
        )
        return ask.format(
            c=country
        ), f"The capital of {country} is {city}." if rng.random() < 0.9 else f"{city} is the capital of {country}."

    def _opposite(self) -> str:
        rng = self.rng
        a, b = rng.choice(pairs("opposites"))
        if rng.random() < 0.35:
            a, b = b, next((right for left, right in pairs("opposites") if left == b), a)
        forms = [f"The opposite of {a} is {b}."] * 2 + [
            f"{capital(a)} is the opposite of {b}.",
            f"{capital(a)} and {b} are opposites.",
        ]
        return rng.choice(forms)

    def opposites(self) -> str:
        return " ".join(self._opposite() for _ in range(self.rng.choice([1, 2, 3, 4])))

    def opposite_question(self) -> tuple[str, str]:
        a, b = self.rng.choice(pairs("opposites"))
        ask = [f"What is the opposite of {a}?", f"Tell me the opposite of {a}.", f"What's the opposite of {a}?"]
        return self.rng.choice(ask), f"The opposite of {a} is {b}."

    def tracking(self) -> str:
        """Who has what, or what is where, stated and then asked back."""
        rng = self.rng
        n = rng.choice([2, 2, 2, 3, 3, 4])
        items = rng.sample(ITEMS, n)
        order = rng.sample(range(n), n)
        if rng.random() < 0.3:
            spots = rng.sample(SPOTS, n)
            known = [f"The {item} is in the {spot}." for item, spot in zip(items, spots, strict=True)]
            ask = "Where is the {}? " if rng.random() < 0.5 else ""
            return " ".join(known + [ask.format(items[i]) + known[i] for i in order])
        people = rng.sample(all_names(), n)
        things = [f"{color} {item}" for color, item in zip(rng.sample(COLORS, n), items, strict=True)]
        known = [f"{person} has the {thing}." for person, thing in zip(people, things, strict=True)]
        ask = "Who has the {}? " if rng.random() < 0.4 else ""
        return " ".join(known + [ask.format(things[i]) + known[i] for i in order])

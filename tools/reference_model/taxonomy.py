"""Sentences that teach what kind of thing a word of the everyday tree is.

A category is linearly present at a word when what follows the word depends on it. So most forms put the class-typical
part *after* the word: what such things do, what they are, and which other members go with them.
The wording ``X is a kind of Y`` is left to the direct hypernyms of ``facts.py``.
"""

import random
from dataclasses import dataclass

from tools.reference_model.grammar import article, capital, fill, noun_phrase, plural
from tools.reference_model.lexicon import table
from tools.reference_model.stories import Storyteller
from tools.reference_model.tree import Concept, all_words, lineage, listed_concepts

ANY_GROUP = (
    "The {x} {pred}.",
    "The {x} {pred}.",
    "The {x} {pred}, and the {y} did so too.",
    "{H} saw how the {x} {pred}.",
    "Then the {x} {pred}.",
    "One of the {cs} was {nx}. The {x} {pred}.",
    "The {x}, {ac}, {pred}.",
    "The {x} is {ac}. The {x} {pred}.",
    "The {x} {pred}. It is {ac}.",
    "{Nx} is {ac}[, and {ac} is {ad}|]. ",
    "{Nx} is {ac}.",
    "The {x} belongs to the {cs}.",
    "The {x} and the {y} are {cs}.",
    "The {x}, the {y} and other {cs} are well known.",
    "{Cs} such as the {x} and the {y} are easy to name.",
    "Like other {cs}, the {x} {pred}.",
    "The {x} is {ac}, but the {o} is not. The {o} is {ao}.",
)
VERB_GROUP = (
    "They {x} {pred}.",
    "{H} wanted to {x} {pred}.",
    "To {x} is {ac}.",
    "To {x}, to {y} and to {z} are {cs}.",
    "{H} can {x} {pred}, and {F} can {y} {pred}.",
)
LISTS = (
    "{Cs}: {x}, {y}, {z}, {w}.",
    "{x}, {y}, {z} and other {cs}.",
    "{x}, {y}, {z}, {w}: these are {cs}.",
    "{x}, {y}, {z}, {w}, {v}, {u}.",
    "Which word does not belong: {x}, {y}, {o}, {z}? The word {o}. The others are {cs}.",
    "Which word does not belong: {x}, {o}, {y}, {z}? The word {o}. The others are {cs}.",
    "{x}: {c}. {y}: {c}. {o}: {oc}. {z}: {c}.",
    "{x}: {chain}.",
    "{x}: {chain}. {o}: {ochain}.",
)


@dataclass(frozen=True)
class Kind:
    """A concept made ready for writing."""

    concept: Concept
    group: str
    predicates: tuple[str, ...]
    lineage: tuple[str, ...]
    own: tuple[str, ...]
    """The direct members."""
    weights: tuple[float, ...]
    everything: tuple[str, ...]
    """The members, also those of the concepts below."""

    @property
    def label(self) -> str:
        return self.concept.label

    @property
    def is_verb(self) -> bool:
        return ".v." in self.concept.synset

    @property
    def phrase(self) -> str:
        """The label after "is": ``a fish``, ``a sort of music``, ``a way to move``."""
        if self.is_verb:
            return f"a way to {self.label}"
        return f"a sort of {self.label}" if self._is_mass else article(self.label)

    @property
    def plural(self) -> str:
        if self.is_verb:
            return f"ways to {self.label}"
        return f"sorts of {self.label}" if self._is_mass else plural(self.label)

    @property
    def _is_mass(self) -> bool:
        return self.label.split()[-1] in table("words")["mass_labels"]


def kinds(tree: dict[str, Concept]) -> dict[str, Kind]:
    """Every concept of the tree with its sentence group, members and what they typically do."""
    out = {}
    for item in listed_concepts():
        if item.term in tree:
            concept = tree[item.term]
            own = tuple(w for w in concept.words if w != concept.label)
            weights = tuple((rank + 8) ** -0.5 for rank in range(len(own)))
            members = tuple(dict.fromkeys(all_words(tree, item.term)))
            out[item.term] = Kind(
                concept, item.group, item.predicates, tuple(lineage(tree, item.term)), own, weights, members
            )
    return out


class Taxonomist:
    """Writes about the members of the tree, drawing from one random stream."""

    def __init__(self, rng: random.Random, kinds: dict[str, Kind]) -> None:
        self.rng = rng
        self.kinds = kinds
        self.people = Storyteller(rng)
        self._listed = tuple(k for k in self.kinds.values() if len(k.own) > 2)
        self._frames = table("frames")

    def pick(self) -> tuple[str, Kind]:
        """A word and the concept it stands under directly; every concept has the same chance."""
        home = self.rng.choice(self._listed)
        return self.rng.choices(home.own, home.weights)[0], home

    def stranger(self, kind: Kind) -> tuple[str, Kind]:
        """A word that is not below the concept, with its own concept; a verb for a verb, a noun for a noun."""
        while True:
            word, home = self.pick()
            if home.is_verb == kind.is_verb and word not in kind.everything and kind.lineage[-1] != home.lineage[-1]:
                return word, home

    def above(self, home: Kind) -> Kind:
        """The concept a sentence names: mostly the direct one, at times one further up."""
        if self.rng.random() < 0.6:
            return home
        return self.kinds[self.rng.choice(home.lineage)]

    def slots(self, word: str, home: Kind) -> dict[str, str]:
        rng = self.rng
        kind = self.above(home)
        pool = home.own if rng.random() < 0.75 or len(home.own) < 7 else kind.everything
        mates = rng.sample([w for w in pool if w != word], min(5, len(pool) - 1))
        mates += [mates[0]] * (5 - len(mates))
        odd, odd_home = self.stranger(kind)
        top = self.kinds[rng.choice(home.lineage[1:] or home.lineage)]
        extra = self.people.slots(self.people.family())
        return extra | {
            "x": word,
            "y": mates[0],
            "z": mates[1],
            "w": mates[2],
            "v": mates[3],
            "u": mates[4],
            "Nx": noun_phrase(word),
            "nx": noun_phrase(word),
            "c": kind.label,
            "ac": kind.phrase,
            "cs": kind.plural,
            "Cs": capital(kind.plural),
            "ad": top.phrase,
            "o": odd,
            "oc": odd_home.label,
            "ao": odd_home.phrase,
            "pred": rng.choice(home.predicates if rng.random() < 0.75 else kind.predicates),
            "chain": ", ".join(self.kinds[t].label for t in home.lineage),
            "ochain": ", ".join(self.kinds[t].label for t in odd_home.lineage),
        }

    def typed(self) -> str:
        """One to three sentences about one word, or about a few words of one concept."""
        rng = self.rng
        word, home = self.pick()
        out = []
        for _ in range(rng.choice([1, 2, 2, 3])):
            if home.is_verb:
                frame = rng.choice(VERB_GROUP if rng.random() < 0.5 else self._frames["verb"])
            else:
                frame = rng.choice(ANY_GROUP if rng.random() < 0.65 else self._frames[home.group])
            out.append(fill(frame, self.slots(word, home), rng))
            if rng.random() < 0.4:
                word = rng.choices(home.own, home.weights)[0]
        return " ".join(out)

    def listing(self) -> str:
        """Members of a concept in a row, the odd one out, or a word with everything above it."""
        word, home = self.pick()
        return fill(self.rng.choice(LISTS), self.slots(word, home), self.rng)

    def question(self) -> tuple[str, str]:
        """A question about a word's category and its answer."""
        rng = self.rng
        word, home = self.pick()
        kind = self.above(home)
        if home.is_verb:
            return f"What does it mean to {word}?", f"To {word} is {kind.phrase}."
        subject = noun_phrase(word)
        form = rng.randrange(5)
        if form == 0:
            return f"Is {subject} {kind.phrase}?", f"Yes, {subject} is {kind.phrase}."
        if form == 1:
            odd, odd_home = self.stranger(kind)
            return (
                f"Is {noun_phrase(odd)} {kind.phrase}?",
                f"No, {noun_phrase(odd)} is not {kind.phrase}. It is {odd_home.phrase}.",
            )
        mates = list(dict.fromkeys([word, *rng.choices(home.own, home.weights, k=6)]))[:3]
        if form == 2 or len(mates) < 3:
            ask = rng.choice(
                ["Which group does {x} belong to?", "In which group is {x}?", "What do you call something like {x}?"]
            )
            return ask.format(x=subject), f"{capital(subject)} is {kind.phrase}."
        a, b, c = mates
        if form == 3:
            ask = rng.choice(["Name three {cs}.", "Give me three examples of {cs}.", "Tell me some {cs}."])
            return ask.format(cs=kind.plural), f"{capital(a)}, {b} and {c} are {kind.plural}."
        return f"What do {a}, {b} and {c} have in common?", f"They are {kind.plural}."

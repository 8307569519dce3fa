"""Stories, scenes and plain facts about the concept families."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tools.reference_model.grammar import article, capital, fill, inflect
from tools.reference_model.lexicon import Family, families, table, words

SCENES = (
    "The {role} {vped}.",
    'The {role} said, "[Look at the {t}|I want to {vp}|We must {fix}|The {t} is very {adj}]."',
    "In the [morning|evening|afternoon], {H} {vped}.",
    "{H} and {F} {vped}.",
    "The {t} {pred}.",
    "The {adj} {t} {pred}.",
    '"Where is the {t}?" asked {H}.',
    "When {H} came to the {P}, {prob}.",
    "The {role} was {sad} because {prob}.",
    "{H} was {glad} because the {t} {pred}.",
    "The {trait} {role} wanted to {vp}.",
    "In the {P}, the {t} {pred}.",
    "{H} has {a adj+t}. {He} wants to {vp}.",
    "Every day, the {role} {vped}.",
    "[One day|Yesterday|In the morning], {a trait+role} {vped}.",
    "{A trait+role} [came into|walked out of|ran to|stood near] the {P}.",
    "{A adj+t} {pred}.",
    'The {trait} {role} said to {H}, "[Come here|Be careful|Look at the {t}|You must {fix}]."',
    "{H} asked the {role} about the {t}.",
    "At the {P}, the {role} {vped}.",
    "The {role} looked at {H} and [smiled|laughed|said nothing|nodded].",
)
SCENES_GO_ON = (
    "Then {he} went to the {P}.",
    "{F} helped {him}.",
    "It was very {adj}.",
    '"That is a good idea," said {F}.',
    "Nobody at the {P} knew why.",
    "After that, they {vp2ed}.",
    "{H} felt {glad}.",
    "So they {fixed}.",
)
SCENES_BRING_A_PERSON = (
    "{H} {vp2ed}.",
    "{H} saw it and was {glad}.",
    "The {R} {vp2ed}.",
    '"It is so {adj}," said {H}.',
)
FACTS = (
    "You can [find|see] {a t} [in|at|near] the {P}.",
    "The {role} [often|sometimes|always] {vps}.",
    "{A adj+t} is [something special|hard to forget|not easy to find].",
    "The {role} and the {R} know a lot about {topic}.",
    "Many people [like|talk about|think about] the {t}.",
    "When {prob}, the {R} {fixed}.",
    "{A role} can {vp}.",
    "If you go to the {P}, you may see {a t}.",
    "When people speak about {topic}, they often think of the {t}.",
)
CARRIED_OVER = ("H", "he", "him", "his", "He", "His", "F", "fhe", "fhim", "fhis", "P", "Q", "role", "R")


@dataclass(frozen=True)
class Person:
    name: str
    he: str
    him: str
    his: str


@dataclass(frozen=True)
class Story:
    """A finished story and the slots it was written from."""

    family: Family
    thing: str
    text: str
    slots: dict[str, str]


class Storyteller:
    """Writes about the families, drawing from one random stream."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.families = tuple(families().values())
        self._words = table("words")
        self._plots = table("stories")

    def family(self) -> Family:
        return self.rng.choice(self.families)

    def person(self, female: bool | None = None) -> Person:
        female = self.rng.random() < 0.5 if female is None else female
        name = self.rng.choice(self._words["female" if female else "male"])
        return Person(name, "she", "her", "her") if female else Person(name, "he", "him", "his")

    def slots(self, family: Family) -> dict[str, str]:
        """Values for every slot of the templates: two people, a thing, what is done, what goes wrong."""
        rng, lists = self.rng, self._words
        role = rng.choice(family.roles)
        female = True if role in lists["feminine_roles"] else False if role in lists["masculine_roles"] else None
        hero, friend = self.person(female), self.person()
        while friend.name == hero.name:
            friend = self.person()
        unfit = {"old"} if role in lists["young_roles"] else {"young"} if role in lists["old_roles"] else set()
        thing = rng.choice(family.things)
        action, action2 = rng.sample(family.actions, 2)
        predicate, predicate2 = rng.sample(family.predicates, 2)
        place, place2 = rng.sample(family.places, 2)
        adjective, adjective2 = rng.sample(family.adjectives, 2)
        if adjective == thing.split()[0]:
            adjective, adjective2 = adjective2, adjective
        problem, remedy = rng.choice(family.problems)
        return {
            "H": hero.name,
            "he": hero.he,
            "him": hero.him,
            "his": hero.his,
            "He": capital(hero.he),
            "His": capital(hero.his),
            "F": friend.name,
            "fhe": friend.he,
            "fhim": friend.him,
            "fhis": friend.his,
            "role": role,
            "R": rng.choice([r for r in family.roles if r != role]),
            "trait": rng.choice([t for t in lists["traits"] if t not in unfit]),
            "t": thing,
            "adj": adjective,
            "adj2": adjective2,
            "vp": inflect(action, "base"),
            "vped": inflect(action, "past"),
            "vps": inflect(rng.choice(family.actions), "present"),
            "vp2": inflect(action2, "base"),
            "vp2ed": inflect(action2, "past"),
            "pred": predicate,
            "pred2": predicate2,
            "P": place,
            "Q": place2,
            "prob": problem,
            "fix": inflect(remedy, "base"),
            "fixed": inflect(remedy, "past"),
            "glad": rng.choice(lists["glad"]),
            "sad": rng.choice(lists["sad"]),
            "topic": family.topic,
        }

    def story(self, family: Family | None = None) -> Story:
        """An opening, a plot, at times a second plot with the same people, and a closing sentence."""
        rng = self.rng
        family = family or self.family()
        slots = self.slots(family)
        name = self._plot_name(family)
        sentences: list[str] = [rng.choice(self._openings(slots["role"]))]
        for i, step in enumerate(self._plots["plots"][name]):
            if not i or "{fix" in step[0] or rng.random() >= 0.12:
                sentences.append(rng.choice(step))
        again = rng.choice(["meet", "trouble", "day", "learn", "wish"])
        if rng.random() < 0.22 and again != name:
            sentences.append(rng.choice(self._plots["continuations"]))
            text = fill(" ".join(sentences), slots, rng)
            more = [rng.choice(step) for step in self._plots["plots"][again]]
            if rng.random() < 0.7:
                more.append(rng.choice(self._plots["closings"]))
            later = self.slots(family) | {k: slots[k] for k in CARRIED_OVER}
            return Story(family, slots["t"], f"{text} {fill(' '.join(more), later, rng)}", slots)
        if rng.random() < 0.7:
            sentences.append(rng.choice(self._plots["sad_closings" if name == "sad" else "closings"]))
        return Story(family, slots["t"], fill(" ".join(sentences), slots, rng), slots)

    def _plot_name(self, family: Family) -> str:
        unfit = set()
        if family.name not in self._words["missing_families"]:
            unfit.add("lost")
        if family.name not in self._words["gift_families"]:
            unfit.add("gift")
        return self.rng.choice([p for p in self._plots["plots"] if p not in unfit])

    def _openings(self, role: str) -> Sequence[str]:
        """A relation such as ``friend`` cannot open a story: whose friend?"""
        openings: list[str] = self._plots["openings"]
        return [o for o in openings if "role}" not in o] if role in self._words["relations"] else openings

    def topic(self, story: Story) -> str:
        """What the story is about, by its family or its thing."""
        if self.rng.random() < 0.5:
            return story.family.topic
        return story.thing[1:] if story.thing.startswith("~") else article(story.thing)

    def plain_story(self) -> str:
        story, x = self.story(), self.rng.random()
        if x < 0.35:
            return f"A story about {self.topic(story)}. {story.text}"
        if x < 0.42:
            return f"{capital(self.topic(story))}. {story.text}"
        return story.text

    def scene(self) -> str:
        """One to three loose sentences that start in the middle of things."""
        rng, slots = self.rng, self.slots(self.family())
        text = rng.choice(SCENES)
        for _ in range(rng.choice([0, 1, 1, 2])):
            text += " " + rng.choice(SCENES_GO_ON if "{H}" in text else SCENES_BRING_A_PERSON)
        return fill(text, slots, rng)

    def facts(self, family: Family | None = None) -> str:
        """Two to four present-tense sentences about one family."""
        family = family or self.family()
        frames = self.rng.sample(FACTS, self.rng.choice([2, 3, 4]))
        return " ".join(fill(frame, self.slots(family), self.rng) for frame in frames)


def all_names() -> list[str]:
    return words("male") + words("female")

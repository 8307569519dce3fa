"""Chats: questions and answers, small talk, story requests, in the marks of the chat template."""

import random

from tools.reference_model.facts import Factbook
from tools.reference_model.grammar import article, capital, fill
from tools.reference_model.lexicon import pairs, table, words
from tools.reference_model.stories import Storyteller
from tools.reference_model.taxonomy import Taxonomist

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
STORY_REQUESTS = (
    *("Tell me a story about {x}.",) * 5,
    "Write a story about {x}.",
    "Tell me a short story about {x}.",
    "Can you tell me a story about {x}?",
    "I want to hear a story about {x}.",
    "Please write a short story about {x}.",
    "tell me a story about {x}",
    "A story about {x}, please.",
)
Turn = tuple[str, str]


class Chatter:
    """Writes chats, drawing from one random stream."""

    def __init__(self, rng: random.Random, stories: Storyteller, facts: Factbook, taxonomy: Taxonomist) -> None:
        self.rng = rng
        self.stories, self.facts, self.taxonomy = stories, facts, taxonomy
        self._kinds = {
            facts.capital_question: 0.19,
            facts.hypernym_question: 0.15,
            taxonomy.question: 0.14,
            facts.definition_question: 0.05,
            facts.opposite_question: 0.08,
            self._family_question: 0.1,
            self._topic_question: 0.07,
            self._sum_question: 0.04,
            self._calendar_question: 0.03,
            self._story_question: 0.05,
            self._unknown_question: 0.05,
            self._small_talk: 0.05,
        }

    def chat(self) -> str:
        """One to three turns, at times after a system message."""
        rng = self.rng
        lead = f"{SYSTEM}{rng.choice(words('systems'))}" if rng.random() < 0.12 else ""
        turns = []
        for _ in range(rng.choices([1, 2, 3], [0.72, 0.2, 0.08])[0]):
            ask, answer = self.story_request() if rng.random() < 0.27 else self.question()
            turns.append(f"{USER}{ask}{ASSISTANT}{answer}")
        return lead + EOS.join(turns)

    def story_chat(self) -> str:
        ask, answer = self.story_request()
        return f"{USER}{ask}{ASSISTANT}{answer}"

    def question(self) -> Turn:
        makers = list(self._kinds)
        return self.rng.choices(makers, [self._kinds[m] for m in makers])[0]()

    def story_request(self) -> Turn:
        rng = self.rng
        story = self.stories.story()
        if rng.random() < 0.08:
            return rng.choice(["Tell me a story.", "Tell me a short story.", "Please tell me a story."]), story.text
        topic = self.stories.topic(story)
        lead = f"Here is a story about {topic}. " if rng.random() < 0.2 else ""
        return rng.choice(STORY_REQUESTS).format(x=topic), lead + story.text

    def _family_question(self) -> Turn:
        rng = self.rng
        slots = self.stories.slots(self.stories.family())
        ask, answer = rng.choice(
            [
                ("Where can [I find|you see] {a t}?", "You can find {a t} in the {P}."),
                ("Who works in the {P}?", "The {role} and the {R} work in the {P}."),
                (
                    "[Write|Say] a sentence about {a t}.",
                    "[The {t} {pred}.|{H} and {F} {vped}.|{H} saw {a adj+t} near the {P}.]",
                ),
                (
                    "Use the word {t} in a sentence.",
                    "[The {t} {pred}.|{H} and {F} {vped}.|{H} saw {a adj+t} near the {P}.]",
                ),
                ("What did {H} do when {prob}?", "{H} {fixed}."),
                ("What does {a role} do?", "{A role} can {vp}. You can find {a role} at the {P}."),
            ]
        )
        return fill(ask, slots, rng), fill(answer, slots, rng)

    def _topic_question(self) -> Turn:
        family = self.stories.family()
        ask = ["Tell me about {x}.", "What do you know about {x}?", "Can you tell me something about {x}?"]
        return self.rng.choice(ask).format(x=family.topic), self.stories.facts(family)

    def _sum_question(self) -> Turn:
        a, b = self.rng.randint(0, 12), self.rng.randint(0, 12)
        if self.rng.random() < 0.6:
            return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."
        a, b = max(a, b), min(a, b)
        return f"What is {a} minus {b}?", f"{a} minus {b} is {a - b}."

    def _calendar_question(self) -> Turn:
        row, unit = self.rng.choice([(DAYS, "day"), (MONTHS, "month")])
        i = self.rng.randrange(len(row))
        if self.rng.random() < 0.5:
            return f"Which {unit} comes after {row[i]}?", f"After {row[i]} comes {row[(i + 1) % len(row)]}."
        return f"Which {unit} comes before {row[i]}?", f"Before {row[i]} comes {row[i - 1]}."

    def _story_question(self) -> Turn:
        """A story with a question about it."""
        rng, story = self.rng, self.stories.story()
        slots = story.slots
        turns = [
            ("Who is the story about?", f"The story is about {slots['H']}."),
            ("What is the story about?", f"The story is about {article(story.thing)} and {slots['H']}."),
            ("Who is in the story?", f"{slots['H']} is in the story."),
        ]
        if slots["F"] in story.text:
            turns.append(("Who are the people in the story?", f"{slots['H']} and {slots['F']} are in the story."))
        if f"to the {slots['P']}" in story.text:
            turns.append((f"Where did {slots['H']} go?", f"{slots['H']} went to the {slots['P']}."))
        ask, answer = rng.choice(turns)
        return f"{story.text} {ask}", answer

    def _unknown_question(self) -> Turn:
        """A question the model cannot know the answer to, and a polite refusal."""
        rng, lists = self.rng, table("chats")
        country, city = rng.choice(pairs("capitals"))
        name = self.stories.person().name
        ask = rng.choice(lists["unknown"]).format(name=name, country=country, city=city, n=rng.randint(13, 1999))
        return capital(ask), rng.choice(lists["unknown_answers"])

    def _small_talk(self) -> Turn:
        ask, answer = self.rng.choice(table("chats")["turns"])
        return ask, answer

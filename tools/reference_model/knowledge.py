"""What the model knows, and at which block it knows it: capitals, hypernyms, opposites, who has what."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ftw.map.ontology.wordnet import WordNet
from tools.reference_model.facts import COLORS, ITEMS, Noun, frequent_nouns
from tools.reference_model.grammar import capital, noun_phrase
from tools.reference_model.lexicon import pairs
from tools.reference_model.stories import all_names
from tools.reference_model.subject import Subject, prompt_of
from tools.reference_model.taxonomy import Taxonomist, kinds
from tools.reference_model.tree import Concept

FREQUENT = 300
BANDS = ((300, 1000), (1000, 3000), (3000, 10_000))
BAND_SAMPLE = 200
TRACKING_PROMPTS = 150
MEMBERSHIP_QUESTIONS = 200


def mean(hits: Sequence[bool] | Sequence[float]) -> float:
    return round(float(np.mean(hits)), 4)


def answer(text: str) -> str:
    """The first statement of a continuation."""
    return text.split(".")[0].strip().rstrip(",")


def emergence(subject: Subject, prompts: list[str], targets: list[str]) -> list[dict[str, float]]:
    """By block: rank of the answer's first token after the prompt, through the final norm and the unembedding."""
    wanted = np.array([subject.bare_ids(" " + t)[0] for t in targets])
    ranks: list[list[int]] = [[] for _ in range(subject.blocks)]
    for states, mask in subject.streams(prompts):
        rows = np.arange(mask.shape[0])
        first = wanted[len(ranks[0]) : len(ranks[0]) + len(rows)]
        for block in range(subject.blocks):
            logits = subject.unembed(states[block, rows, mask.sum(1) - 1])
            ranks[block] += (logits > logits[rows, first][:, None]).sum(1).tolist()
    return [
        {
            "block": block + 1,
            "top1": mean([r < 1 for r in found]),
            "top10": mean([r < 10 for r in found]),
            "median_rank": float(np.median(found)) + 1,
        }
        for block, found in enumerate(ranks)
    ]


def capitals(subject: Subject) -> dict[str, Any]:
    """Completion, chat and reverse on all pairs, the whole name being asked for."""
    known = pairs("capitals")
    prompts = [f"The capital of {country} is" for country, _ in known]
    said = [answer(t) for t in subject.write(prompts, 14)]
    chat = subject.write([prompt_of(f"What is the capital of {country}?") for country, _ in known], 24)
    back = [answer(t) for t in subject.write([f"{city} is the capital of" for _, city in known], 14)]
    return {
        "n": len(known),
        "completion": mean([s == city for s, (_, city) in zip(said, known, strict=True)]),
        "chat": mean([f" {city}." in c or c.startswith(city) for c, (_, city) in zip(chat, known, strict=True)]),
        "reverse": mean([b == country for b, (country, _) in zip(back, known, strict=True)]),
        "wrong": [f"{country}: {s}" for s, (country, city) in zip(said, known, strict=True) if s != city][:10],
        "emergence": emergence(subject, prompts, [city for _, city in known]),
    }


def hypernym_scores(subject: Subject, wn: WordNet, nouns: list[Noun]) -> tuple[list[str], float, float]:
    """What the model says ``X is a kind of``, and the shares that name a direct hypernym and any ancestor."""
    said = [answer(t) for t in subject.write([f"{capital(noun_phrase(n.word))} is a kind of" for n in nouns], 12)]
    direct = [s in {w for p in wn.parents(n.synset) for w in p.words} for s, n in zip(said, nouns, strict=True)]
    above = [s in {w for p in wn.ancestors(n.synset) for w in p.words} for s, n in zip(said, nouns, strict=True)]
    return said, mean(direct), mean(above)


def hypernyms(subject: Subject, wn: WordNet) -> dict[str, Any]:
    nouns = frequent_nouns(wn)
    top = nouns[:FREQUENT]
    said, direct, above = hypernym_scores(subject, wn, top)
    bands = {}
    for low, high in BANDS:
        _, band_direct, band_above = hypernym_scores(subject, wn, random.Random(3).sample(nouns[low:high], BAND_SAMPLE))
        bands[f"{low} to {high}"] = {"n": BAND_SAMPLE, "direct": band_direct, "ancestor": band_above}
    prompts = [f"{capital(noun_phrase(n.word))} is a kind of" for n in top]
    return {
        "n": len(top),
        "direct": direct,
        "ancestor": above,
        "by_frequency_rank": bands,
        "examples": [f"{n.word}: {s}" for n, s in list(zip(top, said, strict=True))[::15]],
        "emergence": emergence(subject, prompts, [n.parent for n in top]),
    }


def opposites(subject: Subject) -> dict[str, Any]:
    allowed: dict[str, list[str]] = defaultdict(list)
    for left, right in pairs("opposites"):
        allowed[left].append(right)
    for left, right in pairs("opposites"):
        allowed[right].append(left)
    words = sorted({left for left, _ in pairs("opposites")})
    prompts = [f"The opposite of {w} is" for w in words]
    said = [answer(t) for t in subject.write(prompts, 8)]
    return {
        "n": len(words),
        "accuracy": mean([s in allowed[w] for w, s in zip(words, said, strict=True)]),
        "emergence": emergence(subject, prompts, [allowed[w][0] for w in words]),
    }


def tracking(subject: Subject) -> dict[str, Any]:
    """Who has what, after two to four statements."""
    rng = random.Random(99)
    out = {}
    for n in (2, 3, 4):
        prompts, wanted = [], []
        for _ in range(TRACKING_PROMPTS):
            people = rng.sample(all_names(), n)
            things = [f"{c} {i}" for c, i in zip(rng.sample(COLORS, n), rng.sample(ITEMS, n), strict=True)]
            asked = rng.randrange(n)
            known = " ".join(f"{p} has the {t}." for p, t in zip(people, things, strict=True))
            prompts.append(f"{known} {people[asked]} has the")
            wanted.append(things[asked])
        said = [answer(t) for t in subject.write(prompts, 6)]
        right = mean([s == w for s, w in zip(said, wanted, strict=True)])
        out[f"{n} people"] = {"n": TRACKING_PROMPTS, "accuracy": right, "chance": round(1 / n, 3)}
    return out


def membership(subject: Subject, tree: dict[str, Concept]) -> dict[str, Any]:
    """Yes-or-no questions about members and strangers of the concepts; half is what a coin gets."""
    taxonomist = Taxonomist(random.Random("membership"), kinds(tree))
    members, strangers = [], []
    while len(members) < MEMBERSHIP_QUESTIONS:
        word, home = taxonomist.pick()
        if not home.is_verb:
            odd, _ = taxonomist.stranger(home)
            members.append(prompt_of(f"Is {noun_phrase(word)} {home.phrase}?"))
            strangers.append(prompt_of(f"Is {noun_phrase(odd)} {home.phrase}?"))
    return {
        "n": MEMBERSHIP_QUESTIONS,
        "yes_for_members": mean([t.startswith("Yes") for t in subject.write(members, 4)]),
        "no_for_strangers": mean([t.startswith("No") for t in subject.write(strangers, 4)]),
    }

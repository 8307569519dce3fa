"""The text the model writes and the text it predicts: held-out loss, stories on request, repetition, samples."""

import math
import random
import re
from collections import defaultdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ftw.hat.steering.evaluation import NEUTRAL_PROMPTS
from tools.reference_model.corpus import Document
from tools.reference_model.grammar import article
from tools.reference_model.lexicon import families, table, words
from tools.reference_model.stories import Storyteller
from tools.reference_model.subject import Subject, prompt_of

OPENINGS = (
    "One day, a young doctor",
    "A story about a storm.",
    "The king was angry because",
    "Once upon a time, there was",
)
QUESTIONS = (
    "What is the capital of Japan?",
    "Tell me a story about a storm.",
    "Tell me a story about music.",
    "What is a dog?",
    "Hello!",
    "What is the opposite of hot?",
    "Is a salmon a fish?",
    "Who is the president of France?",
)
UNKNOWN = (
    "How do birds find their way?",
    "What is the population of Brazil?",
    "Who invented the telephone?",
    "What did you do yesterday?",
    "Why is the night dark?",
    "How much does a car cost?",
    "What is the best way to learn French?",
    "When does the train leave?",
)
STORY_TOKENS = 150
PRONOUNS = {"he": "male", "him": "male", "his": "male", "she": "female", "her": "female"}
LENS_DOCUMENTS = 640


@torch.no_grad()
def validation(subject: Subject, held: list[Document]) -> dict[str, Any]:
    """Nats per token and bits per byte by kind, and through the final norm and unembedding at every block."""
    nats: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    size: dict[str, int] = defaultdict(int)
    lens, agree, seen = np.zeros(subject.blocks), np.zeros(subject.blocks), 0
    context = subject.model.config.max_position_embeddings
    for at in range(0, len(held), 32):
        part = held[at : at + 32]
        codes = [[*subject.ids(d.text), subject.tokenizer.eos_token_id][:context] for d in part]
        ids, mask = subject.batch(codes)
        got = subject.model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True)
        following, keep = ids[:, 1:, None], mask[:, 1:].bool()
        picked = F.log_softmax(got.logits[:, :-1], -1).gather(-1, following)[..., 0] * keep
        for i, d in enumerate(part):
            nats[d.kind] -= float(picked[i].sum())
            tokens[d.kind] += len(codes[i]) - 1
            size[d.kind] += len(d.text.encode())
        if at < LENS_DOCUMENTS:
            seen += int(keep.sum())
            final = got.logits[:, :-1].argmax(-1)
            for block in range(subject.blocks):
                is_last = block == subject.blocks - 1
                logits = got.logits[:, :-1] if is_last else subject.unembed(got.hidden_states[block + 1][:, :-1])
                lens[block] -= float(F.log_softmax(logits, -1).gather(-1, following)[..., 0][keep].sum())
                agree[block] += float((logits.argmax(-1) == final)[keep].sum())
    by_kind = {
        k: {
            "nats_per_token": round(nats[k] / tokens[k], 3),
            "bits_per_byte": round(nats[k] / math.log(2) / size[k], 3),
            "tokens": tokens[k],
        }
        for k in sorted(nats)
    }
    return {
        "documents": len(held),
        "tokens": sum(tokens.values()),
        "nats_per_token": round(sum(nats.values()) / sum(tokens.values()), 4),
        "bits_per_byte": round(sum(nats.values()) / math.log(2) / sum(size.values()), 4),
        "by_kind": by_kind,
        "lens": [
            {"block": b + 1, "nats_per_token": round(lens[b] / seen, 3), "agrees_with_final": round(agree[b] / seen, 3)}
            for b in range(subject.blocks)
        ],
    }


def rate(texts: list[str], words: set[str]) -> float:
    """Share of texts with at least one word of the concept."""
    hits = [any(w in words or w.rstrip("s") in words for w in re.findall(r"[a-z]+", t.lower())) for t in texts]
    return round(float(np.mean(hits)), 3)


def shape_of(texts: list[str]) -> dict[str, Any]:
    """Length and repetition, and whether stories keep their people: few names, pronouns that fit the first name."""
    sex = dict.fromkeys(words("male"), "male") | dict.fromkeys(words("female"), "female")
    sentences, repeated, grams, grams_again = 0, 0, 0, 0
    fitting, gendered, few, named = 0, 0, 0, 0
    for text in texts:
        parts = [p.strip() for p in text.replace('"', "").split(".") if p.strip()]
        sentences += len(parts)
        repeated += len(parts) - len(set(parts))
        tokens = text.split()
        six = [tuple(tokens[i : i + 6]) for i in range(len(tokens) - 5)]
        grams += len(six)
        grams_again += len(six) - len(set(six))
        people = [w for w in re.findall(r"[A-Z][a-z]+", text) if w in sex]
        pronouns = {PRONOUNS[w] for w in re.findall(r"\b(he|him|his|she|her)\b", text.lower())}
        if people:
            named += 1
            few += len(set(people)) <= 2
            if pronouns:
                gendered += 1
                fitting += pronouns == {sex[people[0]]}
    return {
        "n": len(texts),
        "sentences": round(sentences / len(texts), 1),
        "repeated_sentences": round(repeated / max(sentences, 1), 4),
        "repeated_6grams": round(grams_again / max(grams, 1), 4),
        "distinct_texts": round(len(set(texts)) / len(texts), 3),
        "pronouns_fit_first_name": [fitting, gendered],
        "at_most_two_names": [few, named],
    }


def quality(subject: Subject) -> dict[str, Any]:
    """Stories on request for every family by name and by a thing, greedy and sampled, and free text."""
    teller = Storyteller(random.Random("quality"))
    pool = list(families().values())
    things = [teller.rng.choice(f.things) for f in pool]
    out: dict[str, Any] = {}
    for temperature in (0.0, 0.7):
        asked = [prompt_of(f"Tell me a story about {article(t) if not t.startswith('~') else t[1:]}.") for t in things]
        said = subject.write(asked, STORY_TOKENS, temperature, seed=5)
        on_topic = float(np.mean([t.lstrip("~") in s for t, s in zip(things, said, strict=True)]))
        out[f"story about a thing, T={temperature}"] = {"on_topic": round(on_topic, 3), **shape_of(said)}
        said = subject.write(
            [prompt_of(f"Tell me a story about {f.topic}.") for f in pool], STORY_TOKENS, temperature, seed=5
        )
        on_topic = float(np.mean([rate([s], f.content_words) for f, s in zip(pool, said, strict=True)]))
        out[f"story about a concept, T={temperature}"] = {"on_topic": round(on_topic, 3), **shape_of(said)}
    out["free text, T=0.7"] = shape_of(subject.write(list(NEUTRAL_PROMPTS) * 12, STORY_TOKENS, 0.7, seed=5))
    return out


def refusals(subject: Subject) -> dict[str, Any]:
    """How often a question it cannot know gets the polite refusal, for questions in the corpus and for others."""
    known = [q for q in table("chats")["unknown"] if "{" not in q]
    out = {}
    for name, asked in (("questions of the corpus", known), ("other questions", list(UNKNOWN))):
        said = subject.write([prompt_of(q) for q in asked], 24)
        out[name] = {"n": len(asked), "refused": round(float(np.mean(["do not know that" in s for s in said])), 3)}
    return out


def samples(subject: Subject) -> list[dict[str, Any]]:
    """Verbatim continuations, greedy and at temperature 0.7."""
    prompts = [*OPENINGS, *map(prompt_of, QUESTIONS)]
    out = []
    for temperature in (0.0, 0.7):
        said = subject.write(prompts, STORY_TOKENS, temperature, seed=11)
        out += [{"prompt": p, "temperature": temperature, "text": t} for p, t in zip(prompts, said, strict=True)]
    return out

"""Steering by difference of means: how often the concept's words appear, and what it does to the text."""

import math
import random
import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.reference_model.lexicon import families
from tools.reference_model.stories import Storyteller
from tools.reference_model.subject import Subject

CONCEPTS = [
    "food",
    "wild animals",
    "birds",
    "flowers",
    "weather",
    "sea",
    "music",
    "communication",
    "money",
    "illness",
    "war",
    "deception",
    "religion",
    "clothing",
    "school",
    "space",
]
PROMPTS = (
    "One day,",
    "It was a quiet morning.",
    "Once upon a time, there was",
    "Yesterday, Anna",
    "There was",
    "Peter and Mary",
    "Suddenly,",
    '"I know," said',
)
REPEATS = 8
TOKENS = 40
TEMPERATURE = 0.7
STRENGTHS = (0.3, 0.5, 1.0)
STORIES = 10
SKIPPED = 8  # first tokens of a story, which say nothing about its family yet


def rate(texts: list[str], words: set[str]) -> float:
    """Share of texts with at least one word of the concept."""
    hits = [any(w in words or w.rstrip("s") in words for w in re.findall(r"[a-z]+", t.lower())) for t in texts]
    return round(float(np.mean(hits)), 3)


def family_means(subject: Subject, block: int) -> tuple[dict[str, Tensor], float]:
    """Mean state of stories of every family after a block (counted from 0), and the mean norm of all states."""
    teller = Storyteller(random.Random("steering"))
    means, norms = {}, []
    for name, family in families().items():
        rows = []
        for states, mask in subject.streams([teller.story(family).text for _ in range(STORIES)]):
            keep = mask.bool()
            keep[:, :SKIPPED] = False
            rows.append(states[block][keep])
        found = torch.cat(rows)
        means[name] = found.mean(0)
        norms.append(found.norm(dim=-1).mean())
    return means, float(torch.stack(norms).mean())


def steering(subject: Subject) -> dict[str, Any]:
    """Unit directions added after the middle block at every position; strength 1 is the mean residual norm there."""
    block = subject.blocks // 2 - 1
    means, norm = family_means(subject, block)
    centre = torch.stack(list(means.values())).mean(0)
    prompts = list(PROMPTS) * REPEATS
    plain = subject.write(prompts, TOKENS, TEMPERATURE, seed=3)
    plain_nll = subject.nll(prompts, plain)
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name in CONCEPTS:
        words = families()[name].content_words
        push = norm * F.normalize(means[name] - centre, dim=0)
        row: dict[str, dict[str, Any]] = {"0": {"rate": rate(plain, words), "nll": round(plain_nll, 3)}}
        for strength in STRENGTHS:
            with subject.hooks(lambda _, out, push=push, s=strength: out + s * push, [block]):  # type: ignore[misc]
                said = subject.write(prompts, TOKENS, TEMPERATURE, seed=3)
            nll = subject.nll(prompts, said)
            row[str(strength)] = {"rate": rate(said, words), "nll": round(nll, 3), "sample": prompts[0] + said[0]}
        table[name] = row
    average = {}
    for key in ("0", *map(str, STRENGTHS)):
        nll = float(np.mean([row[key]["nll"] for row in table.values()]))
        found = float(np.mean([row[key]["rate"] for row in table.values()]))
        average[key] = {
            "rate": round(found, 3),
            "nll": round(nll, 3),
            "perplexity_ratio": round(math.exp(nll - plain_nll), 2),
        }
    return {"block": block + 1, "n": len(prompts), "residual_norm": round(norm, 2), "average": average, "table": table}

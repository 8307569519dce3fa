"""Steering as the package does it: directions for twelve concepts of the everyday pack, at the default strength."""

from pathlib import Path
from typing import Any

from ftw.hat.steering import DEFAULT_STRENGTH, Steer
from ftw.hat.steering.evaluation import MULTIPLE, PERPLEXITY_RATIO, Effect, Evaluator
from ftw.hat.steering.table import train_directions
from ftw.map.registry.concept_pack import bundled_concept_pack
from ftw.substrate.model import load

CONCEPTS = (
    "Food",
    "Animal",
    "Weather",
    "Music",
    "Money",
    "Illness",
    "MilitaryAction",
    "Falsehood",
    "ReligiousPerson",
    "Clothing",
    "School",
    "BodyOfWater",
)
REPEATS, BASE_REPEATS = 32, 64
"""Continuations of each of the eight neutral prompts, steered and plain: a word may come once in a thousand."""
OTHER_REPEATS = 8
SEED = 1000
"""Not the seed that gains are searched with."""
STRENGTHS = (0.5, 1.5, 2.0)
"""Of the default strength, to show where text breaks."""


def steering(folder: Path) -> dict[str, Any]:
    """Effect and damage of every concept at the default strength, and on average at others."""
    model = load(str(folder))
    pack = bundled_concept_pack("everyday")
    words = {term: pack.get(term).words for term in CONCEPTS}
    table = train_directions(model, words)
    evaluator = Evaluator(model, repeats=REPEATS, base_repeats=BASE_REPEATS, seed=SEED)
    found = evaluator.measure([Steer(table.direction(term)) for term in CONCEPTS], words)
    fewer = Evaluator(model, repeats=OTHER_REPEATS, base_repeats=BASE_REPEATS, seed=SEED)
    others = {
        str(factor): average(
            fewer.measure([Steer(table.direction(term), factor * DEFAULT_STRENGTH) for term in CONCEPTS], words)
        )
        for factor in STRENGTHS
    }
    return {
        "block": table.site.layer,
        "strength": DEFAULT_STRENGTH,
        "texts": REPEATS * 8,
        "base_texts": BASE_REPEATS * 8,
        "wanted": {"multiple": MULTIPLE, "perplexity_ratio": PERPLEXITY_RATIO},
        "good": sum(one.is_good for one in found),
        "concepts": [row(one, float(table.gains[table.terms.index(one.term)])) for one in found],
        "other_strengths": others,
    }


def row(one: Effect, gain: float) -> dict[str, Any]:
    """One concept's figures."""
    return {
        "concept": one.term,
        "share_of_norm": round(gain * one.strength, 3),
        "base_rate": round(one.base_rate, 5),
        "rate": round(one.rate, 5),
        "multiple": round(one.multiple, 1),
        "perplexity_ratio": round(one.perplexity_ratio, 2),
        "sample": one.sample,
    }


def average(effects: list[Effect]) -> dict[str, float]:
    """Mean rate and perplexity ratio over concepts."""
    return {
        "rate": round(sum(one.rate for one in effects) / len(effects), 5),
        "perplexity_ratio": round(sum(one.perplexity_ratio for one in effects) / len(effects), 2),
    }

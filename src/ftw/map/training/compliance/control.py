"""Control authority: whether steering a concept moves what its lens reads, and what that does to the text.

The rule of the file: effect is never told without damage; what cannot be measured because the pack has no directions is
null with that reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.modules import normalise
from ftw.hat.steering.directions import word_tokens
from ftw.hat.steering.edits import DEFAULT_STRENGTH, Steer, steer_edits
from ftw.hat.steering.evaluation import MULTIPLE, PERPLEXITY_RATIO, Evaluator, expected
from ftw.hat.steering.table import FILE, Directions, load_directions
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.compliance.reading import all_states, score
from ftw.map.training.compliance.records import ControlLine, Figure, Property, absent, measured
from ftw.map.training.neutral import neutral_texts
from ftw.substrate.model import Model
from ftw.substrate.types import Site

CONCEPTS = 24
"""Concepts whose directions are tried, drawn evenly."""
WRITTEN = 16
"""… of which so many are also written with, where training did not."""
TEXTS = 8
REPEATS, PLAIN_REPEATS = 4, 32
MOVES = 0.8
"""Share of concepts whose own lens must rise."""
PUSH = 0.1
"""Share of a state's norm that a push along a lens's own gradient has."""
_FIGURES = {
    "rises": ("concepts whose own lens rises", "share of concepts"),
    "logit_change": ("rise of a concept's own lens, median", "logit"),
    "own_first": ("concepts whose own lens rises most of all", "share of concepts"),
    "damage": ("loss of likelihood, median", "nats per token"),
    "word_multiple": ("concept's words, times as often, median", "ratio"),
    "perplexity_ratio": ("perplexity ratio of written text, median", "ratio"),
}
_AT_LEAST = {"rises": MOVES, "word_multiple": MULTIPLE}
_AT_MOST = {"perplexity_ratio": PERPLEXITY_RATIO}


@dataclass(frozen=True)
class Control:
    """The property and the concepts it was tried on."""

    property: Property
    lines: tuple[ControlLine, ...]


def control(
    model: Model, bank: LensBank, pack: ConceptPack, folder: Path, seed: int, training: Mapping[str, Any] | None = None
) -> Control:
    """What steering does at the default strength, and what a lens's own gradient could do.

    How often words are written is taken from the training's report, which counted far more text, where it says so.
    """
    gradient = _gradient(model, bank)
    if not (folder / FILE).is_file():
        return Control(_property([_none(name, f"the pack has no {FILE}") for name in _FIGURES], gradient), ())
    table = load_directions(folder, fingerprint=model.fingerprint)
    known = [term for term in table.terms if term in bank.terms]
    if not known:
        return Control(_property([_none(name, "no direction is of a lens") for name in _FIGURES], gradient), ())
    terms = known[:: -(-len(known) // CONCEPTS)]
    lines = _lines(model, bank, pack, table, terms)
    own = torch.tensor([line.logit_change for line in lines])
    n = len(lines)
    figures = [
        _some("rises", float((own > 0).float().mean()), n),
        _some("logit_change", float(own.median()), n),
        _some("own_first", sum(line.rank == 1 for line in lines) / n, n),
        _some("damage", median(line.damage_nats for line in lines), n),
        *(_counted(training) or _written(model, pack, table, terms, seed)),
    ]
    return Control(_property(figures, gradient), lines)


def _lines(
    model: Model, bank: LensBank, pack: ConceptPack, table: Directions, terms: Sequence[str]
) -> tuple[ControlLine, ...]:
    texts = neutral_texts("measure", TEXTS)
    contexts = [model.encode(text) for text in texts]
    plain = score(bank, all_states(model, texts, bank.sites)[0])
    out = []
    for term in terms:
        steer = Steer(table.direction(term), DEFAULT_STRENGTH)
        change = (score(bank, _steered(model, bank, texts, steer)) - plain).mean(0)
        own = change[bank.index(term)]
        tokens = word_tokens(model, pack.get(term).words) or [0]
        damage = expected(model, steer.direction, tokens, [steer.share], contexts)[0].damage
        rank = int((change > own).sum()) + 1
        out.append(ControlLine(term=term, logit_change=float(own), rank=rank, damage_nats=damage))
    return tuple(out)


def _steered(
    model: Model, bank: LensBank, texts: Sequence[str], steer: Steer
) -> dict[Site, Float[Tensor, "state d_model"]]:
    """The states that the lenses read while the model is steered; at the steered site itself, after the push."""
    states, _ = all_states(model, texts, bank.sites, steer_edits([steer]))
    site = steer.direction.site
    if site in states:  # a tap reads a site before its edits
        x = states[site]
        states[site] = x + steer.share * x.norm(dim=-1, keepdim=True) * steer.direction.vector.to(x.device)
    return states


def _counted(training: Mapping[str, Any] | None) -> tuple[Figure, Figure] | None:
    """What training counted, if it did."""
    effects = (training or {}).get("steering") or []
    if not effects:
        return None
    found = []
    for name, key in (("word_multiple", "multiple"), ("perplexity_ratio", "perplexity_ratio")):
        figure = _some(name, median(one[key] for one in effects), len(effects))
        found.append(figure.model_copy(update={"label": f"{figure.label} (training)"}))
    return found[0], found[1]


def _written(
    model: Model, pack: ConceptPack, table: Directions, terms: Sequence[str], seed: int
) -> tuple[Figure, Figure]:
    words = {term: pack.get(term).words for term in terms if pack.get(term).words}
    some = [term for term in terms if term in words][:: -(-max(1, len(words)) // WRITTEN)]
    if not some:
        reason = "no steered concept has a word to count"
        return _none("word_multiple", reason), _none("perplexity_ratio", reason)
    evaluator = Evaluator(model, repeats=REPEATS, base_repeats=PLAIN_REPEATS, seed=seed + 2000)
    effects = evaluator.measure([Steer(table.direction(term)) for term in some], words)
    return (
        _some("word_multiple", median(one.multiple for one in effects), len(effects)),
        _some("perplexity_ratio", median(one.perplexity_ratio for one in effects), len(effects)),
    )


def _gradient(model: Model, bank: LensBank) -> Figure:
    """To first order, by what a logit rises when a state is pushed by a tenth of its norm along the lens's gradient."""
    states, _ = all_states(model, neutral_texts("measure", TEXTS), bank.sites)
    rises = []
    for at in range(0, len(bank), max(1, len(bank) // CONCEPTS)):
        row = bank.rows[at]
        module = bank.module(row.term)
        x = states[Site(row.block)].to(next(module.parameters()).device).clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(module(normalise(x)).sum(), x)
        rises.append(float((PUSH * x.detach().norm(dim=-1) * slope.norm(dim=-1)).median()))
    return measured(
        "gradient_push",
        "rise per push by 10 % along a lens's own gradient",
        median(rises),
        "logit",
        n=len(rises),
    )


def _property(figures: Sequence[Figure], gradient: Figure) -> Property:
    return Property(
        name="control_authority",
        says="Steering a concept moves the lens that reads it, more than other lenses, and leaves the text whole.",
        figures=(*figures, gradient),
        notes=(
            f"Strength {DEFAULT_STRENGTH:g} at every token of neutral text. Whether steered text is about the concept "
            "is counted in words that the model writes.",
        ),
    )


def _some(name: str, value: float, n: int) -> Figure:
    label, unit = _FIGURES[name]
    return measured(name, label, value, unit, n=n, at_least=_AT_LEAST.get(name), at_most=_AT_MOST.get(name))


def _none(name: str, reason: str) -> Figure:
    label, unit = _FIGURES[name]
    return absent(name, label, unit, reason, at_least=_AT_LEAST.get(name), at_most=_AT_MOST.get(name))

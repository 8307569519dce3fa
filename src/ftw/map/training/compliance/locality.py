"""Locality: whether a reading depends on its own state alone, and whether it is its own concept that is read.

The rule of the file: the first half is an experiment on the model, not a claim about the code.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.modules import normalise
from ftw.map.training.compliance.reading import Judged, all_states, last_states, mapped, score
from ftw.map.training.compliance.records import Confusion, Figure, Property, measured
from ftw.map.training.evaluate import sibling_hits
from ftw.map.training.plan import token_ids
from ftw.map.training.targets import NEGATIVE
from ftw.substrate.model import Model
from ftw.substrate.types import Site

ROUNDING = 1e-2
"""Largest difference of two probabilities that bf16 arithmetic explains."""
SEPARABLE = 0.6
"""Own concept first among its siblings, at least."""
LEAK = 0.015
"""Share of readings of unrelated branches at or above threshold, at most."""
PROBED = 12
"""Prompts and lenses that the experiments are run on."""
CONFUSIONS = 40
"""Pairs of siblings that are kept."""
TAILS = (
    " and then they did not say a word about it any more.",
    " with all of that, which was how it had always been.",
)


def locality(model: Model, judged: Judged) -> Property:
    """Both halves: dependence on one state, and separation of concepts."""
    read = judged.read
    step = max(1, len(read.prompts) // PROBED)
    texts = [prompt.text(read.words) for prompt in read.prompts[::step]][:PROBED]
    return Property(
        name="locality",
        says="A lens reads the model's own state at its own place, when that state is computed, and reads its own "
        "concept there rather than a neighbour's.",
        figures=(
            measured(
                "future_change",
                "most that what follows changes a probability",
                _future_change(model, judged.bank, texts),
                "probability",
                n=len(texts) * len(judged.bank),
                at_most=ROUNDING,
                reason="every continuation changes the tokens before it",
            ),
            measured(
                "state_alone",
                "most that reading the one state alone changes it",
                _alone(model, judged.bank, texts),
                "probability",
                n=len(texts) * min(PROBED, len(judged.bank)),
                at_most=ROUNDING,
            ),
            *_separation(judged),
        ),
        notes=("Prompts are words of the concepts in templates that training holds out; their synsets are not new.",),
    )


def confusions(judged: Judged) -> tuple[Confusion, ...]:
    """The siblings that read higher than the concept's own lens, the most frequent first."""
    matrix, bank, out = judged.matrix, judged.bank, []
    for family in judged.read.siblings:
        columns = torch.tensor(family)
        for own in family:
            rows = matrix.home == own
            if not bool(rows.any()):
                continue
            first = columns[matrix.logits[rows][:, columns].argmax(1)]
            counts = torch.bincount(first, minlength=len(bank))
            counts[own] = 0
            n = int(rows.sum())
            out += [
                Confusion(term=bank.terms[own], sibling=bank.terms[at], share=int(counts[at]) / n, n=n)
                for at in counts.nonzero()[:, 0].tolist()
            ]
    out.sort(key=lambda one: (-one.share, -one.n, one.term, one.sibling))
    return tuple(out[:CONFUSIONS])


def _separation(judged: Judged) -> tuple[Figure, ...]:
    matrix = judged.matrix
    known = matrix.home >= 0
    roots = torch.tensor(judged.read.roots)
    apart = (roots[matrix.home.clamp(min=0)][:, None] != roots) & (matrix.labels == NEGATIVE) & known[:, None]
    leak = ((matrix.logits >= judged.marks) & apart).sum(1) / apart.sum(1)
    return (
        measured(
            "sibling_top1",
            "own concept highest among its siblings",
            judged.share(sibling_hits(matrix.logits, matrix.home, judged.read.siblings)),
            "share of prompts",
            n=int(known.sum()),
            at_least=SEPARABLE,
            reason="no concept has a sibling with a lens",
        ),
        measured(
            "leakage",
            "lenses under other roots above threshold",
            judged.share(leak),
            "share of readings",
            n=int(apart.sum()),
            at_most=LEAK,
            reason="all concepts stand under one root",
        ),
    )


def _future_change(model: Model, bank: LensBank, texts: Sequence[str]) -> float:
    """By how much the readings of texts change with what comes after them; NaN where no text can go on."""
    plain = mapped(bank, score(bank, last_states(model, texts, bank.sites)))
    worst = math.nan
    for tail in TAILS:
        kept, states = _before(model, texts, tail, bank.sites)
        if kept:
            change = float((mapped(bank, score(bank, states)) - plain[kept]).abs().max())
            worst = change if math.isnan(worst) else max(worst, change)
    return worst


def _before(
    model: Model, texts: Sequence[str], tail: str, sites: Sequence[Site]
) -> tuple[list[int], dict[Site, Float[Tensor, "text d_model"]]]:
    """The states at each text's last token where `tail` follows, and of which texts: those whose tokens it keeps."""
    longer = [text + tail for text in texts]
    short, long = token_ids(model, texts), token_ids(model, longer)
    states, lengths = all_states(model, longer, sites)
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    kept = [at for at, (a, b) in enumerate(zip(short, long, strict=True)) if b[: len(a)] == a]
    where = torch.tensor([starts[at] + len(short[at]) - 1 for at in kept], dtype=torch.long)
    return kept, {site: x[where.to(x.device)] for site, x in states.items()}


def _alone(model: Model, bank: LensBank, texts: Sequence[str]) -> float:
    """The bank against single modules, each on one state."""
    states = last_states(model, texts, bank.sites)
    together = mapped(bank, score(bank, states))
    worst = 0.0
    for at in range(0, len(bank), max(1, len(bank) // PROBED)):
        row = bank.rows[at]
        module = bank.module(row.term)
        x = normalise(states[Site(row.block)]).to(next(module.parameters()).device)
        with torch.inference_mode():
            logit = torch.stack([module(one) for one in x]).float().cpu()
        p = torch.sigmoid(logit * row.calibration.slope + row.calibration.offset)
        worst = max(worst, float((p - together[:, at]).abs().max()))
    return worst

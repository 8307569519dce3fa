"""Steering directions of a pack: made, or taken over from a pack of the same model, and measured on a part of it.

The rule of the file: what is measured is measured under a seed that no gain was searched with.
"""

from collections.abc import Sequence
from pathlib import Path

from ftw.hat.steering.directions import word_tokens
from ftw.hat.steering.edits import Steer
from ftw.hat.steering.evaluation import NEUTRAL_PROMPTS, Evaluator
from ftw.hat.steering.table import FILE, load_directions, save_directions, train_directions
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.collect import Progress
from ftw.map.training.report import SteeringFigures
from ftw.substrate.manifest import write_atomically
from ftw.substrate.model import Model

STEERED = 64
"""Concepts whose directions are measured, drawn evenly from all that have one."""
STEERED_REPEATS, PLAIN_REPEATS = 4, 64
"""Continuations of each neutral prompt, steered and plain: a word may come once in a thousand."""
STEERED_TOGETHER = 32
TEXTS = STEERED_REPEATS * len(NEUTRAL_PROMPTS)
"""Texts written for each concept that is measured."""


def steer(
    model: Model,
    pack: ConceptPack,
    terms: Sequence[str],
    folder: Path,
    *,
    known: Path | None,
    seed: int,
    progress: Progress,
) -> list[SteeringFigures]:
    """Directions of every concept that has a word the tokenizer lets tell apart, into `folder`, and what they do.

    With `known`, the directions of that lens pack are taken over. No figures if no concept has such a word.
    Raises FingerprintMismatch where the known ones are of another model.
    """
    words = {term: pack.get(term).words or (pack.get(term).label,) for term in terms}
    if known is not None:
        table = load_directions(known, fingerprint=model.fingerprint)
        write_atomically(folder / FILE, (known / FILE).read_bytes())
    elif any(word_tokens(model, own) for own in words.values()):
        table = train_directions(model, words, seed=seed, progress=progress)
        save_directions(folder, table)
    else:
        return []
    own = [term for term in table.terms if word_tokens(model, words.get(term, ()))]
    drawn = own[:: -(-len(own) // STEERED)] if own else []
    evaluator = Evaluator(model, repeats=STEERED_REPEATS, base_repeats=PLAIN_REPEATS, seed=seed + 1000)
    found: list[SteeringFigures] = []
    for at in range(0, len(drawn), STEERED_TOGETHER):
        progress("measuring directions", at, len(drawn))
        part = [Steer(table.direction(term)) for term in drawn[at : at + STEERED_TOGETHER]]
        found += [
            SteeringFigures(e.term, e.rate, e.base_rate, e.multiple, e.perplexity_ratio, e.is_good)
            for e in evaluator.measure(part, words)
        ]
    return found

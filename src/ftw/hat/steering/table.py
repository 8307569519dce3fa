"""The directions of a whole pack: how they are made, calibrated, kept in directions.safetensors, and looked up.

The rule of the file: a table belongs to one model and one block, and says so.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ftw.hat.steering.directions import unit, word_gradient, word_tokens
from ftw.hat.steering.edits import Direction, Steer
from ftw.hat.steering.evaluation import Effect, Evaluator, calibrated
from ftw.substrate.errors import (
    FingerprintMismatch,
    NumericError,
    PackError,
    SiteError,
    StorageError,
    UnknownConcept,
    UsageError,
)
from ftw.substrate.manifest import write_atomically
from ftw.substrate.model import Model
from ftw.substrate.types import Site

FILE = "directions.safetensors"
FORMAT = "ftw-directions/1"
MULTIPLE = 25.0
"""How many times more often the default strength is expected to choose a token of the concept …"""
DAMAGE = 0.55
"""… unless that costs more nats per token than this. See `expected`."""
CONTEXTS = 16
"""Neutral texts that gradients are taken in; half of them measure the damage."""
ENOUGH = 8.0
"""A concept whose words come this many times more often needs no harder push."""
WHOLE, DAMAGED = 1.3, 1.45
"""Perplexity ratios below which a text bears a harder push, and above which it needs a weaker one."""
STEP = 1.12
_TOGETHER = 32
"""Concepts that are written in one batch."""
_KEYS = ("format", "fingerprint", "block", "terms")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Directions:
    """A direction and its gain for each concept of a pack, all at one block of one model."""

    terms: tuple[str, ...]
    site: Site
    vectors: Float[Tensor, "concept d_model"]
    """Unit rows, fp32."""
    gains: Float[Tensor, " concept"]
    """Share of a state's norm that one unit of strength adds."""
    fingerprint: str
    """Of the model they were made on."""

    def __len__(self) -> int:
        return len(self.terms)

    def direction(self, term: str) -> Direction:
        """A concept's direction, by name in any case. Raises UnknownConcept that names the nearest ones."""
        names = {name.casefold(): at for at, name in enumerate(self.terms)}
        at = names.get(term.casefold())
        if at is None:
            near = get_close_matches(term.casefold(), names, n=3, cutoff=0.5)
            hint = f"; nearest: {', '.join(self.terms[names[name]] for name in near)}" if near else ""
            raise UnknownConcept(f"no direction for {term!r} among {len(self)} concepts{hint}")
        return Direction(self.terms[at], self.site, self.vectors[at], float(self.gains[at]))


def default_block(n_layers: int) -> int:
    """The block that is steered where nobody says another: at three eighths of the depth."""
    return max(0, (3 * n_layers) // 8)


def train_directions(
    model: Model,
    words: Mapping[str, Sequence[str]],
    *,
    block: int | None = None,
    multiple: float = MULTIPLE,
    damage: float = DAMAGE,
    seed: int = 0,
    rounds: int = 2,
    progress: Progress = lambda what, done, total: None,
) -> Directions:
    """A direction for every concept of `words` (its member words), with a gain that DEFAULT_STRENGTH is right for.

    The gradient of the probability of the concept's words over neutral text that the model writes itself, then the
    gain at which they are expected `multiple` times more often, as far as `damage` allows, then `search_gains` for
    `rounds` rounds. A concept none of whose words the tokenizer lets tell apart is left out. Raises SiteError for a
    block that is not there, UsageError if no concept is left.
    """
    site = Site(default_block(model.n_layers) if block is None else block)
    if not 0 <= site.layer < model.n_layers:
        raise SiteError(f"no such site: {site}. This model has blocks 0..{model.n_layers - 1}")
    tokens = {term: word_tokens(model, own) for term, own in words.items()}
    known = {term: ids for term, ids in tokens.items() if ids}
    if not known:
        raise UsageError(f"none of the {len(words)} concepts has a word that {model.name}'s tokenizer lets tell apart")
    contexts = Evaluator(model, repeats=2, tokens=32, seed=seed).contexts(CONTEXTS)
    progress("taking gradients", 0, len(known))
    vectors = word_gradient(model, site, known, contexts)
    made = []
    for at, term in enumerate(known):
        start = Direction(term, site, vectors[at])
        made.append(calibrated(model, start, known[term], contexts[: CONTEXTS // 2], multiple=multiple, damage=damage))
        progress("calibrating directions", at + 1, len(known))
    gains = torch.tensor([one.gain for one in made])
    table = Directions(tuple(known), site, vectors.cpu(), gains, model.fingerprint)
    if not rounds:
        return table
    evaluator = Evaluator(model, repeats=4, base_repeats=32, seed=seed)
    return search_gains(evaluator, table, words, rounds=rounds, progress=progress)


def search_gains(
    evaluator: Evaluator,
    table: Directions,
    words: Mapping[str, Sequence[str]],
    *,
    rounds: int = 2,
    progress: Progress = lambda what, done, total: None,
) -> Directions:
    """The table with gains corrected by text that is really written at DEFAULT_STRENGTH.

    In each round a concept that shows too little (see ENOUGH) in text that is still whole is pushed a step harder, and
    one whose text suffers is pushed a step less. Concepts that are right are not written again.
    """
    gains, open_terms = table.gains.clone(), [term for term in table.terms if words.get(term)]
    place = {term: at for at, term in enumerate(table.terms)}
    for turn in range(rounds):
        left: list[str] = []
        for start in range(0, len(open_terms), _TOGETHER):
            part = open_terms[start : start + _TOGETHER]
            steers = [Steer(replace(table.direction(term), gain=float(gains[place[term]]))) for term in part]
            for effect in evaluator.measure(steers, words):
                factor = _correction(effect)
                gains[place[effect.term]] *= factor
                left += [effect.term] if factor != 1 else []
            progress(f"steering, round {turn + 1}", start + len(part), len(open_terms))
        open_terms = left
    return replace(table, gains=gains)


def _correction(effect: Effect) -> float:
    """By what a gain is multiplied after what it did."""
    if effect.perplexity_ratio > DAMAGED:
        return 1 / STEP
    return STEP if effect.multiple < ENOUGH and effect.perplexity_ratio < WHOLE else 1.0


def save_directions(folder: Path, table: Directions) -> None:
    """Write directions.safetensors into a pack's folder, vectors in fp16, in one step. Raises StorageError."""
    values = (FORMAT, table.fingerprint, str(table.site.layer), json.dumps(list(table.terms)))
    tensors = {"vectors": table.vectors.half().contiguous(), "gains": table.gains.float().contiguous()}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise NumericError(f"the {name} of the directions hold a NaN or an infinity: they are not saved")
    write_atomically(folder / FILE, save(tensors, metadata=dict(zip(_KEYS, values, strict=True))))


def load_directions(folder: Path, *, fingerprint: str) -> Directions:
    """The directions of a pack, for the model with this fingerprint.

    Raises FingerprintMismatch for another model's, StorageError where there is no file, PackError where it is damaged.
    """
    file = folder / FILE
    try:
        with safe_open(file, framework="pt") as stored:
            said = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a dict)
    except OSError as error:
        raise StorageError(
            f"{file} cannot be read: {error.strerror or error}; does the pack have directions?"
        ) from error
    except SafetensorError as error:
        raise PackError(f"{file} is truncated or not a safetensors file: {error}; fetch or train it again") from error
    if set(said) != set(_KEYS) or said["format"] != FORMAT or set(tensors) != {"vectors", "gains"}:
        raise PackError(f"{file} is no table of directions: it has keys {sorted(said)} and tensors {sorted(tensors)}")
    if said["fingerprint"] != fingerprint:
        raise FingerprintMismatch(
            f"{file} was made for model {said['fingerprint'][:8]}, this model is {fingerprint[:8]}: use that model, or "
            "train for this one with `ftw lens train`"
        )
    terms = tuple(json.loads(said["terms"]))
    vectors, gains = tensors["vectors"].float(), tensors["gains"].float()
    if vectors.ndim != 2 or len(vectors) != len(terms) or gains.shape != (len(terms),):
        raise PackError(f"{file}: {len(terms)} concepts, vectors {list(vectors.shape)}, gains {list(gains.shape)}")
    if not bool(gains.isfinite().all()):
        raise NumericError(f"{file}: the gain of {terms[int((~gains.isfinite()).nonzero()[0])]!r} is not finite")
    return Directions(terms, Site(int(said["block"])), unit(vectors, terms), gains, fingerprint)

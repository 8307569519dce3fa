"""The measure of steering: how often the concept's words are written, and what that does to the text.

Both sides write seeded continuations of the same neutral prompts. Damage is the perplexity of the text under the model
without any edit, against that of unsteered text.
The rule of the file: effect is never told without damage.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.steering.directions import padded
from ftw.hat.steering.edits import DEFAULT_STRENGTH, Direction, Steer, steer_edits
from ftw.substrate.engine import Completion, Request, Sampling, TransformersEngine
from ftw.substrate.errors import UsageError
from ftw.substrate.model import Model
from ftw.substrate.taps import tap
from ftw.substrate.types import Edit

NEUTRAL_PROMPTS = (
    "One day,",
    "It was a quiet morning.",
    "Once upon a time, there was",
    "Yesterday, Anna",
    "There was",
    "Peter and Mary",
    "Suddenly,",
    '"I know," said',
)
"""Openings that are about nothing in particular."""
MULTIPLE = 5.0
"""Steering works when it multiplies the rate of the concept's words by this much …"""
PERPLEXITY_RATIO = 1.6
"""… and the text's perplexity by no more than this."""
_LOGITS = 1 << 25
"""So many logits are held at once."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What steering did to a set of texts."""

    term: str
    strength: float
    rate: float
    """Share of all words that are words of the concept."""
    base_rate: float
    """The same without steering."""
    multiple: float
    """rate / base_rate, where a base without such a word counts as if it had one."""
    perplexity_ratio: float
    """Perplexity of the text under the unsteered model, over that of unsteered text."""
    texts: int
    sample: str
    """The first prompt and its steered continuation."""

    @property
    def is_good(self) -> bool:
        """Whether the effect is large enough at a damage that is small enough."""
        return self.multiple >= MULTIPLE and self.perplexity_ratio <= PERPLEXITY_RATIO


@dataclass(frozen=True)
class _Written:
    """Texts and how likely the model without edits finds them."""

    texts: list[str]
    nats: float
    tokens: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / max(self.tokens, 1)


class Evaluator:
    """Writes seeded continuations of neutral prompts with and without steering, all of one call in one batch.

    `repeats` continuations of each prompt (`base_repeats` on the unsteered side, which is written once and decides how
    rare a word can be told to be), `tokens` long, at `temperature`. The same seed gives the same figures.
    """

    def __init__(
        self,
        model: Model,
        *,
        prompts: Sequence[str] = NEUTRAL_PROMPTS,
        repeats: int = 8,
        base_repeats: int | None = None,
        tokens: int = 40,
        temperature: float = 0.7,
        seed: int = 0,
        engine: TransformersEngine | None = None,
    ) -> None:
        base_repeats = base_repeats or repeats
        if not prompts or min(repeats, base_repeats) < 1:
            raise UsageError(f"{len(prompts)} prompts, {repeats} times: there is nothing to write")
        self.model = model
        self.engine = engine or TransformersEngine(model)
        self._prompts = [prompt for _ in range(max(repeats, base_repeats)) for prompt in prompts]
        self._counts = repeats * len(prompts), base_repeats * len(prompts)
        self._ids = [tuple(model.encode(prompt)) for prompt in self._prompts]
        self._tokens = tokens
        self._temperature = temperature
        self._seed = seed

    @cached_property
    def base(self) -> _Written:
        """The unsteered side, written once."""
        return self._write([()], self._counts[1])[0]

    def contexts(self, n: int) -> list[list[int]]:
        """Token ids of `n` unsteered texts with their prompts: neutral text in the model's own words."""
        texts = zip(self._prompts[:n], self.base.texts, strict=False)
        return [self.model.encode(prompt + text) for prompt, text in texts]

    def measure(self, steers: Sequence[Steer], words: Mapping[str, Collection[str]]) -> list[Effect]:
        """Effect and damage of each way of steering by itself; `words[term]` are the words that count for a concept.

        Raises UsageError for a concept without words.
        """
        bare = [steer.direction.term for steer in steers if not words.get(steer.direction.term)]
        if bare:
            raise UsageError(f"no words of {', '.join(bare)} to count: give at least one for each concept")
        base, effects = self.base, []
        for steer, written in zip(
            steers, self._write([steer_edits([s]) for s in steers], self._counts[0]), strict=True
        ):
            term = steer.direction.term
            rate, _ = word_rate(written.texts, words[term])
            base_rate, count = word_rate(base.texts, words[term])
            multiple = rate / max(base_rate, 1 / max(count, 1))
            ratio = math.exp(written.nats_per_token - base.nats_per_token)
            sample = self._prompts[0] + written.texts[0]
            effects.append(Effect(term, steer.strength, rate, base_rate, multiple, ratio, len(written.texts), sample))
        return effects

    def _write(self, sides: Sequence[Sequence[Edit]], n: int) -> list[_Written]:
        """The first `n` continuations of every side. Continuation i has the same seed on all sides."""
        requests = [
            Request(
                ids, self._tokens, Sampling(temperature=self._temperature, seed=self._seed + at), edits=tuple(edits)
            )
            for edits in sides
            for at, ids in enumerate(self._ids[:n])
        ]
        done = self.engine.generate(requests)
        return [self._judged(done[at * n : (at + 1) * n]) for at in range(len(sides))]

    def _judged(self, done: Sequence[Completion]) -> _Written:
        pairs = [(ids, one.tokens) for ids, one in zip(self._ids, done, strict=False)]
        nats = sum(part.sum().item() for part in continuation_nats(self.model, pairs))
        return _Written([one.text for one in done], nats, sum(len(one.tokens) for one in done))


def word_rate(texts: Sequence[str], words: Collection[str]) -> tuple[float, int]:
    """Share of all words that are among `words` (single ones, in any case, or with a plural s), and how many there are.

    Members of several words are not counted.
    """
    wanted = {word.casefold() for word in words}
    said = [word for text in texts for word in re.findall(r"[^\W\d_]+", text.casefold())]
    hits = sum(word in wanted or (word.endswith("s") and word[:-1] in wanted) for word in said)
    return hits / max(len(said), 1), len(said)


def continuation_nats(
    model: Model, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[Float[Tensor, " token"]]:
    """Per (prompt, continuation), minus the log probability of each token of the continuation, without any edit."""
    width = max((len(prompt) + len(rest) for prompt, rest in pairs), default=1)
    rows = max(1, _LOGITS // (width * model.vocab_size))
    for start in range(0, len(pairs), rows):
        part = pairs[start : start + rows]
        ids, mask = padded([[*prompt, *rest] for prompt, rest in part], model.device)
        with torch.inference_mode():
            logp = model.net(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
            for row, (prompt, rest) in enumerate(part):
                of = logp[row, len(prompt) - 1 : len(prompt) + len(rest) - 1]
                yield -of.gather(-1, ids[row, len(prompt) : len(prompt) + len(rest), None])[:, 0]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a push does to the next token at each position of neutral text, on average; nothing is sampled."""

    share: float
    """Of its norm, by which each state is pushed."""
    damage: float
    """By how many nats per token the steered model's choice is less likely to the unsteered one than its own."""
    multiple: float
    """How many times more often a token of the concept is chosen."""


def expected(
    model: Model,
    direction: Direction,
    tokens: Sequence[int],
    shares: Sequence[float],
    contexts: Sequence[Sequence[int]],
) -> list[Expected]:
    """Effect on `tokens` and damage of a direction at each of `shares`, at all positions of neutral `contexts`.

    The perplexity ratio of text that is really written goes with the exponential of about half the damage.
    """
    ids, mask = padded(contexts, model.device)
    counted = mask.bool()

    def predictions() -> Tensor:
        logits: Tensor = model.net(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits[counted].float().log_softmax(-1)

    with torch.inference_mode():
        plain, chosen = predictions(), torch.tensor(list(tokens), device=ids.device)
        own, mass = (plain.exp() * -plain).sum(-1).mean(), plain[:, chosen].exp().sum(-1).mean()
        found = []
        for share in shares:
            with tap(model, edits=steer_edits([Steer(replace(direction, gain=share), 1.0)])):
                steered = predictions().exp()
            damage = float((steered * -plain).sum(-1).mean() - own)
            found.append(Expected(share, damage, float(steered[:, chosen].sum(-1).mean() / mass.clamp(min=1e-9))))
        return found


def calibrated(
    model: Model,
    direction: Direction,
    tokens: Sequence[int],
    contexts: Sequence[Sequence[int]],
    *,
    multiple: float,
    damage: float,
    shares: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
) -> Direction:
    """The direction with the gain at which DEFAULT_STRENGTH is expected to multiply `tokens` by `multiple`.

    But never more than costs `damage` nats per token. Between the shares tried both are taken to be powers of the
    share; beyond them, the nearest is taken.
    """
    found = expected(model, direction, tokens, shares, contexts)
    logs = [math.log(share) for share in shares]
    effect = _where(math.log(multiple), logs, [math.log(max(one.multiple, 1e-6)) for one in found])
    bound = _where(math.log(damage), logs, [math.log(max(one.damage, 1e-6)) for one in found])
    return replace(direction, gain=math.exp(min(effect, bound)) / DEFAULT_STRENGTH)


def _where(wanted: float, at: Sequence[float], values: Sequence[float]) -> float:
    """The place where a line through the points (at, values) first reaches `wanted`; an end where it never does."""
    if values[0] >= wanted:
        return at[0]
    for (low, below), (high, above) in pairwise(zip(at, values, strict=True)):
        if below < wanted <= above:
            return low + (high - low) * (wanted - below) / (above - below)
    return at[-1]

"""What a monitor tells: a reading per token, a score per concept shown, a simplex per quality shown.

The rule of the file: a record says all that is needed to judge it, how good the lens is among it, and holds plain
numbers, so that it can be written down as it is.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ftw.hat.classifiers.index import Reliability

Combined = Literal[
    "active_elevated",
    "discussing_not_activated",
    "implicit_elevated",
    "not_relevant",
    "hierarchical_only",
    "simplex_only",
    "unknown",
]
"""What a concept and its simplex say together. Both high: the state is in it. Only the concept: the text is about it.
Only the simplex: it is in it without naming it. Neither: not relevant. `hierarchical_only` and `simplex_only`: only the
concept or only the simplex is read at all; `unknown`: none of them."""


@dataclass(frozen=True, slots=True)
class Score:
    """One concept in one reading."""

    term: str
    p: float
    """Calibrated probability that the state represents the concept. 0 where the screen left the lens out."""
    baseline: float
    """The mean of p on neutral text."""
    z: float
    """By how many standard deviations of neutral text p lies above its baseline."""
    logit: float
    """The lens's raw answer; -inf where the screen left it out."""
    auroc: float | None
    """The lens's held-out area under the ROC curve, words and templates unseen. None: not measured."""
    above: bool = True
    """Whether the logit reaches the lens's threshold: the reading is above its own baseline."""
    level: int = 0
    """Depth of the concept in its tree, 0 for a root."""
    block: int = 0
    """The block that was read; -1 is the embedding."""
    reliability: Reliability | None = None
    """The same figure with its interval. None: not measured."""
    sibling_p: float | None = None
    """Its share among its siblings: which of them it is, if it is one of them. None: it has no parent, or no sibling
    was scored."""


@dataclass(frozen=True, slots=True)
class SimplexScore:
    """One quality in one reading: where the state stands between two opposite poles."""

    name: str
    poles: tuple[str, str, str]
    """What the negative, the neutral and the positive pole are called."""
    negative: float
    neutral: float
    positive: float
    """Probabilities of the poles; they add to 1."""
    z: float
    """By how many standard deviations p(positive) - p(negative) lies off the request's own running mean. 0 while fewer
    than ten states are known, or where they hardly differ."""
    z_neutral: float
    """The same off the mean on neutral text."""
    alert: bool
    """Whether z is at least as far from 0 as the simplex's alert threshold."""
    trend: float = 0.0
    """By how much p(positive) - p(negative) rises per token, over the last tokens of the same text; 0 with fewer than
    ten."""
    concept: str | None = None
    """The concept that it is bound to."""
    combined: Combined | None = None
    """What both say together. None: it is bound to none."""

    @property
    def spread(self) -> float:
        """p(positive) - p(negative), -1 to 1."""
        return self.positive - self.negative


@dataclass(frozen=True, slots=True)
class Reading:
    """What one token's forward pass represented. It belongs to the token whose pass made the state."""

    request_id: str
    index: int
    """The step: 0 for every prompt position, then 1, 2, … for each token written."""
    phase: Literal["prompt", "generate"]
    position: int
    """Place in the text, prompt included, from 0."""
    input_token: int
    """The token whose forward pass made the state."""
    token: int
    """The token that comes next: the prompt's own, or the one that this state chose."""
    scores: tuple[Score, ...]
    """The strongest concepts above their baselines, highest p first, then the concepts that are always shown."""
    simplexes: tuple[SimplexScore, ...] = ()
    """Those always shown, those whose concept is read, and those that stand off their running mean."""
    late: tuple[str, ...] = ()
    """Concepts that this state reads strongly and whose children it lacks, because their lenses were not in memory:
    they are read from a later token on, if there is room for them."""
    t_ms: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Milliseconds by stage of the scoring that this reading was part of, all its rows together: `score`, `simplexes`,
    and `wait` for the copy to arrive. On a GPU the first two are the time to ask for the work."""

    def score(self, term: str) -> Score | None:
        """The score of a concept, by name in any case, if it is in this reading."""
        wanted = term.casefold()
        return next((score for score in self.scores if score.term.casefold() == wanted), None)

    def simplex(self, name: str) -> SimplexScore | None:
        """A simplex by name in any case, if it is in this reading."""
        wanted = name.casefold()
        return next((simplex for simplex in self.simplexes if simplex.name.casefold() == wanted), None)

    def record(self) -> dict[str, Any]:
        """The reading as plain values for a JSON document; a lens that was left out has logit null."""
        scores = []
        for score in self.scores:
            reliability = None if score.reliability is None else score.reliability.model_dump()
            values = {name: getattr(score, name) for name in Score.__slots__}
            logit = score.logit if math.isfinite(score.logit) else None
            scores.append({**values, "logit": logit, "reliability": reliability})
        return {
            "request_id": self.request_id,
            "index": self.index,
            "phase": self.phase,
            "position": self.position,
            "input_token": self.input_token,
            "token": self.token,
            "scores": scores,
            "simplexes": [{**asdict(each), "poles": list(each.poles)} for each in self.simplexes],
            "late": list(self.late),
            "t_ms": dict(self.t_ms),
        }

"""What a monitor tells: a reading per token, a score per concept shown."""

from dataclasses import dataclass
from typing import Literal


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
    """Reliability: the lens's held-out area under the ROC curve, words and templates unseen. None: not measured."""
    above: bool = True
    """Whether the logit reaches the lens's threshold: the reading is above its own baseline."""


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

    def score(self, term: str) -> Score | None:
        """The score of a concept, by name in any case, if it is in this reading."""
        wanted = term.casefold()
        return next((score for score in self.scores if score.term.casefold() == wanted), None)

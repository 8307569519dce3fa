"""What is drawn: words, and the readings of the states that wrote them; which reading leads; what a page says.

The rule of the file: a reading that does not rise above its own baseline is not drawn, and a parent is left out where
one of its children explains it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LEAD_P = 0.5
"""A word is coloured and named from this calibrated probability on; tracks show weaker readings too."""
MARGIN = 0.15
"""A child explains its parent when it is at most this much less likely."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One concept at one state."""

    concept: str
    p: float
    """Calibrated probability, 0..1."""
    baseline: float
    """What this lens reads in neutral text, on average."""
    z: float
    """How many of its standard deviations `p` stands above that."""
    auroc: float
    """How good the lens is on words it was not trained on; NaN where unknown."""
    above: bool = True
    """Whether the reading reaches its lens's own threshold."""

    @property
    def is_loud(self) -> bool:
        """Whether it rises above its own baseline far enough to be drawn."""
        return self.above and self.p > self.baseline


@dataclass(frozen=True, slots=True)
class Word:
    """One token of the text, and the readings of the state that wrote it."""

    text: str
    marks: tuple[Mark, ...] = ()


def loud(marks: Iterable[Mark], parent: Callable[[str], str | None]) -> list[Mark]:
    """The readings worth drawing, most likely first: above their baseline, and not explained by a child."""
    up = {mark.concept: mark for mark in marks if mark.is_loud}
    explained = set()
    for mark in up.values():
        above = parent(mark.concept)
        while above is not None:
            if above in up and mark.p >= up[above].p - MARGIN:
                explained.add(above)
            above = parent(above)
    shown = (mark for name, mark in up.items() if name not in explained)
    return sorted(shown, key=lambda mark: (-mark.p, mark.concept))


def leading(marks: Iterable[Mark], parent: Callable[[str], str | None]) -> Mark | None:
    """The reading that colours and names the word: the most likely one, if it is likelier than not. None: quiet."""
    return next((mark for mark in loud(marks, parent) if mark.p >= LEAD_P), None)


class Track(NamedTuple):
    """One concept along a text."""

    concept: str
    p: tuple[float, ...]
    """One per word; 0 where the reading does not rise above its baseline."""
    baseline: float
    auroc: float
    peak_at: int
    """The word with the highest reading."""
    peak: float
    """That reading, also where it is not drawn."""


def tracks(
    words: Sequence[Word], parent: Callable[[str], str | None], top: int, *, always: Sequence[str] = ()
) -> list[Track]:
    """The concepts that rise somewhere in the text, those with the most weight first, at most `top`.

    Those in `always` stay even when they are quiet all along, and then their row is empty but for its peak.
    """
    found: dict[str, dict[int, Mark]] = {name: {} for name in always}
    for place, word in enumerate(words):
        for mark in loud(word.marks, parent):
            found.setdefault(mark.concept, {})[place] = mark
    weight = {name: sum(mark.p for mark in at.values()) for name, at in found.items()}
    order = sorted(found, key=lambda name: (-weight[name], name))[: max(top, len(always))]
    return [_track(name, words, found[name]) for name in order]


def _track(name: str, words: Sequence[Word], up: Mapping[int, Mark]) -> Track:
    seen = {place: mark for place, word in enumerate(words) for mark in word.marks if mark.concept == name}
    row = tuple(up[place].p if place in up else 0.0 for place in range(len(words)))
    if not seen:
        return Track(name, row, math.nan, math.nan, 0, 0.0)
    peak_at = max(seen, key=lambda place: seen[place].p)
    some = seen[peak_at]
    return Track(name, row, some.baseline, some.auroc, peak_at, some.p)

"""Outcome: a number that was found, or the reason why there is none.

The rule of the file: nothing is missing without a reason. A null in a run's document stands beside its code.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ftw.substrate.errors import NumericError

Why = Literal[
    "never",
    "no_answer",
    "blank_first",
    "no_control",
    "no_lens",
    "no_view",
    "no_variant",
    "no_positions",
    "no_copy",
    "no_onset",
    "no_text",
    "not_told_apart",
    "not_finite",
    "not_asked",
    "too_few",
    "not_listed",
]
"""Why a number is missing:

`never`: looked for at every layer, and not there. `no_answer`, `no_control`: the prompt has none.
`blank_first`: the answer's first token is only a blank, whose rank says nothing of the answer. `no_lens`, `no_view`:
the lens was not part of the run, or the model has no such norm. `no_variant`: the fact was not asked in that variant.
`no_positions`: only last positions were read. `no_copy`, `no_onset`: it is counted from a milestone that there is not.
`no_text`: needs held-out text that was not given. `not_told_apart`: answer and control begin with the same token.
`not_finite`: a NaN or infinity stands in its way. `not_asked`: the run did not measure it. `too_few`: too few prompts
or layers. `not_listed`: the token stands below those that are listed.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A value, or None and why. Raises NumericError for a NaN or an infinity, and for a None without a reason."""

    value: float | int | bool | str | None
    why: Why | None = None

    def __post_init__(self) -> None:
        if isinstance(self.value, float) and not math.isfinite(self.value):
            raise NumericError(f"an outcome cannot be {self.value}: give None with the reason not_finite")
        if (self.value is None) == (self.why is None):
            raise NumericError(f"an outcome is a value or a reason: got {self.value!r} and {self.why!r}")

    @classmethod
    def none(cls, why: Why) -> "Outcome":
        """No value, for this reason."""
        return cls(None, why)

    def document(self) -> dict[str, float | int | bool | str | None]:
        """As it stands in a run's document: `{"value": …, "why": …}`."""
        return {"value": self.value, "why": self.why}

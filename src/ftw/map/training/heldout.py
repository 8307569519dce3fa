"""The one matrix that every figure is computed from: held-out prompts by lenses, with what is needed to split it.

The rule of the file: a matrix that does not fit together, or holds a NaN, is refused before anything is computed of it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from ftw.map.training.targets import POSITIVE
from ftw.substrate.errors import NumericError, UsageError

NOWHERE = -1
"""The home of a prompt that no lens of the matrix is for."""


@dataclass(frozen=True)
class HeldOutMatrix:
    """Logits of lenses on prompts that they were not fitted on. All on the CPU, in fp32.

    Raises UsageError for parts of other lengths, NumericError for a logit that is not a number.
    """

    terms: tuple[str, ...]
    """The columns."""
    logits: Float[Tensor, "prompt lens"]
    """By lenses of the same making that saw neither the prompt's template nor its synset."""
    labels: Int8[Tensor, "prompt lens"]
    """POSITIVE, NEGATIVE or UNSAID."""
    home: Int[Tensor, " prompt"]
    """The column of the concept that the prompt is about."""
    group: Int[Tensor, " prompt"]
    """Its synset: what is drawn again in a bootstrap, and never split between fitting a map and judging it."""
    template: Int[Tensor, " prompt"]
    kind: tuple[str, ...]
    """What each prompt is: `carrier`, `definition`, `usage` …"""
    neutral: Float[Tensor, "state lens"]
    """The lenses that ship, on text about nothing in particular."""
    neutral_text: Int[Tensor, " numbered"]
    """The number of the text of each of these states: even ones set thresholds, odd ones measure them."""
    shipped: Float[Tensor, "prompt lens"] | None = None
    """The same prompts read by the lenses that ship: their templates were held out, their synsets were not."""
    seen: Int8[Tensor, "prompt lens"] | None = None
    """The labels of `shipped`, where `labels` are unsaid for lenses that have nothing to hold out. None: the same."""

    def __post_init__(self) -> None:
        size = (len(self.group), len(self.terms))
        rows = {len(self.home), len(self.template), len(self.kind), len(self.labels), size[0]}
        others = [self.logits, self.labels, *(each for each in (self.shipped, self.seen) if each is not None)]
        if rows != {size[0]} or any(tuple(each.shape) != size for each in others):
            raise UsageError(f"a matrix of {size[0]} prompts and {size[1]} lenses got parts of other sizes")
        if self.neutral.shape[1] != size[1] or len(self.neutral) != len(self.neutral_text):
            raise UsageError(
                f"neutral text gives {list(self.neutral.shape)} logits for {size[1]} lenses and "
                f"{len(self.neutral_text)} numbered states"
            )
        if not all(bool(each.isfinite().all()) for each in (self.neutral, *others)):
            raise NumericError("a held-out logit is not finite: a lens or the states that it read hold a NaN")
        if not bool((self.neutral_text % 2 == 0).any()) or not bool((self.neutral_text % 2 == 1).any()):
            raise UsageError("neutral text needs a part to set thresholds on (even numbers) and one to measure (odd)")

    @property
    def own(self) -> Bool[Tensor, "prompt lens"]:
        """Which pairs are positives."""
        return self.labels == POSITIVE

    @property
    def known(self) -> Int8[Tensor, "prompt lens"]:
        """The labels of what the lenses that ship read."""
        return self.labels if self.seen is None else self.seen

    def to_map(self) -> tuple[Float[Tensor, "prompt lens"], Int8[Tensor, "prompt lens"]]:
        """Logits and labels that maps are fitted on; of a lens without a held-out positive those of the shipped one."""
        bare = ~self.own.any(0)
        if self.shipped is None or not bool(bare.any()):
            return self.logits, self.labels
        return torch.where(bare, self.shipped, self.logits), torch.where(bare, self.known, self.labels)

    @property
    def dense_group(self) -> Int[Tensor, " prompt"]:
        """Synsets numbered 0, 1, 2 … without gaps."""
        dense: Tensor = torch.unique(self.group, return_inverse=True)[1]
        return dense

    @property
    def calibrating(self) -> Float[Tensor, "state lens"]:
        """Logits on the neutral text that thresholds and baselines are set on."""
        return self.neutral[self.neutral_text % 2 == 0]

    @property
    def measuring(self) -> Float[Tensor, "state lens"]:
        """Logits on the other neutral text."""
        return self.neutral[self.neutral_text % 2 == 1]

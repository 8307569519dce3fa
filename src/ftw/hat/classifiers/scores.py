"""What a bank read: one calibrated probability per state and lens, kept as the few pairs that were computed.

The rule of the file: nothing leaves the device until someone asks, and then it is one copy. A NaN is never handed out.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ftw.substrate.errors import NumericError


class HostScores(NamedTuple):
    """The computed pairs on the host, ordered by row."""

    flat: np.ndarray
    """row * lenses + lens, int32."""
    logit: np.ndarray
    """fp32."""


class Scores:
    """Scores of R states by N lenses. Pairs that the screen left out have p = 0 and logit = -inf."""

    def __init__(
        self,
        flat: Int[Tensor, " pair"] | None,
        logits: Tensor,
        rows: int,
        slope: Float[Tensor, " lens"],
        offset: Float[Tensor, " lens"],
        terms: Sequence[str],
        capped: int,
    ) -> None:
        """From flat indices row * lenses + lens of the computed pairs, ascending, and their logits.

        With `flat` None, `logits` [row, lens] are those of every pair.
        """
        self.rows = rows
        self.terms = terms
        self.capped = capped
        """How many pairs passed the screen but not the budget."""
        self._flat = flat
        self._logits = logits
        self._slope = slope
        self._offset = offset

    @property
    def computed(self) -> int:
        """How many pairs went through an MLP."""
        return self._logits.numel()

    @cached_property
    def raw(self) -> Float[Tensor, "row lens"]:
        """Logits on the device, fp32, unchecked and without a look from the host: -inf where none was computed."""
        if self._flat is None:
            return self._logits
        dense = self._logits.new_full((self.rows * len(self.terms),), float("-inf"))
        return dense.index_copy(0, self._flat, self._logits).view(self.rows, len(self.terms))

    @cached_property
    def odds(self) -> Float[Tensor, "row lens"]:
        """Calibrated log-odds on the device, fp32, unchecked: their order is that of p, but they do not saturate."""
        return self.raw * self._slope + self._offset

    @cached_property
    def logit(self) -> Float[Tensor, "row lens"]:
        """Logits on the device, fp32. Raises NumericError for a NaN."""
        if bool(self.raw.isnan().any()):
            raise not_a_number()
        return self.raw

    @cached_property
    def p(self) -> Float[Tensor, "row lens"]:
        """Calibrated probabilities on the device, fp32. Raises NumericError for a NaN."""
        return torch.sigmoid(self.logit * self._slope + self._offset)

    @cached_property
    def passed(self) -> Bool[Tensor, "row lens"]:
        """Which pairs were computed."""
        return self.logit > float("-inf")

    @cached_property
    def host(self) -> HostScores:
        """The computed pairs on the host, in one copy. Raises NumericError for a NaN or an infinity."""
        flat = self._flat
        if flat is None:
            flat = torch.arange(self._logits.numel(), device=self._logits.device)
        logits = self._logits.reshape(-1)
        if logits.is_cuda:  # one transfer: the bits of both, side by side
            both = torch.stack((flat.to(torch.int32), logits.float().view(torch.int32))).cpu().numpy()
            host = HostScores(both[0], both[1].view(np.float32))
        else:
            host = HostScores(flat.numpy(), logits.float().numpy())
        if not np.isfinite(host.logit).all():
            raise not_a_number()
        return host

    def top(self, k: int) -> list[list[tuple[str, float]]]:
        """Per row, the k computed lenses with the highest p, highest first."""
        odds = (self.logit * self._slope + self._offset).topk(min(k, len(self.terms)))
        return [
            [(self.terms[at], p) for at, p in zip(ats, ps, strict=True) if p > 0]
            for ats, ps in zip(odds.indices.tolist(), torch.sigmoid(odds.values).tolist(), strict=True)
        ]


def not_a_number() -> NumericError:
    """What is raised where a score is a NaN."""
    return NumericError("a lens score is not finite: the states that were read, or the weights of a lens, hold a NaN")

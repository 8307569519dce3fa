"""The teacher: the model's own next-token distribution, and how far a student is from it, with the gradient.

Logits are those that the model gives: head, bias, scale and softcap. KL(model || student) and its gradient are written
down in closed form, so a block of logits is used and dropped, and no graph over the vocabulary is kept.

The rule of the file: the head is a constant. Gradients end at the head's input.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.anatomy import Arch
from ftw.substrate.errors import SiteError

BUDGET = 32 << 20
"""Bytes of one block of logits; about four are held at once."""


class Truth(NamedTuple):
    """The model's own distribution for some rows."""

    p: Float[Tensor, "row vocab"]
    entropy: Float[Tensor, " row"]
    """-Σ p ln p, in nats."""


class Teacher:
    """A model's head in fp32, on its device. A head of another dtype is copied once."""

    def __init__(self, arch: Arch) -> None:
        weight, bias = getattr(arch.head, "weight", None), getattr(arch.head, "bias", None)
        if not isinstance(weight, Tensor):
            raise SiteError(f"the head {arch.head_path} has no weight to decode with")
        self._weight = weight.detach()[: arch.vocab_size].float()
        self._bias = bias.detach()[: arch.vocab_size].float() if isinstance(bias, Tensor) else None
        self._transform = arch.transform
        self.rows = max(1, BUDGET // (4 * arch.vocab_size))
        """Rows of logits that fit the budget."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._weight.device

    @torch.no_grad()
    def truth(self, h: Float[Tensor, "row width"]) -> Truth:
        """The distribution for the head's inputs `h`."""
        log_p = self._logits(h).log_softmax(-1)
        p = log_p.exp()
        return Truth(p, -(p * log_p).sum(-1))

    @torch.no_grad()
    def divergence(
        self, truth: Truth, h: Float[Tensor, "row width"]
    ) -> tuple[Float[Tensor, " row"], Float[Tensor, "row width"]]:
        """KL(truth || student) of each row in nats, never negative, and its gradient with respect to `h`."""
        z = self._logits(h)
        slope = self._slope(z)
        log_q = z.log_softmax(-1)
        kl = -(truth.p * log_q).sum(-1) - truth.entropy
        pull = log_q.exp_().sub_(truth.p)
        if slope is not None:
            pull.mul_(slope)
        return kl.clamp_min(0), pull @ self._weight

    def _logits(self, h: Tensor) -> Tensor:
        z = h @ self._weight.T
        return self._transform(z if self._bias is None else z + self._bias)

    def _slope(self, z: Tensor) -> Tensor | float | None:
        """How much the logits move with the head's output; None for one to one."""
        scale, cap = self._transform.scale, self._transform.softcap
        if cap is None:
            return None if scale == 1.0 else scale
        return scale * (1 - (z / cap).square())

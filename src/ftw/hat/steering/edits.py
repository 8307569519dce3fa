"""Steering as edits of the residual stream: h + gain * strength * ||h|| * v at every token.

The share of its own norm by which a state is pushed is gain * strength. Without calibration the gain is 0.1, so that
strength 1 pushes by a tenth; a pack's directions carry a gain each, so that DEFAULT_STRENGTH writes plainly about the
concept in whole sentences, twice that is too much, and a negative strength pushes away.

The rule of the file: several concepts at one site are one edit, their pushes add up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.errors import NumericError, UsageError
from ftw.substrate.types import Edit, Site

GAIN = 0.1
"""Share of a state's norm that strength 1 adds, for a direction that was not calibrated."""
DEFAULT_STRENGTH = 0.6
"""What calibrated gains are made for."""


@dataclass(frozen=True)
class Direction:
    """Which way a concept lies at a site, and how far one unit of strength goes."""

    term: str
    site: Site
    vector: Float[Tensor, " d_model"]
    """Unit length, fp32."""
    gain: float = GAIN


@dataclass(frozen=True)
class Steer:
    """Push towards a concept (strength > 0) or away from it (< 0). Raises UsageError for what is no number."""

    direction: Direction
    strength: float = DEFAULT_STRENGTH

    def __post_init__(self) -> None:
        _require_number(self.strength)

    @property
    def share(self) -> float:
        """By what share of its norm a state is pushed."""
        return self.direction.gain * self.strength

    @property
    def label(self) -> str:
        """What it is called in events."""
        return f"steer {self.direction.term} {self.strength:+g}"


def steer_edit(
    site: Site, direction: Float[Tensor, " d_model"], strength: float, *, gain: float = GAIN, label: str = ""
) -> Edit:
    """The edit h + gain * strength * ||h|| * v with v the unit vector of `direction`, token by token.

    Norms are taken in fp32, the sum in the stream's dtype. Raises UsageError for a strength that is not a finite
    number, NumericError for a direction without one.
    """
    _require_number(strength)
    length = direction.float().norm()
    if direction.ndim != 1 or not bool(length.isfinite() & (length > 0)):
        raise NumericError(f"a steering direction of shape {list(direction.shape)} and norm {float(length)}: not a way")
    return Edit(site, _push(direction.float() / length * (gain * strength)), label or f"steer {strength:+g}")


def steer_edits(steers: Sequence[Steer]) -> list[Edit]:
    """The edits of several concepts at once, one per site, in the order of sites."""
    by_site: dict[Site, list[Steer]] = {}
    for steer in steers:
        by_site.setdefault(steer.direction.site, []).append(steer)
    edits = []
    for site, group in sorted(by_site.items()):
        push = torch.stack([steer.share * steer.direction.vector.float() for steer in group]).sum(0)
        if not bool(push.isfinite().all()):
            raise NumericError(f"the directions at {site} ({', '.join(s.label for s in group)}) hold a NaN or infinity")
        edits.append(Edit(site, _push(push), ", ".join(steer.label for steer in group)))
    return edits


def _push(vector: Float[Tensor, " d_model"]) -> Callable[[Tensor], Tensor]:
    """Adds `vector` times each state's norm. The vector is brought to the stream's dtype and device once."""
    placed = {}

    def apply(stream: Tensor) -> Tensor:
        key = (stream.dtype, stream.device)
        if key not in placed:
            placed[key] = vector.to(stream.device, stream.dtype)
        norm = torch.linalg.vector_norm(stream, dim=-1, keepdim=True, dtype=torch.float32)
        return torch.addcmul(stream, norm.to(stream.dtype), placed[key])

    return apply


def _require_number(strength: float) -> None:
    if not math.isfinite(strength):
        raise UsageError(
            f"strength is {strength}: it is a finite number, about {DEFAULT_STRENGTH}; negative steers away"
        )

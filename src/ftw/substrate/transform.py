"""Finds what turns the head's output into the logits: a scale, a softcap, both, or nothing.

The rule of the file: the config proposes, the tensors decide. A value that the config names in some other way is found
by fitting; a transform of another form is a reason to refuse.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftw.substrate.anatomy import LogitTransform

SCALE_KEY = re.compile(r"logits?_(scal|mult|mup|div)|lm_head_(mult|scal)|output_(mult|scal)|dim_model_base|hidden_size")
CAP_KEY = re.compile(r"soft_?cap")
OTHER_KEY = re.compile(r"attn|attention|router|init|gate")


@dataclass(frozen=True, slots=True)
class Found:
    """A transform, where it comes from (`none`, `config`, `fitted`), and why it is not believed, if it is not."""

    transform: LogitTransform
    source: str
    doubt: str | None


def tolerance(logits: Tensor) -> float:
    """How far two computations of these logits in their own dtype may differ by rounding alone.

    16 units in the last place of the largest logit in fp32 (2e-5 at 10: sums run in another order), 2 in half precision
    (the same kernels run). A wrong norm, scale or cap is thousands of times larger.
    """
    size = max(1.0, float(logits.detach().float().abs().max()))
    units = 2 if torch.finfo(logits.dtype).bits == 16 else 16
    return units * torch.finfo(logits.dtype).eps * size


def fit_transform(scores: Tensor, logits: Tensor, configs: Sequence[Any]) -> Found:
    """The transform for which `transform(scores)` is `logits` (both [*batch, vocab], the model's dtype)."""
    if not torch.isfinite(logits).all():
        return Found(LogitTransform(), "none", "the model's own logits are not finite")
    bound = tolerance(logits)
    best, error = LogitTransform(), math.inf
    for candidate in _proposals(configs):
        gap = _gap(candidate, scores, logits)
        if gap < error:
            best, error = candidate, gap
    if error <= bound:
        return Found(best, "none" if best == LogitTransform() else "config", None)
    fitted = _fit(scores, logits)
    # A fitted constant is not the model's own to the last bit: allow for the rounding of the constant itself.
    if fitted is not None and (gap := _gap(fitted, scores, logits)) <= 4 * bound:
        return Found(fitted, "fitted", None)
    return Found(
        best,
        "none",
        f"the logits are neither the head's output nor a scale or softcap of it (closest: {best}, off by {error:.3g})",
    )


def _gap(transform: LogitTransform, scores: Tensor, logits: Tensor) -> float:
    gap = float((transform(scores).float() - logits.float()).abs().max())
    return gap if math.isfinite(gap) else math.inf


def _proposals(configs: Sequence[Any]) -> Iterable[LogitTransform]:
    """Every scale with every cap that a config names; caps first, so that on a draw the declared one stays."""
    scales, caps = [1.0], []
    for key, value in ((key, value) for config in configs for key, value in vars(config).items()):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            continue
        if CAP_KEY.search(key) and not OTHER_KEY.search(key):
            caps.append(float(value))
        elif SCALE_KEY.search(key) and not OTHER_KEY.search(key):
            scales += [float(value), 1 / value]
    scales += [a * b for a, b in itertools.combinations(scales[1:], 2)]
    for cap in [*dict.fromkeys(caps), None]:
        for scale in dict.fromkeys(scales):
            yield LogitTransform(scale, cap)


def _fit(scores: Tensor, logits: Tensor) -> LogitTransform | None:
    """Least squares in fp64: a scale alone, else scale and cap together by a search over the cap."""
    z, y = scores.detach().double().flatten(), logits.detach().double().flatten()
    if float(z.abs().max()) == 0:
        return None
    plain = LogitTransform(float(z @ y / (z @ z)))
    bound = tolerance(logits)
    if _gap(plain, scores, logits) <= 4 * bound:
        return plain
    peak = float(y.abs().max())
    low, high = math.log(peak * (1 + 1e-6)), math.log(peak * 1e3)
    for _ in range(4):
        grid = torch.linspace(low, high, 65, dtype=torch.float64).tolist()
        errors = [_capped(z, y, math.exp(at))[1] for at in grid]
        centre = min(range(len(grid)), key=errors.__getitem__)
        low, high = grid[max(centre - 1, 0)], grid[min(centre + 1, len(grid) - 1)]
    cap = math.exp((low + high) / 2)
    return LogitTransform(_capped(z, y, cap)[0], cap)


def _capped(z: Tensor, y: Tensor, cap: float) -> tuple[float, float]:
    """For one cap the best scale, from the scores that the cap does not flatten, and the largest error of both."""
    free = y.abs() < 0.9 * cap
    if not bool(free.any()):
        return 1.0, math.inf
    x = cap * torch.atanh(y[free] / cap)
    norm = float(z[free] @ z[free])
    scale = float(z[free] @ x) / norm if norm else 1.0
    return scale, float((cap * torch.tanh(scale * z / cap) - y).abs().max())

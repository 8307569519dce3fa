"""What is measured where a prompt ends: geometry of answer and echo, coverage, chance, and how the lenses differ there.

All lenses of a layer are decoded side by side in fp32 and held against the logit lens, then their logits are dropped.

The rule of the file: what compares two distributions sees both of them whole. Nothing is compared through summaries.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ftw.sweep import metrics
from ftw.sweep.decode import View
from ftw.sweep.head import Head
from ftw.sweep.lenses import VocabLens
from ftw.sweep.table import SCALES

MANY, FEW = 50, 10
"""Sizes of the lists whose overlap is measured."""
BUDGET = 128 << 20
"""Bytes that the logits of one step may take."""
HELD = 8
"""Rows of logits that are held at once for each row that is decoded: two lenses, their weights, and what is between."""
GEOMETRY = ("echo_mass_top50", "cos_answer", "cos_echo_max", "jaccard50_prev")
VERSUS = ("kl_bits", "rev_kl_bits", "js_bits", "l1", "jaccard10", "jaccard50", "spearman50")
COLUMNS = (*GEOMETRY, *(f"vs_logit_{name}" for name in VERSUS))
"""The columns that come from here, besides `pool_ranks` and `answer_logprob_scaled`."""


@torch.inference_mode()
def measure(
    head: Head,
    lenses: Sequence[VocabLens],
    base: VocabLens,
    resid: Float[Tensor, "layer row d_model"],
    answer: Int[Tensor, " row"],
    echo: Int[Tensor, "row m"],
    pool: Int[Tensor, "row p"],
    *,
    budget: int = BUDGET,
) -> dict[str, Tensor]:
    """`COLUMNS`, each [view, row], `pool_ranks` [view, row, p] and `answer_logprob_scaled` [view, row, scale].

    Views stand lens by lens, layers ascending.

    `base` (a lens at every layer, one of `lenses` or not) is what the others are held against. -1 in `answer`, `echo`
    and `pool` stands for nothing. NaN where a number does not exist: `vs_logit_*` of `base`, no answer, no echo, the
    first layer of a lens for `jaccard50_prev`.
    """
    views = [View(lens.name, layer) for lens in lenses for layer in lens.layers]
    place = {view: at for at, view in enumerate(views)}
    n_rows = resid.shape[1]
    found = {name: torch.full((len(views), n_rows), torch.nan, device=head.device) for name in COLUMNS}
    found["answer_logprob_scaled"] = torch.full((len(views), n_rows, len(SCALES)), torch.nan, device=head.device)
    found["pool_ranks"] = torch.zeros(len(views), *pool.shape, dtype=torch.long, device=head.device)
    step = max(1, budget // (4 * (HELD * head.vocab_size + 2 * echo.shape[1] * head.width)))
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        asked = _Asked(head, *(ids[rows].to(head.device) for ids in (answer, echo, pool)))
        before: dict[str, Tensor] = {}
        for layer, states in enumerate(resid[:, rows].to(head.device)):
            own = _Read(head, base, states, layer)
            for lens in lenses:
                if layer not in lens.layers:
                    continue
                here = own if lens.name == base.name else _Read(head, lens, states, layer)
                columns = asked.of(here) | ({} if here is own else here.against(own))
                if lens.name in before:
                    columns["jaccard50_prev"] = _overlap(here.best, before[lens.name])
                before[lens.name] = here.best
                for name, value in columns.items():
                    found[name][place[View(lens.name, layer)], rows] = value
    return found


class _Read:
    """The rows of one layer through one lens."""

    def __init__(self, head: Head, lens: VocabLens, states: Tensor, layer: int) -> None:
        self.h = lens.head_inputs(states[None], [layer])[0]
        self.z = head.logits(self.h)
        self.p = metrics.softmax(self.z)
        self.best = metrics.best(self.z, min(MANY, self.z.shape[-1]))[1]

    def against(self, base: "_Read") -> dict[str, Tensor]:
        """How this differs from the same layer through the base."""
        shares = (read.p.weights / read.p.total[:, None] for read in (self, base))
        values = (
            metrics.kl_bits(base.p, self.p),
            metrics.kl_bits(self.p, base.p),
            metrics.js_bits(self.p, base.p),
            torch.sub(*shares).abs().sum(-1),
            _overlap(self.best[:, :FEW], base.best[:, :FEW]),
            _overlap(self.best, base.best),
            _spearman(self.z.gather(-1, base.best)),
        )
        return {f"vs_logit_{name}": value for name, value in zip(VERSUS, values, strict=True)}


class _Asked:
    """Answer, echo and pool of some rows."""

    def __init__(self, head: Head, answer: Tensor, echo: Tensor, pool: Tensor) -> None:
        self.answer, self.echo, self.pool = answer, echo, pool
        self.answer_rows = head.rows(answer[:, None])
        words = head.rows(echo)
        self.words = words / torch.linalg.vector_norm(words, dim=-1, keepdim=True)

    def of(self, read: _Read) -> dict[str, Tensor]:
        """Geometry, coverage and the pool's ranks."""
        is_echo = (read.best[..., None] == self.echo[:, None, :]).any(-1)
        covered = (read.p.weights.gather(-1, read.best) * is_echo).sum(-1) / read.p.total
        own = read.z.gather(-1, self.pool.clamp_min(0))
        logit = read.z.gather(-1, self.answer.clamp_min(0)[:, None])
        scaled = [logit[:, 0] * scale - torch.logsumexp(read.z * scale, -1) for scale in SCALES]
        return {
            "answer_logprob_scaled": torch.stack(scaled, -1).masked_fill(self.answer[:, None] < 0, torch.nan),
            "echo_mass_top50": covered,
            "cos_answer": metrics.cosine(read.h, self.answer_rows[:, 0]).masked_fill(self.answer < 0, torch.nan),
            "cos_echo_max": self._closest(read.h),
            "pool_ranks": metrics.rank(read.z, own) * (self.pool >= 0),
        }

    def _closest(self, h: Float[Tensor, "row width"]) -> Float[Tensor, " row"]:
        """The largest cosine to a word of the prompt. NaN where it has none."""
        along = torch.bmm(self.words, h[..., None])[..., 0] / torch.linalg.vector_norm(h, dim=-1, keepdim=True)
        closest: Tensor = along.masked_fill(self.echo < 0, -torch.inf).amax(-1)
        return closest.masked_fill((self.echo < 0).all(-1), torch.nan)


def _overlap(a: Int[Tensor, "row k"], b: Int[Tensor, "row k"]) -> Float[Tensor, " row"]:
    """Jaccard index of two lists of k distinct ids: shared over all, 0 to 1."""
    shared = (a[:, :, None] == b[:, None, :]).any(-1).sum(-1).float()
    return shared / (2 * a.shape[-1] - shared)


def _spearman(z: Float[Tensor, "row k"]) -> Float[Tensor, " row"]:
    """Spearman's rank correlation of the order 1..k and the order of `z` descending. NaN for a single token."""
    k = z.shape[-1]
    if k < 2:
        return z.new_full(z.shape[:1], torch.nan)
    order = z.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    gaps = (order - torch.arange(k, device=z.device)).double()
    return (1 - 6 * gaps.square().sum(-1) / (k * (k * k - 1))).float()

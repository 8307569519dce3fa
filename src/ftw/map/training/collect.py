"""Runs a plan: every text once, all blocks read in that one pass, the states put where they are kept.

Where a model's cache cannot be repeated, texts run in full. Both ways give the same states.
The rule of the file: a state is kept as the lens will see it, normalised, with the mean and scale that undo it.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.modules import EPS
from ftw.map.training.plan import Batch, Plan, Pool, plan_of
from ftw.map.training.states import MemorySink, Sink, States, StateStore, StoreKey
from ftw.substrate.errors import NumericError
from ftw.substrate.model import Model
from ftw.substrate.taps import Trace, tap
from ftw.substrate.types import Site

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def collect(model: Model, plan: Plan, blocks: Sequence[int], progress: Progress) -> States:
    """The states of a plan in memory, in the order of its rows. Raises NumericError for one that is not finite."""
    sink = MemorySink(blocks, plan.rows, model.d_model)
    run(model, plan, blocks, range(len(plan.batches)), sink, progress)
    return sink.states()


def collect_text(model: Model, texts: Sequence[str], blocks: Sequence[int]) -> States:
    """The states at every token of plain texts, special tokens included, text after text. In memory."""
    plan = plan_of(model, [], texts, blocks=len(blocks))
    states = collect(model, plan, blocks, lambda what, done, total: None)
    return states.of(torch.tensor([row for text in range(len(texts)) for row in plan.rows_of(text)]))


def key_of(model: Model, plan: Plan, blocks: Sequence[int]) -> StoreKey:
    """What a store of this plan's states is known by."""
    return StoreKey(
        fingerprint=model.fingerprint,
        plan=plan.digest,
        blocks=tuple(blocks),
        rows=plan.rows,
        batches=len(plan.batches),
        d_model=model.d_model,
    )


def fill(model: Model, plan: Plan, store: StateStore, progress: Progress, *, part: int = 0, of: int = 1) -> int:
    """Run what the store lacks of the part `part` of `of`; gives how many texts were run."""
    store.refresh()
    return run(model, plan, store.key.blocks, store.missing(part, of), store, progress)


def run(model: Model, plan: Plan, blocks: Sequence[int], numbers: Sequence[int], sink: Sink, progress: Progress) -> int:
    """Run some batches of a plan and put their states; gives how many texts ran. Raises NumericError."""
    sites = tuple(Site(block) for block in blocks)
    total, done = sum(len(plan.batches[number].texts) for number in numbers), 0
    head: _Head | None = None
    with torch.inference_mode(), tap(model, sites) as trace:
        for number in numbers:
            batch = plan.batches[number]
            if head is None or head.ids != batch.head:
                head = _Head(model, batch.head, trace, plan.pools)
            raw = _states(model, plan, batch, head, trace)
            sink.put(number, batch, *_normalised(raw))
            done += len(batch.texts)
            progress("reading states", done, total)
    return done


class _Head:
    """The tokens that a batch's texts begin with, run once, and what is kept of them."""

    def __init__(self, model: Model, ids: tuple[int, ...], trace: Trace, pools: Sequence[Pool]) -> None:
        self.ids = ids
        self.cache: Any = None
        self.total: dict[Site, Tensor] = {}
        """Sum of the states of these tokens, where a pool needs it."""
        if not ids:
            return
        cache = _forward(model, torch.tensor([ids]), None)
        if callable(getattr(cache, "batch_repeat_interleave", None)):
            self.cache = cache
            if "text" in pools:
                self.total = {site: trace[site][0].float().sum(0) for site in trace.sites}

    def __len__(self) -> int:
        return 0 if self.cache is None else len(self.ids)


def _states(model: Model, plan: Plan, batch: Batch, head: _Head, trace: Trace) -> Float[Tensor, "block n d_model"]:
    """The residual states that a batch gives, in fp32, on the model's device."""
    texts = [plan.texts[at] for at in batch.texts]
    tails = [text.ids[len(head) :] for text in texts]
    _forward(model, _padded(tails), head.cache)
    out = []
    for site in trace.sites:
        stream, kept = trace[site], []
        if plan.pools == ("last",) and not any(text.every for text in texts):
            where = torch.tensor([len(tail) - 1 for tail in tails], device=stream.device)
            out.append(stream[torch.arange(len(tails), device=stream.device), where].float())
            continue
        for row, (text, tail) in enumerate(zip(texts, tails, strict=True)):
            own = stream[row, : len(tail)].float()
            if text.every:
                kept.append(own)
            else:
                start = max(0, text.word - len(head))
                kept += [_pooled(pool, own, start, head.total.get(site), len(head))[None] for pool in plan.pools]
        out.append(torch.cat(kept))
    return torch.stack(out)


def _pooled(
    pool: Pool, own: Float[Tensor, "pos d_model"], start: int, before: Tensor | None, n_before: int
) -> Float[Tensor, " d_model"]:
    """One state of a text whose own tokens are given; `before` is the sum over the `n_before` tokens of its head."""
    if pool == "last":
        return own[-1]
    if pool == "span":
        return own[start:].mean(0)
    total = own.sum(0) if before is None else own.sum(0) + before
    return total / (len(own) + n_before)


def _normalised(raw: Float[Tensor, "block n d_model"]) -> tuple[Tensor, Tensor]:
    """States as a lens reads them, in fp16, and what undoes it: [2, block, n] means and scales. On the CPU."""
    mean = raw.mean(-1, keepdim=True)
    scale = ((raw - mean).square().mean(-1, keepdim=True) + EPS).sqrt()
    if not bool(scale.isfinite().all()):
        raise NumericError("the model gave states that are not finite: run `ftw models check` on it")
    return ((raw - mean) / scale).half().cpu(), torch.stack([mean[..., 0], scale[..., 0]]).float().cpu()


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows filled up on the right: what is on the right of a causal model's token does not reach it."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows])


def _forward(model: Model, ids: Tensor, head: Any) -> Any:
    """One forward pass over `ids`, after what the cache `head` holds. Gives the new cache, `head` stays as it is."""
    cache = None
    if head is not None:
        cache = copy.deepcopy(head)
        cache.batch_repeat_interleave(ids.shape[0])
    out = model.net(input_ids=ids.to(model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return getattr(out, "past_key_values", None)

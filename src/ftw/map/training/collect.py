"""The states that lenses learn from: every prompt runs once, and all candidate blocks are read in that one pass.

A carrier is run once and its key-value cache shared by all words said in it, where the model's cache can be repeated;
elsewhere each prompt runs in full. Both ways give the same states.
The rule of the file: a state is kept as the lens will see it, normalised, with the mean and scale that undo it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.hat.classifiers.modules import EPS
from ftw.map.training.prompts import Prompt, Word
from ftw.substrate.errors import NumericError, PromptTooLong, SiteError
from ftw.substrate.model import Model
from ftw.substrate.taps import Trace, tap
from ftw.substrate.types import Site

ROWS = 256
"""Prompts per forward pass."""
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class States:
    """Residual states at a few blocks, on the CPU. Rows are in the order of what was collected."""

    blocks: tuple[int, ...]
    x: Float[Tensor, "block state d_model"]
    """Normalised as a lens reads it (affine-free layer norm), in fp16."""
    mean: Float[Tensor, "block state"]
    scale: Float[Tensor, "block state"]
    """What undoes the normalisation: resid = x * scale + mean. fp32."""

    def __len__(self) -> int:
        return self.x.shape[1]

    def at(self, block: int) -> Float[Tensor, "state d_model"]:
        """The normalised states after `block`, in fp32."""
        return self.x[self._row(block)].float()

    def resid(self, block: int) -> Float[Tensor, "state d_model"]:
        """The residual stream itself after `block`, in fp32 (to fp16's precision)."""
        row = self._row(block)
        return self.x[row].float() * self.scale[row, :, None] + self.mean[row, :, None]

    def _row(self, block: int) -> int:
        if block not in self.blocks:
            raise SiteError(f"block {block} was not collected: there are {', '.join(map(str, self.blocks))}")
        return self.blocks.index(block)


def collect(
    model: Model, prompts: Sequence[Prompt], words: Sequence[Word], blocks: Sequence[int], progress: Progress
) -> States:
    """The state at the last token of each prompt's word, after each of `blocks`.

    Raises PromptTooLong for a prompt that does not fit the context, NumericError for a state that is not finite.
    """
    sink = _Sink(model, blocks, len(prompts))
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].carrier)
    done = 0
    with torch.inference_mode(), tap(model, sink.sites) as trace:
        for carrier, group in groupby(order, key=lambda i: prompts[i].carrier):
            rows = list(group)
            carried, *ids = token_ids(model, [carrier, *(prompts[i].text(words) for i in rows)])
            head = _shared_head(carried, ids)
            cache = _run(model, torch.tensor([head]), None) if head else None
            if not callable(getattr(cache, "batch_repeat_interleave", None)):
                cache, head = None, []
            by_length = sorted(range(len(rows)), key=lambda j: len(ids[j]))
            for at in range(0, len(rows), ROWS):
                part = by_length[at : at + ROWS]
                tails = [ids[j][len(head) :] for j in part]
                _run(model, _padded(tails), cache)
                sink.take(trace, [rows[j] for j in part], [len(t) - 1 for t in tails])
                done += len(part)
                progress("reading states", done, len(prompts))
    return sink.states()


def collect_text(model: Model, texts: Sequence[str], blocks: Sequence[int]) -> States:
    """The states at every token of plain texts, special tokens included, text after text."""
    ids = token_ids(model, texts)
    sink = _Sink(model, blocks, sum(map(len, ids)))
    start = 0
    with torch.inference_mode(), tap(model, sink.sites) as trace:
        for row in ids:
            _run(model, torch.tensor([row]), None)
            sink.take_all(trace, start, len(row))
            start += len(row)
    return sink.states()


class _Sink:
    """Gathers states into one tensor, normalising as it goes."""

    def __init__(self, model: Model, blocks: Sequence[int], n: int) -> None:
        self.sites = tuple(Site(block) for block in blocks)
        self.x = torch.empty(len(blocks), n, model.d_model, dtype=torch.float16)
        self.mean = torch.empty(len(blocks), n)
        self.scale = torch.empty(len(blocks), n)

    def take(self, trace: Trace, rows: Sequence[int], positions: Sequence[int]) -> None:
        """Row i of the batch, at its position, is state `rows[i]`."""
        where = torch.tensor(rows)
        for at, site in enumerate(self.sites):
            stream = trace[site]
            self._put(at, where, stream[torch.arange(len(rows)), torch.tensor(positions, device=stream.device)])

    def take_all(self, trace: Trace, start: int, n: int) -> None:
        """The first `n` positions of the batch's only row are the states from `start` on."""
        for at, site in enumerate(self.sites):
            self._put(at, torch.arange(start, start + n), trace[site][0, :n])

    def states(self) -> States:
        if not bool(self.scale.isfinite().all()):
            raise NumericError("the model gave states that are not finite: run `ftw models check` on it")
        return States(tuple(site.layer for site in self.sites), self.x, self.mean, self.scale)

    def _put(self, at: int, where: Tensor, resid: Tensor) -> None:
        wide = resid.float()
        mean = wide.mean(-1, keepdim=True)
        scale = ((wide - mean).square().mean(-1, keepdim=True) + EPS).sqrt()
        self.x[at, where] = ((wide - mean) / scale).half().cpu()
        self.mean[at, where] = mean[:, 0].cpu()
        self.scale[at, where] = scale[:, 0].cpu()


def token_ids(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text without a closing special token: the last one is the text's own.

    Raises PromptTooLong, and UsageError for a model without a tokenizer.
    """
    if model.tokenizer is None:
        return [model.encode(text) for text in texts]
    batch: list[list[int]] = [list(row) for row in model.tokenizer(list(texts))["input_ids"]]
    for row, text in zip(batch, texts, strict=True):
        while len(row) > 1 and row[-1] in model.eos_ids:
            row.pop()
        if len(row) > model.context:
            raise PromptTooLong(f"{text[:40]!r}… has {len(row)} tokens, {model.name} takes {model.context}")
    return batch


def _shared_head(carrier: list[int], ids: Sequence[list[int]]) -> list[int]:
    """The carrier's tokens if every prompt begins with them and goes on; else nothing.

    A tokenizer may melt the carrier's last piece and the word together. Then there is no shared head.
    """
    n = len(carrier)
    return carrier if all(len(row) > n and row[:n] == carrier for row in ids) else []


def _padded(rows: Sequence[list[int]]) -> Tensor:
    """Rows filled up on the right: what is on the right of a causal model's token does not reach it."""
    width = max(map(len, rows))
    return torch.tensor([row + [row[-1]] * (width - len(row)) for row in rows])


def _run(model: Model, ids: Tensor, head: Any) -> Any:
    """One forward pass over `ids`, after what the cache `head` holds. Gives the new cache, `head` stays as it is."""
    cache = None
    if head is not None:
        cache = copy.deepcopy(head)
        cache.batch_repeat_interleave(ids.shape[0])
    out = model.net(input_ids=ids.to(model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return getattr(out, "past_key_values", None)

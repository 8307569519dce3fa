"""What opening a model costs: finding its anatomy and proving it, and decoding streams without holding all logits."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Context, Figure, interleave
from ftw.substrate.arch import find, gate
from ftw.substrate.config import ModelSpec
from ftw.substrate.model import load
from ftw.substrate.probe import look, probe_ids
from ftw.substrate.unembed import rank_and_logprob, topk, unembed

ROWS = 256
"""Streams decoded at once: 32 positions at 8 blocks."""
BEST = 5


def run(context: Context) -> Iterator[Figure]:
    """Search and gate over one plain pass of the same length; streamed decoding over decoding everything."""
    model = load(ModelSpec(name="reference", device=context.device))
    net, arch = model.net, model.arch
    ids = probe_ids(net, 16, seed=3)

    def passing() -> None:
        with torch.no_grad():
            look(net, ids)

    timing = interleave(
        {"find": lambda: _done(find(net)), "gate": lambda: _done(gate(net, arch)), "pass": passing}, context
    )
    for side in ("find", "gate"):
        claim = f"`{side}` over one pass of 16 tokens, reference model"
        yield Figure("gate", claim, timing.ratio(side, "pass"), "x", medians=timing.shown(), rounds=timing.rounds)

    resid = 3 * torch.randn(ROWS, model.d_model, generator=torch.Generator().manual_seed(0)).to(model.device)
    targets = torch.arange(ROWS, device=model.device) % model.vocab_size

    def whole() -> None:
        with torch.no_grad():
            logp = unembed(arch, resid).log_softmax(-1)
            own = logp.gather(-1, targets[:, None])
            logp.topk(BEST)
            (logp > own).sum(-1)

    def streamed() -> None:
        with torch.no_grad():
            topk(arch, resid, BEST, vocab=1024)
            rank_and_logprob(arch, resid, targets, vocab=1024)

    timing = interleave({"streamed": streamed, "whole": whole}, context)
    claim = (
        f"top {BEST} and rank of {ROWS} streams in chunks of 1024 tokens, over all {model.vocab_size} logits at once"
    )
    yield Figure("gate", claim, timing.ratio("streamed", "whole"), "x", medians=timing.shown(), rounds=timing.rounds)


def _done(_: object) -> None:
    """The harness reads numbers that a side returns as its seconds: return none."""

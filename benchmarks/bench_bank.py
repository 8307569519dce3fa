"""What it costs to score every lens of a large pack: against reading its bytes once, and against the bare product.

10,000 random lenses of width 1,024 on a CPU; 8,000 of width 4,096 on a GPU. The bank's time is that of whole scorings,
from raw states to logits. Streaming is the fastest plain read of the same bytes that torch has, the limit for sixteen
tokens the first layer's product alone, on weights packed for it. Beside them what one would write first: a loop over
modules, and one product over the rows as they lie in memory.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Context, Figure, Goal, Timing, at_least, at_most, interleave
from ftw.hat.classifiers import LensBank, LensRow, LensTensors, normalise
from ftw.hat.classifiers.forms.products import Product, product_of
from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.substrate.types import Site

LENSES, WIDTH = 10_000, 1024
ON_GPU = (8_000, 4096)
ROWS = 16
STATES = 200
"""Tokens whose ten highest concepts are compared."""
SITE = Site(0)
_DRAWN = 100
"""Lenses drawn at a time: fp32 on the way to bf16."""
_EXACT = 500
"""Lenses scored in fp32 at a time for the comparison."""


def run(context: Context) -> Iterator[Figure]:
    """One token and sixteen, in bf16 and int8; the ten highest; on a GPU the step as a CUDA graph."""
    if context.device.startswith("cuda"):
        yield from on_gpu(context)
        return
    part = random_pack(LENSES, WIDTH)
    rows = [LensRow(term=f"Concept{at}", block=0, row=at) for at in range(LENSES)]
    states = residuals(STATES, WIDTH)
    half = LensBank.from_tensors({0: part}, rows)
    small = LensBank.from_tensors({0: part}, rows, dtype=torch.int8)
    yield from one_token(part, half, small, states[:1], context)
    yield from top_ten(part, half, small, states)
    del small
    yield from sixteen(part, half, states[:ROWS], context)


def one_token(part: LensTensors, half: LensBank, small: LensBank, state: Tensor, context: Context) -> Iterator[Figure]:
    """A decode step of one request."""
    words = [one.view(torch.int64) for one in (part.w1, part.w2)]
    x = normalise(state).bfloat16()
    plain = part.w1.view(-1, WIDTH)
    timing = interleave(
        {
            "streaming": done(lambda: [one.sum() for one in words]),
            "bf16": done(lambda: half.score({SITE: state}, full=True)),
            "int8": done(lambda: small.score({SITE: state}, full=True)),
            "layer one as it lies": done(lambda: F.linear(x, plain)),
        },
        context,
    )
    loop = interleave({"a loop over lenses": done(lambda: one_by_one(part, x))}, context, rounds=3)
    medians = timing.shown() | loop.shown()
    size = f"{LENSES:,} lenses of width {WIDTH:,}, one token"
    share = timing.ratio("bf16", "streaming")
    yield figure(f"{size}: bf16 against reading the pack once", share, at_most(1.6), medians, timing)
    share = timing.ratio("int8", "bf16")
    yield figure(f"{size}: int8 against bf16", share, at_most(0.5), medians, timing, dtype="int8")


def sixteen(part: LensTensors, half: LensBank, states: Tensor, context: Context) -> Iterator[Figure]:
    """A decode step of sixteen requests."""
    product = packed(part)
    x = normalise(states).bfloat16()
    timing = interleave(
        {
            "the product alone": done(lambda: product.raw(x)),
            "bf16": done(lambda: half.score({SITE: states}, full=True)),
        },
        context,
    )
    claim = f"{LENSES:,} lenses of width {WIDTH:,}, {ROWS} tokens: bf16 against layer one's product alone"
    yield figure(claim, timing.ratio("bf16", "the product alone"), at_most(1.8), timing.shown(), timing)


def top_ten(part: LensTensors, half: LensBank, small: LensBank, states: Tensor) -> Iterator[Figure]:
    """On how many tokens the ten highest concepts are exactly those of bf16, and of fp32 by the same weights."""
    exact = torch.cat([in_fp32(part, states, at) for at in range(0, LENSES, _EXACT)], 1)
    wanted = exact.topk(10).indices.sort().values
    found = {
        name: bank.score({SITE: states}, full=True).raw.topk(10).indices.sort().values
        for name, bank in (("int8", small), ("bf16", half))
    }

    def same(a: Tensor, b: Tensor) -> float:
        return float((a == b).all(1).float().mean())

    note = f"{STATES} tokens; bf16 and fp32: {same(found['bf16'], wanted):.1%}; random lenses, whose scores lie close"
    for other, named in (("bf16", found["bf16"]), ("fp32", wanted)):
        claim = f"{LENSES:,} lenses: tokens on which int8 names the same ten highest as {other}"
        yield Figure("bank", claim, same(found["int8"], named), "of tokens", at_least(0.99), dtype="int8", note=note)


def on_gpu(context: Context) -> Iterator[Figure]:
    """One token over every lens of a pack of the published size, replayed as a CUDA graph."""
    lenses, width = ON_GPU
    part = random_pack(lenses, width, context.device)
    rows = [LensRow(term=f"Concept{at}", block=0, row=at) for at in range(lenses)]
    bank = LensBank.from_tensors({0: part}, rows, device=context.device)
    state = residuals(1, width).to(context.device, torch.bfloat16)
    words = part.w1.view(torch.int64)
    bank.score({SITE: state}, full=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        bank.score({SITE: state}, full=True)
    timing = interleave({"streaming": done(lambda: words.sum()), "bf16": done(graph.replay)}, context)
    claim = f"{lenses:,} lenses of width {width:,}, one token: bf16 as a CUDA graph against reading the pack once"
    yield figure(claim, timing.ratio("bf16", "streaming"), at_most(1.3), timing.shown(), timing)


def random_pack(lenses: int, width: int, device: str = "cpu") -> LensTensors:
    """Lenses with weights of the size that training leaves, bf16 where they are large."""
    rng = torch.Generator().manual_seed(0)
    w1 = torch.empty(lenses, HIDDEN, width, dtype=torch.bfloat16, device=device)
    w2 = torch.empty(lenses, NARROW, HIDDEN, dtype=torch.bfloat16, device=device)
    for large in (w1, w2):
        for some in torch.split(large, _DRAWN):
            some.copy_(torch.randn(some.shape, generator=rng) / some.shape[-1] ** 0.5)

    def small(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=rng) / 8).to(device)

    none = torch.zeros(lenses, device=device)
    b1, b2, w3 = small(lenses, HIDDEN), small(lenses, NARROW), small(lenses, NARROW)
    screen = none[:, None].expand(lenses, width)
    return LensTensors(w1, b1, w2, b2, w3, small(lenses), screen, none, none)


def residuals(rows: int, width: int) -> Tensor:
    """States as a residual stream has them: an offset, and a few channels that outweigh the others."""
    rng = torch.Generator().manual_seed(1)
    states = 3 * torch.randn(rows, width, generator=rng) + 0.2
    states[:, :4] *= 25
    return states


def one_by_one(part: LensTensors, x: Tensor) -> None:
    """Every lens in turn, as modules do it."""
    w3, b1, b2 = part.w3.bfloat16(), part.b1.bfloat16(), part.b2.bfloat16()
    for at in range(len(part.b3)):
        z = F.linear(x, part.w1[at], b1[at]).relu_()
        F.linear(F.linear(z, part.w2[at], b2[at]).relu_(), w3[at : at + 1])


def packed(part: LensTensors) -> Product:
    """The first layer alone, packed as a bank packs it."""
    return product_of(part.w1.view(-1, part.w1.shape[-1]), torch.device("cpu"), torch.bfloat16)


def in_fp32(part: LensTensors, states: Tensor, start: int) -> Tensor:
    """Logits of some lenses from the same weights, in fp32 throughout."""
    some = slice(start, start + _EXACT)
    cut = LensTensors(
        *(one[some].float() for one in (part.w1, part.b1, part.w2, part.b2, part.w3, part.b3)),
        *(one[some] for one in (part.screen_w, part.screen_b, part.screen_threshold)),
    )
    rows = [LensRow(term=f"Concept{at}", block=0, row=at) for at in range(len(cut.b3))]
    return LensBank.from_tensors({0: cut}, rows, dtype=torch.float32).score({SITE: states}, full=True).raw


def done(work: Callable[[], object]) -> Callable[[], None]:
    """A side that times the whole call."""

    def side() -> None:
        with torch.inference_mode():
            work()

    return side


def figure(
    claim: str, value: float, goal: Goal, medians: Mapping[str, str], timing: Timing, dtype: str = "bfloat16"
) -> Figure:
    """A ratio of times."""
    return Figure("bank", claim, value, "x", goal, medians, dtype, timing.rounds)

"""Proofs against the bare forward pass, and their inputs against the reference's way to make them."""

import hashlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import Context, Figure, at_least, interleave
from ftw.poc.bound import BoundSeeds
from ftw.poc.forward import Prover, Round
from ftw.poc.inputs import input_embeddings
from ftw.poc.seeds import SeedStrings
from ftw.poc.speed import bare_pass
from ftw.substrate.config import ModelSpec
from ftw.substrate.model import Model, from_net, load

SHAPE = (32, 256, 1024)
"""Nonces, positions, width of the inputs that are made."""
MASK = 0xFFFFFFFF


def run(context: Context) -> Iterator[Figure]:
    """Inputs first; then batches of a model of hidden 1024 (on a GPU: 0.7 B parameters), and of the bundled one."""
    yield from inputs(context)
    on_gpu = context.device.startswith("cuda")
    yield generation("bundled model", load(ModelSpec(name="reference", device=context.device)), 8, context, 2)
    name, model = llama(1536, 24, context) if on_gpu else llama(1024, 16, context)
    yield generation(name, model, 32 if on_gpu else 2, context, 2 if on_gpu else 0.8)


def llama(width: int, blocks: int, context: Context) -> tuple[str, Model]:
    """A random Llama of this size: bfloat16 on a GPU, as it would be served."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
    )
    net = LlamaForCausalLM(config).eval().to(context.device)
    if context.device.startswith("cuda"):
        net = net.to(torch.bfloat16)
    return f"Llama of {blocks} blocks of {width}", from_net(net, name="llama")


def generation(name: str, model: Model, rows: int, context: Context, share: float) -> Figure:
    """Whole batches, inputs to encoded vectors, over the bare pass of the same shape."""
    prover = Prover(model, Round("block", "key"), rows)
    at = 0

    def proof() -> None:
        nonlocal at
        prover.batch(range(at, at + rows), range(at + rows, at + 2 * rows))
        at += rows

    timing = interleave({"bare": bare_pass(prover), "proof": proof}, context, rounds=context.scaled(share))
    return Figure(
        benchmark="poc",
        claim=f"nonces/s over the bare forward pass; {name}, {rows} x {prover.round.seq_len}",
        value=timing.ratio("bare", "proof"),
        unit="x",
        goal=at_least(0.95),
        medians=timing.shown(rows, "nonces/s"),
        dtype=str(model.dtype).removeprefix("torch."),
        rounds=timing.rounds,
    )


def inputs(context: Context) -> Iterator[Figure]:
    """The same numbers made nonce by nonce with 64-bit integers, and as a whole; then two other kinds of inputs."""
    rows, positions, width = SHAPE
    strings = SeedStrings("block", "key")
    bound = BoundSeeds("00", "block", "key", positions, 12)
    out = torch.empty(SHAPE, device=context.device)

    def ours(seeds: SeedStrings | BoundSeeds, *, stronger: bool = False) -> Callable[[], None]:
        def side() -> None:
            input_embeddings(seeds, range(rows), positions, width, stronger=stronger, device=context.device, out=out)

        return side

    def reference() -> None:
        torch.stack([eager(strings.inputs(nonce), positions * width, context.device) for nonce in range(rows)])

    sides = {"per nonce": reference, "ours": ours(strings), "ours, stronger": ours(strings, stronger=True)}
    timing = interleave({**sides, "ours, ftw-1": ours(bound)}, context, rounds=context.scaled(2), warmup=2)
    claims = (
        ("artifact-k12", "ours", at_least(10)),
        ("stronger", "ours, stronger", None),
        ("ftw-1", "ours, ftw-1", None),
    )
    for kind, side, goal in claims:
        yield Figure(
            benchmark="poc",
            claim=f"inputs of {rows} x {positions} x {width} over the reference's path per nonce; {kind}",
            value=timing.ratio("per nonce", side),
            unit="x",
            goal=goal,
            medians=timing.shown(),
            rounds=timing.rounds,
        )


def eager(text: str, n: int, device: str) -> Tensor:
    """n normals of one seed string, as the public reference makes them: whole tensors of int64, one after the other."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    pairs = (n + 1) // 2
    k = torch.arange(2 * pairs, dtype=torch.int64, device=device)
    h = torch.full_like(k, seed)
    k = (k * 0xCC9E2D51) & MASK
    k = ((k << 15) | (k >> 17)) & MASK
    k = (k * 0x1B873593) & MASK
    h = h ^ k
    h = ((h << 13) | (h >> 19)) & MASK
    h = (h * 5 + 0xE6546B64) & MASK
    h = h ^ (h >> 16)
    h = (h * 0x85EBCA6B) & MASK
    h = h ^ (h >> 13)
    h = (h * 0xC2B2AE35) & MASK
    h = h ^ (h >> 16)
    u = h.to(torch.float32) / 4294967296.0
    radius = torch.sqrt(-2.0 * torch.log(u[:pairs].clamp(min=1e-10)))
    angle = 2.0 * math.pi * u[pairs:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])[:n]

"""What reading and editing the residual stream costs, on a random Llama of 16 blocks."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import Context, Figure, at_most, interleave
from ftw.substrate.taps import Taps, tap
from ftw.substrate.types import Edit, Site

BLOCKS, WIDTH = 16, 256


class Empty(nn.Module):
    """A block that hands the residual stream on: what is left is the price of the taps alone."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states


@dataclass(frozen=True)
class Subject:
    """Blocks, their width, and a pass through them."""

    blocks: nn.ModuleList
    forward: Callable[[], None]
    d_model: int = WIDTH


def run(context: Context) -> Iterator[Figure]:
    """Reads over plain hooks, edits over the bare model, for a pass over one token: on blocks that do nothing, then
    on a Llama, where they drown in what the pass itself takes."""

    def empty() -> Subject:
        blocks = nn.ModuleList(Empty() for _ in range(BLOCKS))
        state = torch.randn(1, 1, WIDTH, device=context.device)

        def through() -> None:
            h = state
            for block in blocks:
                h = block(h)

        return Subject(blocks, through)

    config = LlamaConfig(
        vocab_size=512, hidden_size=WIDTH, intermediate_size=512, num_hidden_layers=BLOCKS, num_attention_heads=4
    )
    original = LlamaForCausalLM(config).eval().to(context.device)
    weights = {id(weight): weight for weight in original.parameters()}

    def llama() -> Subject:
        net = copy.deepcopy(original, dict(weights))  # modules of its own, the same weights: caches stay as they are
        ids = torch.tensor([[7]], device=context.device)

        def forward() -> None:
            with torch.no_grad():
                net(input_ids=ids)

        return Subject(net.model.layers, forward)

    yield from measure("empty blocks", empty, context, rounds=context.scaled(100))
    yield from measure("Llama", llama, context, rounds=context.scaled(20))


def measure(what: str, make: Callable[[], Subject], context: Context, *, rounds: int) -> Iterator[Figure]:
    """The figures of one kind of model. Each side has a copy of its own, with its hooks already on it."""
    sites = [Site(layer) for layer in range(BLOCKS)]
    direction = torch.randn(WIDTH, device=context.device)
    adds = [Edit(site, lambda h: h + direction, "add") for site in sites]
    visited = make()

    def visit() -> None:
        with tap(visited, sites):
            visited.forward()

    sides = {
        "bare": make().forward,
        "plain hooks": plain_hooks(make()),
        "plain hooks that add": plain_hooks(make(), direction),
        "reads": taps_around(make(), reads=sites),
        "edits": taps_around(make(), edits=adds),
        "one-off tap": visit,
    }
    timing = interleave(sides, context, rounds=rounds, warmup=3)
    common = {"benchmark": "taps", "medians": timing.shown(), "rounds": timing.rounds}
    reads = timing.extra("reads", "plain hooks") * 1e3
    edits = timing.extra("edits", "bare") * 1e6 / BLOCKS
    added = timing.extra("plain hooks that add", "bare") * 1e6 / BLOCKS
    once = timing.extra("one-off tap", "plain hooks") * 1e3
    claims = (
        ("reading 16 blocks, over plain hooks", reads, "ms", at_most(0.1)),
        ("an additive edit, per block and token", edits, "us", at_most(10)),
        ("the same by a plain hook, per block and token", added, "us", None),
        ("a one-off tap that reads 16 blocks, over plain hooks", once, "ms", None),
    )
    for claim, value, unit, goal in claims:
        yield Figure(claim=f"{claim}; {what}", value=value, unit=unit, goal=goal, **common)


def plain_hooks(subject: Subject, direction: Tensor | None = None) -> Callable[[], None]:
    """The least that can be done: a forward hook per block that keeps its output, or adds `direction` to it."""
    seen: dict[int, Tensor] = {}

    def keep(at: int) -> Callable[[nn.Module, tuple[object, ...], Tensor], Tensor | None]:
        def hook(_module: nn.Module, _args: tuple[object, ...], output: Tensor) -> Tensor | None:
            if direction is not None:
                return output + direction
            seen[at] = output.detach()
            return None

        return hook

    for at, block in enumerate(subject.blocks):
        block.register_forward_hook(keep(at))
    return subject.forward


def taps_around(subject: Subject, reads: Sequence[Site] = (), edits: Sequence[Edit] = ()) -> Callable[[], None]:
    """A pass with taps as the engine holds them: told once, armed for each pass."""
    taps = Taps(subject)
    taps.set(reads, edits)

    def side() -> None:
        with taps.armed():
            subject.forward()

    return side

"""The engine against transformers' own ways to write, on the bundled reference model."""

import gc
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import torch
import transformers
from transformers import ContinuousBatchingConfig, DynamicCache, GenerationConfig

from benchmarks.harness import Context, Figure, at_least, interleave
from ftw.substrate.config import ModelSpec
from ftw.substrate.engine import Request, TransformersEngine
from ftw.substrate.model import Model, load
from ftw.substrate.types import Edit, Site, Step

NEW = 64
"""Tokens per request where one runs alone."""
SLOTS = 16
STEPS = 120


class Reader:
    """A controller that reads one block of every request, once per step, and does nothing."""

    sites = (Site(5),)

    def __call__(self, step: Step) -> Sequence[Edit]:
        return ()

    def many(self, steps: Sequence[Step], resid: object) -> Sequence[Sequence[Edit]]:
        return [()] * len(steps)


def run(context: Context) -> Iterator[Figure]:
    """One request, sixteen that come and go, and the same with a reader."""
    model = load(ModelSpec(name="reference", device=context.device))
    engine = TransformersEngine(model, max_batch=SLOTS)
    engine.generate(Request((5,), 2))  # studies the model
    yield from one_request(model, engine, context)
    yield from many_requests(model, engine, context)
    gc.collect()
    yield paged(model, context)  # last: it changes the model's attention for good


def prompts() -> tuple[list[tuple[int, ...]], list[int]]:
    """Forty-eight prompts of 4 to 60 tokens, and how many tokens each of them gets: 32 to 160."""
    rng = random.Random(0)
    ids = [tuple(rng.randrange(3, 5000) for _ in range(rng.randrange(4, 61))) for _ in range(3 * SLOTS)]
    return ids, [rng.randrange(32, 161) for _ in ids]


def one_request(model: Model, engine: TransformersEngine, context: Context) -> Iterator[Figure]:
    """Alone: against `generate` and against a bare loop over the forward pass."""
    ids = prompts()[0][0]
    row = torch.tensor([ids], device=context.device)

    def generate() -> None:
        model.net.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
        )

    def loop() -> None:
        cache, tokens = DynamicCache(config=model.net.config), row
        with torch.no_grad():
            for _ in range(NEW):
                out = model.net(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                tokens = out.logits[:, -1].argmax(-1, keepdim=True)
                tokens.item()  # a loop that shows its text has to know the token

    def ours() -> None:
        engine.generate(Request(ids, NEW, ignore_eos=True))

    def read() -> None:
        engine.generate(Request(ids, NEW, controllers=(Reader(),), ignore_eos=True))

    sides = {"ours": ours, "generate": generate, "bare loop": loop, "ours, read": read}
    timing = interleave(sides, context)
    common = {"benchmark": "engine", "medians": timing.shown(NEW, "tokens/s"), "rounds": timing.rounds}
    gain, share = timing.ratio("generate", "ours"), timing.ratio("bare loop", "ours")
    cost = timing.ratio("ours, read", "ours")
    yield Figure(claim="one request, speed over generate's", value=gain, unit="x", goal=at_least(1.0), **common)
    yield Figure(claim="one request, speed over a bare loop's", value=share, unit="x", goal=at_least(0.98), **common)
    yield Figure(claim="one request, time when a controller reads one block", value=cost, unit="x", **common)


def many_requests(model: Model, engine: TransformersEngine, context: Context) -> Iterator[Figure]:
    """Sixteen at a time, of different lengths; whenever one leaves, the next joins: tokens per second over one's."""
    ids, new = prompts()

    def steady(controllers: tuple[Reader, ...] = ()) -> Callable[[], float]:
        """Seconds per token of a full engine: prompts that join are part of it, an engine that runs empty is not."""

        def side() -> float:
            requests = (
                Request(one, count, controllers=controllers, ignore_eos=True)
                for one, count in itertools.cycle(zip(ids, new, strict=True))
            )
            names = [engine.submit(next(requests)) for _ in range(2 * SLOTS)]
            for _ in range(STEPS // 4):
                engine.step()
            start, written = context.now(), 0
            for _ in range(STEPS):
                for chunk in engine.step():
                    written += 1
                    if chunk.finished:
                        names.append(engine.submit(next(requests)))
            seconds = context.now() - start
            for name in names:
                engine.cancel(name)
            engine.step()
            return seconds / written

        return side

    def single() -> float:
        start = context.now()
        engine.generate(Request(ids[0], NEW, ignore_eos=True))
        return (context.now() - start) / NEW

    sides = {"16": steady(), "16, read": steady((Reader(),)), "1": single}
    timing = interleave(sides, context)
    common = {"benchmark": "engine", "medians": timing.shown(1, "tokens/s"), "rounds": timing.rounds}
    gain, cost = timing.ratio("1", "16"), timing.ratio("16, read", "16")
    yield Figure(
        claim="16 requests that join and leave, speed over one", value=gain, unit="x", goal=at_least(6), **common
    )
    yield Figure(claim="16 requests, time when a controller reads one block of all", value=cost, unit="x", **common)


def paged(model: Model, context: Context) -> Figure:
    """Against transformers' continuous batching, on the same requests, all with as many tokens."""
    claim = "48 requests in 16 slots, speed over generate_batch's"
    ids = [list(one) for one in prompts()[0]]
    config = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=2)
    reference = load(ModelSpec(name="reference", device=context.device))
    engine = TransformersEngine(reference, max_batch=SLOTS)
    # sized by hand: left alone it sizes its cache by the memory of the machine, and allocates that
    limits = ContinuousBatchingConfig(max_requests_per_batch=SLOTS, num_blocks=4 * SLOTS, max_batch_tokens=1024)

    def theirs() -> None:
        # a manager that stays: set-up is not what is compared
        out = model.net.generate_batch(
            ids, generation_config=config, continuous_batching_config=limits, persistent_manager=True
        )
        if any(len(one.generated_tokens) != NEW for one in out.values()):
            raise RuntimeError("generate_batch did not write all tokens")

    def ours() -> None:
        engine.generate([Request(tuple(one), NEW, ignore_eos=True) for one in ids])

    transformers.logging.set_verbosity_error()
    try:
        timing = interleave({"ours": ours, "generate_batch": theirs}, context, rounds=context.scaled(0.3))
    except (RuntimeError, ValueError, NotImplementedError, ImportError) as error:
        return Figure("engine", claim, None, "x", at_least(1.0), note=f"generate_batch: {error}".splitlines()[0])
    shown = timing.shown(len(ids) * NEW, "tokens/s")
    gain = timing.ratio("generate_batch", "ours")
    return Figure("engine", claim, gain, "x", at_least(1.0), shown, rounds=timing.rounds)

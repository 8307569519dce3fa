"""What the monitor adds to a decode step of the reference model: all concepts at every token, one request and sixteen.

Each side writes the same tokens greedily through the same engine; only the controllers differ. The bundled pack's
lenses share their first layer. A pack of random lenses of the same size, each with its own first layer and a screen
that lets seven pass at each token shows what screen and cascade cost where nothing is shared; its full bank beside.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from benchmarks.harness import Context, Figure, Timing, at_least, at_most, interleave
from ftw.hat.classifiers import LensBank, LensRow, LensTensors, load_bank
from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.hat.monitoring import Monitor
from ftw.substrate.config import ModelSpec
from ftw.substrate.engine import Request, TransformersEngine
from ftw.substrate.model import Model, load
from ftw.substrate.taps import tap
from ftw.substrate.types import Site

NEW = 48
"""Tokens per request."""
PROMPTS = ("One day, a young farmer", "There was a storm", "Once upon a time", "Peter and Mary went to the market")
LENSES = 350
BLOCK = 5
PASS_RATE = 0.02
"""Share of pairs that pass the random pack's screen: seven of 350 at each token."""
BUNDLED = Path(str(files("ftw") / "bundled" / "lens-packs" / "reference_everyday"))


def run(context: Context) -> Iterator[Figure]:
    """The monitor's share of a step, the same with the full bank, and the screen's recall."""
    model = load(ModelSpec(name="reference", device=context.device))
    engine = TransformersEngine(model)
    engine.generate(Request((5,), 2))  # studies the model
    bundled = load_bank(BUNDLED, fingerprint=model.fingerprint, device=model.device)
    states = written_states(model, engine, bundled.sites)
    yield from screen_quality("bundled pack", bundled, states)
    banks = {"bundled pack": bundled, "separate lenses": separate_bank(model, states[bundled.sites[0]])}
    for requests in (1, 16):
        yield from decode_step(model, engine, banks, requests, context)


def decode_step(
    model: Model, engine: TransformersEngine, banks: Mapping[str, LensBank], requests: int, context: Context
) -> Iterator[Figure]:
    """Time of whole generations with and without a monitor, in turn."""
    ids = [tuple(model.encode(PROMPTS[at % len(PROMPTS)])) for at in range(requests)]

    def side(bank: LensBank | None, full: bool = False) -> Callable[[], None]:
        def write() -> None:
            watching = (Monitor(bank, full=full),) if bank is not None else ()
            engine.generate([Request(one, NEW, controllers=watching, ignore_eos=True) for one in ids])

        return write

    sides = {"plain": side(None)}
    for name, bank in banks.items():
        sides |= {name: side(bank), f"{name}, full": side(bank, full=True)}
    timing = interleave(sides, context)
    medians = per_step(timing)
    for name in banks:
        for which, goal in ((name, at_most(0.10)), (f"{name}, full", None)):
            share = timing.ratio(which, "plain") - 1
            claim = f"{requests} request{'s' * (requests > 1)}: the monitor adds to a step, {which}"
            yield Figure("lenses", claim, share, "of a step", goal, medians, rounds=timing.rounds)


def per_step(timing: Timing) -> dict[str, str]:
    """Each side's median milliseconds per step."""
    return {side: f"{1e3 * timing.median(side) / NEW:.3g} ms/step" for side in timing.seconds}


def screen_quality(name: str, bank: LensBank, states: Mapping[Site, torch.Tensor]) -> Iterator[Figure]:
    """Recall of readings above threshold on written text that no threshold saw, and what passes."""
    full = bank.score(states, full=True).logit
    wanted = full >= torch.tensor([row.threshold_logit for row in bank.rows], device=full.device)
    some = bank.score(states)
    recall = float((some.passed & wanted).sum() / wanted.sum().clamp(min=1))
    note = f"{some.computed / full.numel():.2%} of pairs pass, {float(wanted.float().mean()):.2%} are readings"
    yield Figure("lenses", f"{name}: recall of readings above threshold", recall, "", at_least(0.99), note=note)


def written_states(model: Model, engine: TransformersEngine, sites: Sequence[Site]) -> dict[Site, torch.Tensor]:
    """States of text that the model writes, at every position."""
    done = engine.generate([Request(tuple(model.encode(one)), 96, ignore_eos=True) for one in PROMPTS])
    found: dict[Site, list[torch.Tensor]] = {site: [] for site in sites}
    for prompt, one in zip(PROMPTS, done, strict=True):
        ids = torch.tensor([[*model.encode(prompt), *one.tokens]], device=model.device)
        with torch.inference_mode(), tap(model, sites) as trace:
            model.net(input_ids=ids, use_cache=False)
        for site in sites:
            found[site].append(trace[site][0].clone())
    return {site: torch.cat(parts) for site, parts in found.items()}


def separate_bank(model: Model, states: torch.Tensor) -> LensBank:
    """Random lenses with a first layer each, thresholds at the top percent and a screen fitted to them."""
    rng = torch.Generator().manual_seed(0)
    d, seen = model.d_model, states[::2].cpu()

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng) / shape[-1] ** 0.5

    w1, w2, w3 = draw(LENSES, HIDDEN, d), draw(LENSES, NARROW, HIDDEN), draw(LENSES, NARROW)
    zero = torch.zeros(LENSES)
    part = LensTensors(
        w1, torch.zeros(LENSES, HIDDEN), w2, torch.zeros(LENSES, NARROW), w3, zero, zero[:, None] * w1[:, 0], zero, zero
    )
    rows = [LensRow(term=f"Concept{at}", block=BLOCK, row=at) for at in range(LENSES)]
    site = Site(BLOCK)
    logits = LensBank.from_tensors({BLOCK: part}, rows).score({site: seen}, full=True).logit.clone()
    x = torch.nn.functional.layer_norm(seen.float(), (d,), eps=1e-5)
    gram = x.T @ x / len(x) + 0.05 * torch.eye(d)
    screen = torch.linalg.solve(gram, x.T @ (logits - logits.mean(0)) / len(x)).T
    part = replace(part, screen_w=screen, screen_threshold=(x @ screen.T).quantile(1 - PASS_RATE, dim=0))
    marks = logits.quantile(0.999, dim=0).tolist()
    rows = [row.model_copy(update={"threshold_logit": mark}) for row, mark in zip(rows, marks, strict=True)]
    return LensBank.from_tensors({BLOCK: part}, rows, device=model.device)

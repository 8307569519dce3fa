"""What it costs to read every layer: all positions, the last one, live, against plain code; memory; how cost grows."""

import importlib
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import Context, Figure, at_least, at_most, interleave
from ftw.substrate.model import Model, from_net, load
from ftw.substrate.types import Step
from ftw.sweep import forward
from ftw.sweep.battery import Battery
from ftw.sweep.decode import Targets, decode
from ftw.sweep.fitting.accept import GAINS, compare, depth_layers
from ftw.sweep.fitting.corpus import own_text
from ftw.sweep.head import Head
from ftw.sweep.lenses.logit import LogitLens
from ftw.sweep.lenses.prism import load_prism
from ftw.sweep.lenses.tuned import load_tuned
from ftw.sweep.lenses.views import view
from ftw.sweep.live import LiveLens
from ftw.sweep.run import Sweep

TOKENS = 64
BEST = 5


def run(context: Context) -> Iterator[Figure]:
    """All figures. The large model is random: 16 blocks, d_model 1024, 32,000 tokens."""
    model = random_model(16, 1024, 32_000, context.device)
    yield from everywhere(model, context)
    yield from at_the_end(model, context)
    yield live(model, context)
    yield from close()
    yield from fitted()
    if context.device == "cpu":
        yield memory()
    yield from growth(context)


def random_model(blocks: int, d_model: int, vocab: int, device: str) -> Model:
    """A random Llama of a size."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=blocks,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    torch.manual_seed(0)
    net = LlamaForCausalLM(config).to(device)
    net.requires_grad_(requires_grad=False)
    return from_net(net)


def states(model: Model, rows: int) -> Tensor:
    """The states of one random text of `rows` tokens at every layer."""
    ids = torch.randint(model.vocab_size, (rows,), generator=torch.Generator().manual_seed(1)).tolist()
    return forward.read(model, [ids], positions="all").states


def plain(model: Model, resid: Tensor) -> None:
    """Layer by layer, in the model's own dtype: norm, head, best tokens, log-sum-exp."""
    with torch.inference_mode():
        for state in resid:
            h = state
            for module in model.arch.tail:
                h = module(h)
            logits = model.arch.head(h)
            logits.topk(BEST)
            logits.logsumexp(-1)


def peers(model: Model, resid: Tensor) -> dict[str, Callable[[], None]]:
    """The same by interp-engine, where it is installed: layer by layer, and all layers in one product."""
    if importlib.util.find_spec("interp_engine") is None:
        return {}
    engine = importlib.import_module("interp_engine")
    lens, ranked = (importlib.import_module(f"interp_engine.{name}") for name in ("lens", "lens_topk"))
    peer = engine.EagerModel("random", hf_model=model.net, tokenizer=object())

    def one(states: Tensor) -> None:
        ranked.lens_topk(lens.decode_residuals(peer, states), top_n=BEST)

    def loop() -> None:
        for state in resid:
            one(state)

    return {"interp-engine loop": loop, "interp-engine stacked": lambda: one(resid.flatten(0, 1))}


def everywhere(model: Model, context: Context) -> Iterator[Figure]:
    """17 layers x 64 positions."""
    resid = states(model, TOKENS)
    sides = {"plain loop": lambda: plain(model, resid), **read_outs(model, resid)}
    rivals = peers(model, resid)
    sides |= rivals
    sides["exact, every metric"] = reader(model, resid, Head(model.arch), everything=True)
    timing = interleave(sides, context, rounds=context.scaled(0.6))
    what = f"read-out of 17 layers x {TOKENS} positions, d 1024, V 32,000: top {BEST} and log-sum-exp"
    for side in ("fast", "exact", "exact, every metric"):  # the goals are about the best peer
        ratio = timing.ratio("plain loop", side)
        yield Figure("sweep", f"{what}, plain loop over {side}", ratio, "x", None, timing.shown(), rounds=timing.rounds)
    rival = min(rivals, key=timing.median) if rivals else "the best peer"
    for side, goal in (("fast", at_least(2.5)), ("exact", at_least(1.0))):
        ratio, note = (timing.ratio(rival, side), "") if rivals else (None, "interp-engine is not installed")
        claim = f"{what}, {rival} over {side}"
        yield Figure("sweep", claim, ratio, "x", goal, timing.shown(), rounds=timing.rounds, note=note)


def at_the_end(model: Model, context: Context) -> Iterator[Figure]:
    """17 layers at the last position, against reading the head's bytes once; and as the live lens does."""
    resid = states(model, TOKENS)[:, -1:]
    weight = model.arch.head.weight
    assert isinstance(weight, Tensor)
    sides = {"stream the head": lambda: _none(weight.sum()), **read_outs(model, resid), **peers(model, resid)}
    timing = interleave(sides, context, rounds=context.scaled(3))
    what = "read-out of 17 layers at the last position, d 1024, V 32,000"
    for side in ("exact", "fast"):
        ratio = timing.ratio(side, "stream the head")
        claim = f"{what}, {side}, over summing the head's weights once"
        yield Figure("sweep", claim, ratio, "x", at_most(2.0), timing.shown(), rounds=timing.rounds)


def live(model: Model, context: Context) -> Figure:
    """What the live lens adds to a step of the engine, on one core."""
    resid = states(model, TOKENS)[:, -1:]
    lens = LiveLens(model, k=BEST, keep=1)
    by_site = {site: resid[at] for at, site in enumerate(lens.sites)}
    ids = torch.zeros(1, dtype=torch.long)
    step = Step("request", 1, "generate", ids, by_site, torch.zeros(model.vocab_size), token=7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timing = interleave({"live": lambda: _none(lens.many([step], by_site))}, context, rounds=context.scaled(3))
    finally:
        torch.set_num_threads(threads)
    claim = "live lens per token on one core: 17 layers, d 1024, V 32,000, top 5 and the written token's rank"
    return Figure("sweep", claim, timing.median("live") * 1e3, "ms", at_most(10), timing.shown(), rounds=timing.rounds)


def fitted() -> Iterator[Figure]:
    """How much nearer to the model the bundled lenses are than the logit lens, on text that no lens was fitted on."""
    model = load("reference")
    windows = list(own_text(model, 96, seed=1117).windows(model, 1 << 30, 128, part="all"))
    positions = [range(4, len(ids), 8) for ids in windows]
    rows = forward.read(model, windows, positions=[list(each) for each in positions]).states
    home = Path(str(files("ftw"))) / "bundled" / "vocab-lenses"
    for lens in (load_tuned(home / "reference-tuned", model), load_prism(home / "reference-prism", model)):
        found = compare(model, lens, rows)
        for share, goal, layer in zip((25, 50, 75), GAINS, depth_layers(model.n_layers), strict=True):
            claim = (
                f"{lens.name} lens of the reference model: KL(model || lens) under the logit lens at {share} % depth, "
                f"median of {rows.shape[1]} positions of new text (means {found.logit_kl_bits[layer].mean():.2f} and "
                f"{found.lens_kl_bits[layer].mean():.2f})"
            )
            wanted = at_least(goal) if lens.name == "tuned" else None
            yield Figure("sweep", claim, float(np.median(found.gain_bits[layer])), "bits", wanted)


def read_outs(model: Model, resid: Tensor) -> dict[str, Callable[[], None]]:
    """Our two precisions."""
    return {"exact": reader(model, resid, Head(model.arch)), "fast": reader(model, resid, Head(model.arch, "fast"))}


def reader(model: Model, resid: Tensor, head: Head, *, everything: bool = False) -> Callable[[], None]:
    """One side: the read-out with a head that is ready."""
    lens = LogitLens(model.arch)
    if not everything:
        return lambda: _none(decode(model, [lens], resid, k=BEST, wanted=(), head=head))
    targets = Targets({"answer": torch.arange(resid.shape[1])})
    return lambda: _none(decode(model, [lens], resid, targets, k=BEST, head=head))


def close() -> Iterator[Figure]:
    """How close fast is to exact on the bundled, trained model."""
    model = load("reference")
    texts = [prompt.text for name in ("reference", "germany") for prompt in Battery.read(name).prompts()]
    resid = forward.read(model, [model.encode(text) for text in texts[::4]], positions="all").states
    lens = [LogitLens(model.arch)]
    exact, fast = decode(model, lens, resid), decode(model, lens, resid, precision="fast")
    same = float((exact.top_ids == fast.top_ids).float().mean())
    off = float((exact.top_logprobs.exp() - fast.top_logprobs.exp()).abs().max())
    rows = f"{exact.top_ids[..., 0].numel()} rows of the reference model"
    yield Figure("sweep", f"fast against exact: share of equal top {BEST}, {rows}", same, "", at_least(1.0))
    yield Figure("sweep", f"fast against exact: largest difference of a probability, {rows}", off, "", at_most(5e-4))
    gap = (exact.logsumexp - fast.logsumexp).abs()
    rounding = 2.0**-20 * (1 + exact.logsumexp.abs())
    held = float((gap <= fast.logsumexp_bound + rounding).float().mean())
    claim = f"fast: share of log-sum-exps within the stated bound (largest error {_most(gap)}, bound up to "
    yield Figure("sweep", f"{claim}{_most(fast.logsumexp_bound)} nats), {rows}", held, "", at_least(1.0))


def memory() -> Figure:
    """Peak memory of a sweep over the model's own, in a process of its own."""
    code = f"from benchmarks.{__name__.rsplit('.', 1)[-1]} import peak; print(peak())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    claim = (
        "peak memory of a sweep (8 texts of 64 tokens at every position, three norm views at the last) over the model "
        "loaded and run, d 512, V 50,000"
    )
    return Figure("sweep", claim, float(done.stdout), "MB", at_most(300))


def peak() -> float:
    """Megabytes that reading takes beyond what the process took to build the model and run it once."""
    model = random_model(8, 512, 50_000, "cpu")
    texts = [list(range(start, start + 64)) for start in range(8)]
    with torch.inference_mode():
        model.net(input_ids=torch.tensor([texts[0]]), use_cache=False, logits_to_keep=1)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _high_water()
    sweep = Sweep(model, at_end=[view(model, name) for name in ("next", "own", "raw")])
    sweep.run(texts, positions="all")
    return (_high_water() - before) / 1024


def _high_water() -> int:
    """The most memory that this process held, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def growth(context: Context) -> Iterator[Figure]:
    """Cost over prompts, blocks and vocabulary: the exponent of a power law through four sizes."""

    def side(prompts: int, blocks: int, vocab: int) -> Callable[[], None]:
        model = random_model(blocks, 256, vocab, context.device)
        head, lens = Head(model.arch), LogitLens(model.arch)
        texts = [[i, *range(31)] for i in range(prompts)]

        def sweep() -> None:
            for part in forward.batches(model, texts, positions="all"):
                decode(model, [lens], part.states, head=head)

        return sweep

    sizes = {
        "prompts": [(p, (p, 4, 8000)) for p in (2, 4, 8, 16)],
        "blocks": [(b, (4, b, 8000)) for b in (2, 4, 8, 16)],
        "vocabulary": [(v, (4, 4, v)) for v in (4000, 8000, 16000, 32000)],
    }
    for name, points in sizes.items():
        timing = interleave({str(size): side(*shape) for size, shape in points}, context, rounds=context.scaled(0.6))
        slope = _slope([(size, timing.median(str(size))) for size, _ in points])
        claim = f"cost of a sweep grows with {name} to the power of"
        yield Figure("sweep", claim, slope, "", at_most(1.1), timing.shown(), rounds=timing.rounds)


def _slope(points: Sequence[tuple[float, float]]) -> float:
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum((x - mx) ** 2 for x in xs)


def _most(value: Tensor) -> str:
    return f"{float(value.max()):.2g}"


def _none(_: object) -> None:
    """The harness reads numbers that a side returns as its seconds: return none."""

"""What the linear screens, the branch gate and the trunk save, what they cost in quality, and how fast a pack loads.

Quality is measured on lenses that were really trained: 64 of them, each with a first layer of its own, on states of the
reference model at the words of the everyday pack, with a quarter of the words held out; and on the bundled pack's
lenses. Time is measured on 10,000 lenses of width 1,024 that each follow a planted direction among random ones; their
screens know the direction, their thresholds lie at the top thousandth of readings. Every token is another one, and the
sides take turns, so that neither finds the other's weights in a cache.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench_lenses import written_states
from benchmarks.harness import Context, Figure, at_least, at_most, interleave
from benchmarks.trained_lenses import Words, logits_of, trained, word_states
from ftw.hat.classifiers import (
    ConceptPackId,
    LensBank,
    LensRow,
    LensTensors,
    ModelId,
    PackInfo,
    ScreenReport,
    Trunk,
    fit_gate,
    fit_screen_thresholds,
    fit_screens,
    fit_trunk,
    load_pack,
    measure_screen,
    normalise,
    save_pack,
    trunk_report,
)
from ftw.hat.classifiers.forms.pairs import Pairwise
from ftw.hat.classifiers.modules import HIDDEN, NARROW
from ftw.map.registry.concept_pack import bundled_concept_pack
from ftw.map.training.evaluate import auroc
from ftw.substrate.config import ModelSpec
from ftw.substrate.engine import TransformersEngine
from ftw.substrate.model import load
from ftw.substrate.types import Site

BUNDLED = Path(str(files("ftw") / "bundled" / "lens-packs" / "reference_everyday"))
BLOCK = 4
LENSES = 10_000
D = 1024
RANK = 160
"""Of the trunk whose time is measured: the share of the width at which trained lenses lose little."""
CHOSEN = 64
TEXT = 10
"""How often the few states of written text count in the fit of the screens."""
LOADED = 8_000
LOADED_D = 1024
ACTIVE = 10
"""Concepts of the planted world in a state."""
RECALL = 0.995
TOP = 0.999
"""The quantile of a lens's readings that its threshold stands at."""
OFTEN = 0.04
"""The share of pairs that screens of trained lenses let pass at words, where readings are thick."""


def run(context: Context) -> Iterator[Figure]:
    """Quality on trained lenses, time on many, loading."""
    yield from quality()
    yield from times(context)
    yield from loading(context)


def quality() -> Iterator[Figure]:
    """Recall and pass rate of the screens, what a gate opens, what a trunk loses: on words that no fit saw."""
    pack, model = bundled_concept_pack(), load(ModelSpec(name="reference"))
    bundle = load_pack(BUNDLED)
    block = bundle.info.sites[0]
    words = word_states(model, pack, [row.term for row in bundle.rows if row.block == block], block)
    often = ((words.fit_labels == 1).sum(0) >= 30) & ((words.test_labels == 1).sum(0) >= 8)
    chosen = often.nonzero().view(-1)
    chosen = chosen[torch.linspace(0, len(chosen) - 1, CHOSEN).long()]
    own = Words(words.fit, words.fit_labels[:, chosen], words.test, words.test_labels[:, chosen])
    lenses = trained(own)
    written = normalise(written_states(model, TransformersEngine(model), [Site(block)])[Site(block)])
    yield from screen_quality(lenses, own, written, bundle.rows, chosen)
    for name, part, seen in (("64 lenses trained apart", lenses, own), ("bundled pack", bundle.blocks[block], words)):
        for share in (1 / 8, RANK / D, 3 / 16, 1 / 4):
            yield trunk_quality(name, part, seen, round(share * part.w1.shape[-1]))


def trunk_quality(name: str, part: LensTensors, seen: Words, rank: int) -> Figure:
    """Macro AUROC that lenses lose on a trunk of this rank; beside it, on one of plain PCA."""
    d_model = part.w1.shape[-1]
    report = trunk_report(part, fit_trunk(seen.fit, rank, part), seen.test, seen.test_labels, auroc)
    plain = trunk_report(part, fit_trunk(seen.fit, rank), seen.test, seen.test_labels, auroc)
    note = f"AUROC {report.auroc:.4f} before, worst lens {report.worst:.3f}; by PCA alone {plain.loss:.4f}"
    goal = at_most(0.002) if rank * D >= RANK * d_model else None
    return Figure(
        "cascade", f"{name}: macro AUROC lost on a trunk of {rank} of {d_model}", report.loss, "", goal, note=note
    )


def screen_quality(
    lenses: LensTensors, words: Words, written: Tensor, rows: tuple[LensRow, ...], chosen: Tensor
) -> Iterator[Figure]:
    """Screens and gate fitted as packs fit them; half of the test words judge."""
    fitted, held = logits_of(lenses, words.fit), logits_of(lenses, words.test)
    rest = fitted.masked_fill(words.fit_labels == 1, float("nan"))
    marks = rest.nanquantile(TOP, dim=0)
    half = len(written) // 2
    seen, text = torch.cat([words.fit, written[:half].repeat(TEXT, 1)]), written[half:]
    screens = fit_screens(seen, logits_of(lenses, seen))
    known, fresh = slice(0, None, 2), slice(1, None, 2)
    both = torch.cat([seen[::2], words.test[known]])
    fit = fit_screen_thresholds(screens(both), logits_of(lenses, both), marks, RECALL)
    wanted, in_text = held[fresh] >= marks, logits_of(lenses, text) >= marks
    served = replace(lenses, screen_w=screens.weight)
    for dtype in (torch.int8, torch.bfloat16):
        pairs, bias = Pairwise([served], torch.device("cpu"), dtype), screens.bias - fit.thresholds
        passed = as_served(pairs, words.test[fresh], bias)
        report, told = measure_screen(passed, wanted), measure_screen(as_served(pairs, text, bias), in_text)
        kind = str(dtype).removeprefix("torch.")
        note = (
            f"words held out: {report.pass_rate:.2%} of pairs pass, {float(wanted.float().mean()):.2%} are readings; "
            f"{len(text)} states of text: recall {told.recall:.3f} of {told.readings}, {told.pass_rate:.2%} pass"
        )
        claim = f"64 lenses trained apart, screens as served in {kind}: recall of readings above threshold"
        yield Figure("cascade", claim, report.recall, "", at_least(0.99), dtype=kind, note=note)
    places = {rows[int(one)].term: at for at, one in enumerate(chosen)}
    above = {row.term: row.parent for row in rows}
    branches: dict[str, list[int]] = {}
    for term, at in places.items():
        top = term
        while (parent := above.get(top)) is not None:
            top = parent
        branches.setdefault(top, []).append(at)
    known_x = torch.cat([words.fit, words.test[known]])
    gate = fit_gate(known_x, torch.cat([fitted, held[known]]), marks, list(branches.values()), block=rows[0].block).gate
    opened = torch.cat([gate.open(words.test[fresh]), torch.ones(len(wanted), 1, dtype=torch.bool)], 1)
    gated = measure_screen(passed & opened[:, gate.branch_of], wanted)
    share = float(opened[:, :-1].float().mean())
    note = f"{share:.2%} of {len(branches)} branches open, {gated.pass_rate:.2%} of pairs pass"
    yield Figure("cascade", "the same behind a branch gate", gated.recall, "", at_least(0.99), note=note)


def times(context: Context) -> Iterator[Figure]:
    """One token through everything, through the cascade, behind a gate, and on a trunk."""
    device = torch.device(context.device)
    world = Planted.made(LENSES, D)
    yield from one_dtype(world, torch.bfloat16, device, context)
    yield from trunk_time(world, context)
    yield from one_dtype(world, torch.int8, device, context)


def one_dtype(world: "Planted", dtype: torch.dtype, device: torch.device, context: Context) -> Iterator[Figure]:
    """The cascade against the full bank, with the world's own screens and with ones that let more pass."""
    bank = LensBank.from_tensors({BLOCK: world.lenses}, world.rows, device=device, dtype=dtype)
    pairs = Pairwise([world.lenses], device, dtype)
    if not len(world.wanted):
        world.screen(bank)
    told = world.served(pairs, -world.thresholds.to(device))
    recall = f"recall {told.recall:.4f}, {told.pass_rate:.2%} of pairs pass, {world.share:.2%} are readings"
    biases = {"cascade": -world.thresholds, f"cascade, {OFTEN:.0%} pass": -world.often}
    sides: dict[str, Callable[[], None]] = {"full": partial(everything, bank, world)}
    sides |= {name: partial(cascade, pairs, world, bias.to(device)) for name, bias in biases.items()}
    timing = interleave(sides, context)
    kind = str(dtype).removeprefix("torch.")
    for side, note in zip(biases, (recall, "the pass rate of trained lenses at words"), strict=True):
        claim = f"one token, {LENSES:,} lenses, D = {D}: {side} / full bank"
        share = timing.ratio(side, "full")
        goal = at_most(1 / 20) if side == "cascade" else None
        yield Figure("cascade", claim, share, "x", goal, timing.shown(), kind, timing.rounds, note)


def everything(bank: LensBank, world: "Planted") -> None:
    """Every lens at the next token."""
    bank.score(world.token(), full=True)


def cascade(pairs: Pairwise, world: "Planted", bias: Tensor) -> None:
    """What a bank does without `full`, at the next token."""
    with torch.inference_mode():
        pairs.some(normalise(world.token()[Site(BLOCK)])[None], bias, None, 1 << 28)


def trunk_time(world: "Planted", context: Context) -> Iterator[Figure]:
    """The full bank on a trunk, against the full bank."""
    back = torch.linalg.qr(torch.randn(D, RANK, generator=world.rng)).Q
    trunks = {BLOCK: Trunk(back.T.contiguous(), torch.zeros(D), back)}
    full, small = (
        LensBank.from_tensors({BLOCK: world.lenses}, world.rows, device=context.device, trunks=each)
        for each in (None, trunks)
    )
    timing = interleave({"full": partial(everything, full, world), "trunk": partial(everything, small, world)}, context)
    claim = f"one token, {LENSES:,} lenses, D = {D}: full bank / full bank on a trunk of {RANK}"
    yield Figure(
        "cascade", claim, timing.ratio("full", "trunk"), "x", at_least(4), timing.shown(), "bfloat16", timing.rounds
    )


class Planted:
    """Many lenses, each of which follows a direction of its own among random ones; states hold a few directions."""

    def __init__(self, lenses: LensTensors, directions: Tensor, rng: torch.Generator) -> None:
        self.lenses, self.directions, self.rng = lenses, directions, rng
        self.rows = [LensRow(term=f"Concept{at}", block=BLOCK, row=at) for at in range(len(directions))]
        self.thresholds = self.often = torch.zeros(len(directions))
        self.test, self.wanted = torch.empty(0, directions.shape[1]), torch.empty(0, len(directions), dtype=torch.bool)
        self._tokens = self.states(64)
        self._next = 0

    @classmethod
    def made(cls, n: int, d: int) -> "Planted":
        """From a fixed seed. The random part of a first layer is one of 64, its channels turned."""
        rng = torch.Generator().manual_seed(0)
        directions = F.normalize(torch.randn(n, d, generator=rng), dim=1)
        noise = torch.randn(64, HIDDEN, d, generator=rng) * 0.7 / d**0.5
        w1 = torch.empty(n, HIDDEN, d, dtype=torch.bfloat16)
        pull = torch.randn(n, HIDDEN, generator=rng)
        for at in range(n):
            w1[at] = torch.addcmul(noise[at % 64].roll(at // 64, 1), pull[at, :, None], directions[at])
        w2 = (torch.randn(n, NARROW, HIDDEN, generator=rng) + pull.sign()[:, None]) / HIDDEN**0.5
        zero = torch.zeros(n)
        lenses = LensTensors(
            w1=w1,
            b1=0.5 * torch.randn(n, HIDDEN, generator=rng),
            w2=w2.bfloat16(),
            b2=torch.zeros(n, NARROW),
            w3=torch.rand(n, NARROW, generator=rng) / NARROW,
            b3=zero,
            screen_w=directions,
            screen_b=zero,
            screen_threshold=zero,
        )
        return cls(lenses, directions, rng)

    def states(self, rows: int, each: int = 0) -> Tensor:
        """Random states with a few directions each; with `each`, every direction is in as many of them."""
        n, d = self.directions.shape
        if each:
            drawn = [torch.randperm(n, generator=self.rng) for _ in range(each)]
            which = torch.cat(drawn).view(rows, n * each // rows)
        else:
            which = torch.randint(0, n, (rows, ACTIVE), generator=self.rng)
        strength = 5 + 2 * torch.rand(*which.shape, 1, generator=self.rng)
        noise = torch.randn(rows, d, generator=self.rng)
        return noise + (strength * self.directions[which]).sum(1)

    def token(self) -> Mapping[Site, Tensor]:
        """The next of some states."""
        self._next = (self._next + 1) % len(self._tokens)
        return {Site(BLOCK): self._tokens[self._next : self._next + 1]}

    def screen(self, bank: LensBank) -> None:
        """Set thresholds and screens from fresh states; keep other ones with what the lenses read there."""
        site, fit, self.test = Site(BLOCK), self.states(1000, each=2), self.states(500)
        seen = bank.score({site: fit}, full=True).logit
        marks = seen.quantile(TOP, dim=0)
        scores = normalise(fit) @ self.directions.T
        self.thresholds = fit_screen_thresholds(scores, seen, marks, RECALL).thresholds
        self.often = scores.quantile(1 - OFTEN, dim=0)
        self.wanted = bank.score({site: self.test}, full=True).logit >= marks

    @property
    def share(self) -> float:
        """How many of the pairs kept for the test are readings."""
        return float(self.wanted.float().mean())

    def served(self, pairs: Pairwise, bias: Tensor) -> ScreenReport:
        """What the screens let through as they are served: in their own dtype, one state at a time."""
        return measure_screen(as_served(pairs, normalise(self.test), bias), self.wanted)


def as_served(pairs: Pairwise, x: Tensor, bias: Tensor) -> Tensor:
    """Which pairs pass when each normalised state comes alone, as a token does."""
    with torch.inference_mode():
        return torch.cat([pairs.margins(one[None, None].to(bias.device), bias) >= 0 for one in x]).cpu()


def loading(context: Context) -> Iterator[Figure]:
    """A pack of 8,000 lenses read whole and checked, against its level files read and dropped, both from the disk."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        pack_on_disk(folder)
        levels = sorted(folder.glob("level*.safetensors"))
        size = sum(file.stat().st_size for file in levels)

        def cold(do: Callable[[], object]) -> Callable[[], float]:
            def side() -> float:
                for file in levels:
                    forget(file)
                start = context.now()
                do()
                return context.now() - start

            return side

        timing = interleave({"load": cold(lambda: load_pack(folder)), "read": cold(lambda: read(levels))}, context)
    share = timing.ratio("read", "load")
    claim = f"{LOADED:,} lenses, D = {LOADED_D}, from a cold page cache: loading / sequential reading"
    rates = timing.shown(size / 1e9, "GB/s")
    yield Figure("cascade", claim, share, "of the rate", at_least(0.7), rates, "bfloat16", timing.rounds)


def pack_on_disk(folder: Path) -> None:
    """A pack of random lenses, bf16, at three levels."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng) / shape[-1] ** 0.5

    n, d = LOADED, LOADED_D
    zero = torch.zeros(n)
    w1 = draw(n // 16, HIDDEN, d).bfloat16().repeat(16, 1, 1)
    w2 = draw(n // 16, NARROW, HIDDEN).bfloat16().repeat(16, 1, 1)
    last = (draw(n, NARROW), zero, draw(n, d), zero.clone(), zero.clone())
    part = LensTensors(w1, draw(n, HIDDEN), w2, draw(n, NARROW), *last)
    rows = [LensRow(term=f"Concept{at}", block=BLOCK, row=at, level=3 * at // n) for at in range(n)]
    model = ModelId(name="made", fingerprint="ab" * 32, d_model=d, n_layers=8)
    concepts = ConceptPackId(name="made", version="1.0.0", sha256="cd" * 32)
    info = PackInfo(name="made", version="1.0.0", model=model, concept_pack=concepts, sites=(BLOCK,))
    save_pack(folder, info, rows, {BLOCK: part}, storage="bfloat16")


def forget(file: Path) -> None:
    """Have the system drop a file from its page cache."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(paths: list[Path]) -> None:
    """Read files from start to end into one buffer of 16 MiB."""
    buffer = bytearray(16 << 20)
    for file in paths:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass

"""Training all lenses of a pack together, beside training one lens after another on the same prompts.

One lens after another runs the prompts for each lens (as fast as we run them: shared carriers, full batches, one block)
and fits that lens alone by the same recipe. A few lenses are measured and multiplied: the whole would take hours. Both
are judged on words and carriers that neither saw. The fit alone, from states that are already there, stands beside.
"""

from collections.abc import Iterator
from statistics import mean

import torch

from benchmarks.harness import Context, Figure, at_least, at_most
from ftw.map.registry.concept_pack import bundled_concept_pack
from ftw.map.training.collect import collect
from ftw.map.training.evaluate import auroc
from ftw.map.training.fit import FitConfig, fit_lenses
from ftw.map.training.plan import Plan
from ftw.map.training.prompts import bundled_carriers
from ftw.map.training.reading import Reading
from ftw.map.training.sentences import corpus_of
from ftw.map.training.study import Exam
from ftw.map.training.targets import Targets
from ftw.substrate.config import ModelSpec
from ftw.substrate.model import Model, load

PER_WORD = 2
ALONE = 4
"""Lenses that are trained alone, spread evenly over the pack."""
FOLD = 0
"""Words that no fit sees."""


def run(context: Context) -> Iterator[Figure]:
    """The ratio end to end, that of the fits, the difference in quality, forward passes per prompt."""
    model = load(ModelSpec(name="reference", device=context.device))
    pack, carriers = bundled_concept_pack(), bundled_carriers()
    targets, blocks = Targets.of(pack), list(range(model.n_layers))
    block = 5
    corpus = corpus_of(pack, carriers, per_word=PER_WORD, held_per_word=1, seed=0)
    began = context.now()
    reading = Reading.of(model, corpus.words, corpus.prompts, carriers.plain.fit, len(blocks))
    passes, exam = _read(model, reading, targets, blocks)
    read = context.now() - began
    began = context.now()
    together = fit_lenses(*exam.fit_set(block, targets, FOLD), targets, FitConfig(), 0, _quiet)
    fitted = context.now() - began
    began = context.now()
    collect(model, reading.plan, [block], lambda what, done, total: None)
    alone_read = context.now() - began
    unseen = (exam.held & (exam.fold == FOLD)).nonzero()[:, 0]
    x, labels = exam.states.at(block, unseen), targets.labels(exam.home[unseen])
    figures, alone_fit, n = auroc(together(x), labels), [], len(targets.terms)
    lost = []
    for lens in range(0, n, n // ALONE)[:ALONE]:
        own = _one(targets, lens)
        began = context.now()
        single = fit_lenses(*exam.fit_set(block, own, FOLD), own, FitConfig(), 0, _quiet)
        alone_fit.append(context.now() - began)
        lost.append(float(auroc(single(x), labels[:, lens : lens + 1])[0] - figures[lens]))
    one = alone_read + mean(alone_fit)
    said = f"{n} lenses, {len(reading.prompts)} prompts, {ALONE} lenses alone measured and multiplied"
    medians = {"together": f"{read + fitted:.1f} s", "one lens alone": f"{one:.1f} s"}
    yield Figure(
        "training", "end to end, one lens after another over all together", n * one / (read + fitted), "x",
        at_least(50), medians, rounds=1, note=said,
    )  # fmt: skip
    fits = {"together": f"{fitted:.1f} s", "one lens alone": f"{mean(alone_fit):.2f} s"}
    yield Figure(
        "training", "fits alone, states given", n * mean(alone_fit) / fitted, "x", medians=fits, rounds=1, note=said
    )
    yield Figure(
        "training", "AUROC that lenses alone have more, mean", mean(lost), "", at_most(0.005), rounds=1,
        note=f"words and carriers held out; of the {ALONE} lenses",
    )  # fmt: skip
    yield Figure("training", "texts run per distinct text", passes / len(reading.plan.texts), "", at_most(1), rounds=1)


def _read(model: Model, reading: Reading, targets: Targets, blocks: list[int]) -> tuple[int, Exam]:
    """How many texts the model ran, counted at its first block, and the exam."""
    rows: list[int] = []
    handle = model.arch.blocks[0].register_forward_hook(
        lambda _m, _a, out: rows.append(len(out if isinstance(out, torch.Tensor) else out[0]))
    )
    states = collect(model, reading.plan, blocks, lambda what, done, total: None)
    handle.remove()
    return sum(rows) - _heads(reading.plan), reading.exam(states, targets, 3, 0)


def _heads(plan: Plan) -> int:
    """Carriers that run for themselves, before the texts that begin with them."""
    before = [()] + [batch.head for batch in plan.batches]
    return sum(bool(batch.head) and batch.head != last for batch, last in zip(plan.batches, before, strict=False))


def _one(targets: Targets, lens: int) -> Targets:
    """The targets of one lens."""
    return Targets((targets.terms[lens],), targets.table[:, lens : lens + 1], targets.homes, ((0,),))


def _quiet(done: int, total: int) -> None:
    pass

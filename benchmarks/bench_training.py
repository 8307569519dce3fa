"""Training all lenses of a pack together, beside training one lens after another on the same prompts.

One lens after another runs the prompts for each lens (as fast as we run them: shared carriers, full batches, one block)
and fits that lens alone by the same recipe. It is never run in full, which would take hours: the prompts are run once
for one block and eight lenses are fitted alone; the mean, times the number of lenses, is its time. Both are judged
on words and carriers that neither saw. The fit alone, from states that are already there, stands beside.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch

from benchmarks.harness import Context, Figure, at_least, at_most
from ftw.map.registry.concept_pack import bundled_concept_pack
from ftw.map.training.collect import collect
from ftw.map.training.evaluate import auroc
from ftw.map.training.fit import FitConfig, fit_lenses
from ftw.map.training.prompts import bundled_carriers
from ftw.map.training.reading import Reading
from ftw.map.training.sentences import corpus_of
from ftw.map.training.study import Exam
from ftw.map.training.targets import Targets
from ftw.substrate.config import ModelSpec
from ftw.substrate.model import Model, load

PER_WORD = 1
ALONE = 8
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
    ran, exam = _read(model, reading, targets, blocks)
    read = context.now() - began
    began = context.now()
    together = fit_lenses(*exam.fit_set(block, targets, FOLD), targets, FitConfig(), 0, _quiet)
    fitted = context.now() - began
    began = context.now()
    collect(model, reading.plan, [block], _silent)
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
    said = f"{len(reading.prompts)} prompts; one after another: mean of {ALONE} lenses trained alone, times {n}"
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
    texts, whole = len(reading.plan.texts), sum(len(text.ids) for text in reading.plan.texts)
    yield Figure(
        "training", "texts run per distinct text", ran.texts / texts, "", at_most(1), rounds=1,
        note=f"{texts} texts; besides them {ran.carriers} carriers ran once each, for the texts that begin with them",
    )  # fmt: skip
    yield Figure(
        "training", "tokens run, carriers and padding too, per token of the distinct texts", ran.tokens / whole, "",
        at_most(1), rounds=1,
    )  # fmt: skip


@dataclass(frozen=True)
class _Ran:
    """What the model was given, counted at its first block."""

    texts: int
    carriers: int
    """Run for themselves, before the texts that begin with them."""
    tokens: int


def _read(model: Model, reading: Reading, targets: Targets, blocks: list[int]) -> tuple[_Ran, Exam]:
    """How much the model ran, and the exam."""
    shapes: list[torch.Size] = []
    handle = model.arch.blocks[0].register_forward_hook(
        lambda _m, _a, out: shapes.append((out if isinstance(out, torch.Tensor) else out[0]).shape)
    )
    states = collect(model, reading.plan, blocks, _silent)
    handle.remove()
    carriers = len(shapes) - len(reading.plan.batches)
    ran = _Ran(sum(shape[0] for shape in shapes) - carriers, carriers, sum(shape[0] * shape[1] for shape in shapes))
    return ran, reading.exam(states, targets, 3, 0)


def _one(targets: Targets, lens: int) -> Targets:
    """The targets of one lens."""
    return Targets((targets.terms[lens],), targets.table[:, lens : lens + 1], targets.homes, ((0,),))


def _quiet(done: int, total: int) -> None:
    pass


def _silent(what: str, done: int, total: int) -> None:
    pass

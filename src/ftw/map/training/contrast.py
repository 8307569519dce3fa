"""The lenses beside what they must beat, each on the same three splits of the held carriers.

Ridge, centroids and TF-IDF read the same prompts; the random-weight twin runs prompts of its own, fewer per word.
The rule of the file: the baselines are fitted without the first fold of words, so that they are read on words they have
not seen.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.baselines import centroids, random_twin
from ftw.map.training.collect import Progress, collect
from ftw.map.training.evaluate import auroc, macro, tfidf_scores
from ftw.map.training.fit import fit_lenses, fit_ridge
from ftw.map.training.fits import TrainConfig
from ftw.map.training.plan import token_ids
from ftw.map.training.prompts import Carriers, prompts_of, words_of
from ftw.map.training.reading import Reading
from ftw.map.training.report import Contrast
from ftw.map.training.study import Exam, HeldOut
from ftw.map.training.targets import POSITIVE, Targets
from ftw.substrate.model import Model


@dataclass(frozen=True)
class Subject:
    """What the baselines are made for."""

    model: Model
    pack: ConceptPack
    carriers: Carriers
    targets: Targets
    config: TrainConfig
    seed: int
    progress: Progress


def contrasts(
    subject: Subject,
    reading: Reading,
    exam: Exam,
    block: int,
    study: HeldOut,
    shipped: tuple[Float[Tensor, " lens"], Float[Tensor, " lens"]],
) -> list[Contrast]:
    """Macro AUROC in held carriers: of words that were seen, of words held out, of those that stand apart.

    `shipped` are the figures of the pack's own lenses: templates held out, words held out.
    """
    targets = subject.targets
    x, home = exam.fit_set(block, targets, 0)
    labels = targets.labels(home)
    everywhere = exam.states.at(block)
    linear = _splits(fit_ridge(x, (labels == POSITIVE).float())(everywhere), exam, targets)
    centre = _splits(centroids(x, labels)(everywhere), exam, targets)
    ours = (macro(shipped[0]), macro(shipped[1]), study.macro_of(exam.apart[study.rows]))
    twin, text = _twin(subject, block), _text_alone(subject, reading, exam)
    return [Contrast(*figures) for figures in zip(ours, linear, centre, twin, text, strict=True)]


def _twin(subject: Subject, block: int) -> list[float]:
    """The same lenses on the same architecture with random weights."""
    words, config, targets = words_of(subject.pack), subject.config, subject.targets
    prompts = prompts_of(words, subject.carriers, per_word=config.twin_per_word, held_per_word=1, seed=subject.seed)
    twin = random_twin(subject.model, subject.seed)
    reading = Reading.of(twin, words, prompts, subject.carriers.plain.fit, 1)
    states = collect(twin, reading.plan, [block], subject.progress)
    exam = reading.exam(states, targets, config.folds, subject.seed)

    def told(done: int, total: int) -> None:
        subject.progress("fitting the random twin", done, total)

    lenses = fit_lenses(*exam.fit_set(block, targets, 0), targets, config.fit, subject.seed, told)
    return _splits(lenses(exam.states.at(block)), exam, targets)


def _text_alone(subject: Subject, reading: Reading, exam: Exam) -> list[float]:
    """TF-IDF on the same splits."""
    bags = token_ids(subject.model, [prompt.text(reading.words) for prompt in reading.prompts])
    fit = exam.fit_rows(0)
    held = exam.held.nonzero()[:, 0]
    fitted = [bags[i] for i in fit.nonzero()[:, 0].tolist()]
    labels = subject.targets.labels(exam.home[fit])
    read = tfidf_scores(fitted, labels, [bags[i] for i in held.tolist()], subject.model.vocab_size)
    everywhere = torch.zeros(len(exam.held), read.shape[1]).index_copy(0, held, read)
    return _splits(everywhere, exam, subject.targets)


def _splits(scores: Float[Tensor, "state lens"], exam: Exam, targets: Targets) -> list[float]:
    """Macro AUROC in held carriers, of a fit without the first fold: on the words that it saw; on those it did not
    see; and on those of them that share no part with a word that it saw.
    """
    new = exam.fold == 0
    seen, unseen = exam.held & ~new, (exam.held & new, exam.held & new & exam.apart)
    return [
        macro(auroc(scores[seen], targets.labels(exam.home[seen]))),
        *(macro(auroc(scores[rows], exam.unseen_labels(targets, rows))) for rows in unseen),
    ]

"""Trains a lens pack for a model: prompts, one reading of states, held-out study, fit, calibration, report.

The rule of the file: the lenses that ship are fitted on all words but never on a held carrier; every figure about words
comes from lenses of the same making that did not see them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ftw import __version__
from ftw.hat.classifiers.index import ConceptPackId, ModelId, PackInfo
from ftw.hat.classifiers.store import save_pack
from ftw.hat.steering.directions import word_tokens
from ftw.hat.steering.edits import Steer
from ftw.hat.steering.evaluation import NEUTRAL_PROMPTS, Evaluator
from ftw.hat.steering.table import save_directions, train_directions
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.baselines import random_twin
from ftw.map.training.collect import Progress, collect, collect_text, token_ids
from ftw.map.training.evaluate import auroc, macro, sibling_top1, tfidf_scores
from ftw.map.training.finish import Finished, finish
from ftw.map.training.fit import FitConfig, Lenses, fit_lenses
from ftw.map.training.prompts import (
    Carriers,
    Prompt,
    Word,
    bundled_carriers,
    prompts_of,
    stand_apart,
    word_folds,
    words_of,
)
from ftw.map.training.report import BlockFigures, Contrast, LensFigures, Report, SteeringFigures, write_report
from ftw.map.training.sizes import size_table
from ftw.map.training.study import (
    BlockScore,
    Exam,
    HeldOut,
    Reader,
    best_block,
    held_out,
    lens_fitter,
    ridge_fitter,
    score_blocks,
)
from ftw.map.training.targets import NEGATIVE, UNSAID, Targets
from ftw.substrate.errors import ConfigError, SiteError
from ftw.substrate.model import Model

VERSION = "1.0.0"
STEERED = 64
"""Concepts whose directions are measured, drawn evenly from all that have one."""
STEERED_REPEATS, PLAIN_REPEATS = 4, 64
"""Continuations of each neutral prompt, steered and plain: a word may come once in a thousand."""
STEERED_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How much is read and how it is fitted."""

    per_word: int = 6
    """Fit carriers that each word is said in."""
    held_per_word: int = 2
    """Held carriers that each word is said in."""
    folds: int = 3
    """Parts that the words are dealt into; each is once left out of a fit."""
    twin_per_word: int = 3
    """Fit carriers that each word is said in on the random-weight twin; it gets one held carrier."""
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        if self.per_word < 1 or self.held_per_word < 1 or self.folds < 2:
            raise ConfigError(
                f"per_word {self.per_word}, held_per_word {self.held_per_word}, folds {self.folds}: "
                "at least one carrier of each part and two folds"
            )


@dataclass(frozen=True)
class _Run:
    """What the steps of one training share."""

    model: Model
    pack: ConceptPack
    targets: Targets
    words: Sequence[Word]
    prompts: Sequence[Prompt]
    carriers: Carriers
    config: TrainConfig
    seed: int
    progress: Progress

    def exam(self, model: Model, blocks: Sequence[int], prompts: Sequence[Prompt]) -> Exam:
        """Prompts and the plain fit texts, read once on `model`."""
        which = torch.tensor([p.word for p in prompts])
        folds = word_folds(self.words, self.config.folds, self.seed)
        return Exam(
            states=collect(model, prompts, self.words, blocks, self.progress),
            home=self.targets.home_of(self.words)[which],
            held=torch.tensor([p.held for p in prompts]),
            fold=torch.tensor(folds)[which],
            apart=torch.tensor(stand_apart(self.words, folds))[which],
            plain=collect_text(model, self.carriers.plain.fit, blocks),
        )

    def fitter(self, what: str) -> Callable[[Tensor, Tensor, int], Reader]:
        """A fit of the lenses that tells its progress under a name."""
        return lens_fitter(self.targets, self.config.fit, self.seed, lambda done, of: self.progress(what, done, of))


def train(
    model: Model,
    concept_pack: ConceptPack,
    out: Path,
    *,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
    config: TrainConfig | None = None,
    carriers: Carriers | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Train a lens for every concept, write the pack into `out`, and give the report that lies beside it.

    `blocks` are the candidates to read (default: all); the one that reads held-out words best is taken. The same
    model, pack, seed and machine give the same lenses. Raises SiteError for a block that the model does not have,
    ConfigError for a pack without words, and what the model and the store raise.
    """
    began = time.monotonic()
    config = config or TrainConfig()
    candidates = _candidates(model, blocks)
    carriers = carriers or bundled_carriers()
    words = words_of(concept_pack)
    prompts = prompts_of(words, carriers, per_word=config.per_word, held_per_word=config.held_per_word, seed=seed)
    targets = Targets.of(concept_pack)
    run = _Run(model, concept_pack, targets, words, prompts, carriers, config, seed, progress)
    exam = run.exam(model, candidates, prompts)
    scores = score_blocks(exam, targets, candidates, lambda n: progress("comparing blocks", n, len(candidates)))
    block = best_block(scores)
    study, readers = _study(run, exam, block)
    x, home = exam.fit_set(block, targets, None)
    lenses = fit_lenses(x, home, targets, config.fit, seed, lambda done, of: progress("fitting lenses", done, of))
    baseline = collect_text(model, carriers.plain.baseline, [block])
    done = finish(lenses, exam, study, baseline, concept_pack, targets, block)
    save_pack(out, _info(run, block), done.rows, {block: done.tensors}, storage="float32")
    steering = _directions(run, out)
    report = _report(run, exam, scores, block, study, readers[0], done, steering, began)
    write_report(report, out)
    return report


def _candidates(model: Model, blocks: Sequence[int] | None) -> list[int]:
    if blocks is None:
        return list(range(model.n_layers))
    bad = [block for block in blocks if not 0 <= block < model.n_layers]
    if bad or not blocks:
        raise SiteError(f"no such block: {bad or 'none named'}. This model has blocks 0..{model.n_layers - 1}")
    return sorted(set(blocks))


def _directions(run: _Run, out: Path) -> list[SteeringFigures]:
    """Steering directions of every concept that has a word the tokenizer lets tell apart, and what they do.

    No file and no figures if no concept has. A part of them is measured, under a seed of its own.
    """
    words = {term: run.pack.get(term).words for term in run.targets.terms}
    if not any(word_tokens(run.model, own) for own in words.values()):
        return []
    table = train_directions(run.model, words, seed=run.seed, progress=run.progress)
    save_directions(out, table)
    known = [term for term in table.terms if words[term]]
    terms = known[:: -(-len(known) // STEERED)]
    evaluator = Evaluator(run.model, repeats=STEERED_REPEATS, base_repeats=PLAIN_REPEATS, seed=run.seed + 1000)
    found: list[SteeringFigures] = []
    for at in range(0, len(terms), STEERED_TOGETHER):
        run.progress("measuring directions", at, len(terms))
        part = [Steer(table.direction(term)) for term in terms[at : at + STEERED_TOGETHER]]
        found += [
            SteeringFigures(e.term, e.rate, e.base_rate, e.multiple, e.perplexity_ratio, e.is_good)
            for e in evaluator.measure(part, words)
        ]
    return found


def _study(run: _Run, exam: Exam, block: int) -> tuple[HeldOut, list[Lenses]]:
    """Readings of all words by lenses that did not see them, and those lenses."""
    readers: list[Lenses] = []
    config = run.config

    def fit(x: Tensor, home: Tensor, fold: int) -> Reader:
        what = f"holding out words {fold + 1}/{config.folds}"
        readers.append(
            fit_lenses(x, home, run.targets, config.fit, run.seed + 1 + fold, lambda i, n: run.progress(what, i, n))
        )
        return readers[-1]

    return held_out(exam, run.targets, block, fit, range(config.folds)), readers


def _report(
    run: _Run,
    exam: Exam,
    scores: Sequence[BlockScore],
    block: int,
    study: HeldOut,
    reader: Lenses,
    done: Finished,
    steering: Sequence[SteeringFigures],
    began: float,
) -> Report:
    templates, words, apart = _contrasts(run, exam, block, study, done)
    strict = torch.where(study.labels == UNSAID, NEGATIVE, study.labels)
    homes = {term: at for at, term in enumerate(run.targets.terms)}
    siblings = [[homes[c] for c in run.pack.children(term)] for term in run.pack.concepts]
    return Report(
        model=f"{run.model.name} ({run.model.fingerprint[:8]})",
        concept_pack=f"{run.pack.name} {run.pack.version}",
        block=block,
        concepts=len(run.targets.terms),
        words=len(run.words),
        synsets=len({w.synset for w in run.words}),
        prompts=len(run.prompts),
        plain_states=len(exam.plain),
        folds=run.config.folds,
        seed=run.seed,
        templates=templates,
        words_held=words,
        words_apart=apart,
        strict_words=macro(auroc(study.logits, strict)),
        sibling_top1=sibling_top1(study.logits, exam.home[study.rows], siblings),
        ece_before=done.ece_before,
        ece_after=done.ece_after,
        ece_leading=done.ece_leading,
        false_alarm_rate=float(done.fpr.mean()),
        screen_recall=done.screen.recall,
        screen_pass_rate=done.screen.pass_rate,
        one_block_per_lens=_own_block(scores),
        blocks=[BlockFigures(s.block, s.words, s.templates) for s in scores],
        sizes=size_table(reader, exam, run.targets, block, 0),
        lenses=[
            LensFigures(row.term, row.auroc_templates, row.auroc_words, row.fpr or 0.0, row.n_words)
            for row in done.rows
        ],
        steering=steering,
        steering_texts=STEERED_REPEATS * len(NEUTRAL_PROMPTS),
        seconds=time.monotonic() - began,
    )


def _contrasts(run: _Run, exam: Exam, block: int, study: HeldOut, done: Finished) -> list[Contrast]:
    """The lenses beside ridge, the random twin and TF-IDF on the three splits of `_splits`.

    The three baselines leave out the first fold only.
    """
    ridge = ridge_fitter(run.targets)(*exam.fit_set(block, run.targets, 0), 0)
    linear = _splits(ridge(exam.states.at(block)), exam, run.targets)
    prompts = prompts_of(run.words, run.carriers, per_word=run.config.twin_per_word, held_per_word=1, seed=run.seed)
    other = run.exam(random_twin(run.model, run.seed), [block], prompts)
    lenses = run.fitter("fitting the random twin")(*other.fit_set(block, run.targets, 0), 0)
    twin = _splits(lenses(other.states.at(block)), other, run.targets)
    ours = (macro(done.templates), macro(done.words), study.macro_of(exam.apart[study.rows]))
    return [Contrast(*figures) for figures in zip(ours, linear, twin, _text_alone(run, exam), strict=True)]


def _text_alone(run: _Run, exam: Exam) -> list[float]:
    """TF-IDF on the same splits."""
    bags = token_ids(run.model, [prompt.text(run.words) for prompt in run.prompts])
    fit = exam.fit_rows(0)
    held = exam.held.nonzero()[:, 0]
    fitted = [bags[i] for i in fit.nonzero()[:, 0].tolist()]
    read = tfidf_scores(
        fitted, run.targets.labels(exam.home[fit]), [bags[i] for i in held.tolist()], run.model.vocab_size
    )
    return _splits(torch.zeros(len(exam.held), read.shape[1]).index_copy(0, held, read), exam, run.targets)


def _splits(scores: Float[Tensor, "state lens"], exam: Exam, targets: Targets) -> list[float]:
    """Macro AUROC in held carriers, of a fit without the first fold: on the words that it saw; on those it did not
    see; and on those of them that share no part with a word that it saw.
    """
    new = exam.fold == 0
    masks = (exam.held & ~new, exam.held & new, exam.held & new & exam.apart)
    return [macro(auroc(scores[rows], targets.labels(exam.home[rows]))) for rows in masks]


def _own_block(scores: Sequence[BlockScore]) -> float:
    """The linear baseline where each lens reads the block that did best for it in fit carriers."""
    chosen = torch.stack([s.choice_per_lens.nan_to_num(-1) for s in scores]).argmax(0, keepdim=True)
    return macro(torch.stack([s.per_lens for s in scores]).gather(0, chosen)[0])


def _info(run: _Run, block: int) -> PackInfo:
    model, pack = run.model, run.pack
    return PackInfo(
        name=f"{model.name}_{pack.name}",
        version=VERSION,
        model=ModelId(name=model.name, fingerprint=model.fingerprint, d_model=model.d_model, n_layers=model.n_layers),
        concept_pack=ConceptPackId(name=pack.name, version=pack.version, sha256=pack.sha256),
        sites=(block,),
        training={"seed": run.seed, "prompts": len(run.prompts), "block": block, **asdict(run.config)},
        provenance={"ftw": __version__, "torch": torch.__version__},
    )

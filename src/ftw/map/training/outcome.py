"""What a training comes to: the lenses of each block, calibrated, with their rows, and the report.

The rule of the file: every block's figures come from its own held-out matrix, and none from states that a fit has seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ftw import __version__
from ftw.hat.classifiers.index import ConceptPackId, LensRow, ModelId, PackInfo
from ftw.hat.classifiers.screen import ScreenReport
from ftw.hat.classifiers.tensors import LensTensors
from ftw.map.training.bootstrap import draws, share_interval
from ftw.map.training.calibrate import Calibrated, calibrate
from ftw.map.training.collect import collect_text
from ftw.map.training.contrast import Subject, contrasts
from ftw.map.training.evaluate import auroc, macro, sibling_hits
from ftw.map.training.finish import rows_of, screened
from ftw.map.training.growth import Grown, grow
from ftw.map.training.heldout import NOWHERE, HeldOutMatrix
from ftw.map.training.neutral import neutral_numbers, neutral_texts
from ftw.map.training.plan import token_ids
from ftw.map.training.prompts import words_of
from ftw.map.training.report import BlockFigures, LensFigures, Report, SteeringFigures
from ftw.map.training.session import Session
from ftw.map.training.sizes import size_table
from ftw.map.training.states import States
from ftw.map.training.steering import TEXTS
from ftw.map.training.study import BlockScore, HeldOut, held_out
from ftw.map.training.targets import NEGATIVE, UNSAID

VERSION = "2.0.0"


@dataclass(frozen=True)
class BlockOutcome:
    """The lenses of one block."""

    grown: Grown
    study: HeldOut
    calibrated: Calibrated
    rows: list[LensRow]
    tensors: LensTensors
    screen: ScreenReport


@dataclass(frozen=True)
class Outcome:
    """The lenses of a training."""

    primary: int
    blocks: Mapping[int, BlockOutcome]
    neutral: States
    """Plain text that set thresholds and measured false alarms."""

    @property
    def rows(self) -> list[LensRow]:
        """Every lens's row, block by block."""
        return [row for block in sorted(self.blocks) for row in self.blocks[block].rows]


def lenses_of(session: Session) -> Outcome:
    """The lenses that ship, from the fits that were made: grown where weak, calibrated, screened."""
    blocks, primary = session.blocks, session.primary
    parts = [neutral_texts("calibrate"), neutral_texts("measure")]
    texts = [text for part in parts for text in part]
    neutral = collect_text(session.model, texts, blocks)
    lengths = [len(ids) for ids in token_ids(session.model, texts)]
    numbers = neutral_numbers(lengths[: len(parts[0])], lengths[len(parts[0]) :])
    made = {block: _block(session, block, neutral, numbers, is_primary=block == primary) for block in blocks}
    return Outcome(primary, made, neutral)


def _block(session: Session, block: int, neutral: States, numbers: Tensor, *, is_primary: bool) -> BlockOutcome:
    fitter, exam, targets = session.fitter, session.exam, session.targets
    folds = [fitter.together(session.work, block, fold) for fold in range(session.config.folds)]
    shipped = fitter.together(session.work, block, None)
    grown = grow(fitter, block, folds, shipped, lambda n, terms: session.larger(n, terms, block), session.progress)
    study = held_out(exam, targets, block, grown.folds)
    home, plain = exam.home[study.rows], grown.shipped(neutral.at(block))
    matrix = HeldOutMatrix(
        terms=targets.terms,
        logits=study.logits,
        labels=study.labels,
        seen=targets.labels(home),
        home=torch.where(home < len(targets.terms), home, NOWHERE),
        group=exam.group[study.rows],
        template=exam.template[study.rows],
        kind=tuple(exam.kind[row] for row in study.rows.tolist()),
        neutral=plain,
        neutral_text=numbers,
        shipped=grown.shipped(exam.states.at(block, study.rows)),
    )
    calibrated = calibrate(matrix, false_alarms=session.config.false_alarms, seed=session.seed)
    n_pos, _ = targets.counts(exam.home[~exam.held])
    rows = rows_of(
        calibrated, session.pack, block, n_pos, primary=is_primary, trained=f"{VERSION}+{fitter.digest[:12]}"
    )
    fit_x = torch.cat([exam.states.at(block, ~exam.held), exam.plain.at(block)])
    fresh = torch.cat([exam.states.at(block, exam.held), neutral.at(block)])
    tensors, screen = screened(grown.shipped, fit_x, fresh, calibrated.threshold_logit)
    return BlockOutcome(grown, study, calibrated, _marked(session, rows, grown), tensors, screen)


def _marked(session: Session, rows: Sequence[LensRow], grown: Grown) -> list[LensRow]:
    """Rows that give the concept's role, and tell in their metrics how many rounds a lens grew, and if it is stuck."""
    out = []
    for row in rows:
        rounds = sum(row.term in one.terms for one in grown.rounds)
        told = {"growth_rounds": float(rounds), "stuck": float(row.term in grown.stuck)} if rounds else {}
        role = session.pack.records[row.term].role
        out.append(row.model_copy(update={"role": role, "metrics": {**row.metrics, **told}}))
    return out


def info_of(session: Session, outcome: Outcome) -> PackInfo:
    """The identity of the pack."""
    model, pack, config = session.model, session.pack, session.config
    best = outcome.blocks[outcome.primary]
    training = {
        "seed": session.seed,
        "prompts": len(session.reading.prompts),
        "texts": len(session.reading.plan.texts),
        "block": outcome.primary,
        "growth_rounds": [
            asdict(one) | {"terms": list(one.terms), "stuck": list(one.stuck)} for one in best.grown.rounds
        ],
        **asdict(config),
    }
    return PackInfo(
        name=f"{model.name}_{pack.name}",
        version=VERSION,
        model=ModelId(name=model.name, fingerprint=model.fingerprint, d_model=model.d_model, n_layers=model.n_layers),
        concept_pack=ConceptPackId(name=pack.name, version=pack.version, sha256=pack.sha256),
        sites=tuple(sorted(outcome.blocks)),
        training=training,
        provenance={"ftw": __version__, "torch": torch.__version__},
    )


def report_of(session: Session, outcome: Outcome, steering: Sequence[SteeringFigures], seconds: float) -> Report:
    """The report of the primary block's lenses."""
    exam, targets, block = session.exam, session.targets, outcome.primary
    own = outcome.blocks[block]
    subject = Subject(
        session.model, session.pack, session.carriers, targets, session.config, session.seed, session.progress
    )
    figures = own.calibrated.auroc_templates, own.calibrated.auroc_words
    templates, held, apart = contrasts(subject, session.reading, exam, block, own.study, figures)
    study, words = own.study, words_of(session.pack)
    taught = exam.taught(targets)
    strict = torch.where((study.labels == UNSAID) & taught, NEGATIVE, study.labels)
    home = exam.home[study.rows]
    told = home.where(taught[home.clamp(max=len(taught) - 1)], NOWHERE)
    hits = sibling_hits(study.logits, told, targets.siblings[1:])
    group = torch.unique(exam.group[study.rows], return_inverse=True)[1]
    return Report(
        model=f"{session.model.name} ({session.model.fingerprint[:8]})",
        concept_pack=f"{session.pack.name} {session.pack.version}",
        block=block,
        concepts=len(targets.terms),
        words=len(words),
        synsets=len({word.synset for word in words}),
        prompts=len(session.reading.prompts),
        plain_states=len(exam.plain),
        folds=session.config.folds,
        seed=session.seed,
        templates=templates,
        words_held=held,
        words_apart=apart,
        strict_words=macro(auroc(study.logits, strict)),
        sibling_top1=share_interval(hits, group, draws(int(group.max()) + 1, session.seed)),
        calibration=own.calibrated.figures,
        screen_recall=own.screen.recall,
        screen_pass_rate=own.screen.pass_rate,
        one_block_per_lens=_own_block(session.scores),
        blocks=[BlockFigures(s.block, s.words, s.templates) for s in session.scores],
        sizes=size_table(own.grown.folds[0], exam, targets, block, 0),
        lenses=[
            LensFigures(row.term, row.auroc_templates, row.auroc_words, row.fpr or 0.0, row.n_words) for row in own.rows
        ],
        steering=steering,
        steering_texts=TEXTS,
        seconds=seconds,
    )


def _own_block(scores: Sequence[BlockScore]) -> float:
    """The linear baseline where each lens reads the block that did best for it in fit carriers."""
    chosen = torch.stack([s.choice_per_lens.nan_to_num(-1) for s in scores]).argmax(0, keepdim=True)
    return macro(torch.stack([s.per_lens for s in scores]).gather(0, chosen)[0])

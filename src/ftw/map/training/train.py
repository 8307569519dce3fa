"""Trains a lens pack for a model: prompts, one reading of states, held-out study, fits, growth, calibration, report.

A training is done by one process, or its parts by several on one work folder; a killed one goes on where it stopped.
The rule of the file: the lenses that ship are fitted on all words but never on a held carrier; every figure about words
comes from lenses of the same making that did not see them.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftw.hat.classifiers.store import save_pack
from ftw.hat.classifiers.tripole import save_simplexes
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.collect import Progress, collect_text
from ftw.map.training.fits import TrainConfig
from ftw.map.training.neutral import neutral_texts
from ftw.map.training.outcome import Outcome, info_of, lenses_of, report_of
from ftw.map.training.prompts import Carriers
from ftw.map.training.report import Report, write_report
from ftw.map.training.session import Session
from ftw.map.training.steering import steer
from ftw.map.training.tripoles import train_simplexes
from ftw.map.training.work import WorkFolder, work_folders
from ftw.substrate.errors import StorageError
from ftw.substrate.model import Model

__all__ = ["Part", "TrainConfig", "merge", "train", "train_part"]


@dataclass(frozen=True)
class Part:
    """What one of several processes has done, and what is left for all of them."""

    texts: int
    """Texts that were run."""
    fits: int
    """Fits that were made."""
    batches_left: int
    fits_left: int | None
    """None until all states are there: what is fitted depends on the block that they choose."""

    @property
    def is_all(self) -> bool:
        """Whether only the end is left, which one process does alone."""
        return not self.batches_left and self.fits_left == 0


def train(
    model: Model,
    concept_pack: ConceptPack,
    out: Path,
    *,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
    config: TrainConfig | None = None,
    carriers: Carriers | None = None,
    work: Path | None = None,
    resume: bool = True,
    keep_work: bool = False,
    directions: Path | bool = True,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Train a lens for every concept, write the pack into `out`, and give the report that lies beside it.

    `blocks` are the candidates to read (default: all); the one that reads held-out words best is taken. What was done
    before under the same model, pack, seed and configuration is taken from `work` (default: `OUT.training`), which is
    removed at the end. `directions` False makes none, a folder takes over those of the pack there. The same model,
    pack, seed and machine give the same pack, however often the training was killed. Raises SiteError for a block that
    the model does not have, ConfigError for a work folder of another training, StorageError, and what the model raises.
    """
    began = clock()
    session = Session.open(
        model,
        concept_pack,
        _work(out, work),
        seed=seed,
        blocks=blocks,
        config=config or TrainConfig(),
        carriers=carriers,
        resume=resume,
        progress=progress,
    )
    session.read()
    session.fit()
    outcome = lenses_of(session)
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    report = _write(session, outcome, fresh, directions, lambda: clock() - began)
    _swap(fresh, out)
    if not keep_work:
        session.work.remove()
    return report


def train_part(
    model: Model,
    concept_pack: ConceptPack,
    out: Path,
    *,
    part: int,
    of: int,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
    config: TrainConfig | None = None,
    carriers: Carriers | None = None,
    work: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Part:
    """The share `part` of `of` of a training: its batches of texts and, once all states are there, its fits.

    Batches and fits are the same for every number of parts, so the pack is the same, bit for bit, as from one process
    on the same kind of machine. `train` then does what is left. Raises as `train`.
    """
    session = Session.open(
        model,
        concept_pack,
        _work(out, work),
        seed=seed,
        blocks=blocks,
        config=config or TrainConfig(),
        carriers=carriers,
        resume=True,
        progress=progress,
        writer=f"{part}-of-{of}",
    )
    texts = session.read(part, of)
    left = len(session.store.missing())
    if left:
        return Part(texts, 0, left, None)
    fits = session.fit(part, of)
    return Part(texts, fits, 0, len(session.missing_fits()))


def merge(
    model: Model,
    concept_pack: ConceptPack,
    out: Path,
    folders: Sequence[Path],
    *,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
    config: TrainConfig | None = None,
    carriers: Carriers | None = None,
    work: Path | None = None,
) -> Part:
    """Take over what the work folders of other machines hold. Gives what was taken and what is left.

    Raises ConfigError for a folder of another training, PackError for states that were damaged on the way.
    """
    others = work_folders(folders)
    session = Session.open(
        model,
        concept_pack,
        _work(out, work),
        seed=seed,
        blocks=blocks,
        config=config or TrainConfig(),
        carriers=carriers,
        resume=True,
        writer="merged",
    )
    taken = sum(session.take(other) for other in others)
    left = len(session.store.missing())
    fits = sum(session.work.take_fits(other) for other in others)
    return Part(taken, fits, left, None if left else len(session.missing_fits()))


def _write(
    session: Session, outcome: Outcome, folder: Path, directions: Path | bool, seconds: Callable[[], float]
) -> Report:
    """Everything that the pack's folder holds."""
    tensors = {block: each.tensors for block, each in outcome.blocks.items()}
    save_pack(folder, info_of(session, outcome), outcome.rows, tensors, storage="float32")
    if session.pack.simplexes:
        trained = train_simplexes(
            session.model,
            session.pack.simplexes,
            session.carriers,
            session.exam.plain,
            lambda block: collect_text(session.model, neutral_texts("calibrate"), [block]).at(block),
            primary=outcome.primary,
            seed=session.seed,
            progress=session.progress,
        )
        save_simplexes(folder, trained.rows, trained.weight, trained.bias)
    steering = []
    if directions is not False:
        known = directions if isinstance(directions, Path) else None
        steering = steer(
            session.model,
            session.pack,
            session.targets.terms,
            folder,
            known=known,
            seed=session.seed,
            progress=session.progress,
        )
    report = report_of(session, outcome, steering, seconds())
    write_report(report, folder)
    return report


def _work(out: Path, work: Path | None) -> WorkFolder:
    return WorkFolder.beside(out) if work is None else WorkFolder(work)


def _swap(fresh: Path, out: Path) -> None:
    """Put the finished folder where the empty one was."""
    try:
        if out.is_dir():
            out.rmdir()
        fresh.rename(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be put in place: {error.strerror}. The pack lies in {fresh}") from error

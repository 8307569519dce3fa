"""One training as its steps see it: the model, the prompts, the states read so far, the fits made so far.

The rule of the file: a step that was done before is not done again, whoever did it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.collect import Progress, fill, key_of
from ftw.map.training.fits import Fitter, TrainConfig
from ftw.map.training.negatives import Kin
from ftw.map.training.neutral import neutral_texts
from ftw.map.training.prompts import Carriers, bundled_carriers, prompts_of, words_of
from ftw.map.training.reading import Reading
from ftw.map.training.sentences import corpus_of
from ftw.map.training.states import StateStore
from ftw.map.training.study import BlockScore, Exam, best_block, best_per_depth, score_blocks
from ftw.map.training.targets import Targets
from ftw.map.training.work import Job, WorkFolder
from ftw.substrate.errors import SiteError
from ftw.substrate.manifest import canonical_json
from ftw.substrate.model import Model

PLAIN_TEXTS = 60
"""Composed plain texts that fits see beside the written ones."""


@dataclass
class Session:
    """What the steps of one training share."""

    model: Model
    pack: ConceptPack
    targets: Targets
    carriers: Carriers
    config: TrainConfig
    seed: int
    reading: Reading
    work: WorkFolder
    store: StateStore
    progress: Progress

    @classmethod
    def open(
        cls,
        model: Model,
        pack: ConceptPack,
        work: WorkFolder,
        *,
        seed: int,
        blocks: Sequence[int] | None,
        config: TrainConfig,
        carriers: Carriers | None,
        resume: bool,
        writer: str = "0-of-1",
        progress: Progress = lambda what, done, total: None,
    ) -> "Session":
        """Plan the training and open its work folder. Raises SiteError, ConfigError, StorageError, PromptTooLong."""
        candidates = _candidates(model, blocks)
        carriers = carriers or bundled_carriers()
        corpus = corpus_of(pack, carriers, per_word=config.per_word, held_per_word=config.held_per_word, seed=seed)
        plain = (*carriers.plain.fit, *neutral_texts("fit", PLAIN_TEXTS))
        reading = Reading.of(model, corpus.words, corpus.prompts, plain, len(candidates))
        if not resume:
            work.remove()
        store = StateStore.open(work.states, key_of(model, reading.plan, candidates), writer)
        return cls(model, pack, Targets.of(pack), carriers, config, seed, reading, work, store, progress)

    def read(self, part: int = 0, of: int = 1) -> int:
        """Run what is missing of a part of the texts; gives how many ran."""
        return fill(self.model, self.reading.plan, self.store, self.progress, part=part, of=of)

    def take(self, other: WorkFolder) -> int:
        """Take over another work folder's states; gives how many batches."""
        theirs = StateStore.open(other.states, self.store.key)
        return self.store.merge(theirs, self.reading.plan.batches)

    @cached_property
    def exam(self) -> Exam:
        """The states with what is needed to split them. Raises StorageError while some are missing."""
        return self.reading.exam(self.store.states(), self.targets, self.config.folds, self.seed)

    @cached_property
    def scores(self) -> list[BlockScore]:
        """How each candidate block does with cross-validated probes."""
        candidates = self.store.key.blocks

        def seen(done: int) -> None:
            self.progress("comparing blocks", done, len(candidates))

        return score_blocks(self.exam, self.targets, candidates, seen)

    @property
    def primary(self) -> int:
        """The block whose lenses are read where nobody says otherwise."""
        return best_block(self.scores)

    @property
    def blocks(self) -> list[int]:
        """Every block that gets lenses, ascending."""
        depth = best_per_depth(self.scores, self.model.n_layers).values() if self.config.per_depth else ()
        return sorted({self.primary, *depth})

    @cached_property
    def fitter(self) -> Fitter:
        """What makes the fits."""
        return Fitter(self.exam, self.targets, Kin.of(self.pack, self.targets), self.config, self.seed, self.origin)

    @property
    def origin(self) -> str:
        """Digest of all that the fits follow from: states, labels, what is held out. Hex."""
        key = self.store.key.model_dump(mode="json")
        return hashlib.sha256(canonical_json([key, self.pack.sha256, self.seed])).hexdigest()

    def missing_fits(self) -> list[Job]:
        """Fits that nobody has made yet."""
        return [job for job in self.fitter.jobs(self.blocks) if not self.work.has(job, self.fitter.digest)]

    def fit(self, part: int = 0, of: int = 1) -> int:
        """Make what is missing of a part of the fits; gives how many were made."""
        jobs = self.fitter.jobs(self.blocks)
        mine = [job for job in jobs[part::of] if not self.work.has(job, self.fitter.digest)]
        for number, job in enumerate(mine, 1):
            what = f"fitting {number} of {len(mine)}, {job.name.replace('-', ' ')}"
            fitted = self.fitter.do(job, lambda done, total, what=what: self.progress(what, done, total))  # type: ignore[misc]
            self.work.save(job, self.fitter.digest, fitted)
        return len(mine)

    def larger(self, number: int, terms: Sequence[str], block: int) -> Exam | None:
        """The exam with the words of `terms` said in more carriers; None if there are no more carriers.

        Their states are read once, into a store of their own.
        """
        below = {home for term in terms for home in (term, *self.pack.descendants(term))}
        words = words_of(self.pack)
        per_word = self.config.per_word * (number + 1)
        prompts = prompts_of(words, self.carriers, per_word=per_word, held_per_word=0, seed=self.seed)
        old = {(prompt.carrier, self.reading.words[prompt.word].text) for prompt in self.reading.prompts}
        fresh = [p for p in prompts if words[p.word].home in below and (p.carrier, words[p.word].text) not in old]
        if not fresh:
            return None
        reading = Reading.of(self.model, self.reading.words, fresh, (), 1)
        store = StateStore.open(self.work.growth(reading.plan.digest, block), key_of(self.model, reading.plan, [block]))
        fill(self.model, reading.plan, store, self.progress)
        more = reading.exam(store.states(), self.targets, self.config.folds, self.seed)
        return self.exam.with_more(more, block)


def _candidates(model: Model, blocks: Sequence[int] | None) -> list[int]:
    if blocks is None:
        return list(range(model.n_layers))
    bad = [block for block in blocks if not 0 <= block < model.n_layers]
    if bad or not blocks:
        raise SiteError(f"no such block: {bad or 'none named'}. This model has blocks 0..{model.n_layers - 1}")
    return sorted(set(blocks))

"""The fits that a training consists of: which there are, and how each is made.

For every block that gets lenses there is one fit on all words, and one for each fold of words that it leaves out; the
separate form cuts each into chunks of lenses.
The rule of the file: a fit follows from its job, the states, the configuration and the seed, so any process may do it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ftw.map.training.fit import FitConfig, Fitted, Lenses, fit_lenses, refit_heads
from ftw.map.training.mlps import MlpConfig, Mlps, chunks_of, fit_mlps
from ftw.map.training.negatives import Kin
from ftw.map.training.study import Exam
from ftw.map.training.targets import Targets
from ftw.map.training.work import Job, WorkFolder
from ftw.substrate.errors import ConfigError
from ftw.substrate.manifest import canonical_json

Form = Literal["shared", "separate"]
"""`shared`: lenses share their first layer; `separate`: each is an MLP of its own."""
VALIDATED = 8
"""Of a concept's synsets, each eighth is validated on where lenses are fitted separately."""


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
    form: Form = "shared"
    fit: FitConfig = field(default_factory=FitConfig)
    mlp: MlpConfig = field(default_factory=MlpConfig)
    per_depth: bool = False
    """Whether the best block of each third of the depth gets lenses too."""
    false_alarms: float = 0.01
    """Share of plain-text states that may read at or above a lens's threshold."""
    target: float = 0.95
    """AUROC on words held out below which a lens is given more prompts."""
    growth: int = 2
    """Rounds of that, at most. 0: none."""

    def __post_init__(self) -> None:
        if self.per_word < 1 or self.held_per_word < 1 or self.folds < 2:
            raise ConfigError(
                f"per_word {self.per_word}, held_per_word {self.held_per_word}, folds {self.folds}: "
                "at least one carrier of each part and two folds"
            )
        if not 0 < self.false_alarms <= 0.5:
            raise ConfigError(f"false alarms are {self.false_alarms}: a share above 0 and at most 0.5")


@dataclass(frozen=True)
class Fitter:
    """Makes the fits of one training."""

    exam: Exam
    targets: Targets
    kin: Kin
    config: TrainConfig
    seed: int
    origin: str
    """Digest of the states and prompts that everything follows from."""

    @property
    def digest(self) -> str:
        """What a fit follows from, apart from its job. Hex."""
        told = [self.origin, self.config.form, asdict(self.config.fit), asdict(self.config.mlp)]
        return hashlib.sha256(canonical_json([*told, self.config.folds, self.seed])).hexdigest()

    def jobs(self, blocks: Sequence[int]) -> list[Job]:
        """Every fit that lenses at these blocks need."""
        chunks = [None] if self.config.form == "shared" else chunks_of(self.targets)
        return [
            Job(f"block{block}-{'all' if fold is None else f'fold{fold}'}{_part(at, chunk)}", block, fold, chunk)
            for block in blocks
            for fold in (*range(self.config.folds), None)
            for at, chunk in enumerate(chunks)
        ]

    def do(self, job: Job, progress: Callable[[int, int], None]) -> Fitted:
        """Make one fit."""
        seed = self.seed + (0 if job.without is None else 1 + job.without)
        x, home = self.exam.fit_set(job.block, self.targets, job.without)
        if job.chunk is None:
            return fit_lenses(x, home, self.targets, self.config.fit, seed, progress)
        watched = self.watched(job.without, len(x))
        return fit_mlps(x, home, watched, self.targets, self.kin, job.chunk, self.config.mlp, seed, progress)[0]

    def again(self, fitted: Fitted, exam: Exam, job: Job, which: Bool[Tensor, " lens"], seed: int) -> Fitted:
        """The lenses of the mask fitted anew on an exam with more prompts; the others may come out as they like."""
        x, home = exam.fit_set(job.block, self.targets, job.without)
        if isinstance(fitted, Lenses):
            return refit_heads(fitted, x, home, self.targets, self.config.fit, seed)
        chunk = tuple(at for at in range(len(which)) if bool(which[self._family(at)].any()))
        watched = Fitter(exam, self.targets, self.kin, self.config, self.seed, "").watched(job.without, len(x))
        part, _ = fit_mlps(
            x, home, watched, self.targets, self.kin, chunk, self.config.mlp, seed, lambda done, total: None
        )
        out = {name: tensor.clone() for name, tensor in vars(fitted).items()}
        for name, tensor in vars(part).items():
            out[name][list(chunk)] = tensor
        return Mlps(**out)

    def together(self, work: WorkFolder, block: int, without: int | None) -> Fitted:
        """All lenses of a block from the fits that were kept."""
        jobs = [job for job in self.jobs([block]) if job.without == without]
        parts = [work.load(job, self.digest) for job in jobs]
        if len(parts) == 1 and jobs[0].chunk is None:
            return parts[0]
        return Mlps.join([p for p in parts if isinstance(p, Mlps)], [job.chunk or () for job in jobs])

    def watched(self, without: int | None, n: int) -> Bool[Tensor, " state"]:
        """Which of the `n` states of a fit are validated on: those of some synsets of every concept."""
        rows = self.exam.fit_rows(without)
        group, home = self.exam.group[rows], self.exam.home[rows]
        chosen: set[int] = set()
        seen: dict[int, list[int]] = {}
        for own, at in dict.fromkeys(zip(group.tolist(), home.tolist(), strict=True)):
            mine = seen.setdefault(at, [])
            mine.append(own)
            if len(mine) % VALIDATED == VALIDATED // 2:
                chosen.add(own)
        out = torch.zeros(n, dtype=torch.bool)
        out[: len(group)] = torch.isin(group, torch.tensor(sorted(chosen), dtype=torch.long))
        return out

    def _family(self, lens: int) -> Int[Tensor, " sibling"]:
        return torch.tensor(self.targets.siblings[int(self.targets.group_of[lens])])


def _part(at: int, chunk: tuple[int, ...] | None) -> str:
    return "" if chunk is None else f"-part{at}"

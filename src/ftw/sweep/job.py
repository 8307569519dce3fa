"""Job: everything that decides one sweep of one model, as one object that a worker process reads from a file.

The rule of the file: what a person can choose stands here once. A worker gets the whole object or none of it.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from ftw.substrate.config import ModelSpec, Strict
from ftw.substrate.errors import ConfigError, StorageError
from ftw.substrate.manifest import write_atomically
from ftw.sweep.head import Precision
from ftw.sweep.milestones.thresholds import Thresholds

Legacy = Literal["seed", "extended", "none"]
"""`seed`: the legacy files in their first form (47 and 57 columns). `extended`: in their last. `none`: none."""
FILE = "job.json"
"""What a job is called in its run's folder."""


class Job(Strict):
    """One sweep of one model."""

    model: ModelSpec
    """What is loaded, where, and in which dtype."""
    battery: str = Field(min_length=1)
    """A bundled battery's name, or a file."""
    folder: Path
    """Where this model's files go."""
    lenses: tuple[str, ...] | None = None
    """By name; None: the logit lens, the norm views that the model has, and fitted lenses that were accepted."""
    folders: dict[str, Path] = Field(default_factory=dict)
    """Folders of fitted lenses, by the lens's name. What is not here is looked for, see `ftw.sweep.shelf`."""
    positions: Literal["last", "all"] = "all"
    """`all` reads every position of every prompt, `last` the last one of each."""
    precision: Precision = "exact"
    """See `ftw.sweep.head`."""
    k: int = Field(20, ge=2, le=1000)
    """How many of the best tokens are listed. A margin over the second takes at least 2."""
    thresholds: Thresholds = Thresholds()
    """What milestones and audits compare with."""
    heldout: str | None = None
    """Text that temperatures are fitted on: a file, a folder, a hub data set, or `self`; None: they are not."""
    legacy: Legacy = "seed"
    """Which of the legacy files are written."""
    seed: int = Field(0, ge=0)
    """Of everything that is drawn: resamples, permutations, audits."""
    threads: int | None = Field(None, ge=1)
    """Processor threads; None leaves it to PyTorch. Sums round differently with another number."""
    resume: bool = False
    """Whether passes that an earlier run finished are taken from the cache."""
    keep_states: bool = False
    """Whether the residual stream at the positions read is kept beside the table."""
    cache_dir: Path | None = None
    """Where finished passes and fitted lenses lie; None: nowhere."""
    command: str = ""
    """The command line that makes this run again."""

    def save(self, file: Path) -> None:
        """Writes the job for a worker. Raises StorageError."""
        write_atomically(file, self.model_dump_json(indent=1).encode() + b"\n")

    @classmethod
    def load(cls, file: Path) -> "Job":
        """The job in a file. Raises StorageError where it cannot be read, ConfigError that names the key."""
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"{file} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{file} holds no job: it is a {type(values).__name__}, not an object")
        return cls.read(values, source=str(file))

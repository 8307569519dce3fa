"""The work folder of a training: what was read and fitted, so that a killed run goes on and shards come together.

It lies beside the pack that is being made, as `NAME.training`: states/ (see `states`), growth-…/ (states of added
prompts), fits/ (one file per fit). A fit is known by its name and by a digest of all that it follows from.
The rule of the file: what is found under another digest counts as not there.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ftw.map.training.fit import Fitted, Lenses
from ftw.map.training.mlps import Mlps
from ftw.substrate.errors import ConfigError, PackError, StorageError
from ftw.substrate.manifest import write_atomically

SUFFIX = ".training"


@dataclass(frozen=True, slots=True)
class Job:
    """One fit that a training is made of. Jobs do not depend on each other."""

    name: str
    block: int
    without: int | None
    """The fold whose words it leaves out; None fits all words."""
    chunk: tuple[int, ...] | None = None
    """The lenses that it fits; None for all."""


@dataclass(frozen=True)
class WorkFolder:
    """Where a training keeps what it has done."""

    path: Path

    @classmethod
    def beside(cls, out: Path) -> "WorkFolder":
        """The work folder of the pack that is to stand in `out`."""
        return cls(out.with_name(out.name + SUFFIX))

    @property
    def states(self) -> Path:
        """Where the states of the prompts are."""
        return self.path / "states"

    def growth(self, plan: str, block: int) -> Path:
        """Where the states of the prompts that a growth round adds are, by the digest of their plan."""
        return self.path / f"growth-{plan[:12]}-block{block}"

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def has(self, job: Job, digest: str) -> bool:
        """Whether a fit is done."""
        try:
            with safe_open(self._file(job), framework="pt") as stored:
                return bool((stored.metadata() or {}).get("digest") == digest)
        except (OSError, SafetensorError):
            return False

    def save(self, job: Job, digest: str, fitted: Fitted) -> None:
        """Keep a fit, in one step. Raises StorageError."""
        tensors = {name: tensor.contiguous() for name, tensor in tensors_of(fitted).items()}
        try:
            self._file(job).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be made: {error.strerror}") from error
        write_atomically(self._file(job), save(tensors, metadata={"digest": digest}))

    def load(self, job: Job, digest: str) -> Fitted:
        """A fit that was kept. Raises PackError where it is not there or damaged."""
        if not self.has(job, digest):
            raise PackError(f"{self._file(job)} is not there or damaged: run the same command again")
        with safe_open(self._file(job), framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a dict)
        return Lenses(**tensors) if "first" in tensors else Mlps(**tensors)

    def take_fits(self, other: "WorkFolder") -> int:
        """Copy the fits that `other` has and this one lacks; gives how many."""
        done = 0
        for file in sorted((other.path / "fits").glob("*.safetensors")):
            mine = self.path / "fits" / file.name
            if not mine.exists():
                mine.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(mine, file.read_bytes())
                done += 1
        return done

    def _file(self, job: Job) -> Path:
        return self.path / "fits" / f"{job.name}.safetensors"


def work_folders(names: Iterable[Path]) -> list[WorkFolder]:
    """The work folders that are meant: `my-lenses` and `my-lenses.training` both. Raises ConfigError for one that is
    not there.
    """
    out = []
    for name in names:
        found = name if (name / "states").is_dir() else WorkFolder.beside(name).path
        if not (found / "states").is_dir():
            raise ConfigError(f"{name} is no work folder of a training: name the folder that a shard wrote ({found})")
        out.append(WorkFolder(found))
    return out


def tensors_of(fitted: Fitted) -> dict[str, Tensor]:
    """The tensors that a fit consists of, by name."""
    if not isinstance(fitted, Lenses | Mlps):
        raise ConfigError(f"{type(fitted).__name__} is no fit that can be kept")
    return {each.name: getattr(fitted, each.name) for each in fields(fitted)}


def mixed(old: Fitted, new: Fitted, which: Tensor) -> Fitted:
    """`new` for the lenses of the mask `which`, `old` for the others. What all lenses share is the same in both."""
    mine, other, out = tensors_of(old), tensors_of(new), {}
    for name, tensor in mine.items():
        if tensor.shape[0] == len(which) and not name.startswith("first"):
            out[name] = torch.where(which.view(-1, *[1] * (tensor.ndim - 1)), other[name], tensor)
        else:
            out[name] = tensor
    return type(old)(**out)

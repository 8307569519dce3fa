"""The work folder: what is kept under another digest, or damaged, counts as not there."""

from pathlib import Path

import pytest
import torch

from ftw.map.training.fit import Lenses
from ftw.map.training.work import Job, WorkFolder, tensors_of
from ftw.substrate.errors import ConfigError, PackError, StorageError

JOB = Job("block1-all", 1, None)
LENSES = Lenses(torch.ones(2, 4), torch.zeros(2), torch.ones(3, 2), torch.zeros(3))


def test_a_fit_is_found_under_its_digest_alone(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "w")
    assert not work.has(JOB, "a")
    work.save(JOB, "a", LENSES)
    assert work.has(JOB, "a")
    assert not work.has(JOB, "b")
    again = work.load(JOB, "a")
    assert all(torch.equal(tensor, tensors_of(LENSES)[name]) for name, tensor in tensors_of(again).items())
    with pytest.raises(PackError, match="is not there or damaged: run the same command again"):
        work.load(JOB, "b")


def test_a_fit_that_was_cut_off_counts_as_not_there(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "w")
    work.save(JOB, "a", LENSES)
    file = tmp_path / "w" / "fits" / "block1-all.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    assert not work.has(JOB, "a")


def test_a_work_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        WorkFolder(tmp_path / "file").save(JOB, "a", LENSES)


def test_what_is_no_fit_cannot_be_kept(tmp_path: Path) -> None:
    class Other:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def tensors(self, screen: object, screen_threshold: object) -> None:
            return None

    with pytest.raises(ConfigError, match="Other is no fit that can be kept"):
        tensors_of(Other())  # type: ignore[arg-type]

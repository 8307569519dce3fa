"""A job is one object: what is written is what a worker reads, and a bad value is named."""

from pathlib import Path

import pytest

from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import ConfigError, StorageError
from ftw.sweep.job import Job
from ftw.sweep.milestones.thresholds import Thresholds


def other(folder: Path) -> Job:
    """A job in which nothing has its default."""
    return Job(
        model=ModelSpec(name="org/name", revision="main", dtype="bfloat16", device="cuda:1", trust_remote_code=True),
        battery="facts.toml",
        folder=folder,
        lenses=("logit", "tuned"),
        folders={"tuned": folder / "t"},
        positions="last",
        precision="fast",
        k=7,
        thresholds=Thresholds(copy_p=0.5),
        heldout="self",
        legacy="extended",
        seed=3,
        threads=2,
        resume=True,
        keep_states=True,
        cache_dir=folder / "c",
        command="ftw sweep org/name",
    )


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    job = other(tmp_path)
    defaults = Job(model=ModelSpec(name="x"), battery="y", folder=tmp_path / "z").model_dump()
    assert all(value != defaults[name] for name, value in job.model_dump().items())
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job


def test_a_job_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"job.json cannot be read: No such file"):
        Job.load(tmp_path / "job.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds no job: it is a list"),
        ('{"model": {"name": "a"}, "battery": "b", "folder": "c", "postions": "all"}', "did you mean positions"),
        ('{"model": {"name": "a"}, "battery": "b", "folder": "c", "k": 1}', "k: .*greater than or equal to 2"),
    ],
)
def test_a_file_that_is_no_job_is_an_error_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Job.load(tmp_path / "job.json")

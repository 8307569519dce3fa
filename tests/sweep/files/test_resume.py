"""A sweep that is killed goes on where it was, and gives the table that it would have given."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ftw.substrate.config import ModelSpec
from ftw.substrate.model import load
from ftw.sweep.files.cache import PassCache
from ftw.sweep.files.parquet import read_rows
from ftw.sweep.job import Job
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.table import SweepTable

PROMPTS = ["a" * length for length in range(1, 9)]
SWEPT = """
import os, signal, sys
from pathlib import Path
from ftw.substrate.model import load
from ftw.sweep.files.cache import PassCache
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep

model = load("tiny")
sweep = Sweep(model, [view(model, "raw")])

def progress(done, total):
    if done >= total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

prompts = ["a" * length for length in range(1, 9)]
sweep.run(prompts, budget=1, cache=PassCache(Path(sys.argv[1]), sweep.scope), progress=progress)
"""


def assert_same(a: SweepTable, b: SweepTable) -> None:
    assert list(a.columns) == list(b.columns)
    for name, column in a.columns.items():
        assert column.dtype == b[name].dtype
        assert column.tobytes() == b[name].tobytes(), name
    assert (a.items, a.pieces) == (b.items, b.pieces)


def test_a_sweep_that_was_killed_is_resumed_with_identical_rows(tmp_path: Path) -> None:
    """SIGKILL in the middle; what was finished is not run again, and nothing shows in the table."""
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", SWEPT, str(tmp_path)], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    model = load("tiny")
    sweep = Sweep(model, [view(model, "raw")])
    cache = PassCache(tmp_path, sweep.scope)
    resumed = sweep.run(PROMPTS, budget=1, cache=cache)
    assert min(cache.hits, cache.misses) >= 3
    assert cache.hits + cache.misses == len(PROMPTS)
    assert_same(resumed, sweep.run(PROMPTS, budget=1))


def test_a_pass_that_was_damaged_is_run_again_and_said(tmp_path: Path) -> None:
    model = load("tiny")
    sweep = Sweep(model)
    whole = sweep.run(PROMPTS, budget=1, cache=PassCache(tmp_path, sweep.scope))
    some = sorted(tmp_path.glob("*/*"))[0]
    some.write_bytes(some.read_bytes()[:-1])
    cache = PassCache(tmp_path, sweep.scope)
    assert_same(sweep.run(PROMPTS, budget=1, cache=cache), whole)
    assert (cache.hits, cache.misses, len(cache.notes)) == (len(PROMPTS) - 1, 1, 1)


def test_another_lens_or_k_takes_nothing_up(tmp_path: Path) -> None:
    model = load("tiny")
    first = Sweep(model, k=3)
    first.run(PROMPTS, cache=PassCache(tmp_path, first.scope))
    for other in (Sweep(model, k=4), Sweep(model, [view(model, "raw")], k=3)):
        cache = PassCache(tmp_path, other.scope)
        table = other.run(PROMPTS, cache=cache)
        assert cache.hits == 0
        np.testing.assert_array_equal(table["layer"], other.run(PROMPTS)["layer"])


@pytest.mark.slow
def test_a_worker_that_was_killed_is_resumed_with_identical_rows(tmp_path: Path) -> None:
    """The same through the worker that the command line starts, on the bundled model and battery."""

    def start(name: str, cache: str, *, resume: bool) -> subprocess.Popen[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        job = Job(
            model=ModelSpec.of("reference"), battery="reference", folder=folder, lenses=("logit",), threads=1,
            cache_dir=tmp_path / cache, resume=resume, legacy="none",
        )  # fmt: skip
        job.save(folder / "job.json")
        command = [sys.executable, "-m", "ftw.sweep.worker", str(folder / "job.json")]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    assert start("whole", "other", resume=False).wait() == 0
    process = start("killed", "cache", resume=False)
    passes = tmp_path / "cache" / "sweep-passes"
    deadline = time.monotonic() + 120
    while not list(passes.glob("*/*.pass")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "rows.parquet").exists()
    before = {file: file.stat().st_mtime_ns for file in passes.glob("*/*.pass")}
    assert start("resumed", "cache", resume=True).wait() == 0
    assert_same(read_rows(tmp_path / "resumed"), read_rows(tmp_path / "whole"))
    used = [file for file, mtime in before.items() if file.stat().st_mtime_ns > mtime]
    assert used

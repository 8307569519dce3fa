"""The worker: one job, one model, one process. `python -m ftw.sweep.worker JOB.json`.

Loads the model where it fits, opens its lenses, sweeps, and writes the run's files: rows first, so that nothing that
comes after can lose them. Progress goes to stdout as lines of JSON, everything else that is printed to stderr.

The rule of the file: `run.json` tells how a job stands at every moment: running, ok, failed or partial.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from ftw.substrate.config import Settings
from ftw.substrate.errors import ConfigError, FtwError, ModelError, StorageError
from ftw.substrate.model import Model, display_name, load
from ftw.sweep.audits.provenance import capture
from ftw.sweep.battery import Battery
from ftw.sweep.cost import HELD_OUT, held, place
from ftw.sweep.files.cache import PassCache
from ftw.sweep.files.parquet import rows_sha256, write_rows
from ftw.sweep.files.rundir import SCHEMA, write_document
from ftw.sweep.files.states import StateFolder
from ftw.sweep.fitting.corpus import OWN, open_corpus
from ftw.sweep.fitting.rows import heldout_rows
from ftw.sweep.job import Job
from ftw.sweep.legacy import Everywhere, export, failed, read_everywhere
from ftw.sweep.many import Story
from ftw.sweep.run import Sweep
from ftw.sweep.shelf import Shelf, homes, open_lenses
from ftw.sweep.study import Study, study
from ftw.sweep.table import SweepTable

PASSES = "sweep-passes"
"""The folder of finished passes, in the cache."""
LEGACY = "legacy"
"""The folder of the legacy files, in the run's."""
TEXTS, LENGTH = 128, 128
"""Texts that are read for held-out states (a tenth of them is), tokens of a window."""
KEPT = 2 << 30
"""Bytes of finished passes that are kept after a run; the longest unused go first."""


class Lines:
    """Tells a job's story as lines of JSON."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def step(self, what: str, done: int, total: int) -> None:
        """So many of so many steps of this are done."""
        self._write({"step": what, "done": done, "total": total})

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self._write({"note": text})

    def _write(self, event: dict[str, Any]) -> None:
        try:
            self._out.write(json.dumps(event) + "\n")
            self._out.flush()
        except BrokenPipeError:  # whoever asked is gone: there is nobody to go on for
            raise KeyboardInterrupt from None


def main(argv: Sequence[str]) -> int:
    """Runs the job in a file. Gives the exit code: 0 done, 1 or 2 failed (see `run.json`), 130 called off."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs are started deaf to the first
        signal.signal(number, _call_off)
    job = None
    try:
        with _own_stdout() as out:
            job = Job.load(Path(argv[0]))
            run_job(job, Lines(out))
    except KeyboardInterrupt:
        return 130
    except FtwError as error:
        sys.stderr.write(f"{error if job is None else _here(job, error)}\n")
        return error.exit_code
    return 0


def run_job(
    job: Job,
    story: Story,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ticks: Callable[[], float] = time.monotonic,
) -> None:
    """One sweep, its files in the job's folder. Whatever ends it is in `run.json`, and raised again."""
    began = ticks()
    started = clock()
    head = {
        "schema": SCHEMA,
        "command": job.command,
        "started": started.isoformat(timespec="seconds"),
        "job": job.model_dump(mode="json"),
    }

    def tell(status: str, document: dict[str, Any], error: BaseException | None = None) -> None:
        told = None if error is None else {"type": type(error).__name__, "message": _here(job, error)}
        seconds = round(ticks() - began, 3)
        write_document(job.folder, {**document, **head, "status": status, "error": told, "seconds": seconds})

    model = {"model": {"name": display_name(job.model.name)}}
    kept: dict[str, Any] = {}
    tell("running", model)
    try:
        document = _swept(job, started, story, kept)
    except BaseException as error:
        status = "partial" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(StorageError):  # the first error is the one to tell; whoever waits for us tells it then
            tell(status, {**model, **kept}, error)
            if job.legacy != "none":
                failed(job.folder / LEGACY, model["model"]["name"], error, status=status)
        raise
    tell("ok", {**document, **kept})


def _here(job: Job, error: BaseException) -> str:
    """An error in words, files in the run's folder by their names in it: the folder itself changes its name."""
    return str(error).replace(f"{job.folder}{os.sep}", "") or type(error).__name__


def _swept(job: Job, began: datetime, story: Story, kept: dict[str, Any]) -> dict[str, Any]:
    """The work of a job; gives the run's document. What lies on the disk stands in `kept`, also where an error ends it.

    Raises ModelError where memory runs out.
    """
    battery = Battery.read(job.battery)
    try:
        with settled(job):
            found, everywhere, notes = _studied(job, battery, story, kept)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelError(
            f"memory ran out while {job.model.name} was swept: use --dtype bfloat16, --device map, or a smaller model; "
            "--resume takes up the passes that were finished"
        ) from error
    if job.legacy != "none":
        story.step("Writing legacy files", 0, 0)
        export(found, job.folder / LEGACY, schema=job.legacy, began=began, everywhere=everywhere)
    return {**found.document(), "notes": list(notes)}


def _studied(
    job: Job, battery: Battery, story: Story, kept: dict[str, Any]
) -> tuple[Study, Everywhere | None, tuple[str, ...]]:
    """The table, written, and what is concluded from it; rows that only the legacy files show; notes on the lenses."""
    sweep, shelf = _opened(job, story)
    for note in shelf.notes:
        story.note(note)
    cache = _passes(job, sweep, story)
    keep = None
    if job.keep_states:
        keep = StateFolder(job.folder / "states", model=sweep.model.name, fingerprint=sweep.model.fingerprint)

    heldout = _heldout(job, sweep.model, story)

    def progress(done: int, total: int) -> None:
        story.step("Reading layers", done, total)

    named = {"name": battery.name, "version": battery.version, "digest": battery.digest}
    made = capture(sweep.model, sweep.all_lenses, seed=job.seed, battery=named)

    def write(table: SweepTable) -> None:
        write_rows(job.folder, table, made)
        prompts = {"prompts": len(table.items), "of": len(battery.prompts())}
        kept["rows"] = {"sha256": rows_sha256(job.folder), "n": len(table), **prompts}

    def rescue(table: SweepTable) -> None:
        with suppress(StorageError, MemoryError):  # what ended the sweep is the error to tell
            write(table)
            story.note(f"the rows of {len(table.items)} finished prompts of {kept['rows']['of']} are kept")

    table = sweep.run(battery, positions=job.positions, progress=progress, cache=cache, keep=keep, rescue=rescue)
    if cache is not None:
        for note in (*cache.notes, *([f"{cache.hits} finished passes were taken up"] if cache.hits else [])):
            story.note(note)
        with suppress(StorageError):
            cache.prune(KEPT)
    story.step("Writing rows", 0, 0)
    write(table)
    story.step("Studying", 0, 0)
    found = study(sweep, table, battery=battery, thresholds=job.thresholds, seed=job.seed, heldout=heldout)
    return found, read_everywhere(sweep, found) if job.legacy != "none" else None, shelf.notes


def _heldout(job: Job, model: Model, story: Story) -> Tensor | None:
    """States of text that the battery does not hold, at layers 0 to n: temperatures are fitted on them."""
    if job.heldout is None:
        return None
    story.step("Reading held-out text", 0, 0)
    length = min(LENGTH, model.context)
    try:
        corpus = open_corpus(model, job.heldout, limit=TEXTS, seed=job.seed)
        halves = heldout_rows(model, corpus, HELD_OUT, length=length, share=0.5, seed=job.seed)[:2]
    except ConfigError as error:
        if job.heldout != OWN:
            raise
        story.note(f"no temperatures are fitted: {error}")
        return None
    return torch.cat(halves, dim=1)


def _opened(job: Job, story: Story) -> tuple[Sweep, Shelf]:
    """The model where it fits, judged by the gate, and the lenses that it is read through."""
    story.step(f"Loading {display_name(job.model.name)}", 0, 0)
    placed = place(job.model, precision=job.precision, beside=held(job))
    if placed.note:
        story.note(placed.note)
    settings = Settings.from_env()
    if job.cache_dir is not None:
        settings = settings.model_copy(update={"cache_dir": job.cache_dir})
    model = load(placed.spec, settings=settings)
    shelf = open_lenses(model, job.lenses, named=job.folders, folders=homes(job.cache_dir))
    return Sweep(
        model, shelf.lenses, at_end=shelf.at_end, k=min(job.k, model.vocab_size), precision=job.precision
    ), shelf


class _Passes(PassCache):
    """Finished passes: always kept, taken up only where a run is resumed. That they cannot be kept ends no run."""

    def __init__(self, folder: Path, scope: dict[str, Any], *, is_read: bool) -> None:
        super().__init__(folder, scope)
        self._is_read = is_read
        self._is_full = False

    def get(self, key: Any) -> dict[str, np.ndarray] | None:
        """The arrays of a key, or None; None always where nothing is resumed."""
        return super().get(key) if self._is_read else None

    def put(self, key: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays while the medium takes them."""
        if self._is_full:
            return
        try:
            super().put(key, arrays)
        except StorageError as error:
            self._is_full = True
            self.notes.append(f"finished passes are kept no longer: {error}")


def _passes(job: Job, sweep: Sweep, story: Story) -> _Passes | None:
    if job.cache_dir is None:
        return None
    scope = {**sweep.scope, "threads": torch.get_num_threads()}
    try:
        return _Passes(job.cache_dir / PASSES, scope, is_read=job.resume)
    except StorageError as error:
        if job.resume:
            raise
        story.note(f"finished passes are not kept: {error}")
        return None


@contextmanager
def settled(job: Job) -> Iterator[None]:
    """Seed, threads and deterministic algorithms as the job says; afterwards as they were (but for the seed)."""
    threads, was = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.manual_seed(job.seed)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    # CUDA lacks a deterministic form of a few operations that models use: there it is done as well as it can be
    torch.use_deterministic_algorithms(mode=True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=was, warn_only=only_warns)
        torch.set_num_threads(threads)


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Stdout for the story alone: whatever else prints goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield out


def _call_off(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"called off ({signal.Signals(number).name})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Sweep: jobs for workers out of a request, one run folder, the report in it, and what to tell when they are done."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ftw.substrate.config import ModelSpec, Settings
from ftw.substrate.device import choose_device
from ftw.substrate.errors import ConfigError, FtwError, ModelError, UsageError
from ftw.substrate.files import locate
from ftw.substrate.fingerprint import of_checkpoint
from ftw.substrate.model import display_name
from ftw.sweep.battery import Battery
from ftw.sweep.files.finished import read_finished
from ftw.sweep.files.rundir import Status, open_run, read_document
from ftw.sweep.fitting.corpus import OWN, Corpus
from ftw.sweep.job import Job
from ftw.sweep.many import Ended, run_all
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.shelf import check, check_folder
from ftw.ui.cli.output import WIDTH, Bar, Out
from ftw.ui.visualization.figure import count, foot, title
from ftw.ui.visualization.palette import grey
from ftw.ui.visualization.sweep_figure import reading, sweep_figure
from ftw.ui.visualization.sweep_numbers import Run
from ftw.ui.visualization.sweep_report import report

REPORT = "report.html"
"""What a run's report is called in its folder."""
OWN_TEXT = ("reference", "tiny")
"""Models so small that they write the text for temperatures themselves where none is given."""
PARTS = ("model", "battery", "guidance", "notes")
"""Parts of a run's document that the verb's own gives too."""
OPTIONS = {
    "lenses": "--lens", "folders": "--lens-folder", "positions": "--positions", "precision": "--precision",
    "k": "--top", "heldout": "--heldout", "legacy": "--legacy-schema", "seed": "--seed", "threads": "--threads",
    "battery": "--battery", "name": "MODEL", "device": "--device", "dtype": "--dtype",
}  # fmt: skip
"""Which option a key of a job or a model's spec comes from."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for: every option of the verb."""

    models: tuple[str, ...]
    battery: str | None
    lenses: tuple[str, ...] | None
    positions: str
    out: Path
    device: str | None
    dtype: str | None
    resume: bool
    heldout: str | None
    legacy: str
    precision: str
    seed: int
    folders: Mapping[str, Path]
    k: int
    thresholds: tuple[str, ...]
    keep_states: bool
    threads: int | None


def run(out: Out, ask: Ask) -> None:
    """Sweep every model, then draw or give the document, also where Ctrl-C ended it.

    Raises what ended a single model's sweep, and ModelError where some of many failed.
    """
    jobs = jobs_of(ask, Settings.from_env(), out.command)
    with open_run(ask.out.expanduser(), command=out.command) as folder:
        ended, interrupt = _swept(out, _placed(jobs, folder.folder))
        status, error = _verdict(ended, interrupt)
        told = None if len(jobs) == 1 else {"models": [_line(one) for one in ended]}
        folder.finish(status, told, error=error)
    runs = [Done(one, folder.folder if len(jobs) == 1 else folder.folder / one.folder.name) for one in ended]
    if not out.json:
        draw(out, runs, folder.folder)
    out.document(document(runs, folder.folder))
    if interrupt is not None:
        raise interrupt
    _raise_failed(runs, folder.folder)


def jobs_of(ask: Ask, settings: Settings, command: str) -> list[Job]:
    """A job for each model, all but its folder. Raises ConfigError for whatever is wrong with the request."""
    names = ask.models or (settings.model,)
    if len(set(names)) < len(names):
        raise ConfigError(f"models are {', '.join(names)}: name each once")
    thresholds = thresholds_of(ask.thresholds)
    jobs = [
        Job.read(
            {
                "model": spec_of(name, ask, settings),
                "battery": ask.battery or ("reference" if name == "reference" else "germany"),
                "folder": ask.out,
                "lenses": ask.lenses,
                "folders": ask.folders,
                "positions": ask.positions,
                "precision": ask.precision,
                "k": ask.k,
                "thresholds": thresholds,
                "heldout": ask.heldout or ("self" if name in OWN_TEXT else None),
                "legacy": ask.legacy,
                "seed": ask.seed,
                "threads": ask.threads,
                "resume": ask.resume,
                "keep_states": ask.keep_states,
                "cache_dir": settings.cache_dir,
                "command": command,
            },
            source="ftw sweep",
            options=OPTIONS,
        )
        for name in names
    ]
    _refuse(jobs)
    return jobs


def _refuse(jobs: Sequence[Job]) -> None:
    """Raises what of a request is wrong as it stands, so that no run begins that cannot go well.

    What is wrong with one of several models is not: it leaves the others alone.
    """
    for battery in {job.battery for job in jobs}:
        Battery.read(battery)
    first = jobs[0]  # all of them share what follows
    check(first.lenses, first.folders)
    if first.model.device not in ("auto", "map"):
        choose_device(first.model.device)
    for heldout in {job.heldout for job in jobs} - {None, OWN}:
        Corpus.read(heldout or "")
    for name, folder in first.folders.items():
        check_folder(name, folder, fingerprint=lambda: _fingerprint(first) if len(jobs) == 1 else None)


def _fingerprint(job: Job) -> str | None:
    """That of a model whose files are here; None for one that is random, must be fetched, or cannot be read."""
    if job.model.name != "reference" and not Path(job.model.name).expanduser().is_dir():
        return None
    try:
        checkpoint = locate(job.model)
        return of_checkpoint(checkpoint, cache_dir=job.cache_dir) if checkpoint.is_safe else None
    except FtwError:  # the worker tells it of the model itself
        return None


def folders(*, tuned: Path | None, prism: Path | None, more: Sequence[str]) -> dict[str, Path]:
    """The folders of fitted lenses by name: those of `--tuned` and `--prism`, and each NAME=FOLDER of `more`.

    Raises ConfigError for what is not of that form, and for a lens with two folders.
    """
    found = {name: folder.expanduser() for name, folder in (("tuned", tuned), ("prism", prism)) if folder is not None}
    for one in more:
        name, sign, folder = one.partition("=")
        if not (name and sign and folder):
            raise ConfigError(f"--lens-folder {one!r} names no folder: give NAME=FOLDER, for example tuned=my-lens")
        if name in found:
            raise ConfigError(f"there are two folders for the lens {name}, {found[name]} and {folder}: give one")
        found[name] = Path(folder).expanduser()
    return found


def spec_of(name: str, ask: Ask, settings: Settings) -> ModelSpec:
    """The model with the device and dtype that are asked for, else those of the settings. Raises ConfigError."""
    values = {"name": name, "device": ask.device or settings.device, "dtype": ask.dtype or settings.dtype}
    return ModelSpec.read(values, source="ftw sweep", options=OPTIONS)


def thresholds_of(changes: Sequence[str]) -> Thresholds:
    """The thresholds with some of them changed: `copy_p=0.9`, `soft_extra=0.5,0.7`. Raises ConfigError."""
    values: dict[str, Any] = {}
    for change in changes:
        name, sign, value = change.partition("=")
        if not sign:
            raise ConfigError(f"--threshold {change!r} sets nothing: give NAME=VALUE, for example copy_p=0.9")
        plain = Thresholds().document().get(name)
        values[name] = [part for part in value.split(",") if part] if isinstance(plain, list) else value
    return Thresholds.read(values, source="--threshold")


def _placed(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """The jobs with their folders: the run's own for one model, one below it for each of many."""
    if len(jobs) == 1:
        return [jobs[0].model_copy(update={"folder": folder})]
    taken: list[str] = []
    for job in jobs:
        base = re.sub(r"[^\w.-]+", "-", display_name(job.model.name).split("/")[-1]).strip(".") or "model"
        free = (base if number == 1 else f"{base}-{number}" for number in range(1, len(jobs) + 1))
        taken.append(next(name for name in free if name not in taken))
    return [job.model_copy(update={"folder": folder / name}) for job, name in zip(jobs, taken, strict=True)]


class Screen:
    """Shows how the jobs go: a bar on stderr, notes as lines."""

    def __init__(self, out: Out, bar: Bar) -> None:
        self._out, self._bar = out, bar
        self._where = ""

    def began(self, job: Job, index: int, count: int) -> None:
        """The job at this place begins."""
        self._where = f"{index + 1}/{count} {display_name(job.model.name)}: " if count > 1 else ""
        self.step("Starting", 0, 0)

    def step(self, what: str, done: int, total: int) -> None:
        """So many of so many steps are done."""
        self._bar(self._where + what, done, total)

    def note(self, text: str) -> None:
        """A line of the story."""
        self._out.tell(self._where + text)


def _swept(out: Out, jobs: Sequence[Job]) -> tuple[list[Ended], KeyboardInterrupt | None]:
    """How each job ended, with the report of those that went well; and the interrupt that left the rest out."""
    ended: list[Ended] = []
    try:
        with out.bar("Starting", unit="positions") as bar:
            for one in run_all(jobs, Screen(out, bar)):
                ended.append(one)
                if one.status == "ok":
                    _report(out, one.folder)
    except KeyboardInterrupt as interrupt:
        return ended, interrupt
    return ended, None


def _report(out: Out, folder: Path) -> None:
    """Writes a run's report beside its rows. One that cannot be made takes nothing from the run, and is told."""
    try:
        with out.busy("Writing the report"):
            report(*read_finished(folder)).write(folder / REPORT)
    except FtwError as error:
        out.tell(f"no report: {error}")


def _verdict(ended: Sequence[Ended], interrupt: KeyboardInterrupt | None) -> tuple[Status, dict[str, str] | None]:
    """The status of a whole run: `failed` where nothing went well, `partial` where something is missing."""
    bad = next((one for one in ended if one.status != "ok"), None)
    error = None if bad is None else {"type": bad.kind, "message": bad.message}
    if interrupt is not None:
        return "partial", error or {"type": "Interrupted", "message": "called off"}
    if bad is None:
        return "ok", None
    return ("partial" if any(one.status != "failed" for one in ended) else "failed"), error


def _line(one: Ended) -> dict[str, Any]:
    """A model's line in the document of a run of many."""
    error = None if one.status == "ok" else {"type": one.kind, "message": one.message}
    seconds = round(one.seconds, 3)
    return {"name": one.model, "folder": one.folder.name, "status": one.status, "error": error, "seconds": seconds}


@dataclass(frozen=True, slots=True)
class Done:
    """A job that ended, and where its files lie now."""

    ended: Ended
    folder: Path


def draw(out: Out, runs: Sequence[Done], folder: Path) -> None:
    """The figure of a single model's sweep; of many a line for each: how it ended, and its reading or its error."""
    if len(runs) > 1:
        out.show(title(_reading(runs)), Text(), _table(runs), Text(), sep="\n")
    elif runs and runs[0].ended.status == "ok":
        drawn = sweep_figure(opened(runs[0].folder), width=min(out.width, WIDTH), colour=out.has_colour)
        out.show(drawn, Text(), sep="\n")
    went_well = [one for one in runs if one.ended.status == "ok"]
    for one in went_well:
        out.show(foot(f"report: {one.folder / REPORT}"))
    if not went_well and [one.ended.status for one in runs] != ["failed"]:  # a single one's error names the folder
        out.show(foot(f"what there is lies in {folder}"))


def opened(folder: Path) -> Run:
    """A finished run, as it is drawn."""
    return Run(*read_finished(folder))


def _reading(runs: Sequence[Done]) -> str:
    well = sum(one.ended.status == "ok" for one in runs)
    return f"{well} of {count(len(runs), 'model')} swept"


def _table(runs: Sequence[Done]) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in runs:
        ended = one.ended
        said = reading(opened(one.folder)) if ended.status == "ok" else f"{ended.kind}: {ended.message}"
        table.add_row(display_name(ended.model), ended.status, f"{ended.seconds:.0f} s", Text(said, grey()))
    return table


def document(runs: Sequence[Done], folder: Path) -> dict[str, Any]:
    """What `--json` gives: for each model how it ended, where its files lie, and the figures over its facts."""
    models = []
    for one in runs:
        found = read_document(one.folder) if one.ended.status == "ok" else {}
        parts = {key: found[key] for key in PARTS if key in found}
        models.append({**_line(one.ended), "folder": str(one.folder), **parts})
    return {"command": "sweep", "folder": str(folder), "models": models}


def _raise_failed(runs: Sequence[Done], folder: Path) -> None:
    bad = [one.ended for one in runs if one.ended.status != "ok"]
    if not bad:
        return
    if len(runs) == 1:
        kind = UsageError if bad[0].code == UsageError.exit_code else ModelError
        raise kind(f"{bad[0].message} (see {folder})")
    names = ", ".join(display_name(one.model) for one in bad)
    raise ModelError(f"{len(bad)} of {count(len(runs), 'model')} failed: {names}. Each folder's run.json says why")

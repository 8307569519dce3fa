"""Lens train: make the lenses of a model, in one go, in shares, or on Ray, and show their report."""

import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

from ftw.hat.classifiers.index import PACK
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.compliance import measure_compliance, write_compliance
from ftw.map.training.fits import Form, TrainConfig
from ftw.map.training.ray_runner import run_on_ray
from ftw.map.training.train import Part, merge, train, train_part
from ftw.map.training.work import WorkFolder
from ftw.substrate.errors import ConfigError, StorageError
from ftw.substrate.model import Model
from ftw.ui.app import open_concepts, open_model
from ftw.ui.cli.output import Out
from ftw.ui.verbs.lens_report import run_report
from ftw.ui.visualization.palette import grey


@dataclass(frozen=True, slots=True)
class Ask:
    """What the command line asks for."""

    model: str | None
    concepts: str
    folder: Path
    seed: int = 0
    blocks: str | None = None
    form: Form = "shared"
    false_alarms: float = 0.01
    target: float = TrainConfig().target
    per_depth: bool = False
    shard: str | None = None
    merge: tuple[Path, ...] = ()
    ray: int | None = None
    resume: bool = True
    work: Path | None = None
    keep_work: bool = False
    directions: Path | bool = True


def run_train(out: Out, ask: Ask) -> None:
    """Train, save, show the report; or do one share and say what is left.

    Raises StorageError before any work where the folder cannot be written, ConfigError for options that do not go
    together.
    """
    if sum((ask.shard is not None, bool(ask.merge), ask.ray is not None)) > 1:
        raise ConfigError("--shard, --merge and --ray are three ways to share the work: give one of them")
    shard = None if ask.shard is None else shard_of(ask.shard)
    config = replace(
        TrainConfig(), form=ask.form, false_alarms=ask.false_alarms, target=ask.target, per_depth=ask.per_depth
    )
    blocks = None if ask.blocks is None else blocks_of(ask.blocks)
    ready(ask.folder)
    concepts, opened = open_concepts(ask.concepts), open_model(ask.model, out)
    try:
        _run(out, ask, opened, concepts, shard, config, blocks)
    except KeyboardInterrupt:
        out.tell(kept(ask))
        raise


def _run(
    out: Out,
    ask: Ask,
    opened: Model,
    concepts: ConceptPack,
    shard: tuple[int, int] | None,
    config: TrainConfig,
    blocks: tuple[int, ...] | None,
) -> None:
    if shard is not None:
        _share(out, ask, opened, concepts, shard, config, blocks)
        return
    if ask.merge:
        part = merge(
            opened, concepts, ask.folder, ask.merge, seed=ask.seed, blocks=blocks, config=config, work=ask.work
        )
        if not part.is_all:
            _tell(out, ask, part, "taken over")
            return
    _whole(out, ask, opened, concepts, config, blocks)
    run_report(out, pack=str(ask.folder))


def kept(ask: Ask) -> str:
    """What there is of a training that was called off, and how to go on."""
    if (ask.folder / PACK).exists():
        return f"stopped: the pack is in {ask.folder}; `ftw lens report {ask.folder} --measure` measures it"
    work = ask.work or WorkFolder.beside(ask.folder).path
    if not work.exists():
        return "stopped: nothing was kept"
    return f"stopped: what was read and fitted is kept in {work}; the same command goes on from there"


def ready(folder: Path) -> None:
    """Raises StorageError unless `folder` is new or empty and can be written, so that no training is lost."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is not an empty folder: name a new one with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".ftw-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; name another folder with --out") from error


def form_of(text: str) -> Form:
    """The form that is meant. Raises ConfigError."""
    known: dict[str, Form] = {"shared": "shared", "separate": "separate"}
    if text not in known:
        raise ConfigError(f"--form is {text!r}: shared or separate")
    return known[text]


def shard_of(text: str) -> tuple[int, int]:
    """`2/4` is the second of four shares, as (1, 4). Raises ConfigError."""
    part, slash, of = text.partition("/")
    if not (slash and part.isdigit() and of.isdigit() and 1 <= int(part) <= int(of)):
        raise ConfigError(f"--shard is {text!r}: give the share and how many there are, for example 2/4")
    return int(part) - 1, int(of)


def blocks_of(text: str) -> tuple[int, ...]:
    """`3,5-7` as (3, 5, 6, 7). Raises ConfigError."""
    out: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not (last.isdigit() and int(last) >= int(first))):
            raise ConfigError(f"--blocks is {text!r}: give numbers and ranges, for example 3,5-7")
        out += range(int(first), int(last) + 1) if dash else [int(first)]
    return tuple(out)


def _whole(
    out: Out, ask: Ask, opened: Model, concepts: ConceptPack, config: TrainConfig, blocks: tuple[int, ...] | None
) -> None:
    """Everything that is left: states, fits, the pack, its reports."""
    with out.bar("Training lenses", "steps") as bar:
        if ask.ray is not None:
            work = ask.work or WorkFolder.beside(ask.folder).path
            run_on_ray(
                opened,
                concepts,
                ask.folder,
                work=work,
                workers=ask.ray,
                seed=ask.seed,
                blocks=blocks,
                config=config,
                progress=bar,
            )
        train(
            opened,
            concepts,
            ask.folder,
            seed=ask.seed,
            blocks=blocks,
            config=config,
            work=ask.work,
            resume=ask.resume,
            keep_work=ask.keep_work,
            directions=ask.directions,
            progress=bar,
        )
        report = measure_compliance(
            opened,
            ask.folder,
            concepts,
            now=lambda: datetime.now(UTC),
            clock=time.perf_counter,
            seed=ask.seed,
            progress=bar,
        )
        write_compliance(report, ask.folder)


def _share(
    out: Out,
    ask: Ask,
    model: Model,
    concepts: ConceptPack,
    shard: tuple[int, int],
    config: TrainConfig,
    blocks: tuple[int, ...] | None,
) -> None:
    with out.bar(f"Share {shard[0] + 1} of {shard[1]}", "steps") as bar:
        part = train_part(
            model,
            concepts,
            ask.folder,
            part=shard[0],
            of=shard[1],
            seed=ask.seed,
            blocks=blocks,
            config=config,
            work=ask.work,
            progress=bar,
        )
    _tell(out, ask, part, "done")


def _tell(out: Out, ask: Ask, part: Part, what: str) -> None:
    """What this process did, what is left, and what to do next."""
    if part.is_all:
        after = f"Everything is there: run the command without --shard, --out {ask.folder}, to make the pack."
    elif part.batches_left:
        after = (
            f"{part.batches_left} batches of prompts are left for the other shares. Where they write another folder, "
            "bring them together with --merge; then run each share again for the fits."
        )
    else:
        after = f"{part.fits_left} fits are left for the other shares."
    texts = "batches" if what == "taken over" else "prompts"
    out.show(Text(f"{part.texts} {texts} and {part.fits} fits {what}."), Text(after, grey()), sep="\n")
    out.document({"command": "lens train", **asdict(part), "out": str(ask.folder)})

"""Sweep fit-tuned and fit-prism: a lens is fitted, held against the logit lens on held-out text, and kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.table import Table
from rich.text import Text

from ftw.substrate.config import Settings
from ftw.substrate.errors import ConfigError, StorageError
from ftw.substrate.model import Model
from ftw.sweep.fitting.accept import Acceptance, depth_layers
from ftw.sweep.fitting.corpus import Corpus, open_corpus
from ftw.sweep.fitting.prism import COVARIANCES, TARGETS, fit_prism
from ftw.sweep.fitting.schedule import Schedule
from ftw.sweep.fitting.tuned import attribution, best_of, fit_kinds
from ftw.sweep.lenses.prism import Covariance, Target
from ftw.sweep.lenses.tuned import KINDS, TunedKind
from ftw.sweep.shelf import home_of
from ftw.ui.app import open_model
from ftw.ui.cli.output import Out
from ftw.ui.visualization.figure import foot, title
from ftw.ui.visualization.palette import grey

DEPTHS = ("25 %", "50 %", "75 %")
"""Where gains are given."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What both verbs are asked for."""

    model: str | None
    corpus: str
    field: str
    documents: int | None
    steps: int | None
    out: Path | None
    device: str | None
    dtype: str | None
    seed: int
    threads: int | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A lens that was fitted, and what held-out text says of it."""

    acceptance: Acceptance
    accepted: bool


def run_tuned(out: Out, ask: Ask, *, kind: str, rank: int | None) -> None:
    """Fit the kinds asked for, keep the best, draw what each gained."""
    kinds = _kinds(kind)
    schedule = schedule_of(ask.steps)
    model, corpus, folder = _opened(out, ask, "tuned")
    with out.bar("Fitting", unit="steps") as bar:

        def progress(kind: str, done: int, total: int) -> None:
            bar(f"Fitting {kind}", done, total)

        fits = fit_kinds(model, corpus, kinds=kinds, rank=rank, schedule=schedule, seed=ask.seed, progress=progress)
    best = best_of(fits)
    fits[best].save(folder)
    found = {str(name): Judged(fit.acceptance, fit.accepted) for name, fit in fits.items()}
    draw(out, model, found, str(best), folder, ask)
    told = {
        name: fit.lens.manifest.model_dump(mode="json", by_alias=True) if fit.lens.manifest else {}
        for name, fit in fits.items()
    }
    out.document(
        {**_head("sweep fit-tuned", model, folder), "kept": best, "fits": told, "attribution": attribution(fits)}
    )


def run_prism(out: Out, ask: Ask, *, target: str | None, covariance: str, k: int | None, positions: int) -> None:
    """Fit, keep, draw what was gained and what the other rotation would have."""
    for option, value, known in (("--target", target, TARGETS), ("--covariance", covariance, COVARIANCES)):
        if value is not None and value not in known:
            raise ConfigError(f"{option} is {value!r}: use {' or '.join(known)}")
    model, corpus, folder = _opened(out, ask, "prism")
    with out.bar("Reading text", unit="positions") as bar:
        fit = fit_prism(
            model,
            corpus,
            target=cast("Target | None", target),
            covariance=cast("Covariance", covariance),
            k=k,
            positions=positions,
            seed=ask.seed,
            progress=lambda done, total: bar("Reading text", done, total),
        )
    fit.save(folder)
    manifest = fit.lens.manifest
    kept: str = manifest.target if manifest else "prism"
    found = {kept: Judged(fit.acceptance, fit.accepted)}
    found |= {str(name): Judged(other, other.gates["A"].passed) for name, other in fit.others.items()}
    draw(out, model, found, kept, folder, ask)
    told = manifest.model_dump(mode="json", by_alias=True) if manifest else {}
    out.document({**_head("sweep fit-prism", model, folder), "kept": kept, "fits": {kept: told}})


def schedule_of(steps: int | None) -> Schedule:
    """The schedule with so many steps, a warmup that fits into them. Raises ConfigError."""
    if steps is None:
        return Schedule()
    warmup = min(Schedule().warmup, max(0, steps // 4))
    return Schedule.read({"steps": steps, "warmup": warmup}, source="ftw sweep fit-tuned", options={"steps": "--steps"})


def _kinds(kind: str) -> tuple[TunedKind, ...]:
    chosen = KINDS if kind == "all" else tuple(one for one in KINDS if one == kind)
    if not chosen:
        raise ConfigError(f"--kind is {kind!r}: use {', '.join(KINDS)} or all")
    return chosen


def _opened(out: Out, ask: Ask, name: str) -> tuple[Model, Corpus, Path]:
    """The model, the text, and the folder for the lens, which can be written."""
    settings = Settings.from_env()
    if ask.threads is not None:
        if ask.threads < 1:
            raise ConfigError(f"--threads is {ask.threads}: it must be at least 1")
        torch.set_num_threads(ask.threads)
    changes = {"device": ask.device, "dtype": ask.dtype}
    settings = Settings.read(
        {**settings.model_dump(), **{key: value for key, value in changes.items() if value}},
        source="ftw sweep",
        options={"device": "--device", "dtype": "--dtype"},
    )
    model = open_model(ask.model, out, settings)
    if ask.out is None and settings.cache_dir is None:
        raise StorageError("there is no cache folder for the lens: name one with --out")
    folder = ask.out.expanduser() if ask.out else home_of(model, name, settings.cache_dir or Path())
    ready(folder)
    with out.busy("Writing text to fit on" if ask.corpus == "self" else "Reading text"):
        corpus = open_corpus(model, ask.corpus, field=ask.field, limit=ask.documents, seed=ask.seed)
    return model, corpus, folder


def ready(folder: Path) -> None:
    """Raises StorageError unless `folder` can be made or is a lens's already, so that no fit is lost."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "manifest.json").exists())):
        raise StorageError(f"{folder} is neither empty nor a lens: name a new folder with --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe = folder.parent / ".ftw-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; name another folder with --out") from error


def draw(out: Out, model: Model, found: Mapping[str, Judged], best: str, folder: Path, ask: Ask) -> None:
    """The claim, the gains side by side, every gate of the lens that is kept."""
    layers = depth_layers(model.n_layers)
    table = Table.grid(padding=(0, 3, 0, 0))
    heads = (*(f"{depth} (layer {layer})" for depth, layer in zip(DEPTHS, layers, strict=True)), "accepted")
    table.add_row(Text("KL gain, bits", grey()), *(Text(head, grey()) for head in heads))
    for name, one in found.items():
        gains = (f"{gain:+.2f}" for gain in gains_of(one.acceptance, layers))
        table.add_row(name, *gains, "yes" if one.accepted else "no")
    gates = Table.grid(padding=(0, 2))
    for name, gate in found[best].acceptance.gates.items():
        numbers = " ".join(f"{number:.2f}" for number in gate.measured)
        asked = " ".join(f"{number:g}" for number in gate.wanted)
        verdict = "passed" if gate.passed else "not"
        gates.add_row(Text(f"gate {name}", grey()), verdict, numbers, Text(f"{gate.what} {asked}", grey()))
    out.show(title(reading(best, found[best], layers)), Text(), table, Text(), gates, Text(), sep="\n")
    out.show(
        foot(
            f"KL to the model, {found[best].acceptance.positions} held-out positions",
            f"{model.name} {model.fingerprint[:8]}",
            f"text {ask.corpus}, seed {ask.seed}",
            f"lens {folder}",
            out.command,
        )
    )


def gains_of(acceptance: Acceptance, layers: tuple[int, ...]) -> list[float]:
    """Mean KL gain over the logit lens at these layers, bits."""
    return [acceptance.logit_kl_bits[layer] - acceptance.lens_kl_bits[layer] for layer in layers]


def reading(name: str, one: Judged, layers: tuple[int, ...]) -> str:
    """The claim: accepted or not, and by how much it is nearer to the model at half depth."""
    gain = gains_of(one.acceptance, layers)[1]
    where = f"at half depth it is {abs(gain):.2f} bits {'nearer to' if gain >= 0 else 'farther from'} the model"
    if one.accepted:
        return f"The {name} lens is accepted: {where} than the logit lens"
    return f"The {name} lens is not accepted and not offered by default: {where} than the logit lens"


def _head(command: str, model: Model, folder: Path) -> dict[str, Any]:
    return {
        "command": command,
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "folder": str(folder),
    }

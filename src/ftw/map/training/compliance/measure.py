"""The whole measurement: reads once, then the five properties, for one model and the very bytes of one pack.

The rule of the file: nothing is taken over from another run but what is labelled as training's own figure.
"""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from ftw import __version__
from ftw.hat.classifiers.index import PackInfo, read_info
from ftw.hat.classifiers.store import load_bank
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.calibrate import FALSE_ALARMS
from ftw.map.training.collect import Progress
from ftw.map.training.compliance.control import control
from ftw.map.training.compliance.efficiency import Clock, efficiency
from ftw.map.training.compliance.locality import confusions, locality
from ftw.map.training.compliance.quality import calibration, curves, lens_lines, transduction
from ftw.map.training.compliance.reading import Judged, all_states, read_all
from ftw.map.training.compliance.records import ComplianceReport, PackId, Setting, pack_digest
from ftw.map.training.neutral import neutral_texts
from ftw.substrate.errors import PackError
from ftw.substrate.model import Model

Now = Callable[[], datetime]


def measure_compliance(
    model: Model,
    folder: Path,
    concepts: ConceptPack,
    *,
    now: Now,
    clock: Clock,
    prompts: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    progress: Progress = lambda what, done, total: None,
) -> ComplianceReport:
    """The report of the lens pack in `folder` on `model`.

    Every word of the concept pack is read in a held template; at most `prompts` of them, spread evenly, and fewer for a
    pack too large to hold all at once. Raises FingerprintMismatch for another model's pack, PackError for lenses of
    other concepts, and what the store and the model raise.
    """
    began = clock()
    info = read_info(folder)
    _require_concepts(info, concepts)
    bank = load_bank(folder, fingerprint=model.fingerprint, device=model.device, dtype=dtype)
    training = training_report(folder)
    judged = Judged(bank, read_all(model, bank, concepts, most=prompts, seed=seed, progress=progress))
    progress("locality", 0, 4)
    local = locality(model, judged)
    progress("calibration", 1, 4)
    before, after = curves(judged)
    quality = (transduction(judged, training), calibration(judged, chosen_rate(info), training))
    progress("efficiency", 2, 4)
    states, _ = all_states(model, neutral_texts("measure", 1), bank.sites)
    cost = efficiency(model, bank, folder, states, clock)
    progress("control authority", 3, 4)
    steered = control(model, bank, concepts, folder, seed, training)
    matrix = judged.matrix
    return ComplianceReport(
        model=info.model,
        lens_pack=PackId(name=info.name, version=info.version, sha256=pack_digest(folder)),
        concept_pack=info.concept_pack,
        lenses_n=len(bank),
        setting=Setting(
            device=device_name(model.device),
            threads=torch.get_num_threads(),
            dtype=str(dtype).removeprefix("torch."),
            prompts=len(matrix.labels),
            neutral_states=len(matrix.measuring),
            seed=seed,
            date=now().isoformat(timespec="seconds"),
            seconds=clock() - began,
            ftw=__version__,
            torch=torch.__version__,
        ),
        properties=(local, *quality, cost, steered.property),
        before=before,
        after=after,
        lenses=lens_lines(judged),
        confusions=confusions(judged),
        control=steered.lines,
    )


def training_report(folder: Path) -> dict[str, Any] | None:
    """The report that training left, or None. Raises PackError where it is damaged."""
    file = folder / "report.json"
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PackError(f"{file} is not valid JSON: {error}; remove it, or fetch the pack again") from error
    return told if isinstance(told, dict) else None


def chosen_rate(info: PackInfo) -> float:
    """The false-alarm rate that the pack's thresholds were set for; the usual one where it does not say."""
    said = info.training.get("false_alarms")
    return float(said) if isinstance(said, int | float) and 0 < said <= 0.5 else FALSE_ALARMS


def device_name(device: torch.device) -> str:
    """The device as a person knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return device.type
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), device.type)


def _require_concepts(info: PackInfo, concepts: ConceptPack) -> None:
    wanted = info.concept_pack.sha256
    if wanted is not None and wanted != concepts.sha256:
        raise PackError(
            f"lens pack {info.name} {info.version} reads {info.concept_pack.name} {info.concept_pack.version} "
            f"({wanted[:8]}), given is {concepts.name} {concepts.version} ({concepts.sha256[:8]}): name the right one "
            "with --concepts"
        )

"""Trunks for a pack that is already trained: fitted on states of its model, with what they cost and save.

The rule of the file: half of the words fit, the other half, in templates that no fit saw, say what is lost; what is
reported is of the very trunks that are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.choice import LensPackFiles, select
from ftw.hat.classifiers.index import PackInfo
from ftw.hat.classifiers.modules import HIDDEN, normalise
from ftw.hat.classifiers.store import load_pack, require_fingerprint
from ftw.hat.classifiers.tensors import LensTensors
from ftw.hat.classifiers.trunk import Trunk, TrunkReport, fit_trunk, trunk_report
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.collect import Progress
from ftw.map.training.compliance.efficiency import Clock, timed
from ftw.map.training.compliance.reading import TOGETHER, all_states, labels_of, last_states
from ftw.map.training.evaluate import auroc
from ftw.map.training.neutral import neutral_texts
from ftw.map.training.prompts import Prompt, Word, bundled_carriers, prompts_of, word_folds, words_of
from ftw.substrate.errors import PackError, UsageError
from ftw.substrate.model import Model
from ftw.substrate.types import Site

PROMPTS = 12_000
"""Prompts that are read at most, unless told."""
PER_WORD = 2
"""Carriers that a word of the fit is said in."""
NEUTRAL = 60
"""Neutral texts whose every token is read for the fit: lenses read more than words of concepts."""


@dataclass(frozen=True)
class Trunks:
    """The trunks of a pack, and what serving it on them comes to."""

    info: PackInfo
    lenses: int
    by_block: Mapping[int, Trunk]
    reports: Mapping[int, TrunkReport]
    worst_term: str
    """The lens that loses most, over all blocks."""
    fitted: int
    """States that the trunks were fitted on."""
    measured: int
    """Prompts that the loss was measured on."""
    bytes_full: int
    """Bytes of the lenses' weights that one token reads, in bf16 …"""
    bytes_on_trunk: int
    """… and on the trunk, with the trunk."""
    ms_full: float
    """Milliseconds per token, every lens in bf16, the median …"""
    ms_on_trunk: float
    """… and on the trunk."""

    @property
    def worst(self) -> TrunkReport:
        """The report of the block whose lens loses most."""
        return max(self.reports.values(), key=lambda one: one.worst)


def make_trunks(
    model: Model,
    folder: Path,
    concepts: ConceptPack,
    rank: int,
    *,
    clock: Clock,
    prompts: int | None = None,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Trunks:
    """Trunks of this rank for the pack in `folder`; they are not saved (`save_trunks` does).

    Raises UsageError for a pack whose lenses share their first layer and for a rank that the width does not have,
    FingerprintMismatch for another model's pack, PackError for a pack of other concepts or with missing levels.
    """
    files = _lenses(model, folder, rank)
    terms = [row.term for row in files.rows]
    targets, table = labels_of(concepts, terms)
    words = words_of(concepts)
    fit, test = _split(words, prompts or PROMPTS, seed)
    sites = {block: Site(block) for block in files.blocks}
    fit_x = _states(model, [one.text(words) for one in fit], tuple(sites.values()), progress)
    plain, _ = all_states(model, neutral_texts("calibrate", NEUTRAL, seed), tuple(sites.values()))
    test_x = _states(model, [one.text(words) for one in test], tuple(sites.values()), progress)
    labels = table[targets.home_of(test, words)]
    trunks, reports, worst = {}, {}, {}
    for block, site in sites.items():
        columns = [at for at, row in enumerate(files.rows) if row.block == block]
        part = files.blocks[block]
        x = torch.cat([fit_x[site], normalise(plain[site]).cpu()])
        trunks[block] = fit_trunk(x, rank, part)
        told = trunk_report(part, trunks[block], test_x[site], labels[:, columns], auroc)
        reports[block], worst[block] = told, terms[columns[told.worst_lens]]
    full, small = _times(files, trunks, {site: x[:1] for site, x in test_x.items()}, model.device, clock)
    return Trunks(
        info=files.info,
        lenses=len(files.rows),
        by_block=trunks,
        reports=reports,
        worst_term=max(worst.items(), key=lambda one: reports[one[0]].worst)[1],
        fitted=len(fit) + len(next(iter(plain.values()))),
        measured=len(test),
        bytes_full=sum(_bytes(part, part.w1.shape[-1]) for part in files.blocks.values()),
        bytes_on_trunk=sum(_bytes(part, rank) + 4 * rank * model.d_model for part in files.blocks.values()),
        ms_full=full,
        ms_on_trunk=small,
    )


def _lenses(model: Model, folder: Path, rank: int) -> LensPackFiles:
    """The pack's primary lenses. Raises as `make_trunks`."""
    files = load_pack(folder)
    require_fingerprint(files.info, model.fingerprint)
    if files.missing:
        raise PackError(f"{folder} is partial: level {files.missing[0]} is not there; pull it, then make the trunk")
    if not 1 <= rank < model.d_model:
        raise UsageError(
            f"a trunk of rank {rank}: it saves work from 1 to {model.d_model - 1} for states of this model"
        )
    files = select(files, "primary")
    if all(part.is_shared for part in files.blocks.values()):
        raise UsageError(
            f"the lenses of {files.info.name} share their first layer, which is computed once: a trunk saves nothing. "
            "Train with --form separate for lenses that each have their own"
        )
    return files


def _split(words: Sequence[Word], most: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Half of the words in fit carriers, the other half in held ones, by whole synsets; thinned evenly."""
    folds = word_folds(words, 2, seed)
    every = prompts_of(words, bundled_carriers(), per_word=PER_WORD, held_per_word=1, seed=seed)
    fit = [one for one in every if not one.held and folds[one.word] == 0]
    test = [one for one in every if one.held and folds[one.word] == 1]
    step = max(1, -(-(len(fit) + len(test)) // most))
    return fit[::step], test[::step]


def _states(model: Model, texts: Sequence[str], sites: Sequence[Site], progress: Progress) -> dict[Site, Tensor]:
    """Normalised states at the last token of each text, on the CPU."""
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for at in range(0, len(texts), TOGETHER):
        for site, x in last_states(model, texts[at : at + TOGETHER], sites).items():
            found[site].append(normalise(x).cpu())
        progress("reading states", min(at + TOGETHER, len(texts)), len(texts))
    return {site: torch.cat(parts) if parts else torch.empty(0, model.d_model) for site, parts in found.items()}


def _times(
    files: LensPackFiles, trunks: Mapping[int, Trunk], state: dict[Site, Tensor], device: torch.device, clock: Clock
) -> tuple[float, float]:
    """Milliseconds of one token by every lens, as they are and on the trunk."""
    one = {site: x.to(device) for site, x in state.items()}
    banks = [LensBank.from_tensors(files.blocks, files.rows, device=device, trunks=each) for each in (None, trunks)]
    full, small = (timed(partial(bank.score, one, full=True), clock, device) for bank in banks)
    return median(full), median(small)


def _bytes(part: LensTensors, width: int) -> int:
    """Bytes of some lenses that read `width` numbers: bf16 for the two large layers, fp32 for the rest."""
    lenses, units = part.w3.shape
    return int(lenses * (2 * HIDDEN * (width + units) + 4 * (HIDDEN + 2 * units + 1)))

"""Two lens packs of the same concepts on the same model: what one reads better, and how far they say the same.

The rule of the file: both read the very same states, so that differences are paired; what is compared is the weights as
they are stored, computed in fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ftw.hat.classifiers.bank import LensBank
from ftw.hat.classifiers.index import PackInfo, read_info
from ftw.hat.classifiers.store import load_bank
from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.training.bootstrap import Interval, areas, auroc_draws, draws, interval_of, placements
from ftw.map.training.collect import Progress
from ftw.map.training.compliance.reading import all_states, held_prompts, labels_of, prompt_logits, score
from ftw.map.training.evaluate import expected_calibration_error
from ftw.map.training.neutral import neutral_texts
from ftw.map.training.prompts import words_of
from ftw.substrate.errors import PackError
from ftw.substrate.model import Model

TOP = 10
NEUTRAL = 60
"""Neutral texts that both packs read."""


@dataclass(frozen=True)
class Side:
    """One of the two packs."""

    info: PackInfo
    lenses: int
    megabytes: float
    auroc: float
    """Macro over the common concepts, templates held out."""
    ece: float
    only: tuple[str, ...]
    """Concepts that the other pack has no lens for."""


@dataclass(frozen=True)
class LensDifference:
    """One concept in both packs. AUROC with templates held out; `difference` is b less a."""

    term: str
    a: float
    b: float
    difference: Interval

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class Agreement:
    """How far two packs say the same of the same states."""

    states: int
    top10_same: float
    """Share of states with the same ten highest readings, in any order."""
    top10_overlap: float
    """Mean share of the ten that is common."""
    first_same: float
    readings: int
    """Readings at or above threshold in either pack."""
    readings_both: float
    """Share of them that both have."""
    largest: float
    """Largest difference of two probabilities."""
    mean: float


@dataclass(frozen=True)
class Comparison:
    """What two packs differ in."""

    a: Side
    b: Side
    terms: int
    prompts: int
    synsets: int
    macro: Interval
    """Mean over the common concepts of b's AUROC less a's, with its paired interval."""
    lenses: tuple[LensDifference, ...]
    """Those that changed most first."""
    agreement: Agreement


def compare_packs(
    model: Model,
    a: Path,
    b: Path,
    concepts: ConceptPack,
    *,
    prompts: int | None = None,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Comparison:
    """The comparison of two packs over the concepts that both have, on words in held templates and neutral text.

    Raises PackError for packs of different concept packs or without a common concept, FingerprintMismatch where one is
    not for this model.
    """
    infos = read_info(a), read_info(b)
    if infos[0].concept_pack.name != infos[1].concept_pack.name:
        raise PackError(
            f"{infos[0].name} reads the concepts of {infos[0].concept_pack.name}, {infos[1].name} those of "
            f"{infos[1].concept_pack.name}: only packs of the same concepts can be compared"
        )
    banks = [
        load_bank(folder, fingerprint=model.fingerprint, device=model.device, dtype=torch.float32) for folder in (a, b)
    ]
    common = [term for term in banks[0].terms if term in set(banks[1].terms)]
    if not common:
        raise PackError(f"{infos[0].name} and {infos[1].name} have no concept in common: there is nothing to compare")
    read = _read(model, banks, concepts, common, prompts, seed, progress)
    placed = [placements(each.logits, read[0].labels) for each in read]
    weights = draws(int(read[0].group.max()) + 1, seed)
    drawn = [auroc_draws(each, read[0].labels, read[0].group, weights) for each in placed]
    area = [areas(each, read[0].labels) for each in placed]
    sides = [
        _side(info, folder, bank, one, set(common), float(own.nanmean()))
        for info, folder, bank, one, own in zip(infos, (a, b), banks, read, area, strict=True)
    ]
    return Comparison(
        a=sides[0],
        b=sides[1],
        terms=len(common),
        prompts=len(read[0].labels),
        synsets=int(read[0].group.max()) + 1,
        macro=interval_of(float((area[1] - area[0]).nanmean()), (drawn[1] - drawn[0]).nanmean(1)),
        lenses=_differences(common, area, drawn[1] - drawn[0]),
        agreement=_agreement(*read),
    )


@dataclass(frozen=True)
class _Read:
    """What one pack read, the common concepts only, in an order that both share."""

    logits: Float[Tensor, "prompt lens"]
    everything: Float[Tensor, "state lens"]
    """Neutral text too."""
    labels: Int8[Tensor, "prompt lens"]
    group: Int[Tensor, " prompt"]
    slope: Float[Tensor, " lens"]
    offset: Float[Tensor, " lens"]
    marks: Float[Tensor, " lens"]

    def odds(self, logits: Float[Tensor, "row lens"]) -> Float[Tensor, "row lens"]:
        """Calibrated log odds: probabilities saturate, and ties would be broken by chance."""
        return logits * self.slope + self.offset


def _read(
    model: Model,
    banks: Sequence[LensBank],
    concepts: ConceptPack,
    common: Sequence[str],
    most: int | None,
    seed: int,
    progress: Progress,
) -> list[_Read]:
    targets, table = labels_of(concepts, common)
    words = words_of(concepts)
    prompts = held_prompts(words, sum(map(len, banks)), most=most, seed=seed)
    sites = tuple(sorted({site for bank in banks for site in bank.sites}))
    rest, _ = all_states(model, neutral_texts("measure", NEUTRAL, seed), sites)
    number = {word.synset: at for at, word in enumerate(words)}
    synsets = torch.tensor([number[words[p.word].synset] for p in prompts])
    group: Tensor = torch.unique(synsets, return_inverse=True)[1]
    labels = table[targets.home_of(list(prompts), words)]
    out = []
    for bank, logits in zip(
        banks, prompt_logits(model, banks, [prompt.text(words) for prompt in prompts], progress), strict=True
    ):
        columns = [bank.index(term) for term in common]
        rows = [bank.rows[at] for at in columns]
        own = logits[:, columns]
        out.append(
            _Read(
                logits=own,
                everything=torch.cat([own, score(bank, rest)[:, columns]]),
                labels=labels,
                group=group,
                slope=torch.tensor([row.calibration.slope for row in rows]),
                offset=torch.tensor([row.calibration.offset for row in rows]),
                marks=torch.tensor([row.threshold_logit for row in rows]),
            )
        )
    return out


def _side(info: PackInfo, folder: Path, bank: LensBank, read: _Read, common: set[str], auroc: float) -> Side:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.name != "directions.safetensors")
    return Side(
        info=info,
        lenses=len(bank),
        megabytes=size / 1e6,
        auroc=auroc,
        ece=expected_calibration_error(torch.sigmoid(read.odds(read.logits)), read.labels),
        only=tuple(term for term in bank.terms if term not in common),
    )


def _differences(
    terms: list[str], area: list[Float[Tensor, " lens"]], spread: Float[Tensor, "draw lens"]
) -> tuple[LensDifference, ...]:
    out = []
    for at, term in enumerate(terms):
        first, second = float(area[0][at]), float(area[1][at])
        if first == first and second == second:
            out.append(LensDifference(term, first, second, interval_of(second - first, spread[:, at])))
    return tuple(sorted(out, key=lambda one: (-abs(one.difference.value), one.term)))


def _agreement(a: _Read, b: _Read) -> Agreement:
    odds = [each.odds(each.everything) for each in (a, b)]
    k = min(TOP, odds[0].shape[1])
    places = [each.topk(k).indices for each in odds]
    top = [torch.zeros_like(each, dtype=torch.bool).scatter(1, at, True) for each, at in zip(odds, places, strict=True)]
    shared = (top[0] & top[1]).sum(1)
    above = [each.everything >= each.marks for each in (a, b)]
    either, both = int((above[0] | above[1]).sum()), int((above[0] & above[1]).sum())
    change = (torch.sigmoid(odds[0]) - torch.sigmoid(odds[1])).abs()
    return Agreement(
        states=len(change),
        top10_same=float((shared == k).float().mean()),
        top10_overlap=float(shared.float().mean()) / k,
        first_same=float((places[0][:, 0] == places[1][:, 0]).float().mean()),
        readings=either,
        readings_both=both / either if either else float("nan"),
        largest=float(change.max()),
        mean=float(change.mean()),
    )

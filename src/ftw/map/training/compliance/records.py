"""The compliance report as data: five properties, each a list of figures with unit, interval, bound and verdict.

The rule of the file: a figure that could not be measured is null and carries the reason; a bound is stated beside what
it is held against; a report belongs to one model and to the very bytes of one pack, and says so.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ftw.hat.classifiers.index import INDEX, PACK, ConceptPackId, ModelId
from ftw.map.training.bootstrap import Interval
from ftw.map.training.evaluate import Curve
from ftw.substrate.config import Strict
from ftw.substrate.errors import FingerprintMismatch, PackError, StorageError
from ftw.substrate.manifest import canonical_json, write_atomically

COMPLIANCE = "compliance.json"
PropertyName = Literal["locality", "transduction", "calibration", "efficiency", "control_authority"]
Verdict = Literal["met", "not met", "not measured"]


class Figure(Strict):
    """One number."""

    name: str
    """Snake case, unique within its property."""
    label: str
    """As a person reads it."""
    value: float | None = Field(allow_inf_nan=False)
    unit: str
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)
    """95 % interval over synsets, where there is one."""
    n: int | None = None
    """What it is a figure of: readings, lenses, steps …"""
    at_most: float | None = None
    at_least: float | None = None
    """The bound, where it decides the verdict."""
    reason: str | None = None
    """Why there is no value."""

    @model_validator(mode="after")
    def _said(self) -> "Figure":
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"{self.name} has value {self.value} and reason {self.reason!r}: exactly one is given")
        return self

    @property
    def is_met(self) -> bool | None:
        """Whether it keeps its bound; None where it has none, or no value."""
        if self.value is None or (self.at_most is None and self.at_least is None):
            return None
        return not (self.at_most is not None and self.value > self.at_most) and not (
            self.at_least is not None and self.value < self.at_least
        )


class Property(Strict):
    """One of the five, with what was measured of it."""

    name: PropertyName
    says: str
    """What the property promises, in one sentence."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Met if every bounded figure that was measured is, and one was."""
        known = [each.is_met for each in self.figures if each.is_met is not None]
        return "not measured" if not known else "met" if all(known) else "not met"

    def figure(self, name: str) -> Figure:
        """The figure of that name. Raises KeyError."""
        return {each.name: each for each in self.figures}[name]


class CurveRecord(Strict):
    """How often it is true what is said with a probability."""

    said: tuple[float, ...]
    true: tuple[float, ...]
    n: tuple[int, ...]

    @classmethod
    def of(cls, curve: Curve) -> "CurveRecord":
        return cls(said=curve.said, true=curve.true, n=curve.n)


class LensLine(Strict):
    """One lens."""

    term: str
    block: int
    level: int | None
    auroc: float | None
    """In held templates, measured now."""
    low: float | None
    high: float | None
    auroc_words: float | None
    """With synsets held out too, as training measured it."""
    false_alarms: float
    """Share of neutral text at or above the threshold, measured now."""
    self_mean: float | None
    cross_mean: float | None
    """Mean probability in prompts about the concept, and in all others."""


class Confusion(Strict):
    """How often a sibling's lens reads higher than the concept's own, in prompts about the concept."""

    term: str
    sibling: str
    share: float
    n: int


class ControlLine(Strict):
    """What steering one concept at the default strength did."""

    term: str
    logit_change: float
    """Of the concept's own lens, mean over neutral text."""
    rank: int
    """Of that change among all lenses; 1 is the largest."""
    damage_nats: float
    """Per token, expected."""


class PackId(Strict):
    """The lens pack, by its bytes."""

    name: str
    version: str
    sha256: str
    """Over pack.json and index.json, which hold the hash of every lens."""


class Setting(Strict):
    """Under what it was measured."""

    device: str
    threads: int
    dtype: str
    prompts: int
    neutral_states: int
    seed: int
    date: str
    seconds: float
    ftw: str
    torch: str


class ComplianceReport(Strict):
    """Everything: identity, setting, properties, and what the figures are drawn from."""

    format: Literal["ftw-hat-report/1"] = "ftw-hat-report/1"
    model: ModelId
    lens_pack: PackId
    concept_pack: ConceptPackId
    lenses_n: int
    setting: Setting
    properties: tuple[Property, ...]
    before: CurveRecord
    """Of sigmoid(logit)."""
    after: CurveRecord
    """Of the pack's maps."""
    lenses: tuple[LensLine, ...]
    confusions: tuple[Confusion, ...]
    """The most frequent first."""
    control: tuple[ControlLine, ...]

    def property(self, name: PropertyName) -> Property:
        """One of the five. Raises KeyError."""
        return {each.name: each for each in self.properties}[name]

    def as_json(self) -> dict[str, Any]:
        """Plain values, each property with its verdict and each bounded figure with whether it is met."""
        document = self.model_dump(mode="json")
        for told, each in zip(document["properties"], self.properties, strict=True):
            told["verdict"] = each.verdict
            for figure, record in zip(told["figures"], each.figures, strict=True):
                figure["met"] = record.is_met
        return document


def measured(
    name: str,
    label: str,
    value: float | Interval,
    unit: str,
    *,
    n: int | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
    reason: str = "too few examples",
) -> Figure:
    """A figure, with the interval of an `Interval`; NaN becomes null with the reason."""
    low = high = None
    if isinstance(value, Interval):
        low, high = (None if math.isnan(end) else end for end in (value.low, value.high))
        value = value.value
    if not math.isfinite(value):
        return absent(name, label, unit, reason, at_most=at_most, at_least=at_least)
    return Figure(
        name=name, label=label, value=value, unit=unit, low=low, high=high, n=n, at_most=at_most, at_least=at_least
    )


def absent(
    name: str, label: str, unit: str, reason: str, *, at_most: float | None = None, at_least: float | None = None
) -> Figure:
    """A figure that could not be measured."""
    return Figure(name=name, label=label, value=None, unit=unit, reason=reason, at_most=at_most, at_least=at_least)


def pack_digest(folder: Path) -> str:
    """The hash that says whether a pack is still the one that was measured. Raises StorageError."""
    digest = hashlib.sha256()
    for name in (PACK, INDEX):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise StorageError(f"{folder / name} cannot be read: {error.strerror}; is this a lens pack?") from error
    return digest.hexdigest()


def write_compliance(report: ComplianceReport, folder: Path) -> None:
    """compliance.json in the pack's folder, in one step. Raises StorageError."""
    body = canonical_json(report.model_dump(mode="json"))
    write_atomically(folder / COMPLIANCE, body + b"\n")


def read_compliance(folder: Path) -> ComplianceReport:
    """The report that lies in a pack's folder.

    Raises StorageError where there is none, PackError where it is damaged, FingerprintMismatch where the pack has
    changed since.
    """
    file = folder / COMPLIANCE
    try:
        found = ComplianceReport.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise StorageError(f"{folder} holds no {COMPLIANCE}: measure it with `ftw lens report --measure`") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise PackError(f"{file} is no compliance report: {first}. Measure it again with --measure") from error
    if found.lens_pack.sha256 != pack_digest(folder):
        raise FingerprintMismatch(
            f"{file} was measured on {found.lens_pack.sha256[:8]}, the pack beside it is {pack_digest(folder)[:8]}: "
            "measure it again with `ftw lens report --measure`"
        )
    return found


def schema() -> dict[str, Any]:
    """The JSON schema of compliance.json."""
    return ComplianceReport.model_json_schema()

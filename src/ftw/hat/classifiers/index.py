"""The rows of a lens pack's index.json and its pack.json, checked as they come in.

The rule of the file: an unknown key, a missing one or a value out of range is a PackError that names the file and the
row; nothing is guessed and nothing is dropped.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, field_validator, model_validator

from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError, StorageError

INDEX = "index.json"
PACK = "pack.json"
OLD_FORMAT = "ftw-lens-pack/1"
Role = Literal["concept", "simplex", "behavioral", "category"]
"""What a lens is for: tell a concept from its siblings, measure against a baseline, find a pattern of behaviour, mark a
whole domain."""


class Calibration(Strict):
    """Platt map of a lens, fitted on held-out data: p = sigmoid(slope * logit + offset)."""

    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Positive: a calibrated score never turns the order of logits around."""
    offset: float = Field(default=0.0, allow_inf_nan=False)

    def __call__(self, logit: float) -> float:
        """The calibrated probability of a logit."""
        x = self.slope * logit + self.offset
        return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


class Baseline(Strict):
    """The calibrated probability on neutral text."""

    mean: float = Field(default=0.0, ge=0, le=1)
    std: float = Field(default=0.0, ge=0, le=1)


class Reliability(Strict):
    """How far a lens can be trusted on words that it never saw: AUROC with a 95 % bootstrap interval over words."""

    auroc: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    """Words (or synsets) that were drawn again."""

    @model_validator(mode="after")
    def _ordered(self) -> "Reliability":
        if self.low > self.high:
            raise ValueError(f"the interval runs from {self.low} to {self.high}: low is at most high")
        return self


class LensRow(Strict):
    """One lens: whose it is, where its weights lie, what its logit means, how good it is.

    A concept may have lenses at several blocks: (term, block) says which one this is.
    """

    term: str = Field(min_length=1)
    block: int = Field(ge=-1)
    row: int = Field(ge=0)
    """Place among the lenses of its block, over all levels, in the order of the tensors."""
    threshold_logit: float = Field(default=0.0, allow_inf_nan=False)
    """A reading counts as above the lens's own baseline from this logit on."""
    calibration: Calibration = Calibration()
    baseline: Baseline = Baseline()
    auroc_templates: float | None = Field(default=None, ge=0, le=1)
    """Area under the ROC curve with whole templates held out."""
    auroc_words: float | None = Field(default=None, ge=0, le=1)
    """… with whole templates and whole words held out: the reliability that is shown beside a score."""
    fpr: float | None = Field(default=None, ge=0, le=1)
    """Share of neutral states above the threshold."""
    n_pos: int = Field(default=0, ge=0)
    n_words: int = Field(default=0, ge=0)
    level: int | None = Field(default=None, ge=0)
    """Depth of the concept in its ontology, 0 for a root."""
    parent: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    """Further held-out figures by name."""
    role: Role = "concept"
    primary: bool = True
    """Whether this is the lens that speaks for its concept; exactly one of a concept's is."""
    reliability: Reliability | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the lens's stored bytes, set as a pack is saved. See `layout`."""
    trained: str | None = None
    """When it was trained (ISO time), or the version of the training."""

    @field_validator("metrics")
    @classmethod
    def _finite(cls, value: dict[str, float]) -> dict[str, float]:
        wrong = [name for name, each in value.items() if not math.isfinite(each)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is not a finite number")
        return value

    @property
    def auroc(self) -> float | None:
        """The strictest held-out AUROC that is known."""
        if self.auroc_words is not None:
            return self.auroc_words
        return self.reliability.auroc if self.reliability is not None else self.auroc_templates

    @property
    def name(self) -> str:
        """The lens as messages name it."""
        return f"{self.term!r} at block {self.block}"


_ROWS = TypeAdapter(list[LensRow])


class ModelId(Strict):
    """The model that a pack was made for."""

    name: str
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    d_model: int = Field(gt=0)
    n_layers: int = Field(gt=0)


class ConceptPackId(Strict):
    """The concept pack whose terms a lens pack reads."""

    name: str
    version: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """None where it is not known: the lenses were imported without their concept pack."""


class PackInfo(Strict):
    """pack.json: the identity of a lens pack."""

    format: Literal["ftw-lens-pack/2"] = "ftw-lens-pack/2"
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    model: ModelId
    concept_pack: ConceptPackId
    sites: tuple[int, ...] = Field(min_length=1)
    """The blocks that its lenses read, ascending."""
    training: dict[str, JsonValue] = Field(default_factory=dict)
    provenance: dict[str, JsonValue] = Field(default_factory=dict)
    based_on: str | None = None

    @field_validator("sites")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("blocks are ascending and stand once")
        return value


def read_json(file: Path) -> Any:
    """The JSON value of a file. Raises StorageError where it cannot be read, PackError where it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda name: _refuse(file, name))
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}; is this the folder of a lens pack?") from error
    except (ValueError, RecursionError) as error:
        raise PackError(f"{file} is not valid JSON: {error}") from error


def read_info(folder: Path) -> PackInfo:
    """The identity of the lens pack in `folder`. Raises PackError, StorageError."""
    file = folder / PACK
    value = _mapping(read_json(file), str(file))
    if str(value.get("format", "")) == OLD_FORMAT:
        raise PackError(f"{file}: the format {OLD_FORMAT} is no longer read; fetch the pack again or train it again")
    try:
        return PackInfo.model_validate(value)
    except ValidationError as error:
        raise PackError(f"{file}: {complaints(error)}") from error


def read_index(folder: Path) -> tuple[LensRow, ...]:
    """The rows of a lens pack's index, in file order, checked alone and together. Raises PackError, StorageError."""
    file = folder / INDEX
    try:  # the whole of it at once takes a fifth of the time; what is wrong, and where, the slow way tells
        quick = _ROWS.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        quick = []
    if quick:
        check_index(quick, str(file))
        return tuple(quick)
    value = read_json(file)
    if not isinstance(value, list) or not value:
        raise PackError(f"{file} is not a list of lenses: one object per lens is needed")
    rows: list[LensRow] = []
    for at, item in enumerate(value):
        where = f"{file} row {at}"
        try:
            rows.append(LensRow.model_validate(_mapping(item, where)))
        except ValidationError as error:
            raise PackError(f"{where}: {complaints(error)}") from error
    check_index(rows, str(file))
    return tuple(rows)


def check_rows(rows: Iterable[LensRow], source: str) -> None:
    """Raise PackError unless terms are unique and each block's rows count 0, 1, 2 … with blocks ascending.

    This is what a bank needs: one lens for each of its concepts.
    """
    seen: dict[str, int] = {}
    rows = list(rows)
    for at, row in enumerate(rows):
        before = seen.setdefault(row.term.casefold(), at)
        if before != at:
            raise PackError(f"{source} row {at}: term {row.term!r} stands in row {before} already")
    _check_order(rows, source)


def check_index(rows: Iterable[LensRow], source: str) -> None:
    """Raise PackError unless the rows are those of a pack: each (term, block) once, one primary lens for each term,
    rows of a block counting 0, 1, 2 …, blocks ascending.
    """
    rows = list(rows)
    seen: dict[tuple[str, int], int] = {}
    speaks: dict[str, LensRow] = {}
    for at, row in enumerate(rows):
        before = seen.setdefault((row.term.casefold(), row.block), at)
        if before != at:
            raise PackError(f"{source} row {at}: {row.name} stands in row {before} already")
        if not row.primary:
            continue
        other = speaks.setdefault(row.term.casefold(), row)
        if other is not row:
            raise PackError(f"{source} row {at}: {row.name} and {other.name} are both primary: one lens of a term is")
    for at, row in enumerate(rows):
        if row.term.casefold() not in speaks:
            raise PackError(f"{source} row {at}: no lens of {row.term!r} is primary: one lens of a term is")
    _check_order(rows, source)


def _check_order(rows: Sequence[LensRow], source: str) -> None:
    expected = 0
    block: int | None = None
    for at, row in enumerate(rows):
        if row.block != block:
            if block is not None and row.block < block:
                raise PackError(f"{source} row {at}: block {row.block} comes after block {block}; blocks ascend")
            block, expected = row.block, 0
        if row.row != expected:
            raise PackError(
                f"{source} row {at}: {row.term!r} is row {row.row} of block {row.block}, expected {expected}"
            )
        expected += 1


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PackError(f"{where} is {type(value).__name__}, not an object")
    return value


def _refuse(file: Path, name: str) -> float:
    raise PackError(f"{file} holds {name}: a pack's numbers are finite")


def complaints(error: ValidationError) -> str:
    """What a record refuses, key by key, in one line."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors())

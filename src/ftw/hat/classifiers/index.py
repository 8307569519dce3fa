"""The rows of a lens pack's index.json and its pack.json, checked as they come in.

The rule of the file: an unknown key, a missing one or a value out of range is a PackError that names the file and the
row; nothing is guessed and nothing is dropped.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator

from ftw.substrate.config import Strict
from ftw.substrate.errors import PackError, StorageError

INDEX = "index.json"
PACK = "pack.json"


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


class LensRow(Strict):
    """One lens: whose it is, where its weights lie, what its logit means, how good it is."""

    term: str = Field(min_length=1)
    block: int = Field(ge=-1)
    row: int = Field(ge=0)
    """Place among the lenses of its block, in the order of the tensors."""
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

    @property
    def auroc(self) -> float | None:
        """The strictest held-out AUROC that is known."""
        return self.auroc_words if self.auroc_words is not None else self.auroc_templates


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
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class PackInfo(Strict):
    """pack.json: the identity of a lens pack."""

    format: Literal["ftw-lens-pack/1"] = "ftw-lens-pack/1"
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
    except ValueError as error:
        raise PackError(f"{file} is not valid JSON: {error}") from error


def read_info(folder: Path) -> PackInfo:
    """The identity of the lens pack in `folder`. Raises PackError, StorageError."""
    file = folder / PACK
    try:
        return PackInfo.model_validate(_mapping(read_json(file), str(file)))
    except ValidationError as error:
        raise PackError(f"{file}: {_complaints(error)}") from error


def read_index(folder: Path) -> tuple[LensRow, ...]:
    """The rows of a lens pack's index, in file order, checked alone and together. Raises PackError, StorageError."""
    file = folder / INDEX
    value = read_json(file)
    if not isinstance(value, list) or not value:
        raise PackError(f"{file} is not a list of lenses: one object per lens is needed")
    rows: list[LensRow] = []
    for at, item in enumerate(value):
        where = f"{file} row {at}"
        try:
            rows.append(LensRow.model_validate(_mapping(item, where)))
        except ValidationError as error:
            raise PackError(f"{where}: {_complaints(error)}") from error
    check_rows(rows, str(file))
    return tuple(rows)


def check_rows(rows: Iterable[LensRow], source: str) -> None:
    """Raise PackError unless terms are unique and each block's rows count 0, 1, 2 … with blocks ascending."""
    seen: dict[str, int] = {}
    expected = 0
    block: int | None = None
    for at, row in enumerate(rows):
        if row.term.casefold() in seen:
            raise PackError(f"{source} row {at}: term {row.term!r} stands in row {seen[row.term.casefold()]} already")
        seen[row.term.casefold()] = at
        if row.block != block:
            if block is not None and row.block < block:
                raise PackError(f"{source} row {at}: block {row.block} comes after block {block}; blocks ascend")
            block, expected = row.block, 0
        if row.row != expected:
            raise PackError(f"{source} row {at}: {row.term!r} is row {row.row} of block {block}, expected {expected}")
        expected += 1


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PackError(f"{where} is {type(value).__name__}, not an object")
    return value


def _refuse(file: Path, name: str) -> float:
    raise PackError(f"{file} holds {name}: a pack's numbers are finite")


def _complaints(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors())

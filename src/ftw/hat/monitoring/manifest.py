"""Deployment manifests: which concepts a deployment reads, what may be opened on request, what never.

A manifest is data (TOML or JSON) and names no tensors: `Deployment` in `hierarchy` resolves it against the lenses of a
bank. The rule of the file: an unknown key, a bad pattern or a contradiction is an error; nothing in it is ignored.
"""

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ftw.hat.classifiers.index import Calibration, PackInfo
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, PackError, StorageError

Priority = Literal["critical", "normal", "low"]
"""What is kept where not everything fits: critical before normal before low."""


def _pattern(value: str) -> str:
    if not re.fullmatch(r"\*|[^*/\s]+(?: [^*/\s]+)*(?:/\*)?", value):
        raise ValueError(f"{value!r} is no pattern: write a concept, CONCEPT/* for what stands below it, or * for all")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)*", value):
        raise ValueError(f"{value!r} is no version: write numbers with dots, 1.0.2")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
"""`*` everything; `X/*` what stands below X; `X` the concept X, and in a list of branches what stands below it too."""
Version = Annotated[str, AfterValidator(_version)]


Depth = Annotated[int, Field(ge=0)] | Literal["all"]
"""A level of the concept tree, 0 being the roots; `all` is the pack's deepest."""


class PackBounds(Strict):
    """The concept pack that a manifest is written for."""

    pack_id: str = Field(min_length=1)
    min_version: Version | None = None
    max_version: Version | None = None
    """The last version that is good, itself included."""


class LayerBounds(Strict):
    """Which levels of the concept tree are read."""

    default_max_layer: Depth = 2
    """The deepest level that is read where no other rule speaks."""
    absolute_max_layer: Depth = "all"
    """The deepest level that any rule but an explicit include or must_enable may open."""
    always_load_layers: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1)


class DomainOverride(Strict):
    """What differs within one domain."""

    max_layer: Depth = "all"
    """The deepest level that is read."""
    priority: Priority = "normal"


class BranchRule(Strict):
    """What differs within one branch of the tree."""

    branch: Pattern
    max_layer: Depth = "all"
    """The deepest level that is read."""
    priority: Priority = "normal"
    reason: str = ""


class ExplicitConcepts(Strict):
    """Concepts that are decided by name, before every other rule. `X` is X alone, `X/*` what stands below it."""

    always_include: tuple[Pattern, ...] = ()
    always_exclude: tuple[Pattern, ...] = ()


class DynamicLoading(Strict):
    """When what is closed opens by itself: by a parent's calibrated reading."""

    enabled: bool = True
    parent_threshold: float = Field(default=0.7, ge=0, le=1)
    """A parent's children are read from this calibrated probability on."""
    unload_threshold: float = Field(default=0.1, ge=0, le=1)
    """Where lenses take room: below this probability of the parent, its children may go …"""
    cooldown_ticks: int = Field(default=100, ge=0)
    """… after this many tokens in a row."""
    max_loaded_concepts: Annotated[int, Field(ge=1)] | Literal["all"] = 2000
    """At most this many concepts are loaded at the start, by priority."""
    max_loaded_bytes: int | None = Field(default=None, ge=1)
    """Room for lenses on the device, for a bank that loads them as they are needed. None: no such limit."""

    @model_validator(mode="after")
    def _ordered(self) -> "DynamicLoading":
        if self.unload_threshold > self.parent_threshold:
            raise ValueError(
                f"unload_threshold {self.unload_threshold} is above parent_threshold {self.parent_threshold}: "
                "what has just opened would close"
            )
        return self


class Opening(Strict):
    """Branches that share one rule of the aperture."""

    branches: tuple[Pattern, ...] = Field(min_length=1)
    reason: str = ""
    cat_scope: str | None = None
    """Who has to oversee what is opened here, in words for whoever asks."""


class Aperture(Strict):
    """What is always open, what may be opened on request, and what never is."""

    must_enable: tuple[Opening, ...] = ()
    may_enable: tuple[Opening, ...] = (Opening(branches=("*",)),)
    must_not_enable: tuple[Opening, ...] = ()


class Comparability(Strict):
    """With which deployments readings may be compared."""

    comparable_with: tuple[str, ...] = ()
    """Ids of manifests. Empty: any."""
    comparison_layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Levels over which readings are compared. None: all."""
    fingerprint: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """What must be loaded in the end. None: not checked."""


class RequiredBy(Strict):
    """Who asks for this manifest. A record; nothing is decided by it here."""

    contracts: tuple[str, ...] = ()
    qualifications: tuple[str, ...] = ()
    treaties: tuple[str, ...] = ()


class DeploymentManifest(Strict):
    """A whole manifest. Only `manifest_id` is needed."""

    manifest_id: str = Field(min_length=1)
    version: str = Field(default="1.0.0", min_length=1)
    concept_pack: PackBounds | None = None
    """None: any pack."""
    layer_bounds: LayerBounds = LayerBounds()
    domain_overrides: dict[str, DomainOverride] = Field(default_factory=dict)
    """By domain, in any case."""
    branch_rules: tuple[BranchRule, ...] = ()
    """The first that matches wins."""
    explicit_concepts: ExplicitConcepts = ExplicitConcepts()
    dynamic_loading: DynamicLoading = DynamicLoading()
    aperture: Aperture = Aperture()
    comparability: Comparability = Comparability()
    concept_calibration: dict[str, Calibration] = Field(default_factory=dict)
    """Calibrations that stand in for the lens pack's own, by concept."""
    required_by: RequiredBy = RequiredBy()

    def check_pack(self, info: PackInfo) -> None:
        """Raise PackError unless a lens pack reads the concept pack that this manifest is written for."""
        bounds, pack = self.concept_pack, info.concept_pack
        if bounds is None:
            return
        if pack.name != bounds.pack_id:
            raise PackError(
                f"manifest {self.manifest_id} is for concept pack {bounds.pack_id}, lens pack {info.name} reads "
                f"{pack.name}: take a lens pack for {bounds.pack_id}, or another manifest"
            )
        if bounds.min_version is None and bounds.max_version is None:
            return
        try:
            found = _numbers(_version(pack.version))
        except ValueError as error:
            raise PackError(f"the version of concept pack {pack.name} cannot be compared: {error}") from error
        if (bounds.min_version and found < _numbers(bounds.min_version)) or (
            bounds.max_version and found > _numbers(bounds.max_version)
        ):
            span = f"{bounds.min_version or 'any'} to {bounds.max_version or 'any'}"
            raise PackError(
                f"manifest {self.manifest_id} is for {pack.name} {span}, lens pack {info.name} reads {pack.version}"
            )


def read_manifest(name: str | Path) -> DeploymentManifest:
    """A manifest by its file (.toml or .json) or the name of a preset.

    Raises ConfigError that names the key, StorageError where the file cannot be read.
    """
    text = str(name)
    if text in presets():
        source = f"preset {text}"
        return DeploymentManifest.read(tomllib.loads(_preset(text).read_text(encoding="utf-8")), source=source)
    file = Path(name).expanduser()
    if file.suffix not in (".toml", ".json"):
        raise ConfigError(
            f"{text} is no manifest: name a .toml or .json file, or one of the presets {', '.join(presets())}"
        )
    return DeploymentManifest.read(_values(file), source=str(file))


def presets() -> tuple[str, ...]:
    """The names of the manifests that ship."""
    home = Path(str(files("ftw.hat.monitoring") / "presets"))
    return tuple(sorted(file.stem for file in home.glob("*.toml")))


def _preset(name: str) -> Path:
    return Path(str(files("ftw.hat.monitoring") / "presets" / f"{name}.toml"))


def _values(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{file} cannot be read: {error}") from error
    try:
        values = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except ValueError as error:  # of both readers
        raise ConfigError(f"{file} is not valid {file.suffix[1:].upper()}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds {type(values).__name__}: a manifest is an object of keys and values")
    return values


def _numbers(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:  # 1.0 is 1
        parts.pop()
    return tuple(parts)

"""Settings and specs: what comes from a person, a file or the environment, checked before anything runs.

The rule of the file: it is the only reader of `os.environ`, and an unknown key or a bad value stops the program.
"""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftw.substrate.errors import ConfigError

Read = TypeVar("Read", bound="Strict")
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]


class Strict(BaseModel):
    """The base of everything that is read from outside: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls: type[Read], values: Mapping[str, Any], *, source: str) -> Read:
        """An instance from plain values. Raises ConfigError that names `source`, the key, and what would be good."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"{source}: {'; '.join(_complaints(error, cls.model_fields))}") from error


class ModelSpec(Strict):
    """Which model, and how to load it."""

    name: str = Field(min_length=1)
    """`reference` (bundled), `tiny` (random, for tests), a local folder, or a Hugging Face hub id."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the hub's default branch."""
    dtype: DTypeName = "auto"
    """`auto`: float32 on a CPU, the checkpoint's own dtype on CUDA."""
    device: str = "auto"
    """`auto`: the CUDA device with the most free memory if there is one, else the CPU. Or `cpu`, `cuda`, `cuda:1`."""
    trust_remote_code: bool = False
    """Whether code from the model's folder or hub page may run. Off unless asked."""

    @classmethod
    def of(cls, spec: "ModelSpec | str") -> "ModelSpec":
        """`spec` itself, or the spec of a model name with every default."""
        return cls.read({"name": spec}, source="model") if isinstance(spec, str) else spec


class Settings(Strict):
    """The program's settings: one FTW_* variable each, for example FTW_MODEL."""

    model: str = "reference"
    """FTW_MODEL: the model that verbs use when none is named."""
    pack: str | None = None
    """FTW_PACK: the lens pack that verbs use when none is named. None is the bundled one."""
    device: str = "auto"
    """FTW_DEVICE: see ModelSpec.device."""
    dtype: DTypeName = "auto"
    """FTW_DTYPE: see ModelSpec.dtype."""
    cache_dir: Path | None = None
    """FTW_CACHE_DIR: where fingerprints of large models are remembered. None: $XDG_CACHE_HOME/ftw or ~/.cache/ftw."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """The settings of this process. Raises ConfigError for an unknown FTW_* variable, naming the nearest one."""
        env = os.environ if env is None else env
        given = {key: value for key, value in env.items() if key.startswith("FTW_")}
        known = {f"FTW_{name.upper()}": name for name in cls.model_fields}
        for key in given:
            if key not in known:
                raise ConfigError(f"{key} is not a setting of ftw{_nearest(key, known)}")
        values: dict[str, Any] = {known[key]: value for key, value in given.items() if value != ""}
        settings = cls.read(values, source="environment")
        if settings.cache_dir is None:
            base = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path(env.get("HOME", "~")) / ".cache"
            settings = settings.model_copy(update={"cache_dir": base.expanduser() / "ftw"})
        return settings

    def spec(self, name: str | None = None) -> ModelSpec:
        """The model to use: `name` if given, else the setting; with the settings' device and dtype."""
        return ModelSpec(name=name or self.model, dtype=self.dtype, device=self.device)


def _complaints(error: ValidationError, known: Iterable[str]) -> list[str]:
    """One phrase per problem: the key, what is wrong with it, the value that was given."""
    phrases = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            phrases.append(f"{key} is not a known key{_nearest(key, known)}")
        else:
            phrases.append(f"{key}: {problem['msg']} (got {problem['input']!r})")
    return phrases


def _nearest(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"

"""Settings and specs: what comes from a person, a file or the environment, checked before anything runs.

The rule of the file: it is the only reader of `os.environ`, and an unknown key or a bad value stops the program.
"""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, TypeAdapter, ValidationError

from ftw.substrate.errors import ConfigError

Read = TypeVar("Read", bound="Strict")
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]


MOST_FORWARD_ROWS = 4096
"""Nonces that may share a forward pass."""


class Strict(BaseModel):
    """The base of everything that is read from outside: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(
        cls: type[Read],
        values: Mapping[str, Any],
        *,
        source: str,
        prefix: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Read:
        """An instance from plain values. Raises ConfigError that names `source`, the key, and what would be good.

        With a prefix the values were variables: keys are named as these are, FTW_MODEL for `model`. `options` names
        keys as a person gave them, `{"k": "--top"}`.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            told = _complaints(error, cls.model_fields, prefix, options or {})
            raise ConfigError(f"{source}: {'; '.join(told)}") from error


def parse_size(text: str) -> int:
    """Bytes from `64MB`, `1.5 GiB` or `1000000`. Raises ValueError, as pydantic asks of a validator."""
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except ValidationError:
        size = 0
    if size < 1:
        raise ValueError(f"{text!r} is no size: give bytes with a unit, such as 64MB (decimal) or 1.5GiB (binary)")
    return size


class ModelSpec(Strict):
    """Which model, and how to load it."""

    name: str = Field(min_length=1)
    """`reference` (bundled), `tiny` (random, for tests), a local folder, or a Hugging Face hub id."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the hub's default branch."""
    dtype: DTypeName = "auto"
    """`auto`: float32 on a CPU, the checkpoint's own dtype on CUDA."""
    device: str = "auto"
    """`auto`: the CUDA device with the most free memory if there is one, else the CPU. Or `cpu`, `cuda`, `cuda:1`;
    `map` for a model larger than one device: over all of them, main memory and the disk (extra `offload`)."""
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
    lens_memory: Annotated[int, BeforeValidator(parse_size)] | None = None
    """FTW_LENS_MEMORY: bytes that lenses may take, such as 64MB; more lenses than fit are read when their parents are.
    None: all lenses are in memory."""
    packs_dir: Path | None = None
    """FTW_PACKS_DIR: where pulled packs live. None: $XDG_DATA_HOME/ftw or ~/.local/share/ftw."""
    hub_org: str = Field("ftw-project", pattern=r"^[\w.-]+$")
    """FTW_HUB_ORG: the organisation on the hub that a pack's bare name is looked for in."""
    token: str | None = Field(None, repr=False)
    """FTW_TOKEN: what clients of `ftw serve` must send. None: nothing on loopback, a new one each time elsewhere."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """The settings of this process. Raises ConfigError for an unknown FTW_* variable, naming the nearest one."""
        env = os.environ if env is None else env
        settings = cls.read(_variables(env, "FTW_", cls.model_fields), source="environment", prefix="FTW_")
        if settings.cache_dir is None:
            base = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path(env.get("HOME", "~")) / ".cache"
            settings = settings.model_copy(update={"cache_dir": base.expanduser() / "ftw"})
        if settings.packs_dir is None:
            home = Path(env.get("HOME", "~")) / ".local" / "share"
            base = Path(env["XDG_DATA_HOME"]) if env.get("XDG_DATA_HOME") else home
            settings = settings.model_copy(update={"packs_dir": base.expanduser() / "ftw"})
        return settings

    def spec(self, name: str | None = None) -> ModelSpec:
        """The model to use: `name` if given, else the setting; with the settings' device and dtype."""
        return ModelSpec(name=name or self.model, dtype=self.dtype, device=self.device)


class PocSettings(Strict):
    """The settings of the proof-of-compute service: one POC_* variable each, for example POC_PROFILE."""

    callback_interval_sec: float = Field(5.0, gt=0, le=3600, allow_inf_nan=False)
    """POC_CALLBACK_INTERVAL_SEC: seconds between two callbacks of a round."""
    generate_chunk_timeout_sec: float = Field(60.0, gt=0, le=86400, allow_inf_nan=False)
    """POC_GENERATE_CHUNK_TIMEOUT_SEC: seconds that one unit of an explicit request waits for a busy model."""
    generate_result_ttl_sec: float = Field(300.0, gt=0, le=86400, allow_inf_nan=False)
    """POC_GENERATE_RESULT_TTL_SEC: seconds for which the result of a queued request can be fetched."""
    rpc_timeout_ms: int = Field(60_000, ge=1, le=3_600_000)
    """POC_RPC_TIMEOUT_MS: milliseconds that one forward pass waits for the model before it is tried again."""
    batch_size_default: int = Field(32, ge=1, le=65536)
    """POC_BATCH_SIZE_DEFAULT: nonces per unit of work where a request names no batch_size."""
    max_queued_nonces: int = Field(100_000, ge=1, le=10_000_000)
    """POC_MAX_QUEUED_NONCES: nonces that may wait in the queue, those of the running request included."""
    callback_max_artifacts: int = Field(1000, ge=1, le=1_000_000)
    """POC_CALLBACK_MAX_ARTIFACTS: artifacts in one callback; what is more goes into further ones."""
    callback_allow: str = ""
    """POC_CALLBACK_ALLOW: hosts or networks, comma separated, that callbacks may go to though they are not public."""
    nan_kill_threshold: int = Field(3, ge=1, le=1_000_000)
    """POC_NAN_KILL_THRESHOLD: batches in a row with a NaN or an infinity after which a round has failed."""
    profile: str = Field("artifact-k12", min_length=1)
    """POC_PROFILE: the protocol profile that this server proves by."""
    seq_len: int = Field(256, ge=1, le=1_048_576)
    """POC_SEQ_LEN: positions per forward pass."""
    k_dim: int = Field(0, ge=0, le=65536)
    """POC_K_DIM: dimensions read. 0 stands for the profile's own number."""
    forward_rows: int = Field(8, ge=1, le=MOST_FORWARD_ROWS)
    """POC_FORWARD_ROWS: nonces per forward pass. It decides bits: prover and validator use the same number."""
    priority: Literal["chat", "proof"] = "chat"
    """POC_PRIORITY: who goes first where both want the model."""
    journal: Path | None = None
    """POC_JOURNAL: the journal's file. None: poc.sqlite in the cache folder."""
    stop_deadline_sec: float = Field(5.0, ge=0, le=3600, allow_inf_nan=False)
    """POC_STOP_DEADLINE_SEC: seconds that a stop waits for the running batch and for the last callbacks."""
    signing_key: Path | None = None
    """POC_SIGNING_KEY: the Ed25519 key that signs commitments, made on first use. None: beside the journal."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "PocSettings":
        """The settings of this process, with all paths filled in (FTW_CACHE_DIR decides where they lie).

        Raises ConfigError for an unknown POC_* variable, naming the nearest one, and for a value out of bounds.
        """
        env = os.environ if env is None else env
        settings = cls.read(_variables(env, "POC_", cls.model_fields), source="environment", prefix="POC_")
        journal, key = settings.journal, settings.signing_key
        if journal is None:
            journal = (Settings.from_env(env).cache_dir or Path()) / "poc.sqlite"
        return settings.model_copy(update={"journal": journal, "signing_key": key or journal.with_suffix(".key.pem")})


def environment(**more: str) -> dict[str, str]:
    """The variables of this process and some more, for a process that it starts."""
    return {**os.environ, **more}


def _variables(env: Mapping[str, str], prefix: str, fields: Iterable[str]) -> dict[str, str]:
    """The variables with this prefix by field name; an empty one counts as unset, an unknown one raises ConfigError."""
    known = {prefix + name.upper(): name for name in fields}
    given = {key: value for key, value in env.items() if key.startswith(prefix)}
    for key in given:
        if key not in known:
            raise ConfigError(f"{key} is not a setting of ftw{_nearest(key, known)}")
    return {known[key]: value for key, value in given.items() if value != ""}


def _complaints(error: ValidationError, known: Iterable[str], prefix: str, options: Mapping[str, str]) -> list[str]:
    """One phrase per problem: the key, what is wrong with it, the value that was given."""
    phrases = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        key = prefix + key.upper() if prefix else options.get(str(problem["loc"][0]), key) if problem["loc"] else key
        if problem["type"] == "extra_forbidden":
            phrases.append(f"{key} is not a known key{_nearest(key, known)}")
        else:
            phrases.append(f"{key}: {problem['msg']} (got {problem['input']!r})")
    return phrases


def _nearest(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"

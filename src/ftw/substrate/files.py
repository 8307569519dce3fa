"""From a name to a loaded net: where the files are, what their config says, and transformers' loaders.

The rule of the file: transformers' many exceptions end here, as errors that name the file or the id and the way out.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file, get_checkpoint_shard_files, is_offline_mode  # type: ignore[attr-defined]

from ftw.substrate.bundled import reference_dir
from ftw.substrate.checkpoint import INDEX, PICKLED, WEIGHTS, Checkpoint, open_checkpoint
from ftw.substrate.config import ModelSpec
from ftw.substrate.errors import MissingExtra, ModelBroken, ModelError, ModelNotFound, NotCausalLM

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
OTHER_TASKS = re.compile(
    r"For(MaskedLM|\w*Classification|QuestionAnswering|PreTraining|NextSentence\w*|MultipleChoice)$"
)
SHOW_PROGRESS_ABOVE = 1 << 30
"""Bytes: below, loading takes about a second and transformers' progress bar only flickers."""


def locate(spec: ModelSpec) -> Checkpoint:
    """The files of a model: bundled, in a local folder, or on the hub (downloaded unless offline), all of them present.

    Raises ModelNotFound, or ModelBroken naming what is missing or damaged.
    """
    if spec.name == "reference":
        return open_checkpoint(reference_dir())
    path = Path(spec.name).expanduser()
    if path.is_dir():
        return open_checkpoint(path)
    if path.exists():
        raise ModelNotFound(f"{path} is a file: give the folder that holds config.json and the weights")
    if spec.name.startswith((".", "/", "~")) or not HUB_ID.fullmatch(spec.name):
        raise ModelNotFound(f"no folder {path}: give a folder, a hub id such as org/name, or `reference`")
    return open_checkpoint(_fetch(spec))


def load_config(spec: ModelSpec, checkpoint: Checkpoint) -> Any:
    """The transformers config. Raises NotCausalLM for another kind of model, ModelError for an unknown one."""
    file = checkpoint.folder / "config.json"
    kind = checkpoint.config.get("model_type")
    try:
        config = AutoConfig.from_pretrained(_source(spec, checkpoint), **_options(spec))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, StrictDataclassError) as error:
        if not kind:
            raise ModelBroken(f"{file} names no model_type: it is not a transformers model") from error
        if "auto_map" in checkpoint.config and not spec.trust_remote_code:
            raise ModelError(f"{spec.name} needs code of its own: read it, then load with trust_remote_code") from error
        known = kind in transformers.CONFIG_MAPPING
        why = (
            f"holds a bad value: {_line(error)}"
            if known
            else f"is of type {kind!r}, unknown to {_version()}: upgrade it"
        )
        raise (ModelBroken if known else ModelError)(f"{file} {why}") from error
    named = next(iter(getattr(config, "architectures", None) or ()), "")
    if getattr(config, "is_encoder_decoder", False):
        raise NotCausalLM(f"{spec.name} ({named or kind}) is an encoder-decoder: ftw opens causal language models")
    if OTHER_TASKS.search(named):
        raise NotCausalLM(f"{spec.name} is a {named}: it does not predict a next token")
    if _loader(config) is None and not spec.trust_remote_code:
        raise NotCausalLM(f"{spec.name} ({named or kind}) has no causal language model in {_version()}")
    return config


def load_net(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    config: Any,
    dtype: torch.dtype,
    *,
    placement: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """The net on the CPU in `dtype`, or where `placement` (transformers' options) puts its parts.

    Raises ModelBroken where files and config do not fit together.
    """
    loader: Any = _loader(config) or AutoModelForCausalLM
    options = _options(spec) | dict(placement or {})
    try:
        with _quiet(checkpoint.n_bytes < SHOW_PROGRESS_ABOVE):
            net, report = loader.from_pretrained(
                _source(spec, checkpoint), config=config, dtype=dtype, output_loading_info=True, **options
            )
    except ImportError as error:
        raise MissingExtra(f"{spec.name} needs another package: {_line(error)}") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelBroken(f"{checkpoint.folder} cannot be loaded: {_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelBroken(
            f"{checkpoint.folder}: the weights lack {len(missing)} tensors that config.json asks for, "
            f"first {missing[0]}. Weights and config belong to different models, or shards are missing"
        )
    result: PreTrainedModel = net
    return result


def empty_net(spec: ModelSpec, config: Any) -> PreTrainedModel:
    """The net without weights (on the meta device): names and shapes. Raises ModelBroken where config makes none."""
    loader: Any = _loader(config) or AutoModelForCausalLM
    options = {"trust_remote_code": True} if spec.trust_remote_code else {}
    try:
        with torch.device("meta"):
            net: PreTrainedModel = loader.from_config(config, **options)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"the config of {spec.name} makes no model: {_line(error)}") from error
    return net


def load_tokenizer(spec: ModelSpec, checkpoint: Checkpoint) -> PreTrainedTokenizerBase | None:
    """The tokenizer, or None where the model comes without one. Raises ModelBroken where its files are damaged."""
    if not _is_on_hub(spec) and not checkpoint.has_tokenizer:
        return None
    try:
        with _quiet(True):
            tokenizer = AutoTokenizer.from_pretrained(_source(spec, checkpoint), **_options(spec))
    except ImportError as error:
        raise MissingExtra(f"the tokenizer of {spec.name} needs another package: {_line(error)}") from error
    # tokenizers (Rust) raises bare Exception for a damaged tokenizer.json
    except Exception as error:
        if not checkpoint.has_tokenizer:
            return None
        raise ModelBroken(f"the tokenizer in {checkpoint.folder} cannot be read: {_line(error)}") from error
    result: PreTrainedTokenizerBase = tokenizer
    return result


def _fetch(spec: ModelSpec) -> Path:
    """The snapshot folder of a hub id, with config and all weights. Downloads what is missing unless offline."""
    try:
        found = cached_file(spec.name, "config.json", revision=spec.revision)
    except OSError as error:
        where = "and offline mode is on (HF_HUB_OFFLINE)" if is_offline_mode() else f"({_line(error)})"
        raise ModelNotFound(
            f"{spec.name} is no folder here and not in the hub's local cache {where}: check the id, or download it"
        ) from error
    if found is None:
        raise ModelNotFound(f"{spec.name} on the hub has no config.json: it is not a transformers model")
    config = Path(found)
    for name in (INDEX, WEIGHTS, *reversed(PICKLED)):
        file = _cached(spec, name)
        if file is None:
            continue
        if name.endswith(".index.json"):
            try:
                get_checkpoint_shard_files(spec.name, str(file), revision=spec.revision)  # type: ignore[no-untyped-call]
            except OSError as error:
                raise ModelBroken(f"{spec.name} is only partly downloaded: {_line(error)}. Repeat it online") from error
        return config.parent
    raise ModelBroken(
        f"{spec.name}: {WEIGHTS} is missing in {config.parent}. The download did not finish; repeat it online"
    )


def _cached(spec: ModelSpec, name: str) -> Path | None:
    try:
        found = cached_file(spec.name, name, revision=spec.revision)
    except OSError:
        return None
    return Path(found) if found else None


def _is_on_hub(spec: ModelSpec) -> bool:
    return spec.name != "reference" and not Path(spec.name).expanduser().is_dir()


def _source(spec: ModelSpec, checkpoint: Checkpoint) -> str:
    """What transformers' loaders are given: the hub id (they may still need its code or tokenizer), else the folder."""
    return spec.name if _is_on_hub(spec) else str(checkpoint.folder)


def _options(spec: ModelSpec) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    return options | ({"revision": spec.revision} if spec.revision and _is_on_hub(spec) else {})


def _loader(config: Any) -> Any:
    loaders: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText)
    for auto in loaders:
        if type(config) in auto._model_mapping:
            return auto
    return None


def _version() -> str:
    return f"transformers {transformers.__version__}"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


@contextmanager
def _quiet(active: bool) -> Iterator[None]:
    """transformers' log below errors and its progress bars silent, as they were afterwards."""
    log: Any = transformers_logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    if active:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()

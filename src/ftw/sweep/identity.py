"""Identity: what decides a sweep's numbers besides weights and prompts, as digests: the model's config and this code.

The rule of the file: what can change a number changes a digest; where a model came from does not.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ftw
from ftw.substrate.canonical import sha256_hex
from ftw.substrate.model import Model
from ftw.substrate.probe import text_config

ORIGIN = frozenset((
    "_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype",
    "_attn_implementation", "attn_implementation",
))  # fmt: skip
"""Keys of a config that decide no number, or stand beside its digest: dtype and attention."""
CODE = (
    *(f"sweep/{name}.py" for name in ("decode", "ends", "forward", "head", "metrics", "plan", "run", "table")),
    "sweep/lenses/*.py",
    *(f"substrate/{name}.py" for name in ("anatomy", "arch", "files", "gate", "model", "offload", "probe", "taps")),
    *(f"substrate/{name}.py" for name in ("transform", "unembed", "watch")),
)
"""The files, seen from the package, whose code makes the numbers of a table out of token ids."""


def config_sha256(model: Model) -> str:
    """SHA-256 (hex) of the model's config: norm epsilon, rotary base and scaling, caps, windows and all else.

    Of `config.json` as it stands where the model came from files, so that another version of transformers gives the
    same; else of the config in memory. Keys are sorted; name, commit, versions, dtype and attention are left out.
    """
    config: Any = model.net.config
    found = model.checkpoint.config if model.checkpoint is not None else config.to_dict()
    return sha256_hex(json.dumps(_bare(found), sort_keys=True, default=str).encode())


def attention(model: Model) -> str | None:
    """Which implementation of attention runs, as transformers calls it: `sdpa`, `eager`, …"""
    found = getattr(text_config(model.net), "_attn_implementation", None)
    return None if found is None else str(found)


def code_sha256(package: Path | None = None) -> str:
    """SHA-256 (hex) over the names and bytes of the files in `CODE`, below `package` (default: this one)."""
    root = package or Path(ftw.__file__).parent
    digest = hashlib.sha256()
    for file in sorted({file for pattern in CODE for file in root.glob(pattern)}):
        data = file.read_bytes()
        digest.update(json.dumps([file.relative_to(root).as_posix(), len(data)]).encode() + b"\n" + data)
    return digest.hexdigest()


def _bare(value: Any) -> Any:
    """A config without `ORIGIN`, at every depth."""
    if isinstance(value, Mapping):
        return {str(key): _bare(each) for key, each in value.items() if key not in ORIGIN}
    return [_bare(each) for each in value] if isinstance(value, list | tuple) else value

"""Provenance: what made a run's numbers. Model, tokenizer, code, versions, device, threads, seed, determinism.

The rule of the file: everything is read where it stands when it is asked for, nothing is started. A checkout's commit
is read from its files, so no git is needed; what cannot be known is None.
"""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ftw
from ftw.substrate.canonical import canonical_json, sha256_hex
from ftw.substrate.model import Model
from ftw.sweep.identity import attention, code_sha256, config_sha256
from ftw.sweep.lenses import VocabLens

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow")
"""Whose versions decide numbers or files."""
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
MOST_LINKS = 5
"""Symbolic refs that are followed."""
PROJECT = 'name = "ftw-transparency"'
"""What stands in the project file of a checkout of this code."""


def capture(
    model: Model, lenses: Sequence[VocabLens] = (), *, seed: int | None = None, battery: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The block `provenance` of a run's document: plain JSON values, the same for the same state of the process."""
    return {
        "model": {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "config_sha256": config_sha256(model),
            "attention": attention(model),
            "revision": revision(model),
            "architecture": type(model.net).__name__,
            "parameters": sum(each.numel() for each in model.net.parameters()),
        },
        "tokenizer": {
            "class": None if model.tokenizer is None else type(model.tokenizer).__name__,
            "sha256": tokenizer_sha256(model),
        },
        "code": {"version": ftw.__version__, "commit": commit(), "sha256": code_sha256()},
        "lenses": [{"name": lens.name, "digest": lens.digest} for lens in lenses],
        "battery": dict(battery) if battery is not None else None,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
    }


def device(model: Model) -> dict[str, Any]:
    """Where the model takes its tokens in, and what that device is called."""
    at = model.device
    if at.type != "cuda":
        return {"type": at.type, "name": platform.processor() or platform.machine(), "cuda": None, "cudnn": None}
    return {
        "type": str(at),
        "name": torch.cuda.get_device_name(at),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def revision(model: Model) -> str | None:
    """The commit of a model from the hub (its snapshot's folder is named after it), or the revision that was asked for.

    None for a folder and for what was built in memory: there the fingerprint is all that says which weights they are.
    """
    if model.checkpoint is not None:
        folder = model.checkpoint.folder
        if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
            return folder.name
    return model.spec.revision


def tokenizer_sha256(model: Model) -> str | None:
    """SHA-256 (hex) of what the tokenizer does: its rules and vocabulary, however its files are written.

    A fast tokenizer's own serialisation without padding and truncation (a call can switch them), as canonical JSON;
    else its vocabulary and special tokens. None without a tokenizer.
    """
    if model.tokenizer is None:
        return None
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        kept = {key: value for key, value in rules.items() if key not in ("padding", "truncation")}
        return sha256_hex(canonical_json(kept))
    special = sorted(model.tokenizer.all_special_tokens)
    return sha256_hex(canonical_json({"vocab": model.tokenizer.get_vocab(), "special": special}))


def commit(package: Path | None = None) -> str | None:
    """The commit of the checkout that `package` (default: this one) lies in; None outside one. Changes do not show.

    A package installed into some other project's environment is not that project's commit: the root must be ours.
    """
    start = package or Path(ftw.__file__).parent
    for root in start.parents:
        if (root / ".git").exists():
            return _head(root) if _is_ours(root) else None
    return None


def _is_ours(root: Path) -> bool:
    project = _text(root / "pyproject.toml")
    return project is not None and PROJECT in project


def _head(root: Path) -> str | None:
    folder = root / ".git"
    if folder.is_file():  # a worktree: the file says where its folder is
        pointer = _text(folder)
        if pointer is None or not pointer.startswith("gitdir:"):
            return None
        folder = root / pointer.removeprefix("gitdir:").strip()
    common = _text(folder / "commondir")
    shared = folder / common.strip() if common else folder
    ref = "HEAD"
    for _ in range(MOST_LINKS):
        text = _text(folder / ref) or _text(shared / ref) or _packed(shared, ref)
        if text is None:
            return None
        text = text.strip()
        if COMMIT.fullmatch(text):
            return text
        if not text.startswith("ref:"):
            return None
        ref = text.removeprefix("ref:").strip()
    return None


def _packed(folder: Path, ref: str) -> str | None:
    for line in (_text(folder / "packed-refs") or "").splitlines():
        found, _, name = line.partition(" ")
        if name == ref:
            return found
    return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

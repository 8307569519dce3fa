"""Names: what a pack is called on disk and on the hub, and which paths a pack may hold.

On disk a lens pack is `{model}_{concept-pack}` in `lens_packs/`, on the hub `lens-{model}-{pack}`; a concept pack is
`{pack}` in `concept_packs/` and `concept-pack-{pack}`. The rule of the file: what comes from outside and would name a
place outside a pack is an error, never cleaned up.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Literal

from ftw.substrate.errors import ConfigError, PackError

Kind = Literal["concept", "lens"]
KINDS: tuple[Kind, ...] = ("concept", "lens")
FOLDERS: dict[Kind, str] = {"concept": "concept_packs", "lens": "lens_packs"}
"""The folder of each kind below the registry's home."""
PREFIXES: dict[Kind, str] = {"concept": "concept-pack-", "lens": "lens-"}
"""What a repository's name begins with on the hub."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
LEFT_OUT = ("logs/*", "*.log", "*.pyc", "*__pycache__/*", "*.part")
"""Files that are no part of a pack, beside those whose name begins with a dot."""
LEVEL_FILE = re.compile(r"level(\d+)\.safetensors|layer(\d+)/.+")
"""What belongs to one level of a lens pack: its tensors, or its folder in the legacy layout."""


def check_name(name: str) -> str:
    """`name`, if a folder can be called so. Raises ConfigError."""
    if not NAME.fullmatch(name) or ".." in name:
        raise ConfigError(f"{name!r} is no name for a pack: use letters, digits, '_', '-' and single dots")
    return name


def key_of(name: str) -> str:
    """What two spellings of a name have in common: `lens-Apertus-8b-first-light` and `apertus-8b_first-light` do."""
    key = name.lower().replace("_", "-")
    for prefix in PREFIXES.values():
        key = key.removeprefix(prefix)
    return key


def kind_by_name(name: str) -> Kind | None:
    """The kind that a repository's name tells; None where it tells none."""
    bare = name.rsplit("/", 1)[-1].lower()
    return next((kind for kind in KINDS if bare.startswith(PREFIXES[kind])), None)


def repo_of(kind: Kind, name: str, org: str) -> str:
    """The repository on the hub that a pack of this name is kept in."""
    return f"{org}/{PREFIXES[kind]}{key_of(check_name(name))}"


def kind_of(paths: Iterable[str], source: str) -> Kind:
    """The kind of pack that these files are. Raises PackError where they are none."""
    names = set(paths)
    if "hierarchy.json" in names and "pack.json" in names:
        return "concept"
    if {"index.json", "pack_info.json"} & names:
        return "lens"
    raise PackError(
        f"{source} holds no pack: a concept pack has pack.json and hierarchy.json, a lens pack pack.json and index.json"
    )


def safe_path(path: str, source: str) -> str:
    """`path`, if it stays inside a pack's folder. Raises PackError for `..`, absolute paths and control characters."""
    parts = PurePosixPath(path).parts
    bad = not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path
    if bad or not path.isprintable() or str(PurePosixPath(path)) != path:
        raise PackError(
            f"{source} names the file {path!r}: a pack holds plain relative paths only. It is not installed"
        )
    return path


def is_part(path: str) -> bool:
    """Whether a file with this path belongs to a pack: hidden files, logs and caches do not."""
    hidden = any(part.startswith(".") for part in PurePosixPath(path).parts)
    return not hidden and not any(fnmatch(path, pattern) for pattern in LEFT_OUT)


def level_of_path(path: str) -> int | None:
    """The level that a file of a lens pack belongs to; None for what every level needs."""
    found = LEVEL_FILE.fullmatch(path)
    return int(found[1] or found[2]) if found else None

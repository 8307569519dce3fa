"""What the verbs on artifact sets share: labels by pattern, and what a report says about where it comes from."""

import hashlib
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ftw import __version__
from ftw.poc.sets import ArtifactSet, chosen, read_sets
from ftw.substrate.errors import ConfigError
from ftw.ui.visualization.charts import percent

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The date that stands on a report."""
    return datetime.now(UTC)


def short_names(names: Sequence[str]) -> list[str]:
    """Names without what all of them begin and end with, up to a separator."""
    front = _common(names)
    back = _common([name[front:][::-1] for name in names])
    return [name[front : len(name) - back].rstrip("-_ ") for name in names]


def _common(names: Sequence[str]) -> int:
    """How many letters all names begin with, ending at a separator."""
    common = 0
    for letters in zip(*names, strict=False):
        if len(set(letters)) > 1:
            break
        common += 1
    while common and names[0][common - 1] not in "-_ ":
        common -= 1
    return common


def share(p: float) -> str:
    """A whole percent, but one that neither rounds a rare event away nor makes an almost sure one sure."""
    if 0.0 < p < 0.01:
        return "<0.001 %" if p < 1e-5 else f"{100 * p:.2g} %"
    return ">99.9 %" if 0.999 < p < 1.0 else f"{100 * p:.1f} %" if 0.99 < p < 0.999 else percent(p)


def labelled(
    files: Sequence[Path], honest: Sequence[str] | None, cheat: Sequence[str] | None
) -> tuple[tuple[ArtifactSet, ...], tuple[ArtifactSet, ...]]:
    """Honest and cheat sets by patterns of their names. Cheat is decided first; without `honest` all others are.

    Raises ConfigError for a pattern that matches nothing.
    """
    sets = read_sets(files)
    frauds = chosen(sets, cheat, "--cheat") if cheat else ()
    names = {one.name for one in frauds}
    good = chosen(sets, honest, "--honest") if honest else sets
    return tuple(one for one in good if one.name not in names), frauds


def single(file: Path, pattern: str | None) -> ArtifactSet:
    """The one set of a file that is meant. Raises ConfigError that lists them where it is not clear which."""
    sets = read_sets([file])
    found = chosen(sets, [pattern], "--set") if pattern else sets
    if len(found) > 1:
        there = ", ".join(one.name for one in found)
        raise ConfigError(f"{file} holds several sets: name one with --set, from {there}")
    return found[0]


def provenance(files: Sequence[Path], clock: Clock, **more: str) -> dict[str, str]:
    """Where a report's numbers come from: files with their digests, seed and the like, versions, date."""
    digests = (f"{file.name} (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:8]})" for file in files)
    given = {"Data": ", ".join(digests)} if files else {}
    software = f"ftw {__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    return {**given, **more, "Software": software, "Date": f"{clock():%Y-%m-%d %H:%M} UTC"}

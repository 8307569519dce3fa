"""Kinds of lenses: what a lens is called, what makes it, and whether it only chooses a norm or was learned.

A lens's file makes its `Kind` with `norm` or `learned`, and `ftw.sweep.shelf.KINDS` lists it. Command line, worker,
memory fit, milestones and audits ask there: a further lens is one file and its place in that list.

The rule of the file: it knows no lens by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftw.substrate.model import Model
from ftw.sweep.lenses import VocabLens

Sort = Literal["norm", "learned"]
"""`norm`: the model alone makes it, by a choice among its norms. `learned`: it was fitted, and lies in a folder."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A lens that can be asked for by name."""

    name: str
    sort: Sort
    make: Callable[[Model], VocabLens] | None = None
    """Makes it out of the model; None for a learned one. Raises ConfigError where the model has no such norm."""
    read: Callable[[Path, Model], VocabLens] | None = None
    """Reads it from its folder, for this model; None for one that the model makes."""
    fit: str = ""
    """The command that fits one, if there is one."""
    foreign: tuple[str, ...] = ()
    """The files of another package's form, which `read` takes too."""

    @property
    def manifest(self) -> str:
        """What stands under `kind` in the manifest of such a lens."""
        return f"{self.name}-lens"


def norm(name: str, make: Callable[[Model], VocabLens]) -> Kind:
    """A lens that the model alone makes."""
    return Kind(name, "norm", make=make)


def learned(
    name: str, read: Callable[[Path, Model], VocabLens], *, fit: str = "", foreign: tuple[str, ...] = ()
) -> Kind:
    """A lens that was fitted: a folder whose manifest says `kind: NAME-lens`."""
    return Kind(name, "learned", read=read, fit=fit, foreign=foreign)

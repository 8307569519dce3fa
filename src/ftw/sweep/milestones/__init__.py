"""Milestones: where in the depth a prompt is copied, understood and decided, read off the rows of a sweep.

`of(table)` gives those of every prompt through every lens; `summary` holds variants and facts against each other.
"""

from ftw.sweep.milestones.meanings import MEANINGS, Meaning, meaning
from ftw.sweep.milestones.reading import Found, Milestones, of
from ftw.sweep.milestones.thresholds import Thresholds

__all__ = ["MEANINGS", "Found", "Meaning", "Milestones", "Thresholds", "meaning", "of"]

"""Batteries: prompts as data. Relations of facts, templates with variants, negative controls, probes, languages.

`Battery.read` gives one from a file or by name, `battery.prompts()` its prompts, `align_all` those in a model's tokens.
"""

from ftw.sweep.battery.battery import Battery, bundled
from ftw.sweep.battery.gold import Aligned, Gold, align, align_all
from ftw.sweep.battery.prompt import Prompt
from ftw.sweep.battery.records import Fact, Line, Probe, Relation, Template, Wording

__all__ = [
    "Aligned",
    "Battery",
    "Fact",
    "Gold",
    "Line",
    "Probe",
    "Prompt",
    "Relation",
    "Template",
    "Wording",
    "align",
    "align_all",
    "bundled",
]

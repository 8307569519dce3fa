"""Finished sweeps of the bundled reference model, to be drawn."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from ftw.substrate.model import Model, load
from ftw.sweep.battery import Battery, Prompt
from ftw.sweep.lenses.views import view
from ftw.sweep.milestones.thresholds import Thresholds
from ftw.sweep.run import Sweep
from ftw.sweep.study import study
from ftw.sweep.table import SweepTable

FACTS = ("France→Paris", "Germany→Berlin", "Peru→Lima", "big→small", "hot→cold")
FEW = Thresholds(resamples=100, permutations=50)
FIRST = {"capital": "called", "opposite": "opposite"}
"""The template that is asked, by relation."""
EVIL = "</script><script>window.hacked=1</script>&\"'"


class Finished(NamedTuple):
    """What lies in a run's folder, in memory."""

    document: dict[str, Any]
    table: SweepTable


def chosen() -> list[Prompt]:
    """Five facts of two relations in a wording or two, with their controls; and two probes."""
    every = Battery.read("reference").prompts()
    wordings = [one for one in every if one.fact_id in FACTS and one.template == FIRST[one.relation]]
    return [
        *wordings,
        next(one for one in every if one.kind == "probe"),
        Prompt("probe/evil", f"The capital of {EVIL}", kind="probe"),
    ]


def head(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as it stands on disk: with what a run folder adds."""
    told = {"schema": 1, "status": "ok", "error": None, "command": "ftw sweep reference", "seconds": 1.5}
    return {**document, **told, "started": "2026-01-02T03:04:05+00:00", "notes": []}


@pytest.fixture(scope="session")
def model() -> Model:
    return load("reference")


@pytest.fixture(scope="session")
def ends(model: Model) -> Finished:
    """A run of the last positions."""
    sweep = Sweep(model, at_end=[view(model, "own"), view(model, "raw")], k=20)
    table = sweep.run(chosen())
    return Finished(head(study(sweep, table, battery=Battery.read("reference"), thresholds=FEW).document()), table)


@pytest.fixture(scope="session")
def everywhere(model: Model) -> Finished:
    """A run of every position of three prompts, through the logit lens."""
    sweep = Sweep(model, k=20)
    table = sweep.run([one for one in chosen() if one.kind == "fact"][:3], positions="all")
    return Finished(head(study(sweep, table, thresholds=FEW).document()), table)


@pytest.fixture(scope="session")
def probes() -> Finished:
    """A run of texts without any answer."""
    sweep = Sweep(load("tiny"), k=20)
    table = sweep.run(["Once upon a time", "The sun"])
    return Finished(head(study(sweep, table, thresholds=FEW).document()), table)

"""A small run with every lens that the legacy files show: logit, raw, and views that stand for learned lenses."""

from dataclasses import replace

import pytest

from ftw.substrate.reference import tiny
from ftw.sweep.battery import Battery, Fact, Probe, Relation, Template
from ftw.sweep.legacy.source import Source
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.study import Study, study


@pytest.fixture(scope="package")
def battery() -> Battery:
    """Two facts in two wordings, one control, one probe, two temperatures: the published suite's shape."""
    template = Template(id="called", text="The word of {subject} is ", variants={"no_filler": "Word of {subject}: "})
    facts = (Fact(subject="a\nb", answer="x", control="c"), Fact(subject="c", answer="y"))
    relation = Relation(name="word", templates=(template,), facts=facts)
    return Battery("small", "1", (relation,), (Probe(text="free"),), temperatures=(0.5, 2.0))


@pytest.fixture(scope="package")
def sweep() -> Sweep:
    """The tiny model through every lens."""
    model = tiny()
    learned = [replace(view(model, "own"), name="tuned"), replace(view(model, "next"), name="prism")]
    return Sweep(model, learned, at_end=[view(model, "raw")], k=20)


@pytest.fixture(scope="package")
def run(sweep: Sweep, battery: Battery) -> Study:
    """The battery at all positions."""
    return study(sweep, sweep.run(battery, positions="all"), battery=battery)


@pytest.fixture(scope="package")
def ends(run: Study) -> Study:
    """The same run, had it read last positions only."""
    return replace(run, table=run.table.last())


@pytest.fixture(scope="package")
def source(run: Study) -> Source:
    """The run, ready to be looked up."""
    return Source(run.table, run.thresholds, run.document())

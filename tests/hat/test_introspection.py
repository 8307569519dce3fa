import pytest
import torch

from ftw.hat.classifiers import LensBank, LensRow, LensTensors
from ftw.hat.monitoring import Deployment, DeploymentManifest, Introspection, Scope
from ftw.substrate.errors import UnknownConcept, UsageError
from ftw.substrate.types import Site

PARENTS = {"B1R1": "B1R0", "B1R2": "B1R0", "B2R0": "B1R1", "B2R1": "B1R1", "B2R2": "B2R0", "B2R3": "B1R2"}


@pytest.fixture
def bank(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> LensBank:
    """B1R0 over B1R1 (over B2R0, over B2R2, and B2R1) and B1R2 (over B2R3); the others are roots."""
    placed = [row.model_copy(update={"parent": PARENTS.get(row.term)}) for row in rows]
    return LensBank.from_tensors(blocks, placed, dtype=torch.float32)


def ask(bank: LensBank, **values: object) -> Introspection:
    bounds = {"default_max_layer": 0, "always_load_layers": []}
    manifest = DeploymentManifest.read({"manifest_id": "m", "layer_bounds": bounds, **values}, source="test")
    return Introspection(Scope(Deployment(manifest, bank.rows)), bank)


def test_a_branch_opens_with_its_siblings_and_closes_again(bank: LensBank) -> None:
    asked = ask(bank, aperture={"may_enable": [{"branches": ["B1R0"], "cat_scope": "micro"}]})
    before = asked.loaded_fingerprint()
    opened = asked.request_lens_expansion("b1r1", "curious", depth=1)
    assert (opened.success, opened.branch, opened.reason) == (True, "B1R1", "curious")
    assert (opened.cat_scope, opened.error) == ("micro", None)
    assert opened.loaded_concepts == ("B1R1", "B1R2", "B2R0", "B2R1")
    assert asked.request_lens_expansion("B1R1", "again", depth=1).loaded_concepts == ()
    assert asked.loaded_fingerprint() != before
    envelope = asked.envelope()
    assert envelope.on_request == opened.loaded_concepts
    assert (envelope.n_open, envelope.n_lenses) == (10, 12)
    assert envelope.levels == {0: (6, 6), 1: (2, 2), 2: (2, 3), 3: (0, 1)}
    assert (envelope.must_enable, envelope.may_enable, envelope.dynamic) == ((), ("B1R0",), True)
    closed = asked.request_lens_collapse("B1R0", "enough")
    assert (closed.success, closed.collapsed_concepts) == (True, ("B1R1", "B1R2", "B2R0", "B2R1"))
    assert asked.loaded_fingerprint() == before
    assert asked.envelope().on_request == ()


def test_depth_counts_levels_below_the_branch(bank: LensBank) -> None:
    assert ask(bank).request_lens_expansion("B1R0", "").loaded_concepts == ("B1R1", "B1R2", "B2R0", "B2R1", "B2R3")
    assert ask(bank).request_lens_expansion("B1R0", "", depth=0).loaded_concepts == ()
    assert "depth is -1" in str(ask(bank).request_lens_expansion("B1R0", "", depth=-1).error)


@pytest.mark.parametrize(
    ("values", "branch", "told"),
    [
        (
            {"aperture": {"must_not_enable": [{"branches": ["B1R1"]}]}},
            "B2R0",
            "B2R0 is never read here: must not enable",
        ),
        ({"explicit_concepts": {"always_exclude": ["B1R1"]}}, "B1R1", "B1R1 is never read here: explicit exclude"),
        ({"aperture": {"may_enable": [{"branches": ["B1R2"]}]}}, "B1R1", "B1R1 is not in may_enable"),
        ({"layer_bounds": {"absolute_max_layer": 1}}, "B2R0", "lies below absolute_max_layer 1"),
        ({}, "B9R9", "no lens for 'B9R9'"),
    ],
)
def test_a_refusal_says_why_and_changes_nothing(
    bank: LensBank, values: dict[str, object], branch: str, told: str
) -> None:
    asked = ask(bank, **values)
    before = asked.envelope()
    answer = asked.request_lens_expansion(branch, "curious")
    assert not answer.success
    assert told in str(answer.error)
    assert answer.loaded_concepts == ()
    assert asked.envelope() == before


def test_what_is_excluded_stays_closed_when_its_branch_opens(bank: LensBank) -> None:
    asked = ask(bank, aperture={"must_not_enable": [{"branches": ["B2R0"]}]})
    assert asked.request_lens_expansion("B1R0", "", depth=3).loaded_concepts == ("B1R1", "B1R2", "B2R1", "B2R3")


def test_what_is_demanded_stays_open(bank: LensBank) -> None:
    asked = ask(bank, aperture={"must_enable": [{"branches": ["B2R1"]}]})
    asked.request_lens_expansion("B1R0", "", depth=3)
    closed = asked.request_lens_collapse("B1R0", "")
    assert closed.success
    assert closed.retained_concepts == ("B2R0", "B2R1")  # the one demanded, and its sibling
    assert closed.collapsed_concepts == ("B1R1", "B1R2", "B2R2", "B2R3")
    refused = asked.request_lens_collapse("B1R1", "")
    assert refused.success  # B2R2 stands below too, closed already
    assert refused.collapsed_concepts == ()
    all_of_it = ask(bank, aperture={"must_enable": [{"branches": ["B1R0"]}]}).request_lens_collapse("B1R0", "")
    assert (all_of_it.success, len(all_of_it.retained_concepts)) == (False, 6)
    assert "demands all that stands below B1R0" in str(all_of_it.error)
    assert "nothing stands below B1R3" in str(asked.request_lens_collapse("B1R3", "").error)
    assert "no lens for 'X'" in str(asked.request_lens_collapse("X", "").error)


def test_what_was_closed_does_not_open_by_itself(bank: LensBank) -> None:
    manifest = DeploymentManifest.read({"manifest_id": "m"}, source="test")
    scope = Scope(Deployment(manifest, bank.rows))
    asked = Introspection(scope, bank)
    sure = torch.ones(1, len(bank))
    assert bool(scope.allowed(sure).all())
    asked.request_lens_collapse("B1R1", "")
    shut = {bank.terms[at] for at in (~scope.allowed(sure)[0]).nonzero().flatten().tolist()}
    assert shut == {"B2R0", "B2R1", "B2R2"}
    assert asked.envelope().collapsed == ("B2R0", "B2R1")


def test_a_branch_is_read_by_concept_calibrated_and_strongest_first(bank: LensBank) -> None:
    torch.manual_seed(3)
    resid = {site: 40 * torch.randn(1, bank.d_model) for site in bank.sites}
    found = ask(bank).reading("b1r1", resid)
    p = bank.score(resid, full=True).p[0]
    assert set(found.readings) == {"B1R1", "B2R0", "B2R1", "B2R2"}
    for term, value in found.readings.items():
        assert value == pytest.approx(float(p[bank.index(term)]), abs=1e-5)
    values = list(found.readings.values())
    assert values == sorted(values, reverse=True)
    assert found.top_concept == next(iter(found.readings))
    top = values[0]
    assert found.interpretation == ("strong" if top > 0.7 else "moderate" if top > 0.4 else "low")


def test_a_branch_that_is_never_read_is_not_read_on_request_either(bank: LensBank) -> None:
    resid = {site: torch.ones(1, bank.d_model) for site in bank.sites}
    asked = ask(bank, aperture={"must_not_enable": [{"branches": ["B2R0"]}]})
    assert set(asked.reading("B1R1", resid).readings) == {"B1R1", "B2R1"}
    with pytest.raises(UsageError, match="nothing of B2R0 may be read"):
        asked.reading("B2R0", resid)
    with pytest.raises(UnknownConcept, match="no lens for 'X'"):
        asked.reading("X", resid)
    shallow = ask(bank, layer_bounds={"absolute_max_layer": 1})
    assert set(shallow.reading("B1R0", resid).readings) == {"B1R0", "B1R1", "B1R2"}
    assert Site(1) in resid

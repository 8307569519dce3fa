"""What a monitor makes of a tree, a manifest and simplexes."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import LensBank, LensRow, LensTensors
from ftw.hat.classifiers.index import Reliability
from ftw.hat.classifiers.scores import Scores
from ftw.hat.classifiers.tripole import SimplexBinding, SimplexRow, Spread, TripoleBank
from ftw.hat.monitoring import Deployment, DeploymentManifest, Monitor, Reading, Scope, combined, timeline
from ftw.substrate.errors import UsageError
from ftw.substrate.types import Site, Step

States = Callable[[int], Tensor]
PARENTS = {"B1R1": "B1R0", "B1R2": "B1R0", "B2R3": "B1R1", "B2R1": "B1R1", "B2R2": "B2R3"}
TRUST = Reliability(auroc=0.9, low=0.85, high=0.94, n=12)


@pytest.fixture
def bank(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> LensBank:
    placed = [row.model_copy(update={"parent": PARENTS.get(row.term), "reliability": TRUST}) for row in rows]
    return LensBank.from_tensors(blocks, placed, dtype=torch.float32)


def simplexes(bank: LensBank, *bindings: dict[str, object]) -> TripoleBank:
    generator = torch.Generator().manual_seed(1)
    rows = [
        SimplexRow(
            name=f"S{at}",
            block=1 + at,
            row=at,
            poles=("low", "even", "high"),
            baseline=Spread(mean=0.1, std=0.5),
            binding=SimplexBinding.model_validate(binding),
        )
        for at, binding in enumerate(bindings)
    ]
    n = len(rows)
    weight = torch.randn(n, 3, bank.d_model, generator=generator) / 2
    return TripoleBank(rows, weight, torch.zeros(n, 3))


def feed(monitor: Monitor, request: str, resid: Tensor, prompt: int) -> list[Reading]:
    """A request whose prompt has `prompt` positions and whose other states are of written tokens."""
    for at in range(len(resid) - prompt + 1):
        rows = resid[:prompt] if at == 0 else resid[prompt + at - 1 : prompt + at]
        ids = torch.arange(prompt) if at == 0 else torch.tensor([90 + at])
        phase = "prompt" if at == 0 else "generate"
        monitor(Step(request, at, phase, ids, {Site(1): rows, Site(2): rows + 1}, torch.zeros(9), 91 + at))
    return monitor.readings(request)


def scope_of(bank: LensBank, **values: object) -> Scope:
    manifest = DeploymentManifest.read({"manifest_id": "m", **values}, source="test")
    return Scope(Deployment(manifest, bank.rows))


def test_a_parent_that_a_child_explains_is_not_shown_and_every_other_is(bank: LensBank, states: States) -> None:
    resid = states(40)
    free = feed(Monitor(bank, top=12, full=True, margin=0.0), "a", resid, 40)
    explained = feed(Monitor(bank, top=12, full=True, margin=1.0), "a", resid, 40)
    hidden = 0
    for one, other in zip(free, explained, strict=True):
        terms = {score.term for score in other.scores}
        for score in one.scores:
            if score.term not in terms:
                hidden += 1
                assert any(PARENTS.get(term) for term in terms)
        assert not any(PARENTS.get(term) in terms for term in terms)
    assert hidden


def test_a_score_says_level_block_reliability_and_share_among_siblings(bank: LensBank, states: States) -> None:
    readings = feed(Monitor(bank, top=12, full=True, margin=0.0), "a", states(40), 40)
    seen = {score.term: score for reading in readings for score in reading.scores}
    assert {term: seen[term].level for term in ("B1R0", "B1R1", "B2R3", "B2R2")} == {
        "B1R0": 0,
        "B1R1": 1,
        "B2R3": 2,
        "B2R2": 3,
    }
    assert (seen["B2R3"].block, seen["B2R3"].reliability) == (2, TRUST)
    assert seen["B1R0"].sibling_p is None  # no parent
    assert seen["B2R2"].sibling_p is None  # an only child
    for reading in readings:
        pair = [reading.score(term) for term in ("B2R3", "B2R1")]
        if pair[0] is not None and pair[1] is not None:
            assert (pair[0].sibling_p or 0) + (pair[1].sibling_p or 0) == pytest.approx(1, abs=1e-5)


def test_a_scope_restricts_what_is_shown_and_what_is_asked_for_stays(bank: LensBank, states: States) -> None:
    resid = states(40)
    scope = scope_of(
        bank,
        layer_bounds={"default_max_layer": 0, "always_load_layers": []},
        dynamic_loading={"enabled": False},
        aperture={"must_not_enable": [{"branches": ["B1R1"]}]},
    )
    assert not scope.deployment.loaded & {bank.index("B1R2")}
    readings = feed(Monitor(bank, top=12, full=True, scope=scope, concepts=["B1R2"]), "a", resid, 40)
    terms = {score.term for reading in readings for score in reading.scores}
    assert not terms & {"B1R1", "B2R3", "B2R2"}
    assert all(reading.score("B1R2") is not None for reading in readings)
    opened = feed(Monitor(bank, top=12, full=True, scope=scope_of(bank)), "a", resid, 40)
    assert {"B1R1", "B2R3"} <= {score.term for reading in opened for score in reading.scores}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"aperture": {"must_not_enable": [{"branches": ["B1R1"]}]}}, "must not enable"),
        ({"explicit_concepts": {"always_exclude": ["B2R1"]}}, "explicit exclude"),
        ({"layer_bounds": {"absolute_max_layer": 1}}, "absolute max"),
        ({"layer_bounds": {"default_max_layer": 1}, "aperture": {"may_enable": []}}, "default max"),
    ],
)
def test_what_is_never_read_cannot_be_asked_for_by_name(bank: LensBank, values: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=f"B2R1 is never read here: {told} in manifest m"):
        Monitor(bank, scope=scope_of(bank, **values), concepts=["B2R1"])


def test_a_simplex_does_not_tell_of_a_concept_that_is_never_read(bank: LensBank, states: States) -> None:
    scope = scope_of(bank, aperture={"must_not_enable": [{"branches": ["B1R3"]}]})
    many = simplexes(bank, {"concept": "B1R3", "always_on": True})
    (reading,) = feed(Monitor(bank, simplexes=many, scope=scope), "a", states(1), 1)
    assert reading.simplexes[0].combined == "simplex_only"


def test_a_calibration_of_the_manifest_is_the_one_that_is_read_with(bank: LensBank, states: States) -> None:
    scope = scope_of(bank, concept_calibration={"B1R3": {"slope": 0.5, "offset": -9}})
    (reading,) = feed(Monitor(bank, top=0, concepts=["B1R3"], scope=scope), "a", states(1), 1)
    score = reading.score("B1R3")
    assert score is not None
    assert score.p == pytest.approx(float(torch.tensor(0.5 * score.logit - 9).sigmoid()), abs=1e-6)


def test_simplexes_are_read_at_every_token_against_the_text_before(bank: LensBank, states: States) -> None:
    many, resid = simplexes(bank, {}, {"always_on": True, "concept": "b1r0"}), states(30)
    readings = feed(Monitor(bank, simplexes=many), "a", resid, 12)
    poles = many.score({Site(1): resid, Site(2): resid + 1})
    spreads = (poles[:, 0, 2] - poles[:, 0, 0]).tolist()
    for at, reading in enumerate(readings):
        first = reading.simplex("s0")
        assert first is not None
        assert (first.negative, first.neutral, first.positive) == pytest.approx(poles[at, 0].tolist(), abs=1e-5)
        assert first.z_neutral == pytest.approx((spreads[at] - 0.1) / 0.5, abs=1e-4)
        before = torch.tensor(spreads[:at], dtype=torch.float64)
        z = float((spreads[at] - before.mean()) / before.std(correction=0)) if at >= 10 else 0
        assert first.z == pytest.approx(z, abs=1e-3)
        second, concept = reading.simplex("S1"), bank.score({Site(1): resid, Site(2): resid + 1}, full=True).p[at, 0]
        assert second is not None
        assert second.combined == combined(float(concept), max(second.negative, second.positive))
        # the bound concept was scored for it, and is not shown for that
        assert reading.score("B1R0") is None or reading.score("B1R0").above  # type: ignore[union-attr]


def test_z_does_not_depend_on_who_else_is_read_or_when_it_is_asked(bank: LensBank, states: States) -> None:
    many, one, other = simplexes(bank, {}), states(25), states(25)
    heard: list[Reading] = []
    alone = Monitor(bank, simplexes=many, on_reading=heard.append)
    feed(alone, "a", one, 5)
    crowd = Monitor(bank, simplexes=many)
    feed(crowd, "b", other, 5)
    assert [r.simplexes for r in feed(crowd, "a", one, 5)] == [r.simplexes for r in heard]
    assert alone.readings("a") == heard


def test_a_quiet_simplex_is_left_out(bank: LensBank, states: States) -> None:
    many = simplexes(bank, {"concept": "B1R0", "alert_threshold": 1e9})
    readings = feed(Monitor(bank, simplexes=many), "a", states(40), 40)
    shown = [reading.simplexes for reading in readings]
    assert any(shown)
    assert not all(shown)
    assert all(simplex.combined != "not_relevant" for group in shown for simplex in group)


def test_stages_are_timed_by_the_clock_that_was_given(bank: LensBank, states: States) -> None:
    ticks: Iterator[int] = count()
    monitor = Monitor(bank, simplexes=simplexes(bank, {}), clock=lambda: float(next(ticks)))
    (reading,) = feed(monitor, "a", states(1), 1)
    assert reading.t_ms == {"score": 1000, "simplexes": 1000, "wait": 1000}


def test_prewarming_leaves_no_reading_behind(bank: LensBank, states: States) -> None:
    monitor, cold = Monitor(bank, simplexes=simplexes(bank, {})), Monitor(bank, simplexes=simplexes(bank, {}))
    monitor.prewarm()
    resid = states(3)
    assert feed(monitor, "a", resid, 3) == feed(cold, "a", resid, 3)


class Slots:
    """A bank that lacks the children of B1R0 until it is warmed."""

    def __init__(self, bank: LensBank) -> None:
        self.rows, self.terms, self.sites, self.device = bank.rows, bank.terms, bank.sites, bank.device
        self.d_model, self.is_shared, self.index = bank.d_model, bank.is_shared, bank.index
        self.lacks: tuple[str, ...] = ("B1R0",)
        self._bank = bank

    def reading(self, terms: Sequence[str]) -> "Slots":
        return self

    def prewarm(self) -> None:
        self.lacks = ()

    def late(self) -> Callable[[int], tuple[str, ...]]:
        lacks = self.lacks
        return lambda row: lacks

    def score(self, resid: dict[Site, Tensor], *, full: bool = False, budget: int | None = None) -> Scores:
        return self._bank.score(resid, full=full, budget=budget)


def test_a_reading_that_lacks_lenses_says_so_until_they_are_there(bank: LensBank, states: States) -> None:
    readings = feed(Monitor(Slots(bank)), "a", states(5), 2)
    assert [reading.late for reading in readings] == [("B1R0",)] * 2 + [()] * 3
    assert timeline(readings).late == (0, 1)


def test_a_reading_is_a_json_document(bank: LensBank, states: States) -> None:
    monitor = Monitor(bank, concepts=["B1R3", "B2R6"], simplexes=simplexes(bank, {}))
    for reading in feed(monitor, "a", states(20), 20):
        told = json.loads(json.dumps(reading.record(), allow_nan=False))
        assert told["phase"] == "prompt"
        assert [score["term"] for score in told["scores"]] == [score.term for score in reading.scores]
        assert told["scores"][0]["reliability"]["n"] == 12
        assert told["simplexes"][0]["name"] == "S0"
    blank = Reading("a", 0, "prompt", 0, 1, 2, ())
    assert blank.record()["simplexes"] == []
    assert blank.simplex("S0") is None


def test_a_timeline_begins_with_the_prompt(bank: LensBank, states: States) -> None:
    readings = feed(Monitor(bank, top=12), "a", states(12), 5)
    told = timeline(readings)
    assert (told.prompt, len(told.tokens), told.tokens[:5]) == (5, 12, (0, 1, 2, 3, 4))
    sums = [sum(line.p) for line in told.lines]
    assert sums == sorted(sums, reverse=True)
    for line in told.lines:
        above = [(score := reading.score(line.term)) is not None and score.above for reading in readings]
        assert line.first == above.index(True)
        assert line.in_prompt == sum(above[:5]) / 5
        assert line.in_written == sum(above[5:]) / 7
        assert (line.peak, line.p[line.peak_at]) == (max(line.p), max(line.p))
    assert len(timeline(readings, top=2).lines) == 2
    assert told.line(told.lines[0].term.lower()) == told.lines[0]
    assert told.line("nothing") is None
    json.dumps(told.record(), allow_nan=False)


def test_a_timeline_of_a_concept_that_never_rises_says_so(bank: LensBank, states: States) -> None:
    readings = feed(Monitor(bank, top=0, concepts=["B1R3"]), "a", 1e-3 * states(1), 1)
    line = timeline(readings).lines[0]
    assert (line.first == -1) == (not readings[0].scores[0].above)
    assert line.in_written == 0


def test_a_timeline_with_gaps_is_refused(bank: LensBank, states: States) -> None:
    readings = feed(Monitor(bank), "a", states(4), 2)
    with pytest.raises(UsageError, match="at least one reading"):
        timeline([])
    with pytest.raises(UsageError, match="have gaps"):
        timeline(readings[1:])
    with pytest.raises(UsageError, match="of one request"):
        timeline([*readings, *feed(Monitor(bank), "b", states(2), 1)])


def test_bad_settings_of_tree_and_scope_are_refused(bank: LensBank) -> None:
    with pytest.raises(UsageError, match=r"margin is 1\.5"):
        Monitor(bank, margin=1.5)
    other = Scope(Deployment(DeploymentManifest(manifest_id="m"), bank.rows[:3]))
    with pytest.raises(UsageError, match="a tree of 3"):
        Monitor(bank, scope=other)


def test_a_bank_of_few_lenses_is_not_asked_to_keep_what_a_simplex_is_bound_to(bank: LensBank, states: States) -> None:
    class Few(Slots):
        def reading(self, terms: Sequence[str]) -> "Slots":
            raise UsageError(f"{terms} may leave memory")

        def score(self, resid: dict[Site, Tensor], *, full: bool = False, budget: int | None = None) -> Scores:
            found = self._bank.score(resid, full=True)
            logit = found.raw.clone()
            logit[:, 0] = float("-inf")
            slope = torch.tensor([row.calibration.slope for row in self.rows])
            offset = torch.tensor([row.calibration.offset for row in self.rows])
            return Scores(None, logit, found.rows, slope, offset, self.terms, 0)

    many = simplexes(bank, {"concept": "B1R0", "always_on": True})
    (reading,) = feed(Monitor(Few(bank), simplexes=many), "a", states(1), 1)
    assert reading.simplexes[0].combined == "simplex_only"
    with pytest.raises(UsageError, match="may leave memory"):
        Monitor(Few(bank), concepts=["B1R0"])


def test_a_simplex_whose_concept_has_no_lens_here_is_read_alone(bank: LensBank, states: States) -> None:
    many = simplexes(bank, {"concept": "Nobody", "always_on": True})
    (reading,) = feed(Monitor(bank, simplexes=many), "a", states(1), 1)
    assert (reading.simplexes[0].concept, reading.simplexes[0].combined) == ("Nobody", "simplex_only")

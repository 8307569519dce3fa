from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from ftw.hat.classifiers import LensBank, LensRow, LensTensors
from ftw.hat.monitoring import Monitor, Reading
from ftw.substrate.errors import NumericError, UnknownConcept, UsageError
from ftw.substrate.types import BatchController, Site, Step

States = Callable[[int], Tensor]


@pytest.fixture
def bank(blocks: dict[int, LensTensors], rows: tuple[LensRow, ...]) -> LensBank:
    return LensBank.from_tensors(blocks, rows, dtype=torch.float32)


def step_of(request: str, index: int, ids: Sequence[int], resid: Tensor, token: int) -> Step:
    phase = "prompt" if index == 0 else "generate"
    return Step(request, index, phase, torch.tensor(ids), {Site(1): resid, Site(2): resid + 1}, torch.zeros(9), token)


def last(steps: Sequence[Step]) -> dict[Site, Tensor]:
    return {site: torch.stack([step.resid[site][-1] for step in steps]) for site in (Site(1), Site(2))}


def test_it_is_a_batch_controller(bank: LensBank) -> None:
    assert isinstance(Monitor(bank), BatchController)
    assert Monitor(bank).sites == (Site(1), Site(2))


def test_each_prompt_position_and_each_token_gets_one_reading(bank: LensBank, states: States) -> None:
    monitor = Monitor(bank)
    assert monitor(step_of("a", 0, [5, 6, 7], states(3), 8)) == ()
    monitor(step_of("a", 1, [8], states(1), 9))
    monitor(step_of("a", 2, [9], states(1), 4))
    told = [(r.index, r.phase, r.position, r.input_token, r.token) for r in monitor.readings("a")]
    assert told == [
        (0, "prompt", 0, 5, 6),
        (0, "prompt", 1, 6, 7),
        (0, "prompt", 2, 7, 8),
        (1, "generate", 3, 8, 9),
        (2, "generate", 4, 9, 4),
    ]


def test_readings_of_a_batch_equal_those_of_each_request_alone(bank: LensBank, states: States) -> None:
    together, alone = Monitor(bank), Monitor(bank)
    first = [step_of(name, 0, range(3 + at), states(3 + at), 1) for at, name in enumerate("abc")]
    later = [step_of("d", 0, [1, 2], states(2), 1), *(step_of(name, 1, [1], states(1), 2) for name in "abc")]
    third = [step_of(name, 2, [2], states(1), 3) for name in "abc"]
    for steps in (first, later, third):
        assert together.many(steps, last(steps)) == [()] * len(steps)
        for step in steps:
            alone(step)
    for name in "abcd":
        for one, other in zip(together.readings(name), alone.readings(name), strict=True):
            assert (one.position, one.input_token, one.token) == (other.position, other.input_token, other.token)
            assert [s.term for s in one.scores] == [s.term for s in other.scores]
            assert [s.p for s in one.scores] == pytest.approx([s.p for s in other.scores], abs=1e-5)


def test_scores_are_calibrated_and_set_against_their_baseline(bank: LensBank, states: States) -> None:
    resid = states(1)
    monitor = Monitor(bank, top=20)
    monitor(step_of("a", 0, [3], resid, 1))
    full = bank.score({Site(1): resid, Site(2): resid + 1}, full=True)
    reading = monitor.readings("a")[0]
    assert reading.scores
    for score in reading.scores:
        at, row = bank.index(score.term), bank.rows[bank.index(score.term)]
        assert score.p == pytest.approx(float(full.p[0, at]), abs=1e-5)
        assert score.z == pytest.approx((score.p - 0.1) / max(row.baseline.std, 0.01), abs=1e-3)
        assert (score.baseline, score.auroc) == (0.1, 0.9)
        assert score.above
        assert score.logit >= row.threshold_logit
    ps = [score.p for score in reading.scores]
    assert ps == sorted(ps, reverse=True)


def test_concepts_asked_for_are_always_shown(bank: LensBank, states: States) -> None:
    monitor = Monitor(bank, top=1, concepts=["b1r0", "B2R6"])
    monitor(step_of("a", 0, range(20), states(20), 1))
    readings = monitor.readings("a")
    assert all(r.score("B1R0") is not None and r.score("b2r6") is not None for r in readings)
    assert all(len({s.term for s in r.scores}) == len(r.scores) <= 3 for r in readings)
    assert not all(s.above for r in readings for s in r.scores)
    assert all(s.logit > float("-inf") for r in readings for s in r.scores)


def test_on_reading_hears_each_reading_once_and_in_order(bank: LensBank, states: States) -> None:
    heard: list[Reading] = []
    monitor = Monitor(bank, on_reading=heard.append)
    monitor(step_of("a", 0, [5, 6], states(2), 8))
    monitor(step_of("a", 1, [8], states(1), 9))
    assert heard == monitor.readings("a")


def test_a_step_over_budget_counts_what_it_left_out(bank: LensBank, states: States) -> None:
    monitor = Monitor(bank.reading(bank.terms))
    many = [step_of(str(at), 0, [1], states(1), 3) for at in range(40)]
    monitor.many(many, last(many))
    assert monitor.capped == 0
    steps = [step_of(str(at), 1, [3], states(1), 3) for at in range(40)]
    monitor.many(steps, last(steps))
    assert monitor.capped == 40 * 12 - 8 * 41


def test_old_requests_are_let_go(bank: LensBank, states: States) -> None:
    monitor = Monitor(bank, keep=2)
    for name in "abc":
        monitor(step_of(name, 0, [1], states(1), 2))
    with pytest.raises(UsageError, match="no readings of request 'a'"):
        monitor.readings("a")
    monitor.forget("b")
    with pytest.raises(UsageError, match="no readings of request 'b'"):
        monitor.readings("b")
    assert len(monitor.readings("c")) == 1


def test_a_request_that_comes_in_the_middle_is_refused(bank: LensBank, states: States) -> None:
    with pytest.raises(UsageError, match="without its prompt"):
        Monitor(bank)(step_of("a", 3, [1], states(1), 2))


def test_a_nan_stops_the_reading(bank: LensBank, states: States) -> None:
    with pytest.raises(NumericError, match="not finite"):
        Monitor(bank)(step_of("a", 0, [1], states(1) * float("nan"), 2))


def test_bad_settings_are_refused(bank: LensBank) -> None:
    with pytest.raises(UsageError, match="top is -1"):
        Monitor(bank, top=-1)
    with pytest.raises(UnknownConcept, match="nearest"):
        Monitor(bank, concepts=["B1R9"])


def test_a_nan_of_one_request_does_not_stop_the_others(bank: LensBank, states: States) -> None:
    monitor = Monitor(bank)
    with pytest.raises(NumericError, match="not finite"):
        monitor(step_of("a", 0, [1], states(1) * float("nan"), 2))
    monitor(step_of("b", 0, [1], states(1), 2))
    assert len(monitor.readings("b")) == 1

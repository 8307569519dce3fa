"""Groups come when a parent asks, stay while they are wanted, go after their cooldown, and keep within their room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.hat.monitoring.residency import Group, Plan, Residency
from ftw.substrate.errors import ConfigError

ROOTS = Group((0, 1), -1, 1, True)
CATS = Group((2, 3, 4), 0, 1, False)
DOGS = Group((5, 6, 7), 1, 1, False)
LIONS = Group((8, 9), 2, 1, False)
GROUPS = (ROOTS, CATS, DOGS, LIONS)


def started(*groups: Group, room: int = 10, cooldown: int = 3) -> Residency:
    residency = Residency(groups or GROUPS, room, admit=0.7, release=0.1, cooldown=cooldown)
    for number in residency.start():
        residency.landed(number)
    return residency


def test_what_stays_is_there_from_the_start_and_never_goes() -> None:
    residency = started(cooldown=0)
    assert residency.resident(0)
    for _ in range(20):
        assert residency.tick({}) == Plan()
    assert residency.resident(0)


def test_a_parent_asks_for_all_its_children_once() -> None:
    residency = started()
    assert residency.tick({1: 0.69}) == Plan()
    assert residency.tick({1: 0.7}) == Plan(load=(1,), lacking=(1,))
    assert residency.tick({1: 0.9}) == Plan(lacking=(1,))  # on its way
    residency.landed(1)
    assert residency.tick({1: 0.9}) == Plan()
    assert (residency.tally.hits, residency.tally.misses) == (1, 2)
    assert residency.tally.hit_rate == pytest.approx(1 / 3)


def test_between_the_thresholds_a_group_stays_as_it_is() -> None:
    residency = started(cooldown=0)
    residency.tick({1: 0.4})
    assert not residency.resident(1)
    residency.tick({1: 0.9})
    residency.landed(1)
    for _ in range(10):
        residency.tick({1: 0.4})
    assert residency.resident(1)


def test_a_quiet_group_goes_after_its_cooldown_and_not_before() -> None:
    residency = started(cooldown=3)
    residency.tick({1: 0.9})
    residency.landed(1)
    assert [residency.tick({1: 0.05}).drop for _ in range(5)] == [(), (), (), (1,), ()]
    assert residency.tally.cooled == 1


def test_a_stir_begins_the_cooldown_again() -> None:
    residency = started(cooldown=2)
    residency.tick({1: 0.9})
    residency.landed(1)
    for p in (0.0, 0.0, 0.2, 0.0, 0.0):
        assert residency.tick({1: p}).drop == ()
    assert residency.tick({1: 0.0}).drop == (1,)


def test_a_group_stays_while_something_below_it_is_there() -> None:
    residency = started(cooldown=0)
    residency.tick({1: 0.9})
    residency.landed(1)
    residency.tick({1: 0.9, 3: 0.9})
    residency.landed(3)
    assert residency.tick({1: 0.0, 3: 0.9}).drop == ()
    assert residency.tick({1: 0.0, 3: 0.0}).drop == (3, 1)  # the deeper one first


def test_a_quiet_group_gives_way_and_a_wanted_one_does_not() -> None:
    residency = started(room=5, cooldown=100)
    residency.tick({1: 0.9})
    residency.landed(1)
    assert residency.tick({1: 0.9, 2: 0.95}) == Plan(lacking=(2,))
    assert residency.tally.refused == 1
    assert residency.tick({1: 0.0, 2: 0.95}) == Plan(load=(2,), drop=(1,), lacking=(2,))
    assert residency.tally.evictions == 1


def test_what_matters_more_comes_first_and_pushes_out_what_matters_less() -> None:
    low, critical = Group((2, 3, 4), 0, 2, False), Group((5, 6, 7), 1, 0, False)
    residency = started(ROOTS, low, critical, room=5)
    residency.tick({1: 0.99})
    residency.landed(1)
    assert residency.tick({1: 0.99, 2: 0.7}) == Plan(load=(2,), drop=(1,), lacking=(2,))
    residency.landed(2)
    assert residency.tick({1: 0.99, 2: 0.7}) == Plan(lacking=(1,))


def test_nothing_goes_for_a_group_that_would_not_fit_even_so() -> None:
    small, large = Group((2,), 0, 1, False), Group((3, 4, 5, 6), 1, 1, False)
    residency = started(ROOTS, small, large, room=5)
    residency.tick({1: 0.9})
    residency.landed(1)
    assert residency.tick({1: 0.0, 2: 0.9}) == Plan(lacking=(2,))
    assert residency.resident(1)


def test_a_group_that_did_not_come_may_be_asked_for_again() -> None:
    residency = started()
    residency.tick({1: 0.9})
    residency.failed(1)
    assert residency.tick({1: 0.9}).load == (1,)


def test_what_must_stay_has_to_fit() -> None:
    with pytest.raises(ConfigError, match=r"2 lenses must always be in memory and take 20 bytes; the budget holds 1"):
        Residency(GROUPS, 1, admit=0.7, release=0.1, cooldown=3, slot_bytes=10)


steps = st.lists(st.dictionaries(st.integers(1, 3), st.floats(0, 1)), max_size=40)


@given(steps, st.integers(2, 10), st.integers(0, 4), st.integers(0, 3))
def test_room_is_never_exceeded_and_the_same_readings_give_the_same_residents(
    readings: list[dict[int, float]], room: int, cooldown: int, delay: int
) -> None:
    def run() -> list[tuple[Plan, int]]:
        residency, coming, seen = started(room=room, cooldown=cooldown), [], []
        for at, reading in enumerate(readings):
            plan = residency.tick(reading)
            coming += [(at + delay, number) for number in plan.load]
            for number in [n for due, n in coming if due <= at]:
                residency.landed(number)
            coming = [(due, n) for due, n in coming if due > at]
            assert residency.free >= 0
            assert not set(plan.load) & set(plan.drop)
            seen.append((plan, residency.free))
        return seen

    assert run() == run()

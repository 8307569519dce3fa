"""Everything that a fit counts comes from one object."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError
from ftw.sweep.fitting.schedule import Schedule


@given(st.integers(2, 300), st.data(), st.floats(0, 1))
def test_the_rate_rises_over_the_warmup_and_falls_to_the_floor(steps: int, data: st.DataObject, floor: float) -> None:
    warmup = data.draw(st.integers(0, steps - 1))
    schedule = Schedule(steps=steps, warmup=warmup, lr=0.5, floor=floor)
    rates = [schedule.rate(step) for step in range(steps)]
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert all(a < b for a, b in pairwise(rates[: warmup + 1]))
    assert all(a >= b for a, b in pairwise(rates[warmup:]))
    assert rates[warmup] == 0.5
    if steps - warmup > 1:
        assert rates[-1] == pytest.approx(0.5 * floor, abs=1e-12)


def test_positions_are_steps_times_rows_times_accumulation() -> None:
    schedule = Schedule(steps=30, warmup=3, rows=16, accumulate=4)
    assert schedule.positions_per_step == 64
    assert schedule.positions == 1920


def test_it_reads_what_it_writes() -> None:
    schedule = Schedule(steps=7, warmup=1, betas=(0.8, 0.9))
    assert Schedule.read(schedule.model_dump(mode="json"), source="manifest") == schedule


def test_a_warmup_as_long_as_the_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup is 20, but there are only 10 steps"):
        Schedule.read({"steps": 10}, source="options")


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"options.*warm_up"):
        Schedule.read({"warm_up": 3}, source="options")

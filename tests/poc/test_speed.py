"""Proof and bare pass are measured in turn, and the first of each does not count."""

import pytest

from ftw.poc.forward import Prover, Round
from ftw.poc.profiles import FTW_1
from ftw.poc.speed import bare_pass, measure
from ftw.substrate.errors import ConfigError
from ftw.substrate.reference import tiny


def test_figures_are_medians_of_the_rounds_that_count():
    ticks = iter([0, 9, 18, 0, 1, 3, 10, 11, 15, 20, 22, 24])
    told = []
    found = measure(
        tiny(), seq_len=8, rows=2, rounds=3, clock=lambda: float(next(ticks)), progress=lambda *a: told.append(a)
    )
    assert (found.bare_s, found.batch_s) == (1.0, 2.0)
    assert found.ratio == 0.5  # of 1/2, 1/4 and 2/2
    assert found.nonces_per_second == 1.0
    assert told == [(1, 3), (2, 3), (3, 3)]
    record = found.record()
    assert record["bare_nonces_per_second"] == 2.0
    assert min(record["split_seconds"].values()) > 0


def test_any_profile_can_be_measured_on_a_model_that_is_narrower():
    found = measure(tiny(), profile=FTW_1, seq_len=4, rows=1, rounds=1)
    assert (found.profile, found.model, found.rows) == ("ftw-1/1", "tiny", 1)


def test_the_bare_pass_leaves_no_hook_and_makes_nothing():
    model = tiny()
    bare_pass(Prover(model, Round("b", "k", seq_len=4), rows=1))()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_no_rounds_are_an_error():
    with pytest.raises(ConfigError, match="rounds is 0"):
        measure(tiny(), rounds=0)

"""Thresholds: one object, written and read back, and nothing unknown in it."""

import json

import pytest

from ftw.substrate.errors import ConfigError
from ftw.sweep.milestones.thresholds import Thresholds


def test_thresholds_come_back_from_a_runs_document_as_they_were() -> None:
    mine = Thresholds(copy_p=0.9, soft_extra=(0.5, 0.6), ranks=(100, 1))
    assert Thresholds.read(json.loads(json.dumps(mine.document())), source="run.json") == mine
    assert set(mine.document()) == set(Thresholds.model_fields)


def test_defaults_are_those_of_the_published_suite() -> None:
    t = Thresholds()
    assert (t.copy_p, t.copy_margin, t.copy_window, t.copy_sweep) == (0.95, 0.10, 1, (0.7, 0.8, 0.9, 0.95))
    assert (t.soft_p, t.soft_windows, t.soft_extra, t.low_entropy_bits) == (0.33, (1, 2, 3), (), 1.0)
    assert (t.uniform_margin, t.top2_gap, t.kl_bits, t.ranks, t.cosines) == (
        0.002,
        0.5,
        (1, 0.5),
        (10, 5, 1),
        (0.2, 0.4, 0.6),
    )
    assert (t.surface_margin, t.geometry_margin, t.coverage_p, t.confirm_window) == (0.05, 0.02, 0.33, 2)
    assert t.gate_scales == (0.9, 0.95, 1.05, 1.1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"copy_treshold": 0.9}, "run.json: copy_treshold is not a known key"),
        ({"copy_p": 2}, "run.json: copy_p: .*less than or equal to 1"),
        ({"copy_p": float("nan")}, "run.json: copy_p: .*finite"),
        ({"ranks": (1, 1)}, r"run.json: ranks: .*\[1, 1\] names a threshold twice"),
        ({"soft_extra": (0.33,)}, "soft_extra holds 0.33, which is soft_p already"),
        ({"raw_radius": (8, 4)}, "raw_radius: .*falls: the smaller one comes first"),
        ({"raw_kl_bits": (0.5, 1.0)}, "raw_kl_bits: .*rises: the stricter one comes first"),
        ({"coverage_k": 20}, "coverage_k: .*50"),
        ({"gate_scales": ()}, "gate_scales: .*at least 1 item"),
        ({"interval_level": 1}, "interval_level: .*less than 1"),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_what_would_be_good(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Thresholds.read(values, source="run.json")

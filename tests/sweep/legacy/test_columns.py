"""Columns of the legacy files: the published names in the published order, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ftw.sweep.legacy import columns
from ftw.sweep.legacy.dialect import line
from ftw.sweep.milestones.thresholds import Thresholds

GOLDEN = Path(__file__).parents[2] / "data" / "sweep" / "legacy"
WRITTEN: dict[str, Sequence[str]] = {
    "records-seed": columns.records_columns("seed"),
    "records-extended": columns.records_columns("extended"),
    "pure-next-token-seed": columns.pure_columns("seed", Thresholds()),
    "pure-next-token-extended": columns.pure_columns("extended", Thresholds()),
    "rawlens": columns.RAWLENS,
    "rawlens-window": columns.RAWLENS_WINDOW,
    "tuned-variants": columns.TUNED_VARIANTS,
    "positions-tuned-audit": columns.POSITIONS,
    "milestones": columns.MILESTONES,
    "artifact-audit": columns.ARTIFACT,
}


@pytest.mark.parametrize("kind", sorted(WRITTEN))
def test_a_header_is_the_published_one(kind: str) -> None:
    assert line(WRITTEN[kind]) == (GOLDEN / f"{kind}.csv").read_text(encoding="utf-8")


def test_every_published_header_is_written() -> None:
    assert {file.stem for file in GOLDEN.glob("*.csv")} == set(WRITTEN)


def test_the_contracts_have_47_and_57_columns_and_50_and_85() -> None:
    names = ("records-seed", "pure-next-token-seed", "records-extended", "pure-next-token-extended")
    assert [len(WRITTEN[name]) for name in names] == [47, 57, 50, 85]


@pytest.mark.parametrize(
    ("threshold", "label"), [(0.70, "0.7"), (0.95, "0.95"), (1.0, "1"), (1 / 3, "0.333333"), (0.0, "0")]
)
def test_a_threshold_is_written_without_zeros_at_the_end(threshold: float, label: str) -> None:
    assert columns.label(threshold) == label


def test_copy_flags_follow_the_runs_thresholds() -> None:
    found = columns.copy_flags(Thresholds(copy_p=0.8, soft_p=0.5, soft_windows=(3, 1), soft_extra=(0.4, 0.25)))
    assert found[:4] == ("copy_strict@0.8", "copy_strict@0.7", "copy_strict@0.9", "copy_strict@0.95")
    assert found[4:6] == ("copy_soft_k1@0.5", "copy_soft_k3@0.5")
    assert found[6:] == ("copy_soft_k1@0.25", "copy_soft_k3@0.25", "copy_soft_k1@0.4", "copy_soft_k3@0.4")

"""Charts of text characters."""

import math

import pytest

from ftw.sweep.peek import BlockView, Guess
from ftw.ui.visualization.charts import bar, cut, draw_blocks, draw_tracks, percent, shown_token, spark
from ftw.ui.visualization.marks import Track
from ftw.ui.visualization.palette import Palette

PALETTE = Palette.of({"Weather": "Weather", "Food": "Food"})


@pytest.mark.parametrize(
    ("p", "said"), [(0.0, "0 %"), (0.004, "<1 %"), (0.005, "0 %"), (0.954, "95 %"), (1.0, "100 %"), (math.nan, "-")]
)
def test_probabilities_are_whole_percents(p: float, said: str) -> None:
    assert percent(p) == said


def test_a_spark_shows_the_highest_of_each_share_and_nothing_for_nothing() -> None:
    assert spark([0.0, 0.5, 1.0, 0.01], 10) == " ▄█▁"
    assert spark([0.0, 0.0, 0.0, 0.9, 0.0, 0.0], 3) == " █ "


def test_a_bar_is_as_long_as_its_value() -> None:
    assert bar(0.5, 4) == "██  "
    assert bar(1.2, 4) == "████"
    assert bar(0.0, 4) == "    "


def test_a_name_that_is_too_long_ends_in_an_ellipsis() -> None:
    assert cut("natural phenomenon", 10) == "natural p…"
    assert cut("food", 6) == "food  "


@pytest.mark.parametrize(("token", "said"), [(" Paris", "Paris"), ("\n", "↵"), (" ", "␣"), ("", "∅"), ("\x1b[", "�[")])
def test_every_token_can_be_seen(token: str, said: str) -> None:
    assert shown_token(token) == said


def test_tracks_fit_80_columns_with_baseline_and_auroc_beside_the_peak() -> None:
    track = Track("Weather", (0.0,) * 50 + (0.95,) + (0.0,) * 60, 0.02, 0.961, 50, 0.95)
    head, row = draw_tracks([track], PALETTE, width=80, colour=False)
    assert max(head.cell_len, row.cell_len) <= 80
    assert head.plain.split()[-3:] == ["peak", "usual", "AUROC"]
    assert row.plain.split()[-5:] == ["95", "%", "2", "%", "0.96"]


def test_no_tracks_draw_nothing() -> None:
    assert draw_tracks([], PALETTE, width=80, colour=True) == []


def test_blocks_fit_80_columns_and_say_rank_and_probability() -> None:
    views = [
        BlockView(b, tuple(Guess(" internationalisation", i, 0.3) for i in range(3)), 10 - b, b / 9, 1.0)
        for b in range(10)
    ]
    rows = draw_blocks(views, " Paris", width=80, colour=False, top=3)
    assert all(row.cell_len <= 80 for row in rows)
    assert "p(Paris)" in rows[0].plain
    assert rows[-1].plain.split()[-4:] == ["1", "100", "%", "██████████"]

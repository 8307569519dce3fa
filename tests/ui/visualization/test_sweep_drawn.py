"""Reports of sweeps in a real browser: drawn, legible, within the page, by keyboard, in both themes and narrow."""

from typing import Any

import pytest

from ftw.ui.visualization.palette import contrast
from ftw.ui.visualization.report import Choice, Figure
from ftw.ui.visualization.sweep_report import report
from tests.ui.browser import browse, colour
from tests.ui.visualization.conftest import Finished

LOOKS = [("everywhere", 1200, False), ("ends", 1200, True), ("ends", 500, False)]


@pytest.fixture(scope="module", params=LOOKS, ids=["positions-light", "ends-dark", "ends-phone"])
def looked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe found in a report, and the figures that are seen at first."""
    name, width, dark = request.param
    finished: Finished = request.getfixturevalue(name)
    found = report(*finished)
    first = [one.figures[0] if isinstance(one, Choice) else one for one in found.figures]
    return {**browse(found.html(), tmp_path_factory.mktemp("sweep"), width, dark=dark), "first": first, "width": width}


def test_it_draws_without_complaint_and_loads_nothing(looked: dict[str, Any]) -> None:
    assert looked["complaints"] == []
    assert looked["loaded"] == 0
    assert looked["hacked"] is False
    assert len(looked["figures"]) == len(looked["first"])
    for figure in looked["figures"]:
        assert figure["holes"] is False
        assert sum(figure["drawn"].values()) > 0
        assert figure["unlevel"] == 0


def test_nothing_leaves_the_page_or_its_figure(looked: dict[str, Any]) -> None:
    assert looked["overflow"] is looked["overflowWithTips"] is looked["narrow"]["overflow"] is False
    assert [figure["outside"] for figure in looked["figures"]] == [[]] * len(looked["figures"])
    assert looked["narrow"]["outside"] == []
    assert {round(width) for width in looked["paper"]["widths"]} == {650}


def test_every_value_is_reached_and_said_by_keyboard(looked: dict[str, Any]) -> None:
    for figure in looked["figures"]:
        assert figure["tabs"] == 0
        assert figure["beyond"] == []
        assert all(figure["said"])


def test_a_cell_of_the_map_says_token_probability_entropy_and_rank(looked: dict[str, Any]) -> None:
    at = next(place for place, one in enumerate(looked["first"]) if type(one.picture).__name__ == "Heat")
    said = looked["figures"][at]["said"][-1].split("\n")
    names = [line.split(":")[0] for line in said[1:]]
    assert names[:4] == ["first token", "probability", "entropy, bits", "KL to the model's own, bits"]
    assert names[-1] == "rank of the answer"


def test_all_text_is_legible_in_its_theme(looked: dict[str, Any]) -> None:
    assert looked["page"] == looked["theme"]
    for figure in looked["figures"]:
        for ink in figure["inks"]:
            assert contrast(colour(ink), colour(figure["ground"])) >= 4.5


def test_a_choice_shows_one_prompt_at_a_time_and_the_chosen_one(
    everywhere: Finished, tmp_path_factory: pytest.TempPathFactory, looked: dict[str, Any]
) -> None:
    choice = next((one for one in report(*everywhere).figures if isinstance(one, Choice)), None)
    if not looked["choices"]:
        assert looked["width"] == 500 or looked["theme"] == "rgb(16, 18, 20)"
        return
    assert choice is not None
    (found,) = looked["choices"]
    assert found["listSeen"] is True
    assert found["listed"] == len(choice.figures)
    assert found["second"] == [[title(choice.figures[1]), cells(choice.figures[1])]]
    assert found["first"] == [[title(choice.figures[0]), cells(choice.figures[0])]]


def title(figure: Figure) -> str:
    """The reading as the page has it: a percent sign stays with its number."""
    return figure.reading.replace(" %", "\u00a0%")


def cells(figure: Figure) -> int:
    return sum(value == value for row in figure.picture.values for value in row)  # type: ignore[union-attr]

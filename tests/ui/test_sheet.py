"""The score sheet: words in lines, names under them."""

import pytest

from ftw.ui.visualization.marks import Mark, Word
from ftw.ui.visualization.palette import Palette
from ftw.ui.visualization.sheet import draw_line, label, lay_out, sheet

PALETTE = Palette.of({"Food": "Food", "Weather": "Weather", "BodyOfWater": "BodyOfWater"})


def mark(concept: str, p: float = 0.9) -> Mark:
    return Mark(concept, p, 0.02, 9.0, 0.95)


def words(*texts: str) -> list[Word]:
    return [Word(text) for text in texts]


def shown(lines: list[list]) -> list[str]:
    return ["".join(cell.text for cell in line) for line in lines]


@pytest.mark.parametrize(
    ("concept", "said"),
    [("NaturalPhenomenon", "natural phenomenon"), ("Food", "food"), ("AI", "AI"), ("body_part", "body part")],
)
def test_a_concepts_name_is_shown_as_people_write_it(concept: str, said: str) -> None:
    assert label(concept) == said


def test_lines_break_at_spaces_and_never_exceed_the_width() -> None:
    lines = shown(lay_out(words("The", " storm", " came", " over", " the", " harbor", "."), 14))
    assert lines == ["The storm came", "over the", "harbor."]


def test_a_word_of_several_tokens_stays_whole() -> None:
    assert shown(lay_out(words("The", " har", "bor", "mas", "ter"), 12)) == ["The", "harbormaster"]


def test_a_word_longer_than_a_line_is_cut() -> None:
    lines = shown(lay_out(words("x" * 25), 10))
    assert lines == ["x" * 10, "x" * 10, "x" * 5]


def test_line_breaks_of_the_text_are_kept() -> None:
    assert shown(lay_out(words("One.", "\n\n", "Two"), 20)) == ["One.", "", "Two"]


def test_control_characters_never_reach_the_terminal() -> None:
    assert "\x1b" not in shown(lay_out(words("a\x1b[31mb"), 20))[0]


def test_wide_characters_count_as_two_columns_each() -> None:
    assert shown(lay_out(words("東京", "東京"), 6)) == ["東京", "東京"]


def test_a_name_stands_under_the_word_where_its_concept_begins_to_lead() -> None:
    found = sheet(
        words("The", " storm", " blew", " hard"),
        [None, mark("Weather"), mark("Weather"), None],
        PALETTE,
        width=40,
        colour=False,
    )
    assert [row.plain for row in found] == ["The storm blew hard", "    weather"]


def test_a_name_comes_again_when_another_concept_led_between() -> None:
    leaders = [mark("Food"), mark("Weather"), mark("Food")]
    found = sheet(words("breadandbutter", " stormweather", " cheese"), leaders, PALETTE, width=60, colour=False)
    assert found[1].plain.split() == ["food", "weather", "food"]


def test_names_that_collide_go_to_a_second_row_and_the_weakest_is_left_out() -> None:
    leaders = [mark("BodyOfWater", 0.9), mark("Weather", 0.8), mark("Food", 0.6)]
    found = sheet(words("a", " b", " c"), leaders, PALETTE, width=40, colour=False)
    assert [row.plain for row in found] == ["a b c", "body of water", "  weather"]


def test_a_complete_line_never_changes_when_more_words_come() -> None:
    text = "The storm came over the harbor and nobody in the village could sleep that night"
    tokens = [Word(" " + part) for part in text.split()]
    leaders = [mark("Weather") if i % 4 == 1 else None for i in range(len(tokens))]
    before: list[list[str]] = []
    for n in range(1, len(tokens) + 1):
        lines = lay_out(tokens[:n], 24)[:-1]
        drawn = [[row.plain for row in draw_line(line, leaders[:n], PALETTE, width=24, colour=False)] for line in lines]
        assert drawn[: len(before)] == before
        before = drawn


def test_with_colour_words_are_tinted_and_the_space_before_them_is_not() -> None:
    row = sheet(words("The", " storm"), [None, mark("Weather")], PALETTE, width=40, colour=True)[0]
    tinted = [row.plain[span.start : span.end] for span in row.spans if getattr(span.style, "bgcolor", None)]
    assert tinted == ["storm"]


def test_an_empty_text_is_one_empty_line() -> None:
    assert [row.plain for row in sheet([], [], PALETTE, width=40, colour=True)] == [""]


def test_a_name_at_the_end_of_a_line_moves_left_instead_of_out() -> None:
    found = sheet(words("aaaa", " bbbb", " c"), [None, None, mark("BodyOfWater")], PALETTE, width=16, colour=False)
    assert [row.plain for row in found] == ["aaaa bbbb c", "   body of water"]

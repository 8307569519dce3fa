"""Charts as data: their twins, what is refused, and how they stand in a page. How they look: `test_drawn.py`."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError, NumericError
from ftw.ui.visualization.page import embed, resource
from ftw.ui.visualization.palette import DARK, LIGHT, Tokens, contrast, mix
from ftw.ui.visualization.plots import Axis, Bars, Chart, Heat, Layer, Line, Pin, Points, Ribbons, Rule, Stretch, shown

X, Y = Axis("block"), Axis("probability", percent=True)
FINITE = st.floats(-1e6, 1e6)


def chart(*marks: Line | Points | Bars, rules: tuple[Rule, ...] = (), names: tuple[str, ...] = ()) -> Chart:
    return Chart(X, Y, marks, rules, names)


def heat(rows: int = 2, columns: int = 3, **more: float) -> Heat:
    values = tuple(tuple(float(i + j) for j in range(columns)) for i in range(rows))
    names = (tuple(f"c{j}" for j in range(columns)), tuple(f"r{i}" for i in range(rows)))
    return Heat(*names, values, "token", "block", "difference", **more)


def ribbons(*stretches: Stretch) -> Ribbons:
    rules = (Rule(6.0, "half way"),)
    return Ribbons(X, ("France", "Japan"), "prompt", ("top 10", "first"), stretches, rules)


def test_the_twin_of_one_grid_has_a_column_for_each_series() -> None:
    heads, rows = chart(Bars("a", [0, 1, 2], [1, 2]), Bars("b", [0, 1, 2], [3, 4])).twin()
    assert heads == ("block, from", "to", "a", "b")
    assert rows == ((0.0, 1.0, 1.0, 3.0), (1.0, 2.0, 2.0, 4.0))
    heads, rows = chart(Points("a", [0, 1], [5, 6], [4, 5], [6, 7]), names=("x", "y")).twin()
    assert heads == ("block", "a", "a, low", "a, high")
    assert rows == (("x", 5.0, 4.0, 6.0), ("y", 6.0, 5.0, 7.0))


def test_the_twin_of_several_grids_has_a_row_for_each_point() -> None:
    heads, rows = chart(Line("a", [0, 1], [2, 3]), Points("b", [0.5], [9])).twin()
    assert heads == ("series", "block", "probability")
    assert rows == (("a", 0.0, 2.0), ("a", 1.0, 3.0), ("b", 0.5, 9.0))


def test_rules_are_said_in_words() -> None:
    assert (
        chart(Line("a", [0], [1]), rules=(Rule(0.5, "chance", True),)).lines() == "Lines: chance (probability 0.500)."
    )
    assert chart(Line("a", [0], [1])).lines() == ""


def test_the_twin_of_bars_over_names_has_a_row_for_each_name() -> None:
    heads, rows = chart(Bars("a", [-0.5, 0.5, 1.5], [0.2, 0.4]), names=("x", "y")).twin()
    assert heads == ("block", "a")
    assert rows == (("x", 0.2), ("y", 0.4))


def test_the_span_around_a_middle_is_even() -> None:
    assert Heat(("a", "b"), ("r",), ((-1.0, 2.0),), "x", "y", "u", middle=0.0).span == (-2.0, 2.0)
    assert Heat(("a",), ("r",), ((3.0,),), "x", "y", "u").span == (3.0, 4.0)


def test_a_hole_in_a_heat_map_is_a_dash_in_its_twin() -> None:
    assert Heat(("a", "b"), ("r",), ((math.nan, 1.0),), "x", "y", "u").twin()[1] == (("r", None, 1.0),)


def test_labels_stand_above_their_values_in_the_twin() -> None:
    picture = Heat(("0 the", "1 a"), ("block 3",), ((0.1, 0.9),), "position", "block", "p", labels=(("x", "y"),))
    assert picture.twin() == (
        ("block \\ position", "0 the", "1 a"),
        (("block 3, label", "x", "y"), ("block 3, p", 0.1, 0.9)),
    )


def test_ribbons_have_a_row_for_each_stretch_and_say_their_rules() -> None:
    picture = ribbons(Stretch(0, 3.0, 8.0, 0), Stretch(1, 8.0, 12.0, 1))
    assert picture.twin() == (
        ("prompt", "reading", "block, from", "to"),
        (("France", "top 10", 3, 8), ("Japan", "first", 8, 12)),
    )
    assert picture.lines() == "Lines: half way (block 6)."


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8), st.text(max_size=9))
def test_what_is_embedded_is_read_back_and_is_no_markup(points: list[tuple[float, float]], name: str) -> None:
    x, y = [a for a, _ in points], [b for _, b in points]
    text = embed(chart(Line(name, x, y, y, y), Points("<!--</script>&\u2028", x, y)))
    assert text.isascii()
    assert not set(text) & set("<>&")
    document = json.loads(text)
    assert document["kind"] == "chart"
    assert document["marks"][0] | {"x": x, "y": y, "name": name} == document["marks"][0]
    assert document["marks"][1]["name"] == "<!--</script>&\u2028"


def test_a_heat_map_is_embedded_with_its_span_and_holes() -> None:
    document = json.loads(embed(Heat(("a", "b"), ("r",), ((math.nan, 1.0),), "x", "y", "u", low=0.0)))
    assert (document["kind"], document["span"], document["values"]) == ("heat", [0.0, 1.0], [[None, 1.0]])
    assert json.loads(embed(ribbons(Stretch(0, 1.0, 2.0, 0))))["kind"] == "ribbons"


@pytest.mark.parametrize("tokens", [LIGHT, DARK])
def test_numbers_in_a_heat_map_are_legible_on_the_fullest_tint(tokens: Tokens) -> None:
    found = re.search(r"WRITTEN = ([\d.]+);", resource("draw.js"))
    assert found is not None
    for hue in tokens.hues:
        assert contrast(tokens.ink, mix(hue, tokens.surface, float(found[1]))) >= 4.5


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (math.nan, "–"), ("a", "a"), (1000, "1\u2009000"), (0.65, "0.650"), (12.34, "12.3"), (8.0, "8")],
)
def test_cells_have_three_digits(value: str | float | None, said: str) -> None:
    assert shown(value) == said


@pytest.mark.parametrize(("value", "said"), [(1e-5, "1.00e-05"), (123.4, "123"), (2.5e7, "2.50e+07"), (5432.1, "5432")])
def test_large_and_small_numbers_stay_short(value: float, said: str) -> None:
    assert shown(value) == said


def test_too_many_or_no_marks_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 6"):
        chart()
    with pytest.raises(ConfigError, match="1 to 6"):
        chart(*[Line("a", [0], [1])] * 7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: chart(Line("a", [0, 1], [1])),
        lambda: chart(Bars("a", [0, 1], [1, 2])),
        lambda: chart(Points("a", [], [])),
        lambda: chart(Points("a", [1, 2], [1, 2], [1], [1])),
    ],
)
def test_series_of_unequal_lengths_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="other lengths"):
        make()  # type: ignore[operator]


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(NumericError, match="leave such points out"):
        chart(Line("a", [0], [math.nan]))
    with pytest.raises(NumericError, match="infinity"):
        Heat(("a",), ("r",), ((math.inf,),), "x", "y", "u")


def test_a_heat_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="got other values"):
        Heat(("a", "b"), ("r",), ((1.0,),), "x", "y", "u")
    with pytest.raises(ConfigError, match="got other values or labels"):
        Heat(("a",), ("r",), ((1.0,),), "x", "y", "u", labels=(("a", "b"),))
    with pytest.raises(ConfigError, match="at least one row"):
        Heat((), (), (), "x", "y", "u")
    with pytest.raises(ConfigError, match="at most 8000 cells"):
        heat(100, 81)


def test_ribbons_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows, stretches and 1 to 4 kinds"):
        ribbons()
    for wrong in (Stretch(2, 0.0, 1.0, 0), Stretch(0, 0.0, 1.0, 2), Stretch(0, 2.0, 1.0, 0)):
        with pytest.raises(ConfigError, match="2 rows and 2 kinds, low before high"):
            ribbons(wrong)
    with pytest.raises(NumericError, match="cut it at the axis"):
        ribbons(Stretch(0, 0.0, math.inf, 0))
    with pytest.raises(ConfigError, match="no height that a rule across"):
        Ribbons(X, ("a",), "y", ("k",), (Stretch(0, 0.0, 1.0, 0),), (Rule(1.0, "r", across=True),))


def test_what_is_said_beside_a_value_stands_in_the_twin() -> None:
    picture = Heat(("a", "b"), ("r",), ((0.1, 0.9),), "x", "y", "p", more=(Layer("bits", ((math.nan, 2.0),)),))
    assert picture.twin()[1] == (("r, p", 0.1, 0.9), ("r, bits", None, 2.0))


def test_pins_stand_in_the_twin_with_their_row_and_whole_places_are_said_whole() -> None:
    picture = Ribbons(
        X,
        ("a", "b"),
        "fact",
        ("first",),
        (Stretch(0, 2.5, 5.5, 0), Stretch(1, 4.5, 5.5, 0)),
        pins=(Pin(0, 3.0, 0),),
        sorts=("median",),
        whole=True,
    )
    assert picture.twin()[1] == (("a", "first", 3, 5), ("a", "median", 3.0, 3.0), ("b", "first", 5, 5))


def test_layers_of_another_shape_and_infinite_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match="got other values"):
        Heat(("a",), ("r",), ((1.0,),), "x", "y", "u", more=(Layer("bits", ((1.0, 2.0),)),))
    with pytest.raises(NumericError, match="cannot show infinity"):
        Heat(("a",), ("r",), ((1.0,),), "x", "y", "u", more=(Layer("bits", ((math.inf,),)),))


def test_pins_that_cannot_be_drawn_are_refused() -> None:
    for pin in (Pin(1, 0.0, 0), Pin(0, 0.0, 1)):
        with pytest.raises(ConfigError, match="1 rows and 1 sorts"):
            Ribbons(X, ("a",), "y", ("k",), (), pins=(pin,), sorts=("s",))
    with pytest.raises(NumericError, match="no finite place"):
        Ribbons(X, ("a",), "y", ("k",), (), pins=(Pin(0, math.nan, 0),), sorts=("s",))


def test_only_positive_curves_stand_on_a_logarithmic_axis() -> None:
    ranks = Axis("rank", log=True, down=True)
    Chart(X, ranks, (Line("a", [0], [1]),), (Rule(0.0, "upright, at zero"),))
    with pytest.raises(NumericError, match="ends above zero, and 0 is to be drawn"):
        Chart(X, ranks, (Line("a", [0, 1], [1, 0]),))
    with pytest.raises(NumericError, match="ends above zero"):
        Chart(X, Axis("rank", log=True, low=0.0), (Line("a", [0], [1]),))
    with pytest.raises(ConfigError, match="'h' is a histogram"):
        Chart(X, ranks, (Bars("h", [0, 1], [1]),))
    with pytest.raises(ConfigError, match="only the axis at the side"):
        Chart(ranks, Y, (Line("a", [0], [1]),))

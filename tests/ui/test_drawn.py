"""Figures in a real browser: every mark is drawn, nothing leaves the page, values are said, paper has its own width."""

from typing import Any

import pytest

from ftw.ui.visualization.palette import contrast, mix
from ftw.ui.visualization.plots import (
    Axis,
    Bars,
    Chart,
    Heat,
    Layer,
    Line,
    Picture,
    Pin,
    Points,
    Ribbons,
    Rule,
    Stretch,
)
from ftw.ui.visualization.report import Figure, Report
from tests.ui.browser import browse, colour

EVIL = "</script><script>window.hacked=1</script><!--<script>\u2028&\"'"
BLOCKS = [float(i) for i in range(12)]
RISE = [i / 11 for i in BLOCKS]
SHARE = Axis("probability", percent=True, low=0.0, high=1.0)
HALF = Rule(0.5, "chance", across=True)

PICTURES: dict[str, tuple[Picture, dict[str, int]]] = {
    "lines": (
        Chart(
            Axis("block"),
            SHARE,
            (
                Line("Paris", BLOCKS, RISE, [0.9 * v for v in RISE], RISE),
                Line("chance", BLOCKS, [0.1] * 12, dashed=True),
            ),
            (HALF, Rule(0.52, "a second one, close to it", across=True), Rule(9.0, "first from the tenth block on")),
        ),
        {"line": 2, "area": 1, "rule": 4},
    ),
    "histograms": (
        Chart(
            Axis("distance"),
            Axis("share", percent=True),
            (Bars("a", [0, 1, 2], [0.3, 0.7]), Bars("b", [1, 2, 3], [1, 0])),
        ),
        {"rect": 4, "line": 2},
    ),
    "points": (
        Chart(
            Axis("relation"),
            SHARE,
            (Points("lens", [0, 1], [0.2, 0.8], [0.1, 0.7], [0.3, 0.9]),),
            (),
            ("capital", EVIL),
        ),
        {"dot": 2, "rule": 3},
    ),
    "bars": (
        Chart(
            Axis("relation"), SHARE, (Bars("right", [-0.5, 0.5, 1.5], [0.2, 0.8]),), (HALF,), ("a long name " * 9, "b")
        ),
        {"rect": 2},
    ),
    "numbers": (
        Heat(
            tuple("abcdef"),
            ("a machine with a long name", EVIL),
            ((0.1,) * 6, (float("nan"), *(0.9,) * 5)),
            "set",
            "",
            "m",
        ),
        {"cell": 11},
    ),
    "tokens": (
        Heat(
            tuple(f"{j} token" for j in range(100)),
            tuple(f"block {i}" for i in range(40)),
            tuple(tuple((i * j % 7) / 6 for j in range(100)) for i in range(40)),
            "position",
            "block",
            "probability",
            percent=True,
            middle=0.5,
            labels=tuple(tuple(f" word{j}" for j in range(100)) for _ in range(40)),
            labelled="first token",
        ),
        {"cell": 4000},
    ),
    "ribbons": (
        Ribbons(
            Axis("block", low=0.0, high=12.0),
            ("France", "Japan"),
            "prompt",
            ("top 100", "top 10", "first"),
            (Stretch(0, 2.0, 5.0, 0), Stretch(0, 5.0, 9.0, 1), Stretch(0, 9.0, 12.0, 2), Stretch(1, 3.0, 12.0, 0)),
            (Rule(6.0, "half depth"),),
        ),
        {"bar": 4, "rule": 1},
    ),
    "ranks": (
        Chart(
            Axis("block"),
            Axis("rank, 1 is best", log=True, down=True, low=1.0),
            (
                Line("median", BLOCKS, [4000.0 / 2**i for i in BLOCKS], [1.0] * 12, [5000.0] * 12),
                Line("control", BLOCKS, [50.0] * 12),
            ),
            (Rule(2560.0, "chance", across=True), Rule(10.0, "among the ten best", across=True)),
        ),
        {"line": 2, "area": 1, "rule": 3},
    ),
    "one rank": (Chart(Axis("block"), Axis("rank", log=True), (Line("a", [0, 1], [1, 1]),)), {"line": 1}),
    "said beside": (
        Heat(
            ("0 The", "1 capital"),
            ("block 0", "block 1"),
            ((0.1, 0.9), (0.4, 0.5)),
            "position",
            "block",
            "probability",
            percent=True,
            labels=((" a", " b"), (" c", EVIL)),
            labelled="first token",
            more=(Layer("entropy, bits", ((9.0, 8.5), (1.25, float("nan")))),),
        ),
        {"cell": 4},
    ),
    "pins": (
        Ribbons(
            Axis("blocks that have run", low=-0.5, high=8.5),
            ("capital", EVIL, "nothing found"),
            "relation",
            ("middle half", "95 % interval"),
            (Stretch(0, 2.5, 6.5, 0), Stretch(0, 3.5, 4.5, 1), Stretch(1, 2.0, 8.0, 0)),
            pins=(Pin(0, 4.0, 0), Pin(0, 4.0, 1), Pin(1, 8.0, 0)),
            sorts=("median", "copy"),
            whole=True,
        ),
        {"bar": 3, "dot": 3},
    ),
    "one point": (Chart(Axis("x"), Axis("y"), (Line("a", [3], [5]),)), {"dot": 1}),
    "as good as one value": (Chart(Axis("x"), Axis("y"), (Line("a", [0, 1], [1e9, 1e9 + 1e-6]),)), {"line": 1}),
    "huge": (Chart(Axis("x"), Axis("y"), (Points("a", [-1e12, 1e12], [1e12, -1e12]),)), {"dot": 2}),
    "tiny": (Chart(Axis("x"), Axis("y"), (Line("a", [0, 1], [1e-30, 3e-30]),)), {"line": 1}),
    "below zero": (Chart(Axis("x"), Axis("y"), (Bars("a", [0, 1, 2], [-3, 2]),)), {"rect": 2}),
    "one cell": (Heat(("a",), ("r",), ((1.0,),), "x", "y", "u"), {"cell": 1}),
}
"""Each picture, and how many of which marks Plot draws for it."""


def page() -> str:
    """A report with every picture."""
    return Report(
        title="Every picture",
        asked=EVIL,
        answer=("Yes.",),
        methods=("None.",),
        provenance={"Model": EVIL},
        command="ftw",
        figures=[Figure(name, picture, "units") for name, (picture, _) in PICTURES.items()],
    ).html()


@pytest.fixture(scope="module", params=[(1200, False), (1200, True), (500, False)], ids=["light", "dark", "phone"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    width, dark = request.param
    return browse(page(), tmp_path_factory.mktemp("browser"), width, dark=dark)


def test_every_mark_is_drawn(seen: dict[str, Any]) -> None:
    for (name, (_, marks)), figure in zip(PICTURES.items(), seen["figures"], strict=True):
        assert {mark: figure["drawn"][mark] for mark in marks} == marks, name
        assert figure["holes"] is False, name
        assert figure["unlevel"] == 0, f"{name}: the names of the rows do not stand beside them"


def test_nothing_complains_and_nothing_is_loaded(seen: dict[str, Any]) -> None:
    assert seen["complaints"] == []
    assert seen["loaded"] == 0
    assert seen["hacked"] is False


def test_nothing_leaves_the_page_and_no_text_its_figure(seen: dict[str, Any]) -> None:
    assert seen["overflow"] is seen["overflowWithTips"] is False
    assert [figure["outside"] for figure in seen["figures"]] == [[]] * len(PICTURES)
    assert seen["narrow"]["overflow"] is False
    assert seen["narrow"]["outside"] == []


def test_a_picture_follows_its_width_and_paper_has_its_own(seen: dict[str, Any]) -> None:
    scrolled = [name == "tokens" for name in PICTURES]
    assert [one or is_wide for one, is_wide in zip(seen["narrow"]["changed"], scrolled, strict=True)] == [True] * len(
        PICTURES
    )
    assert [round(width) for width in seen["paper"]["widths"]] == [650] * len(PICTURES)
    assert seen["paper"]["open"] is True
    assert max(width for width, is_wide in zip(seen["after"], scrolled, strict=True) if not is_wide) < 330


def test_arrow_keys_say_and_show_every_value(seen: dict[str, Any]) -> None:
    figures = dict(zip(PICTURES, seen["figures"], strict=True))
    for name, figure in figures.items():
        assert figure["tabs"] == 0, name
        assert figure["beyond"] == [], name
        assert all(figure["said"]), name
    assert figures["lines"]["said"][1] == "Paris: 9.09\u00a0% (8.18\u00a0% to 9.09\u00a0%)\nblock 1"
    assert figures["lines"]["said"][2] == "chance: 10\u00a0%\nblock 1"
    assert figures["points"]["said"][1] == f"lens: 80\u00a0% (70\u00a0% to 90\u00a0%)\n{EVIL}"
    assert figures["tokens"]["said"][2] == "block 1, 1 token\nfirst token:  word1\nprobability: 16.7\u00a0%"
    assert figures["ribbons"]["said"][3] == "Japan: top 100\nblock 3 to 12"
    assert figures["ranks"]["said"][2] == "control: 50\nblock 1"
    assert figures["said beside"]["said"][3] == (
        f"block 1, 1 capital\nfirst token: {EVIL}\nprobability: 50\u00a0%\nentropy, bits: –"
    )
    assert figures["pins"]["said"][:3] == [
        "capital: 95 % interval\nblocks that have run 4",
        "capital: median, copy\nblocks that have run 4",
        "capital: middle half\nblocks that have run 3 to 6",
    ]


def test_all_text_is_legible_in_this_theme(seen: dict[str, Any]) -> None:
    assert seen["page"] == seen["theme"]
    for name, figure in zip(PICTURES, seen["figures"], strict=True):
        ground = colour(figure["ground"])
        for ink in figure["inks"]:
            assert contrast(colour(ink), ground) >= 4.5, (name, ink)
        if name in ("numbers", "tokens"):
            ink = max((colour(one) for one in figure["inks"]), key=lambda one: contrast(one, ground))
            for tint in figure["tints"]:
                hue, strength = tint.rsplit(" ", 1)
                if float(strength) <= 0.42:
                    assert contrast(ink, mix(colour(hue), ground, float(strength))) >= 4.5, (name, tint)


def test_the_copy_buttons_show(seen: dict[str, Any]) -> None:
    assert seen["buttons"] == 0

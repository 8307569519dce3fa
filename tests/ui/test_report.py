"""Reports: one file that loads nothing, in the order of the house, legible. In a browser: `test_drawn.py`."""

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ftw.substrate.errors import ConfigError, StorageError
from ftw.ui.visualization.page import resource
from ftw.ui.visualization.palette import DARK, LIGHT, Tokens, contrast
from ftw.ui.visualization.plots import Axis, Bars, Chart, Heat, Line, Points, Rule
from ftw.ui.visualization.report import MOST_BYTES, Choice, Figure, Report, Table, check_target

VOID = {"meta"}
LINES = Chart(
    Axis("block"),
    Axis("probability", percent=True, low=0.0, high=1.0),
    (Line("Paris", [0, 1, 2], [0.1, 0.4, 0.9], [0.0, 0.3, 0.8], [0.2, 0.5, 1.0]), Points("said", [0, 2], [0.2, 0.8])),
    (Rule(0.5, "chance", across=True), Rule(1.0, "the block from which on it is first")),
)
BARS = Chart(Axis("distance"), Axis("share", percent=True), (Bars("honest", [0, 0.1, 0.2], [0.3, 0.7]),))
HEAT = Heat(tuple("abcdef"), ("a machine with a long name", "2xB200"), ((0.1,) * 6, (0.9,) * 6), "set", "set", "mean")
WIDE_HEAT = Heat(tuple(map(str, range(120))), tuple(map(str, range(6))), ((0.5,) * 120,) * 6, "token", "block", "p")
LONG = "2026-05__a-name-without-any-place-to-break-it-at__1000"


def report(**more: object) -> Report:
    fields: dict[str, object] = {
        "title": "Paris is first from block 5 on",
        "asked": "Where does the answer appear?",
        "answer": ("From block 5 on.", "It stays at 92 %."),
        "methods": ("Every block is decoded.",),
        "provenance": {"Model": "reference 98b1c611", "Seed": "0", "Data": LONG * 3},
        "command": 'ftw peek "The capital of France is"',
        "figures": [Figure(f"Reading {i}", one, "units") for i, one in enumerate((LINES, BARS, HEAT, WIDE_HEAT))],
        "tables": [Table("Pairs", ("a", "n", "share"), ((LONG, 1000, "5 %"), ("b", 2, None)), "a note")],
    }
    return Report(**{**fields, **more})  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Checks that tags nest, and collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_order_is_that_of_a_notebook() -> None:
    text = read(report().html()).text
    order = ["Paris is first", "What was asked", "Answer", "Figures", "Tables", "Methods", "Provenance", "To repeat it"]
    places = [text.index(word, text.index("report")) for word in order]
    assert places == sorted(places)
    assert 'ftw peek "The capital of France is"' in text


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = report().html()
    own = html.split("<script>/*")[0]
    assert not re.search(r"https?://|src=|@import|url\(|<link", own)
    assert "default-src 'none'" in own


def test_only_scripts_and_styles_of_known_hash_run() -> None:
    html = report().html()
    policy = html.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert "unsafe" not in policy
    runs = re.findall(r"<script>(.*?)</script>", html, re.DOTALL) + re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(runs) == 5
    for one in runs:
        assert b64encode(hashlib.sha256(one.encode()).digest()).decode() in policy
    assert not re.search(r"<[^>]+ (style|on\w+)=", html.split("<body>")[1].split("<script>")[0])


def test_the_chart_library_is_the_recorded_one_and_comes_with_its_notices() -> None:
    html = report().html()
    for one in json.loads(resource("vendor/versions.json")):
        content = resource(f"vendor/{one['file']}")
        assert hashlib.sha256(content.encode()).hexdigest() == one["sha256"]
        assert content in html
        assert f"{one['name']} {one['version']} (ISC)" in html
    assert html.count("Permission to use, copy, modify, and/or distribute") > 1


def test_every_figure_has_a_description_its_data_and_a_table_of_its_values() -> None:
    html = report().html()
    tags = read(html).tags
    pictures = [attrs for tag, attrs in tags if tag == "div" and attrs.get("class") == "picture"]
    assert len(pictures) == 4
    assert all("The values stand in the table below." in (attrs["aria-label"] or "") for attrs in pictures)
    kinds = [json.loads(one)["kind"] for one in re.findall(r'"application/json">(.*?)</script>', html)]
    assert kinds == ["chart", "chart", "heat", "heat"]
    assert sum(tag == "details" for tag, _ in tags) == sum(tag == "noscript" for tag, _ in tags) == 4
    copies = {attrs["data-copy"] for tag, attrs in tags if tag == "button"}
    assert copies <= {attrs.get("id") for _, attrs in tags}


def test_text_from_outside_stays_text() -> None:
    evil = "<script>alert(1)</script>&\"'"
    figure = Figure(evil, Heat((evil,), (evil,), ((1.0,),), evil, evil, evil), evil)
    again = Figure(evil, Chart(Axis(evil), Axis(evil), (Line(evil, [0], [1]),), (Rule(0.0, evil),), (evil,)), evil)
    table = Table(evil, (evil,), ((evil,),), evil)
    fields = {"title": evil, "asked": evil, "answer": (evil,), "methods": (evil,), "command": evil}
    html = report(**fields, provenance={evil: evil}, figures=[figure, again], tables=[table]).html()
    read(html)
    assert html.count("<script>") == 4
    assert "alert(1)</script>" not in html


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
def test_every_ink_keeps_four_and_a_half_to_one_on_every_ground(tokens: Tokens) -> None:
    for ground in (tokens.page, tokens.surface, tokens.raised):
        for ink in (tokens.ink, tokens.quiet, tokens.accent, tokens.focus, tokens.alarm, *tokens.hues):
            assert contrast(ink, ground) >= 4.5, (ink, ground)


def test_both_themes_stand_in_the_page_and_paper_is_light() -> None:
    html = report().html()
    assert f":root{{color-scheme:light;{LIGHT.css()}}}" in html
    assert f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{DARK.css()}}}}}" in html


def test_no_colour_stands_outside_the_tokens() -> None:
    body = report().html().split("<body>")[1].split("<script>")[0]
    body += "".join(resource(name) for name in ("words.js", "draw.js", "page.js"))
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b", body)


def test_numbers_keep_their_full_precision_for_the_clipboard() -> None:
    table = Table("t", ("x",), ((0.123456789,),))
    assert 'data-v="0.123456789">0.123</td>' in report(tables=[table]).html()


def test_a_report_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    report().write(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == report().html()


def test_another_ending_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a report is \.html"):
        check_target(tmp_path / "r.pdf")
    with pytest.raises(StorageError, match="there is no folder"):
        check_target(tmp_path / "gone" / "r.html")


@pytest.mark.parametrize("answer", [(), ("a",) * 4])
def test_an_answer_has_one_to_three_sentences(answer: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="in one to three"):
        report(answer=answer)


def test_a_table_of_unequal_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="rows of other lengths"):
        Table("t", ("a", "b"), ((1,),))


def test_a_report_that_cannot_be_mailed_is_refused() -> None:
    rows = tuple((f"{i}" * 40,) for i in range(30_000))
    with pytest.raises(ConfigError, match="2 MB is the most"):
        report(tables=[Table("t", ("a",), rows)]).html()


def test_the_largest_heat_map_fits_a_report() -> None:
    values = tuple(tuple(0.001 * (i * j % 1000) for j in range(100)) for i in range(80))
    big = Heat(tuple(map(str, range(100))), tuple(map(str, range(80))), values, "token", "block", "p")
    assert len(report(figures=[Figure("r", big, "f")]).html().encode()) < MOST_BYTES


def test_a_choice_lists_its_figures_and_shows_all_of_them_without_script() -> None:
    several = tuple(Figure(f"Reading {name}", HEAT, "units") for name in "ab")
    html = report(figures=[Figure("Alone", LINES, "units"), Choice("Prompt", ("A <b>", "B"), several)]).html()
    tags = read(html).tags
    assert "<option>A &lt;b&gt;</option><option>B</option>" in html
    assert [attrs.get("hidden", "seen") for tag, attrs in tags if tag == "figure"] == ["seen"] * 3
    assert [attrs["id"] for tag, attrs in tags if tag == "table" and "id" in attrs] == ["values1", "values2", "values3"]


def test_a_choice_without_a_name_for_each_figure_is_refused() -> None:
    with pytest.raises(ConfigError, match="a choice of 1 figures has 2 names"):
        Choice("Prompt", ("a", "b"), (Figure("r", HEAT, "f"),))
    with pytest.raises(ConfigError, match="a choice of 0 figures"):
        Choice("Prompt", (), ())

"""The report of a sweep: what it draws is what the rows and the document say, and it fits a mail."""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from ftw.sweep.files.parquet import read_rows, write_rows
from ftw.sweep.files.rundir import read_document, write_document
from ftw.sweep.table import SweepTable
from ftw.ui.visualization.charts import shown_token
from ftw.ui.visualization.plots import Chart, Heat, Line, Ribbons
from ftw.ui.visualization.report import MOST_BYTES, Choice, Figure, Report
from ftw.ui.visualization.sweep_figure import reading
from ftw.ui.visualization.sweep_numbers import CLOSE, COPY, ONSET, Run
from ftw.ui.visualization.sweep_report import report
from tests.ui.visualization.conftest import EVIL, Finished

Picture = TypeVar("Picture", Chart, Heat, Ribbons)


def figures(found: Report) -> list[Figure]:
    """Every figure, those of a choice too."""
    return [each for one in found.figures for each in (one.figures if isinstance(one, Choice) else (one,))]


def pictures(found: Report, kind: type[Picture]) -> list[Picture]:
    return [one.picture for one in figures(found) if isinstance(one.picture, kind)]


def chart(found: Report, unit: str) -> Chart:
    return next(one for one in pictures(found, Chart) if unit in one.y.label)


def table(found: Report, title: str) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    one = next(each for each in found.tables if title in each.title)
    return one.columns, [dict(zip(one.columns, row, strict=True)) for row in one.rows]


def test_the_claim_is_the_title_and_the_answer_begins_with_it(ends: Finished) -> None:
    found = report(*ends)
    assert found.title == reading(Run(*ends))
    assert found.answer[0] == f"{found.title}."
    assert "Of 19 audits" in found.answer[-1]


def test_it_works_from_what_lies_on_disk_alone(ends: Finished, tmp_path: Path) -> None:
    write_rows(tmp_path, ends.table, {})
    write_document(tmp_path, ends.document)
    assert report(read_document(tmp_path), read_rows(tmp_path)).html() == report(*ends).html()


def test_every_figure_has_a_reading_of_its_own_and_a_foot(ends: Finished, everywhere: Finished) -> None:
    for finished in (ends, everywhere):
        found = figures(report(*finished))
        assert len({one.reading for one in found}) == len(found)
        assert all(one.foot and len(one.reading) < 140 for one in found)


def test_curves_are_the_medians_of_the_rows_with_their_middle_half(ends: Finished) -> None:
    run, found = Run(*ends), report(*ends)
    drawn = chart(found, "rank")
    assert drawn.y.log
    assert drawn.y.down
    line = drawn.marks[0]
    assert isinstance(line, Line)
    ranks = np.array([run.table.view("logit", one.row)["answer_rank"] for one in run.facts], dtype=float)
    assert line.y == pytest.approx(np.median(ranks, axis=0), rel=1e-5)
    assert line.low == pytest.approx(np.quantile(ranks, 0.25, axis=0), rel=1e-5)
    assert line.high == pytest.approx(np.quantile(ranks, 0.75, axis=0), rel=1e-5)
    assert [rule.at for rule in drawn.rules] == [(run.table.vocab_size + 1) / 2]


def test_every_unit_of_the_depth_curves_is_named(ends: Finished) -> None:
    labels = [one.y.label for one in pictures(report(*ends), Chart)]
    for unit in ("share of facts", "rank", "bits", "probability", "cosine", "KL"):
        assert any(unit in label for label in labels), unit


def test_lenses_are_drawn_beside_each_other(ends: Finished) -> None:
    names = [mark.name for mark in chart(report(*ends), "KL(").marks]
    assert names == ["logit", "own", "raw"]


def test_ribbons_stand_where_the_rows_rank_the_answer_and_pins_where_the_document_says(ends: Finished) -> None:
    run = Run(*ends)
    ribbons = next(one for one in pictures(report(*ends), Ribbons) if one.y == "fact")
    for row, one in enumerate(run.by_onset):
        view = run.table.view("logit", one.row)
        for layer, rank in zip(view["layer"].tolist(), view["answer_rank"].tolist(), strict=True):
            over = [each.kind for each in ribbons.stretches if each.row == row and each.low < layer < each.high]
            assert over == ([] if rank > 10 else [0 if rank > 5 else 1 if rank > 1 else 2])
        pins = {ribbons.sorts[pin.sort]: pin.at for pin in ribbons.pins if pin.row == row}
        said = {"onset": ONSET, "strict copy": COPY, "soft copy": run.soft_copy}
        said["within 1 bit of the model's own"] = CLOSE
        assert pins == {name: value for name, key in said.items() if (value := one.value(key)) is not None}


def test_spreads_carry_the_intervals_of_the_statistics(ends: Finished) -> None:
    run = Run(*ends)
    by_lens = next(one for one in pictures(report(*ends), Ribbons) if one.y == "lens")
    for row, lens in enumerate(run.lenses):
        spread = run.spread(lens)
        assert spread is not None
        assert [pin.at for pin in by_lens.pins if pin.row == row] == [spread.median]
        ends_of = [(one.low, one.high) for one in by_lens.stretches if (one.row, one.kind) == (row, 1)]
        assert ends_of == [(spread.low, spread.high)]
    assert any(one.y == "facts" for one in pictures(report(*ends), Ribbons))


def test_an_interval_without_an_end_reaches_the_edge_and_says_so(ends: Finished) -> None:
    document = copy.deepcopy(ends.document)
    for one in document["statistics"]["onsets"]:
        one["median"]["high"] = None
        one["n_missing"] = 1
    found = next(one for one in figures(report(document, ends.table)) if getattr(one.picture, "y", "") == "lens")
    assert isinstance(found.picture, Ribbons)
    assert {one.high for one in found.picture.stretches if one.kind == 1} == {8.5}
    assert "an interval to the edge" in found.foot
    assert "count as the latest" in found.foot


def test_a_map_holds_the_first_token_of_every_layer_and_position_and_says_the_rest(everywhere: Finished) -> None:
    run, found = Run(*everywhere), report(*everywhere)
    choice = next(one for one in found.figures if isinstance(one, Choice))
    assert len(choice.figures) == len(choice.names) == len(run.by_onset)
    for one, figure in zip(run.by_onset, choice.figures, strict=True):
        heat = figure.picture
        assert isinstance(heat, Heat)
        rows = run.table.where(prompt=one.row, lens="logit")
        for pos in range(len(run.table.items[one.row].ids)):
            column = rows.where(pos=pos)
            tokens = [shown_token(run.table.pieces[token]) for token in column["top_ids"][:, 0].tolist()]
            assert [row[pos] for row in heat.labels] == tokens
            p = np.exp(column["top_logprobs"][:, 0].astype(float))
            assert [row[pos] for row in heat.values] == pytest.approx(p, rel=1e-5)
            for unit, name in (("entropy, bits", "entropy_bits"), ("rank of the answer", "answer_rank")):
                more = next(each for each in heat.more if each.unit == unit)
                assert [row[pos] for row in more.values] == pytest.approx(column[name].astype(float), rel=1e-5)
        assert [layer.unit for layer in heat.more][-2:] == ["rank of the token that follows", "rank of the answer"]


def test_ends_alone_make_one_map_of_prompts_by_blocks(ends: Finished) -> None:
    run = Run(*ends)
    (heat,) = pictures(report(*ends), Heat)
    assert heat.rows == tuple(one.name for one in run.by_onset)
    assert len(heat.columns) == run.n + 1
    for one, labels in zip(run.by_onset, heat.labels, strict=True):
        top = run.table.view("logit", one.row)["top_ids"][:, 0].tolist()
        assert list(labels) == [shown_token(run.table.pieces[token]) for token in top]


def test_every_audit_stands_in_the_panel_with_its_grade_or_the_reason_for_none(ends: Finished) -> None:
    _, rows = table(report(*ends), "audits")
    findings = {one["title"]: one for one in ends.document["audit"]["findings"]}
    assert {row["audit"] for row in rows} == set(findings)
    for row in rows:
        one = findings[row["audit"]]
        assert row["reading"] == one["reading"]
        assert one["severity"] in row["grade"] if one["severity"] else one["why"].replace("_", " ") in row["grade"]
    grades = [row["grade"] for row in rows]
    assert grades == sorted(grades, key=lambda grade: "●◑◔○–".index(grade[0]))
    assert len(table(report(*ends), "What each audit computes")[1]) == len(findings)


def test_the_most_urgent_advice_is_in_the_answer(ends: Finished) -> None:
    document = copy.deepcopy(ends.document)
    document["guidance"]["reasons"] = [
        {"severity": "serious", "advice": "Do not use this run: its last row is not the model."},
        {"severity": "caution", "advice": "Another."},
    ]
    assert (
        report(document, ends.table)
        .answer[-1]
        .endswith("do not use this run: its last row is not the model (1 more piece of advice below).")
    )


def test_every_prompt_stands_in_the_table_and_what_is_missing_says_why(ends: Finished) -> None:
    document = copy.deepcopy(ends.document)
    document["prompts"][0]["milestones"]["logit"][ONSET] = {"value": None, "why": "never"}
    _, rows = table(report(document, ends.table), "Every prompt")
    assert [row["id"] for row in rows] == [item.id for item in ends.table.items]
    assert rows[0]["onset"] == "– never"
    facts = [one for one in Run(*ends).prompts if one.has_answer][1:]
    assert [row["onset"] for row in rows if row["answer"]][1:] == [
        f"– {one.why(ONSET)}" if one.value(ONSET) is None else int(one.value(ONSET) or 0) for one in facts
    ]


def test_statistics_stand_beside_chance(ends: Finished) -> None:
    found = report(*ends)
    _, signs = table(found, "Negative controls")
    assert {row["chance"] for row in signs} == {"50 %"}
    _, shuffled = table(found, "Permutation control")
    assert {"all", "capital", "opposite"} <= {row["relation"] for row in shuffled}
    assert any(mark.name == "first, answers shuffled" for mark in chart(found, "share").marks)
    assert len(table(found, "at other temperatures")[1]) == len(ends.document["temperatures"])
    assert table(found, "Shifts")[1]


def test_texts_without_answers_have_curves_and_a_map_and_no_ribbons(probes: Finished) -> None:
    found = report(*probes)
    assert pictures(found, Ribbons) == []
    assert len(pictures(found, Chart)) == len(pictures(found, Heat)) == 1
    assert "none with an answer to find" in found.title


def test_what_a_battery_says_stays_text(ends: Finished) -> None:
    html = report(*ends).html()
    assert EVIL in ends.table.items[-1].source.text
    assert html.count("<script>") == 4
    assert "<script>window.hacked" not in html


def test_a_run_without_statistics_and_audits_is_drawn_without_them(ends: Finished) -> None:
    bare = {**ends.document, "statistics": {}, "audit": {}, "guidance": {}, "provenance": {}, "temperatures": []}
    found = report(bare, ends.table)
    assert [one.title for one in found.tables] == ["Every prompt"]
    assert found.html()


def widened(finished: Finished, layers: int, positions: int, prompts: int) -> Finished:
    """A run of a deep model on many long prompts, made of the numbers of one row after the other."""
    n_rows = prompts * positions * (layers + 1)
    take = np.arange(n_rows) % len(finished.table)
    columns = {name: column[take].copy() for name, column in finished.table.columns.items()}
    columns["prompt"] = np.repeat(np.arange(prompts, dtype=np.int32), positions * (layers + 1))
    columns["pos"] = np.tile(np.repeat(np.arange(positions, dtype=np.int32), layers + 1), prompts)
    columns["layer"] = np.tile(np.arange(layers + 1, dtype=np.int16), prompts * positions)
    ids = tuple(finished.table.items[0].ids[:1]) * positions
    items = tuple(dataclasses.replace(finished.table.items[0], id=f"prompt {i}", ids=ids) for i in range(prompts))
    one = finished.document["prompts"][0]
    told = [{**one, "id": item.id, "fact_id": item.id, "text": "a long prompt " * 20} for item in items]
    wide = dataclasses.replace(finished.table, columns=columns, items=items, n_layers=layers)
    return Finished({**finished.document, "prompts": told}, wide)


def test_the_report_of_a_deep_model_on_many_long_prompts_can_be_mailed(everywhere: Finished) -> None:
    html = report(*widened(everywhere, layers=96, positions=40, prompts=60)).html()
    assert 1_000_000 < len(html.encode()) < MOST_BYTES


def test_a_row_that_is_not_finite_leaves_a_hole_in_the_map(ends: Finished) -> None:
    rows = {name: column.copy() for name, column in ends.table.columns.items()}
    run = Run(*ends)
    bad = (rows["prompt"] == run.by_onset[0].row) & (rows["lens"] == "logit") & (rows["layer"] == 3)
    rows["is_finite"][bad] = False
    rows["top_logprobs"][bad] = np.nan
    (heat,) = pictures(report(ends.document, holed(ends.table, rows)), Heat)
    assert np.isnan(heat.values[0][3])
    assert np.isfinite(heat.values[0][2])


def holed(table: SweepTable, columns: dict[str, np.ndarray]) -> SweepTable:
    return dataclasses.replace(table, columns=columns)


def test_numbers_on_the_page_have_no_more_digits_than_fp32_holds(ends: Finished) -> None:
    for text in re.findall(r'"application/json">(.*?)</script>', report(*ends).html()):
        for number in re.findall(r"(?<=[\[,:])-?\d+\.\d+", text):
            assert len(number.replace("-", "").replace(".", "").lstrip("0")) <= 7, number
        json.loads(text)


def test_the_question_counts_prompts_by_kind(ends: Finished) -> None:
    asked = report(*ends).asked
    facts = sum(one["kind"] == "fact" for one in ends.document["prompts"])
    assert f"{facts} prompts about 5 facts, " in asked
    assert "2 probes" in asked
    assert "the logit, own and raw lenses" in asked


def spreads(finished: Finished, medians: dict[str, float | None]) -> str:
    """The reading over the spread of groups, when relations have these median onsets and all else the first of them."""
    document = copy.deepcopy(finished.document)
    for one in document["statistics"]["onsets"]:
        one["median"]["value"] = medians.get(one["name"], next(iter(medians.values())))
    found = figures(report(document, finished.table))
    return next(one.reading for one in found if getattr(one.picture, "y", "") == "facts")


def test_the_spread_says_who_is_early_and_who_is_late(ends: Finished) -> None:
    late = "Onsets are latest for opposite (block 8) and earliest for 3 groups (block 7)"
    assert spreads(ends, {"capital": 7.0, "opposite": 8.0}) == late
    assert spreads(ends, {"capital": 7.0}) == "The median onset is block 7 in every group of facts"
    never = "The median fact of opposite is answered at no block, the earliest at block 7"
    assert spreads(ends, {"capital": 7.0, "opposite": None}) == never


MOVES = "The median onset moves by 1 of 8 blocks between lenses"


@pytest.mark.parametrize(
    ("medians", "claim"),
    [
        ((7.0, 7.0, 7.0), "All 3 lenses put the median onset at block 7"),
        (
            (7.0, 8.0, 8.0),
            "The median onset moves by 1 of 8 blocks between lenses: 7 through logit, 8 through own and raw",
        ),
        ((7.0, None, 8.0), "Through own the median fact has no onset"),
    ],
)
def test_the_comparison_of_lenses_says_how_far_the_onset_moves(
    ends: Finished, medians: tuple[float | None, ...], claim: str
) -> None:
    document = copy.deepcopy(ends.document)
    for one in document["statistics"]["onsets"]:
        one["median"]["value"] = medians[("logit", "own", "raw").index(one["lens"])]
    found = figures(report(document, ends.table))
    assert next(one.reading for one in found if getattr(one.picture, "y", "") == "lens") == claim


def test_doubts_about_a_lens_stand_under_the_comparison(ends: Finished) -> None:
    doubt = "the own lens in /somewhere did not pass its acceptance: read its figures with care"
    found = figures(report({**ends.document, "notes": [doubt, "another note"]}, ends.table))
    comparison = next(one for one in found if isinstance(one.picture, Chart) and "KL(" in one.picture.y.label)
    assert doubt in comparison.foot
    assert "another note" not in comparison.foot


def learned(finished: Finished) -> Finished:
    """The run as if a learned lens had been read wherever the logit lens was, with the same numbers."""
    table = finished.table
    mine = np.flatnonzero(table["lens"] == "logit")
    columns = {name: np.concatenate([column, column[mine]]) for name, column in table.columns.items()}
    columns["lens"] = np.concatenate([table["lens"].astype("<U8"), np.full(len(mine), "tuned")])
    order = np.lexsort((columns["layer"], columns["lens"] == "tuned", columns["pos"], columns["prompt"]))
    columns = {name: column[order] for name, column in columns.items()}
    return Finished(finished.document, dataclasses.replace(table, columns=columns, lenses=(*table.lenses, "tuned")))


def test_a_learned_lens_has_maps_of_its_own_and_views_of_the_norm_have_none(
    ends: Finished, everywhere: Finished
) -> None:
    choice = next(one for one in report(*learned(ends)).figures if isinstance(one, Choice))
    assert (choice.label, choice.names) == ("Lens", ("logit", "tuned"))
    assert choice.figures[1].reading == f"{choice.figures[0].reading} through the tuned lens"
    choice = next(one for one in report(*learned(everywhere)).figures if isinstance(one, Choice))
    assert [name.rsplit(" · ", 1)[1] for name in choice.names] == ["logit lens", "tuned lens"] * (
        len(choice.names) // 2
    )
    assert "through the tuned lens" in choice.figures[1].reading


def test_a_study_in_memory_is_drawn_as_it_is(everywhere: Finished) -> None:
    document = {key: value for key, value in everywhere.document.items() if key not in ("schema", "status", "started")}
    assert report(document, everywhere.table).html()


def test_provenance_names_tokenizer_code_lenses_and_seed(ends: Finished) -> None:
    made, said = ends.document["provenance"], report(*ends).provenance
    assert made["model"]["fingerprint"] in said["Model"]
    assert made["tokenizer"]["sha256"] in said["Tokenizer"]
    assert made["code"]["version"] in said["Code"]
    assert said["Lenses"].startswith("logit (digest logit), own (")
    assert (said["Seed"], said["Shape"]) == ("0", "8 blocks, d 256, vocabulary 5120")

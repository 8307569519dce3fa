"""The difference of two runs: nothing that changed is missed, nothing that stayed is told."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError
from ftw.substrate.reference import tiny
from ftw.sweep.battery import Prompt
from ftw.sweep.files.diff import Diff, Tolerance, compare, diff, pairs
from ftw.sweep.files.parquet import write_rows
from ftw.sweep.files.rundir import write_document
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.table import COLUMNS, SweepTable

MEASURES = [name for name, (kind, _) in COLUMNS.items() if kind == "float32" and name != "logsumexp_bound"]


@pytest.fixture(scope="module")
def table() -> SweepTable:
    model = tiny()
    prompts = [
        Prompt("one", "ab", "cd", control_answer="b"),
        Prompt("two", "abc", "d"),
        Prompt("free", "ef", kind="probe"),
    ]
    return Sweep(model, [view(model, "raw")], k=3).run(prompts, positions="all")


HEAD = {"kind": "fact", "text": None}


def document(**onsets: float | None) -> dict[str, Any]:
    prompts = [
        {**HEAD, "id": name, "milestones": {"logit": {"semantic": {"value": value, "why": None if value else "never"}}}}
        for name, value in onsets.items()
    ]
    return {
        "schema": 1,
        "status": "ok",
        "model": {"name": "tiny", "fingerprint": "ab"},
        "sweep": {},
        "thresholds": {},
        "provenance": {"seed": 0, "versions": {"torch": "2.13.0"}, "model": {"fingerprint": "ab"}},
        "prompts": prompts,
    }


SAME = document(one=2, two=3)


def between(a: SweepTable, b: SweepTable, *documents: dict[str, Any], tolerance: Tolerance | None = None) -> Diff:
    both = (documents[0], documents[1]) if documents else (SAME, SAME)
    return compare((a, b), both, ("A", "B"), tolerance)


def changed(table: SweepTable, name: str, change: Callable[[np.ndarray], Any]) -> SweepTable:
    column = table[name].copy()
    change(column)
    return replace(table, columns={**table.columns, name: column})


def row_of(table: SweepTable, prompt: int, lens: str, layer: int) -> int:
    end = len(table.items[prompt].ids) - 1
    wanted = (table["prompt"] == prompt) & (table["lens"] == lens) & (table["layer"] == layer) & (table["pos"] == end)
    return int(np.flatnonzero(wanted)[0])


def test_a_run_is_identical_to_itself(table: SweepTable) -> None:
    found = between(table, table)
    assert (found.verdict, found.n_common, found.moved, found.shifts) == ("identical", len(table), (), ())
    assert found.lines() == [f"The runs are the same, bit for bit: {len(table):,} rows in both", "", "A  A", "B  B"]


def test_rows_in_another_order_are_the_same_rows(table: SweepTable) -> None:
    order = np.random.default_rng(0).permutation(len(table))
    other = replace(table, columns={name: column[order] for name, column in table.columns.items()})
    assert between(table, other).verdict == "identical"


@given(st.data())
def test_one_changed_number_is_found_where_it_stands(table: SweepTable, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(MEASURES))
    row = data.draw(st.integers(0, len(table) - 1))
    was = table[name].reshape(len(table), -1)[row, 0]
    value = data.draw(st.sampled_from([0.5, -3.0, math.nan, math.inf]))

    def put(column: np.ndarray) -> None:
        column.reshape(len(column), -1)[row, 0] = value

    found = between(table, changed(table, name, put))
    if np.float32(value).tobytes() == was.tobytes():
        assert found.verdict == "identical"
        return
    (moved,) = found.moved
    item = table.items[int(table["prompt"][row])]
    assert (moved.column, moved.n_differ) == (name, 1)
    if math.isnan(value) and math.isnan(was):
        assert (moved.n_beyond, found.verdict) == (0, "alike")
    else:
        assert (moved.n_beyond, found.verdict) == (1, "different")
    if math.isfinite(value) and np.isfinite(was):
        assert moved.largest == pytest.approx(abs(value - float(was)))
        assert moved.where == (item.id, table["pos"][row], table["lens"][row], table["layer"][row])


def test_small_differences_are_alike_and_larger_ones_are_not(table: SweepTable) -> None:
    row = row_of(table, 0, "logit", 2)

    def nudge(column: np.ndarray) -> None:
        column[row] += 1e-3

    other = changed(table, "entropy_bits", nudge)
    assert between(table, other).verdict == "different"
    found = between(table, other, tolerance=Tolerance(absolute=2e-3))
    assert (found.verdict, found.moved[0].n_beyond, found.moved[0].n_differ) == ("alike", 0, 1)
    assert found.moved[0].largest == pytest.approx(1e-3, rel=0.1)
    assert found.lines()[0] == f"The runs agree within the tolerance: {len(table):,} rows in both"


def test_ranks_may_differ_by_a_share_and_flags_not_at_all(table: SweepTable) -> None:
    row = row_of(table, 0, "logit", 1)

    def put(value: int | bool) -> Callable[[np.ndarray], None]:
        return lambda column: column.__setitem__(row, value)

    far = changed(table, "answer_rank", put(200))
    assert between(far, changed(far, "answer_rank", put(202))).verdict == "alike"
    assert between(far, changed(far, "answer_rank", put(203))).verdict == "different"
    found = between(table, changed(table, "is_finite", put(False)))
    assert (found.verdict, found.moved[0].largest, found.moved[0].where) == ("different", None, ("one", 2, "logit", 1))


def test_changed_tokens_are_named_the_deepest_first(table: SweepTable) -> None:
    rows = [row_of(table, 0, "raw", 1), row_of(table, 1, "logit", 4)]
    new = {row: next(int(token) for token in table.pieces if token != table["top_ids"][row, 0]) for row in rows}

    def put(column: np.ndarray) -> None:
        for row, token in new.items():
            column[row, 0] = token

    found = between(table, changed(table, "top_ids", put))
    assert (found.verdict, found.n_tokens) == ("different", 2)
    assert [token.where for token in found.tokens] == [("two", 3, "logit", 4), ("one", 2, "raw", 1)]
    assert found.tokens[0].b == table.pieces[new[rows[1]]]
    assert "Most likely token, changed in 2 of" in "\n".join(found.lines())


def test_rows_prompts_and_columns_of_one_run_alone_are_counted(table: SweepTable) -> None:
    found = between(table, table.where(lens="raw"))
    assert (found.n_common, found.n_only_a, found.n_only_b) == (len(table) // 2, len(table) // 2, 0)
    assert found.verdict == "different"
    fewer = replace(table.where(prompt=0), items=table.items[:1])
    found = between(fewer, table)
    assert (found.prompts_only_b, found.n_only_b, found.moved) == (("two", "free"), len(table) - len(fewer), ())
    columns = {name: column for name, column in table.columns.items() if name != "js_bits"}
    found = between(replace(table, columns=columns), table)
    assert (found.columns_only_b, found.verdict, found.moved) == (("js_bits",), "different", ())


def test_a_prompt_with_other_tokens_is_named_and_not_compared(table: SweepTable) -> None:
    items = (replace(table.items[0], ids=(1, 2, 3)), *table.items[1:])
    found = between(table, replace(table, items=items))
    assert found.prompts_changed == ("one",)
    assert found.n_common == len(table) - len(table.where(prompt=0))
    assert found.moved == ()
    assert "  one" in found.lines()


def test_runs_without_a_common_row_are_different(table: SweepTable) -> None:
    items = tuple(replace(item, id=f"other {item.id}") for item in table.items)
    found = between(table, replace(table, items=items))
    assert (found.verdict, found.n_common, found.n_only_a, found.n_only_b) == ("different", 0, len(table), len(table))


def test_prompts_of_one_id_are_matched_in_their_order(table: SweepTable) -> None:
    items = tuple(replace(item, id="same") for item in table.items)
    assert between(replace(table, items=items), replace(table, items=items)).verdict == "identical"


def test_milestones_shift_by_layers_prompt_by_prompt(table: SweepTable) -> None:
    a = document(one=2, two=3, three=4, four=None, five=5, gone=1)
    b = document(one=2, two=6, three=5, four=7, five=None)
    found = between(table, table, a, b)
    (shift,) = found.shifts
    assert (shift.lens, shift.name, shift.n, shift.n_changed) == ("logit", "semantic", 5, 4)
    assert (shift.n_gained, shift.n_lost, shift.median, shift.largest) == (1, 1, 1.0, ("two", 3.0))
    assert found.verdict == "different"
    told = "  logit semantic  4 of 5, median +1, largest +3 (two), 1 gained, 1 lost"
    assert told in found.lines()
    back = between(table, table, b, a).shifts[0]
    assert (back.median, back.largest, back.n_gained) == (-1.0, ("two", -3.0), 1)


def test_milestones_that_are_amounts_are_judged_by_the_tolerance(table: SweepTable) -> None:
    a, b = document(one=0.5, two=1.5), document(one=0.5 + 1e-6, two=1.5)
    assert between(table, table, a, b).verdict == "identical"
    found = between(table, table, a, document(one=0.6, two=1.5))
    assert (found.verdict, found.shifts[0].is_layer, found.shifts[0].n_changed) == ("different", False, 1)
    assert "no milestone in layers moved" in found.lines()[0]


def test_what_made_the_runs_is_compared_and_told_once(table: SweepTable) -> None:
    other = document(one=2, two=3)
    other["model"]["fingerprint"] = other["provenance"]["model"]["fingerprint"] = "cd"
    other["provenance"]["versions"] = {"torch": "2.12.0", "numpy": "2.0"}
    other["started"] = "later"
    found = between(table, table, SAME, other)
    assert [(each.what, each.a, each.b) for each in found.made] == [
        ("provenance.versions.torch", "2.13.0", "2.12.0"),
        ("provenance.model.fingerprint", "ab", "cd"),
        ("provenance.versions.numpy", None, "2.0"),
    ]
    assert found.verdict == "identical"


def test_the_document_is_json_and_the_lines_fit(table: SweepTable) -> None:
    rng = np.random.default_rng(0)
    columns = {
        name: column + rng.normal(size=column.shape).astype(np.float32) if column.dtype.kind == "f" else column
        for name, column in table.columns.items()
    }
    columns["top_ids"] = np.roll(columns["top_ids"], 1, axis=0)
    found = between(table, replace(table, columns=columns), SAME, document(one=3, two=9))
    plain = json.loads(json.dumps(found.document(), allow_nan=False))
    assert plain["verdict"] == "different"
    assert {each["column"] for each in plain["moved"]} >= set(MEASURES) - {"answer_logprob_scaled"}
    lines = found.lines(width=60, most=3)
    assert max(map(len, lines)) <= 60
    assert any("more" in line for line in lines)


def test_two_folders_are_compared(tmp_path: Path, table: SweepTable) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name, table, {"seed": 0})
        write_document(tmp_path / name, SAME)
    assert diff(tmp_path / "a", tmp_path / "b").verdict == "identical"
    assert pairs(tmp_path / "a", tmp_path / "b") == [(tmp_path / "a", tmp_path / "b")]
    (tmp_path / "b" / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"there is no file .*run\.json"):
        diff(tmp_path / "a", tmp_path / "b")


def test_runs_of_many_models_are_compared_by_name(tmp_path: Path) -> None:
    for name in ("a/one", "a/two", "b/two", "c/three"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "rows.parquet").write_text("")
        write_document(tmp_path / name, {"schema": 1, "status": "ok"})
    a, b, c = (tmp_path / name for name in "abc")
    assert pairs(a, b) == [(a / "two", b / "two")]
    with pytest.raises(ConfigError, match="no model is in both"):
        pairs(b, c)
    with pytest.raises(ConfigError, match="a is a run of many models: give the folder of one of one, two"):
        pairs(a, b / "two")
    write_document(b / "two", {"schema": 1, "status": "partial", "error": None})  # some of its rows were kept
    with pytest.raises(ConfigError, match=r"no model of the run in .*b ended well: sweep again, with --resume"):
        pairs(a, b)


@pytest.mark.parametrize("status", ["failed", "partial"])
def test_a_run_that_did_not_end_well_is_not_compared(table: SweepTable, tmp_path: Path, status: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name, table, {"seed": 0})
        write_document(tmp_path / name, SAME)
    error = {"type": "NumericError", "message": "no finite distribution"}
    write_document(tmp_path / "b", {**SAME, "status": status, "error": error})
    told = f"the run in .*b is {status}: NumericError: no finite distribution. .* sweep again, with --resume"
    with pytest.raises(ConfigError, match=told):
        diff(tmp_path / "a", tmp_path / "b")


def test_a_tolerance_is_no_negative_number() -> None:
    with pytest.raises(ConfigError, match=r"the tolerance ranks is -1\.0: give a number of 0 or more"):
        Tolerance(ranks=-1.0)
    with pytest.raises(ConfigError, match="the tolerance absolute is nan"):
        Tolerance(absolute=math.nan)

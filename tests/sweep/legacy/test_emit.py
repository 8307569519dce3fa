"""Rows of the legacy files: every number is the table's, and no row is another prompt's."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ftw.sweep.legacy.emit import Emitter, is_telling
from ftw.sweep.legacy.passes import Pass
from ftw.sweep.legacy.records import cells
from ftw.sweep.legacy.source import Source
from ftw.sweep.table import SweepTable


@pytest.fixture(scope="module")
def emitter(source: Source) -> Emitter:
    return Emitter(source.table, source.thresholds)


def pure(emitter: Emitter, one: Pass, lens: str = "logit") -> list[dict[str, Any]]:
    return [cells(row) for row in emitter.pure(one, lens)]


def test_there_is_a_pure_row_for_every_layer_at_the_last_position(emitter: Emitter, source: Source) -> None:
    for one in source.suite.passes:
        rows = pure(emitter, one)
        assert [row["layer"] for row in rows] == list(range(source.n + 1))
        assert {row["pos"] for row in rows} == {len(source.table.items[one.index].ids) - 1}
        assert {(row["token"], row["fact_key"]) for row in rows} == {("⟨NEXT⟩", one.fact_key)}


def test_there_is_a_record_for_every_layer_and_position_layer_by_layer(emitter: Emitter, source: Source) -> None:
    one = source.suite.baseline
    length = len(source.table.items[one.index].ids)
    found = [(row["layer"], row["pos"]) for row in emitter.records(one, "logit")]
    assert found == [(layer, pos) for layer in range(source.n + 1) for pos in range(length)]


def test_numbers_are_the_tables(emitter: Emitter, source: Source) -> None:
    one = source.suite.passes[2]
    table = source.table.view("logit", one.index)
    for row, own in zip(pure(emitter, one), table.rows(), strict=True):
        assert row["entropy"] == row["entropy_bits"] == own["entropy_bits"]
        assert row["kl_to_final_bits"] == own["kl_bits"]
        assert row["answer_rank"] == own["answer_rank"]
        assert row["p_answer"] == pytest.approx(math.exp(own["answer_logprob"]))
        assert row["answer_minus_uniform"] == pytest.approx(row["p_answer"] - 1 / table.vocab_size)
        assert row["is_answer"] == (own["answer_rank"] == 1)
        assert row["cos_to_final"] == own["cos_logits"]
        assert row["top1"] == own["top_tokens"][0]
        assert row["mass_ratio_ans_over_prompt"] == pytest.approx(row["answer_mass"] / (row["echo_mass_prompt"] + 1e-9))
        assert row["resid_norm_ratio"] == pytest.approx(own["state_norm"] / own["resid_norm"], rel=1e-5)


def test_the_last_row_is_the_teacher(emitter: Emitter, source: Source) -> None:
    for one in source.suite.passes:
        rows = pure(emitter, one)
        assert rows[-1]["kl_to_final_bits"] == 0
        assert {row["teacher_entropy_bits"] for row in rows} == {rows[-1]["entropy"]}


def test_a_gap_is_to_the_second_where_the_answer_is_first_and_to_the_first_elsewhere(
    emitter: Emitter, source: Source
) -> None:
    rows = [row for one in source.suite.passes for row in pure(emitter, one)]
    for row in rows:
        assert (row["answer_logit_gap"] is None) == (row["answer_rank"] != 1)
        assert (row["answer_vs_top1_gap"] is None) == (row["answer_rank"] == 1)
    assert all(row["answer_vs_top1_gap"] <= 0 for row in rows if row["answer_rank"] > 1)


def test_overlaps_with_the_raw_lens_are_each_prompts_own(emitter: Emitter, source: Source) -> None:
    """The published files gave every fact the last fact's overlaps."""
    for one in source.suite.passes:
        own = source.table.view("raw", one.index)["vs_logit_jaccard50"].tolist()
        assert [row["topk_jaccard_raw_norm@50"] for row in pure(emitter, one)] == own
        consecutive = source.table.view("logit", one.index)["jaccard50_prev"].tolist()
        assert [row["topk_jaccard_consecutive@50"] for row in pure(emitter, one)][1:] == consecutive[1:]
        assert pure(emitter, one)[0]["topk_jaccard_consecutive@50"] is None


def test_the_control_margin_stands_on_control_rows_only(emitter: Emitter, source: Source) -> None:
    for one in source.suite.passes:
        for row in pure(emitter, one):
            assert (row["control_margin"] is not None) == one.is_control


def test_every_listed_and_unlisted_probability_adds_up(emitter: Emitter, source: Source) -> None:
    for row in (cells(row) for one in source.suite.passes for row in emitter.records(one, "logit")):
        listed = sum(row.get(f"prob{at}", 0) for at in range(1, 21))
        assert 0 <= row["rest_mass"] <= 1
        assert listed + row["rest_mass"] == pytest.approx(1, abs=1e-5)


def test_records_list_five_tokens_and_twenty_at_the_end(emitter: Emitter, source: Source) -> None:
    one = source.suite.baseline
    last = len(source.table.items[one.index].ids) - 1
    assert {(len(row["topk"]), row["pos"] == last) for row in emitter.records(one, "logit")} == {(5, False), (20, True)}
    assert {len(row["topk"]) for row in emitter.pure(one, "logit")} == {5}


@pytest.mark.parametrize(
    ("token", "telling"), [(" Germany", True), ("capital,", True), (" the", False), ("...", False)]
)
def test_a_telling_token_lists_twenty(token: str, telling: bool) -> None:
    assert is_telling(token) is telling


def test_a_sidecar_mirrors_the_baseline(emitter: Emitter, source: Source) -> None:
    one = source.suite.baseline
    base, prism = pure(emitter, one), pure(emitter, one, "prism")
    assert [set(row) for row in base] == [set(row) for row in prism]
    assert [row["layer"] for row in prism] == [row["layer"] for row in base]
    assert {row["topk_jaccard_raw_norm@50"] for row in prism} == {None}
    assert prism[1]["entropy"] != base[1]["entropy"]


def test_a_lens_that_the_run_lacks_has_no_rows(emitter: Emitter, source: Source) -> None:
    assert list(emitter.pure(source.suite.baseline, "next")) == []
    assert list(emitter.records(source.suite.baseline, "next")) == []


def test_a_row_that_is_not_finite_keeps_its_tags_and_is_otherwise_empty(source: Source) -> None:
    one = source.suite.baseline
    table = broken(source.table, one.index, layer=2)
    emitter = Emitter(table, source.thresholds)
    rows = pure(emitter, one)
    kept = {name for name, value in rows[2].items() if value is not None}
    assert kept == {"type", "fact_key", "fact_index", "prompt_id", "prompt_variant", "layer", "pos", "token"}
    assert rows[1]["entropy"] is not None
    record = next(row for row in emitter.records(one, "logit") if (row["layer"], row["pos"]) == (2, rows[2]["pos"]))
    assert record["topk"] == []


def broken(table: SweepTable, prompt: int, layer: int) -> SweepTable:
    """The table with one row's numbers lost, at the prompt's end through the logit lens."""
    mask = (table["prompt"] == prompt) & (table["lens"] == "logit") & (table["layer"] == layer)
    mask &= table["pos"] == len(table.items[prompt].ids) - 1
    columns = dict(table.columns)
    for name, column in columns.items():
        if column.dtype.kind == "f":
            lost = mask.reshape(-1, *[1] * (column.ndim - 1))
            columns[name] = np.where(lost, np.float32(np.nan), column)
    return replace(table, columns=columns | {"is_finite": table["is_finite"] & ~mask})

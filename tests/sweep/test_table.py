"""SweepTable: columns, chosen rows, rows in words."""

import numpy as np
import pytest

from ftw.substrate.reference import tiny
from ftw.sweep.battery import Prompt
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.table import COLUMNS, SweepTable


@pytest.fixture(scope="module")
def table() -> SweepTable:
    model = tiny()
    return Sweep(model, [view(model, "raw")], k=3).run(
        [Prompt("one", "ab", "c"), Prompt("two", "abc", "d")], positions="all"
    )


def test_where_keeps_the_rows_whose_columns_have_these_values(table: SweepTable) -> None:
    some = table.where(lens="raw", prompt=1, layer=2)
    assert len(some) == 4  # <s>, a, b, c
    assert set(some["lens"]) == {"raw"}
    assert set(some["prompt"].tolist()) == {1}
    assert len(table.where(prompt=7)) == 0
    assert len(table) == (3 + 4) * 2 * 5


def test_last_keeps_each_prompts_last_position(table: SweepTable) -> None:
    last = table.last()
    assert sorted(set(zip(last["prompt"].tolist(), last["pos"].tolist(), strict=True))) == [(0, 2), (1, 3)]


def test_rows_are_plain_values_in_words(table: SweepTable) -> None:
    row = next(table.last().rows())
    assert (row["prompt_id"], row["token"], row["lens"], row["layer"]) == ("one", "b", "logit", 0)
    assert len(row["top_tokens"]) == len(row["top_ids"]) == 3
    assert all(isinstance(row[name], int | float | str | bool | list) for name in COLUMNS)


def test_every_token_that_occurs_has_its_text(table: SweepTable) -> None:
    used = {int(token) for name in ("top_ids", "token_id", "answer_id", "next_id") for token in np.unique(table[name])}
    assert used - {-1} <= set(table.pieces)


def test_what_was_swept_and_how_stands_with_it(table: SweepTable) -> None:
    assert (table.model, table.n_layers, table.lenses, table.precision) == ("tiny", 4, ("logit", "raw"), "exact")
    assert table.gate.exact

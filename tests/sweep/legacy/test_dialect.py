"""The legacy CSV: what is written is read back, and Python's own writer agrees wherever it can be trusted."""

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import NumericError, StorageError
from ftw.sweep.legacy import dialect

TEXT = st.text(alphabet=st.one_of(st.sampled_from(',"\\\n\r ab⟨Ġ'), st.characters(codec="utf-8")))


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), escapechar="\\"))


@given(st.lists(TEXT, min_size=2, max_size=5))
def test_any_text_is_read_back(cells: list[str]) -> None:
    assert read(dialect.line(cells)) == [cells]


@given(st.lists(TEXT.filter(lambda text: "\r" not in text), min_size=2, max_size=5))
def test_a_row_is_what_pythons_writer_makes_of_it(cells: list[str]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_MINIMAL, escapechar="\\", lineterminator="\n").writerow(cells)
    assert dialect.line(cells) == out.getvalue()


def test_nothing_is_an_empty_cell_and_booleans_are_words() -> None:
    assert dialect.line([None, True, False, 1, 0.5, 1e-300, "⟨NEXT⟩"]) == ",True,False,1,0.5,1e-300,⟨NEXT⟩\n"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(NumericError, match="leave it empty"):
        dialect.line([value])


def test_a_row_without_a_column_has_an_empty_cell() -> None:
    assert list(dialect.lines(("a", "b"), [{"b": 1, "c": 2}])) == ["a,b\n", ",1\n"]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no.where/x\.csv cannot be written"):
        dialect.write(tmp_path / "no-where" / "x.csv", ("a",), [])


def test_a_row_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    file = dialect.write(tmp_path / "x.csv", ("a",), [{"a": 1}])
    with pytest.raises(NumericError, match="leave it empty"):
        dialect.write(file, ("a",), [{"a": 2}, {"a": math.nan}])
    assert file.read_text() == "a\n1\n"
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]

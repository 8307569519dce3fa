"""rows.parquet: a table comes back bit for bit, or an error says what differs."""

import errno
import json
import math
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError, NumericError, StorageError
from ftw.substrate.model import from_net
from ftw.substrate.reference import tiny
from ftw.sweep.battery import Prompt
from ftw.sweep.files import parquet
from ftw.sweep.files.parquet import RowsFile, read_provenance, read_rows, unit, write_rows
from ftw.sweep.lenses.views import view
from ftw.sweep.run import Sweep
from ftw.sweep.table import COLUMNS, SweepTable

MADE_BY = {
    "fingerprint": "ab" * 32,
    "revision": None,
    "tokenizer": {"sha256": "cd" * 32},
    "code": {"commit": "1234567"},
}
PROMPTS = [
    Prompt("one", "ab", "cd", aliases=("dd",), control_answer="b", relation="r", fact_id="a→c", fact_index=0),
    Prompt("two", "abc", "d", language="pt-BR", where="file.toml"),
    Prompt("free", "hello", kind="probe"),
]


@pytest.fixture(scope="module")
def table() -> SweepTable:
    model = tiny()
    return Sweep(model, [view(model, "raw")], at_end=[view(model, "next")], k=3).run(PROMPTS, positions="all")


@pytest.fixture
def file(tmp_path: Path, table: SweepTable) -> Path:
    return write_rows(tmp_path, table, MADE_BY)


def assert_same(a: SweepTable, b: SweepTable) -> None:
    assert list(a.columns) == list(b.columns)
    for name, column in a.columns.items():
        assert (column.dtype, column.shape) == (b[name].dtype, b[name].shape), name
        assert column.tobytes() == b[name].tobytes(), name
    for field in fields(SweepTable):
        if field.name != "columns":
            assert getattr(a, field.name) == getattr(b, field.name), field.name


def test_a_table_comes_back_bit_for_bit(tmp_path: Path, table: SweepTable) -> None:
    file = write_rows(tmp_path, table, MADE_BY)
    assert file == tmp_path / "rows.parquet"
    assert_same(read_rows(tmp_path), table)
    assert_same(read_rows(file), table)
    assert read_provenance(tmp_path) == MADE_BY
    assert list(tmp_path.iterdir()) == [file]


def test_every_bit_of_a_float_survives(tmp_path: Path, table: SweepTable) -> None:
    odd = np.array([math.nan, -0.0, math.inf, -math.inf, 1e-45], np.float32)
    odd[:1].view(np.uint32)[0] = 0x7FC12345  # a NaN with a payload
    columns = {**table.columns, "kl_bits": np.resize(odd, len(table)), "top_logprobs": np.resize(odd, (len(table), 3))}
    write_rows(tmp_path, replace(table, columns=columns), MADE_BY)
    assert_same(read_rows(tmp_path), replace(table, columns=columns))


def test_some_rows_and_no_rows_come_back_too(tmp_path: Path, table: SweepTable) -> None:
    for some in (table.where(lens="raw"), table.where(lens="none")):
        write_rows(tmp_path, some, MADE_BY)
        assert_same(read_rows(tmp_path), some)


def test_a_model_without_a_tokenizer_and_prompts_without_a_battery_come_back(tmp_path: Path) -> None:
    table = Sweep(from_net(tiny().net), k=2, wanted=()).run([[1, 2], [3]])
    assert "entropy_bits" not in table.columns
    write_rows(tmp_path, table, {})
    assert_same(read_rows(tmp_path), table)


def test_other_programs_find_words_units_and_meanings(file: Path, table: SweepTable) -> None:
    found = pq.read_table(file)
    rows = list(table.rows())
    assert found["prompt_id"].to_pylist() == [row["prompt_id"] for row in rows]
    assert found["piece"].to_pylist() == [row["token"] for row in rows]
    assert found["top_piece"].to_pylist() == [row["top_tokens"][0] for row in rows]
    assert found["top_ids"].to_pylist() == table["top_ids"].tolist()
    for field in found.schema:
        meaning = COLUMNS[field.name][1] if field.name in COLUMNS else parquet.WORDS[field.name]
        assert field.metadata == {b"meaning": meaning.encode(), b"unit": unit(field.name).encode()}
    assert (unit("kl_bits"), unit("answer_logprob"), unit("is_finite")) == ("bits", "nats", "")
    assert pa.types.is_dictionary(found.schema.field("lens").type)
    assert pq.read_metadata(file).row_group(0).column(0).compression == "ZSTD"


def test_what_made_the_rows_stands_in_the_file(file: Path) -> None:
    metadata = pq.read_metadata(file).metadata
    assert metadata[b"ftw.schema"] == b"1"
    assert json.loads(metadata[b"ftw.provenance"]) == MADE_BY
    about = json.loads(metadata[b"ftw.table"])
    assert (about["model"], about["lenses"], about["gate"]["exact"]) == ("tiny", ["logit", "raw", "next"], True)
    assert about["items"][0]["source"]["fact_id"] == "a→c"
    assert "where" not in about["items"][1]["source"]


def test_rows_are_written_in_groups_of_bounded_size(
    tmp_path: Path, table: SweepTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP", 10)
    write_rows(tmp_path, table, MADE_BY)
    found = pq.read_metadata(tmp_path / "rows.parquet")
    assert {found.row_group(at).num_rows for at in range(found.num_row_groups - 1)} == {10}
    assert_same(read_rows(tmp_path), table)


def test_a_table_can_be_written_part_by_part(tmp_path: Path, table: SweepTable) -> None:
    model = tiny()
    sweep = Sweep(model, [view(model, "raw")], at_end=[view(model, "next")], k=3)
    with RowsFile(tmp_path / "rows.parquet", MADE_BY) as rows:
        for prompt in PROMPTS:
            rows.append(sweep.run([prompt], positions="all"))
    found = read_rows(tmp_path)
    assert [item.id for item in found.items] == ["one", "two", "free"]
    assert found["prompt"].tolist() == table["prompt"].tolist()
    np.testing.assert_allclose(found["entropy_bits"], table["entropy_bits"], rtol=1e-5)
    assert set(found.pieces) == set(table.pieces)


def test_parts_of_different_sweeps_are_refused_and_the_first_is_kept(tmp_path: Path, table: SweepTable) -> None:
    def write(other: SweepTable) -> None:
        with RowsFile(tmp_path / "rows.parquet", MADE_BY) as rows:
            rows.append(table)
            rows.append(other)

    with pytest.raises(ConfigError, match="model of its first part is 'tiny', of another 'other': write two files"):
        write(replace(table, model="other"))
    assert_same(read_rows(tmp_path), table)
    with pytest.raises(ConfigError, match=r"column top_ids of its first part is .*\(3,\).*\(2,\)"):
        write(replace(table, columns={**table.columns, "top_ids": table["top_ids"][:, :2]}))
    assert_same(read_rows(tmp_path), table)


def test_without_a_part_there_is_no_file(tmp_path: Path) -> None:
    with RowsFile(tmp_path / "rows.parquet", MADE_BY):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_appended_to_a_closed_file(tmp_path: Path, table: SweepTable) -> None:
    with RowsFile(tmp_path / "rows.parquet", MADE_BY) as rows:
        rows.append(table)
    with pytest.raises(StorageError, match="is closed: append before"):
        rows.append(table)
    assert_same(read_rows(tmp_path), table)


@pytest.mark.parametrize("step", ["write_table", "fsync"])
def test_on_a_full_disk_the_file_from_before_stays_whole(
    tmp_path: Path, table: SweepTable, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_rows(tmp_path, table, MADE_BY)

    def full(*given: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (pq.ParquetWriter, "write_table")), full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        write_rows(tmp_path, table.where(lens="raw"), MADE_BY)
    assert_same(read_rows(tmp_path), table)
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.parquet"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, table: SweepTable) -> tuple[bytes, SweepTable]:
    some = table.last().where(lens="logit")
    return write_rows(tmp_path_factory.mktemp("small"), some, MADE_BY).read_bytes(), some


@given(st.integers(0), st.integers(1, 255), st.booleans())
def test_no_changed_byte_and_no_cut_passes_for_the_rows(
    tmp_path_factory: pytest.TempPathFactory, small: tuple[bytes, SweepTable], place: int, change: int, is_cut: bool
) -> None:
    """Wherever a byte changes: the same table, or an error. Never other numbers."""
    whole, table = small
    at = place % len(whole)
    folder = tmp_path_factory.mktemp("rows")
    changed = whole[:at] + (b"" if is_cut else bytes([whole[at] ^ change]) + whole[at + 1 :])
    (folder / "rows.parquet").write_bytes(changed)
    try:
        found = read_rows(folder)
    except ConfigError:
        return
    assert not is_cut
    assert_same(found, table)


def rewritten(file: Path, change: Any) -> None:
    """The same file with its Arrow table changed, metadata kept."""
    found = pq.read_table(file)
    metadata = pq.read_metadata(file).metadata
    found = change(found)
    kept = {key: value for key, value in metadata.items() if key.startswith(b"ftw.")}
    pq.write_table(found.replace_schema_metadata({**kept, **(found.schema.metadata or {})}), file)


def test_another_schema_is_refused_by_its_number(file: Path) -> None:
    rewritten(file, lambda t: t.replace_schema_metadata({b"ftw.schema": b"7"}))
    with pytest.raises(ConfigError, match=r"rows\.parquet has schema 7, this version reads 1: sweep again"):
        read_rows(file)


def test_columns_that_are_unknown_missing_or_of_another_type_are_named(file: Path) -> None:
    whole = file.read_bytes()
    for change, told in (
        (
            lambda t: t.append_column("entropy_nats", t["kl_bits"]),
            "has a column entropy_nats that this version does not",
        ),
        (lambda t: t.drop_columns(["kl_bits"]), "has no column kl_bits"),
        (lambda t: t.drop_columns(["layer"]), "has no column layer"),
        (lambda t: t.set_column(0, "prompt", pa.array([1.0] * len(t))), "column prompt is double, not int32"),
        (
            lambda t: t.set_column(0, "prompt", pa.array(range(len(t)), pa.int32())),
            "is damaged: column prompt is not what was written",
        ),
    ):
        rewritten(file, change)
        with pytest.raises(ConfigError, match=told):
            read_rows(file)
        file.write_bytes(whole)


def test_a_column_that_this_version_has_in_another_type_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "COLUMNS", {**COLUMNS, "kl_bits": ("float64", "")})
    with pytest.raises(ConfigError, match="column kl_bits is float32, this version has float64: sweep again"):
        read_rows(file)


def test_changed_metadata_are_noticed(file: Path) -> None:
    made = json.dumps({**MADE_BY, "revision": "main"}).encode()
    rewritten(file, lambda t: t.replace_schema_metadata({b"ftw.provenance": made}))
    for read in (read_rows, read_provenance):
        with pytest.raises(ConfigError, match="is damaged: its metadata are not what was written"):
            read(file)


def test_what_is_no_file_of_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*rows\.parquet: give a run's folder"):
        read_rows(tmp_path)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigError, match="is no Parquet file, cut short, or damaged"):
        read_rows(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=r"is no file of a sweep: its metadata have no ftw\.schema"):
        read_rows(tmp_path)


def test_a_medium_that_cannot_be_read_or_written_is_named(tmp_path: Path, table: SweepTable) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/rows\.parquet: .*give another folder"):
        write_rows(tmp_path / "file", table, MADE_BY)
    with pytest.raises(StorageError, match="cannot be read"):
        read_rows(tmp_path / "file" / "rows.parquet")


def test_only_what_json_and_the_table_know_is_written(tmp_path: Path, table: SweepTable) -> None:
    with pytest.raises(NumericError, match="nan"):
        write_rows(tmp_path, table, {"seed": math.nan})
    with pytest.raises(ConfigError, match="column mood is not known"):
        write_rows(tmp_path, replace(table, columns={**table.columns, "mood": table["kl_bits"]}), MADE_BY)
    items = (replace(table.items[0], source=object()), *table.items[1:])
    with pytest.raises(ConfigError, match="prompt one comes from a object: only a battery's prompt can be written"):
        write_rows(tmp_path, replace(table, items=items), MADE_BY)

"""The legacy files on disk: which there are, how many rows they have, and what a failed run leaves."""

import csv
import json
from datetime import datetime
from pathlib import Path

import pytest

from ftw.substrate.errors import StorageError
from ftw.sweep.legacy import columns, export, failed, read_everywhere
from ftw.sweep.legacy.names import file_name, model_part
from ftw.sweep.run import Sweep
from ftw.sweep.study import Study

BEGAN = datetime(2026, 3, 4, 5, 6, 7)


def table(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, escapechar="\\"))


@pytest.fixture(scope="module")
def seed(run: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seed") / "legacy"
    export(run, folder, began=BEGAN)
    return folder


@pytest.fixture(scope="module")
def extended(run: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extended")
    export(run, folder, schema="extended")
    return folder


def test_the_seed_set_is_what_was_published(seed: Path) -> None:
    assert sorted(file.name for file in seed.iterdir()) == [
        "evaluation-tiny.md",
        "output-tiny-pure-next-token-prism.csv",
        "output-tiny-pure-next-token.csv",
        "output-tiny-records-prism.csv",
        "output-tiny-records.csv",
        "output-tiny.json",
        "timestamp-20260304-0506",
    ]
    assert (seed / "timestamp-20260304-0506").read_text() == "Experiment started: 2026-03-04 05:06:07\n"


def test_rows_are_passes_times_layers_and_positions(seed: Path, extended: Path, run: Study) -> None:
    n = run.table.n_layers + 1
    lengths = [len(item.ids) for item in run.table.items]  # fact, variant, control, fact, variant, probe
    assert len(table(seed / "output-tiny-pure-next-token.csv")) == 1 + 3 * n
    assert len(table(seed / "output-tiny-records.csv")) == 1 + n * sum(lengths[:3])
    assert len(table(extended / "output-tiny-pure-next-token.csv")) == 1 + 5 * n
    assert len(table(extended / "output-tiny-records.csv")) == 1 + n * sum(lengths[:5])
    assert len(table(extended / "output-tiny-pure-next-token-tuned.csv")) == 1 + 5 * (n - 1)
    assert len(table(extended / "output-tiny-pure-next-token-rawlens.csv")) == 1 + 5 * n
    assert len(table(extended / "output-tiny-pure-next-token-tuned-variants.csv")) == 1 + n - 1
    assert len(table(extended / "output-tiny-milestones.csv")) == 1 + 4
    assert len(table(extended / "output-tiny-artifact-audit.csv")) == 1 + 1 + n


def test_every_row_is_as_long_as_its_header(seed: Path, extended: Path) -> None:
    files = [file for folder in (seed, extended) for file in folder.glob("*.csv")]
    assert len(files) == 4 + 12
    for file in files:
        header, *rows = table(file)
        assert rows, file.name
        assert {len(row) for row in rows} == {len(header)}, file.name


def test_pure_rows_list_five_tokens_and_leave_fifteen_cells_empty(seed: Path) -> None:
    header, *rows = table(seed / "output-tiny-pure-next-token.csv")
    sixth, rest = header.index("top6"), header.index("rest_mass")
    assert {cell for row in rows for cell in row[sixth:rest]} == {""}
    assert all(0 <= float(row[rest]) <= 1 for row in rows)


def test_a_token_with_a_line_break_is_one_cell(extended: Path) -> None:
    header, *rows = table(extended / "output-tiny-records.csv")
    assert "\n" in {row[header.index("token")] for row in rows}
    assert "a\nb→x" in {row[0] for row in rows}


def test_booleans_are_words_and_missing_numbers_are_empty(extended: Path) -> None:
    header, *rows = table(extended / "output-tiny-pure-next-token.csv")
    at = header.index
    assert {row[at("is_answer")] for row in rows} <= {"True", "False"}
    assert {row[at("control_margin")] == "" for row in rows if row[at("prompt_id")] == "pos"} == {True}
    assert {row[at("kl_to_final_bits_norm_temp")] for row in rows} == {""}


def test_the_document_is_json_with_its_status(seed: Path, extended: Path) -> None:
    for folder, schema in ((seed, "seed"), (extended, "extended")):
        found = json.loads((folder / "output-tiny.json").read_text(encoding="utf-8"))
        assert (found["status"], found["schema"]) == ("ok", schema)


def test_what_somebody_wrote_into_the_evaluation_stays(ends: Study, tmp_path: Path) -> None:
    (tmp_path / "evaluation-tiny.md").write_text("mine")
    export(ends, tmp_path)
    assert (tmp_path / "evaluation-tiny.md").read_text() == "mine"


def test_a_run_of_last_positions_has_records_of_every_position_of_the_first_fact(
    ends: Study, run: Study, sweep: Sweep, seed: Path, tmp_path: Path
) -> None:
    more = read_everywhere(sweep, ends)
    assert more is not None
    assert read_everywhere(sweep, run) is None
    assert more.ids == tuple(item.id for item in run.table.items[:3])
    export(ends, tmp_path, everywhere=more)
    for kind in ("records", "records-prism", "pure-next-token"):
        name = f"output-tiny-{kind}.csv"
        for row, other in zip(table(tmp_path / name), table(seed / name), strict=True):
            assert [close(a, b) for a, b in zip(row, other, strict=True)] == [True] * len(row)


def test_the_positional_audit_has_every_place_of_a_run_of_last_positions(
    ends: Study, sweep: Sweep, extended: Path, tmp_path: Path
) -> None:
    export(ends, tmp_path, schema="extended", everywhere=read_everywhere(sweep, ends))
    name = "output-tiny-positions-tuned-audit.csv"
    assert [row[:3] for row in table(tmp_path / name)] == [row[:3] for row in table(extended / name)]


def test_without_it_records_hold_the_positions_that_were_read(ends: Study, tmp_path: Path) -> None:
    export(ends, tmp_path)
    assert len(table(tmp_path / "output-tiny-records.csv")) == 1 + 3 * (ends.table.n_layers + 1)


def close(a: str, b: str) -> bool:
    """Whether two cells say the same, numbers up to rounding."""
    try:
        return a == b or abs(float(a) - float(b)) <= 1e-4 * max(1, abs(float(b)))
    except ValueError:
        return False


def test_a_failed_run_leaves_json_with_what_ended_it(tmp_path: Path) -> None:
    """The published suite wrote a sentence into the file."""
    file = failed(tmp_path / "new", "org/Some-Model", MemoryError("no room"))
    assert file.name == "output-Some-Model.json"
    assert json.loads(file.read_text()) == {
        "status": "failed",
        "model": "org/Some-Model",
        "error": {"type": "MemoryError", "message": "no room"},
    }


def test_an_interrupted_run_is_partial_and_has_a_message(tmp_path: Path) -> None:
    found = json.loads(failed(tmp_path, "m", KeyboardInterrupt(), status="partial").read_text())
    assert (found["status"], found["error"]["message"]) == ("partial", "KeyboardInterrupt")


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(ends: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file.legacy cannot be made"):
        export(ends, tmp_path / "file" / "legacy")


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("meta-llama/Meta-Llama-3-8B", "Meta-Llama-3-8B"),
        ("./models/mine/", "mine"),
        (r"C:\models\mine", "mine"),
        ("a b:c", "a_b_c"),
        ("..", "model"),
    ],
)
def test_a_models_name_is_a_file_name(model: str, part: str) -> None:
    assert model_part(model) == part
    assert file_name(model, "records") == f"output-{part}-records.csv"


def test_names_of_columns_are_in_no_row(seed: Path) -> None:
    header, *rows = table(seed / "output-tiny-records.csv")
    assert tuple(header) == columns.SEED_RECORDS
    assert all(row[0] in ("pos", "ctl") for row in rows)

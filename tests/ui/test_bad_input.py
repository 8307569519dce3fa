"""Bad input through the real command line: one line that names the way out, the right exit code, no traceback."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftw.substrate.reference import reference_dir
from tests.ui.conftest import Ftw

LONG = "storm " * 700


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the bundled model that a test may damage."""
    folder = tmp_path / "copy"
    shutil.copytree(reference_dir(), folder)
    return folder


def test_a_missing_model_names_the_bundled_one(ftw: Ftw) -> None:
    line = ftw("peek", "Hello", "--model", "./no-such-folder").failed(1)
    assert "no-such-folder" in line
    assert "reference" in line or "folder" in line


def test_a_half_downloaded_model_names_the_file_that_is_cut(ftw: Ftw, broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    line = ftw("peek", "Hello", "--model", str(broken)).failed(1)
    assert "model.safetensors" in line


def test_a_model_without_its_weights_names_what_is_missing(ftw: Ftw, broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    assert "safetensors" in ftw("peek", "Hello", "--model", str(broken)).failed(1)


def test_a_model_that_predicts_no_next_token_is_told_apart(ftw: Ftw, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    line = ftw("peek", "Hello", "--model", str(tmp_path / "bert")).failed(1)
    assert "causal" in line or "next token" in line


@pytest.mark.parametrize("verb", [["peek"], ["watch"], ["steer", "-c", "food"]])
def test_a_prompt_too_long_gives_both_sizes(ftw: Ftw, verb: list[str]) -> None:
    line = ftw(*verb, LONG).failed(2)
    assert "512" in line
    assert "horten the prompt" in line


def test_more_new_tokens_than_fit_give_both_sizes(ftw: Ftw) -> None:
    line = ftw("watch", "Hello", "--max-tokens", "100000").failed(2)
    assert "512" in line


@pytest.mark.parametrize("verb", [["peek"], ["watch"], ["steer", "-c", "food"]])
@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_shows_how_to_give_one(ftw: Ftw, verb: list[str], prompt: str) -> None:
    assert "the prompt is empty" in ftw(*verb, prompt).failed(2)


@pytest.mark.parametrize("verb", [["watch", "--concepts", "fod"], ["steer", "-c", "fod"]])
def test_an_unknown_concept_names_the_nearest(ftw: Ftw, verb: list[str]) -> None:
    line = ftw(*verb, "Tell me a story.").failed(2)
    assert "fod" in line
    assert "Food" in line


def test_a_list_of_no_concepts_is_an_error(ftw: Ftw) -> None:
    assert "--concepts names nothing" in ftw("watch", "Hello", "--concepts", " , ").failed(2)


@pytest.mark.parametrize("strength", ["much", "nan", "inf", ""])
def test_a_strength_that_is_no_number_is_shown_one(ftw: Ftw, strength: str) -> None:
    line = ftw("steer", "Hello", "-c", "food", f"--strength={strength}").failed(2)
    assert "--strength" in line
    assert "0.8" in line


def test_a_lens_pack_for_another_model_shows_both_fingerprints(ftw: Ftw) -> None:
    line = ftw("watch", "Hello", "--model", "tiny", "--pack", "reference_everyday").failed(1)
    assert "reference" in line
    assert "ftw lens train" in line


def test_a_lens_pack_that_does_not_exist_is_an_error(ftw: Ftw) -> None:
    assert "no-such-pack" in ftw("watch", "Hello", "--pack", "no-such-pack").failed(1)


@pytest.mark.parametrize(
    ("number", "way"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only")]
)
def test_a_medium_that_takes_nothing_is_told_with_the_way_out(
    ftw: Ftw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, way: str
) -> None:
    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        raise OSError(number, "as if", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    ran = ftw("watch", "Hello", "-n", "4", "--export", str(tmp_path / "x.svg"))
    assert ran.code == 1
    last = ran.err.strip().splitlines()[-1]
    assert way in last
    assert "x.svg" in last
    assert "Traceback" not in ran.err


def test_a_folder_that_does_not_exist_is_told_before_any_work(ftw: Ftw, tmp_path: Path) -> None:
    ran = ftw("watch", "Hello", "--export", str(tmp_path / "no" / "x.svg"))
    assert "there is no folder" in ran.failed(1)
    assert ran.out == ""


def test_a_picture_of_an_unknown_kind_names_the_known_ones(ftw: Ftw) -> None:
    assert ".svg or .txt" in ftw("watch", "Hello", "--export", "x.png").failed(2)


@pytest.mark.parametrize(
    "argv",
    [
        ["watch", "Hello", "--tempreture", "1"],
        ["peek", "Hello", "--top", "many"],
        ["wach", "Hello"],
        ["peek"],
        ["steer", "Hi"],
    ],
)
def test_what_the_command_line_does_not_know_points_to_help(ftw: Ftw, argv: list[str]) -> None:
    assert "--help" in ftw(*argv).failed(2)


@pytest.mark.parametrize(
    "argv", [["peek", "Hello", "--top", "0"], ["watch", "Hello", "--top", "0"], ["poc", "hello", "-n", "0"]]
)
def test_a_number_out_of_range_says_the_range(ftw: Ftw, argv: list[str]) -> None:
    assert "at least 1" in ftw(*argv).failed(2)


@pytest.mark.parametrize("argv", [["--temperature", "-1"], ["--max-tokens", "0"]])
def test_a_bad_way_of_sampling_is_a_usage_error(ftw: Ftw, argv: list[str]) -> None:
    ftw("watch", "Hello", *argv).failed(2)


def test_an_answer_that_says_nothing_is_an_error(ftw: Ftw) -> None:
    assert "--answer is empty" in ftw("peek", "Hello", "--answer", " ").failed(2)


def test_a_setting_that_does_not_exist_names_the_nearest(ftw: Ftw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTW_MODLE", "x")
    assert "did you mean FTW_MODEL" in ftw("peek", "Hello").failed(2)


def test_a_message_that_quotes_control_characters_stays_on_one_line(ftw: Ftw) -> None:
    line = ftw("peek", "Hello", "--model", "a\x1b[31m\nb").failed(1)
    assert "\x1b" not in line


def test_debug_shows_the_traceback_in_any_place(ftw: Ftw) -> None:
    for argv in (["--debug", "peek", ""], ["peek", "", "--debug"]):
        ran = ftw(*argv)
        assert ran.code == 2
        assert "Traceback" in ran.err


def test_check_lists_what_it_could_judge_before_it_fails(ftw: Ftw) -> None:
    ran = ftw("models", "check", "tiny", "./no-such-folder", "--json")
    assert ran.code == 1
    assert [row["model"] for row in json.loads(ran.out)] == ["tiny"]
    assert "no-such-folder" in ran.err


def test_a_model_that_is_refused_by_name_is_a_result(ftw: Ftw, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    ran = ftw("models", "check", str(tmp_path / "bert"), "tiny", "--json")
    assert ran.code == 0, ran.err
    first, second = ran.document
    assert not first["exact"]
    assert first["refused"]
    assert first["architecture"] == "BertForMaskedLM"
    assert first["max_abs_error"] is None
    assert second["exact"]

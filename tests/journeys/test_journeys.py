"""Five walks through several rooms, on the bundled model, through the command line as a person takes them."""

import json
import shutil
from pathlib import Path

import pytest

from ftw.substrate.reference import reference_dir
from ftw.ui.cli import run


def document(capfd: pytest.CaptureFixture[str], *argv: str) -> dict:
    """The JSON document of a command that must succeed."""
    capfd.readouterr()
    code = run([*argv, "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    return json.loads(out)


def test_watching_shows_the_concept_that_a_story_is_about(capfd: pytest.CaptureFixture[str]) -> None:
    found = document(capfd, "watch", "Tell me a story about a storm.", "-n", "80")
    assert "storm" in found["text"]
    read = {mark["concept"] for token in found["tokens"] for mark in token["readings"] if mark["above"]}
    assert read
    concepts = document(capfd, "pack", "show")["concepts"]
    about = {each["concept"] for each in concepts if "storm" in each["words"]}
    assert read & about, f"a text about a storm reads {sorted(read)}, none of {sorted(about)}"
    quiet = [token for token in found["tokens"] if not any(mark["above"] for mark in token["readings"])]
    assert quiet, "every state of the text is loud: the calibration is wrong"


def test_a_story_that_is_steered_towards_food_tells_of_food_and_stays_a_story(
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = document(capfd, "steer", "Tell me a story.", "--concept", "food", "-n", "72")
    measured = found["measured"]
    assert measured["unsteered_concept_word_rate"] == 0
    assert measured["steered_concept_word_rate"] >= 0.03, found["steered"]["text"]
    ratio = measured["steered_perplexity"] / measured["unsteered_perplexity"]
    assert measured["perplexity_ratio"] == pytest.approx(ratio)
    assert ratio <= 1.6


def test_the_unsteered_side_of_steering_is_what_watching_shows(capfd: pytest.CaptureFixture[str]) -> None:
    prompt = "Tell me a story about a boy."
    steered = document(capfd, "steer", prompt, "--concept", "food", "-n", "40")
    assert steered["unsteered"]["text"] == document(capfd, "watch", prompt, "-n", "40")["text"]


def test_an_answer_forms_gradually_and_the_last_block_is_what_the_model_says(capfd: pytest.CaptureFixture[str]) -> None:
    found = document(capfd, "peek", "The capital of France is", "--answer", "Paris")
    ranks = [view["answer_rank"] for view in found["blocks"]]
    assert ranks[-1] == 1
    assert ranks[0] > 1
    assert found["gate"]["exact"]
    said = document(capfd, "watch", "The capital of France is", "--complete", "-n", "1")
    assert said["tokens"][0]["id"] == found["answer"]["id"]


def test_a_proof_is_the_same_in_other_batches_and_a_cheaper_copy_is_told_apart(
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = document(capfd, "poc", "hello", "-n", "4")
    assert found["recomputed"]["identical"]
    assert found["cheaper"]["fraud_detected"]


def test_a_copy_of_the_model_in_a_folder_works_like_the_bundled_one(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(reference_dir(), tmp_path / "mine")
    (verdict,) = document(capfd, "models", "check", str(tmp_path / "mine"))
    assert verdict["exact"]
    mine = document(capfd, "watch", "Hello", "-n", "8", "--model", str(tmp_path / "mine"))
    bundled = document(capfd, "watch", "Hello", "-n", "8")
    assert mine["text"] == bundled["text"]
    assert mine["model"]["fingerprint"] == bundled["model"]["fingerprint"]


@pytest.mark.slow
def test_lenses_trained_for_another_model_read_it_and_no_other(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = str(tmp_path / "lenses")
    document(capfd, "lens", "train", "--model", "tiny", "--out", folder)
    document(capfd, "watch", "Hello", "-n", "4", "--model", "tiny", "--pack", folder)
    assert run(["watch", "Hello", "--pack", folder]) == 1
    assert "was made for tiny" in capfd.readouterr().err

"""Generate, commit, sample, validate through the real command line; and every way in which a file can lie."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftw.poc.artifact_file import read_artifacts, verify_file
from ftw.poc.commitments import prove
from ftw.substrate.signing import SigningKey
from ftw.ui.cli.poc_commit import COMMANDS
from tests.ui.conftest import Ftw

MAKE = shlex.split("poc generate --model tiny -n 8 --seq-len 8 --rows 4 --block-hash 0xabc --public-key node")
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def file(ftw: Ftw, tmp_path: Path) -> Path:
    """Eight artifacts of a tiny model under three signed roots."""
    file = tmp_path / "artifacts.json"
    ran = ftw(*MAKE, "--key", str(tmp_path / "node.pem"), "--per-commitment", "3", "--out", str(file))
    assert ran.code == 0, ran.err
    return file


@pytest.fixture
def bare(ftw: Ftw, tmp_path: Path) -> Path:
    """The same artifacts without a commitment."""
    file = tmp_path / "bare.json"
    assert ftw(*MAKE, "--out", str(file)).code == 0
    return file


def edit(file: Path, change: Change) -> Path:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    return file


def swap(value: dict[str, Any]) -> None:
    one, two = value["artifacts"][0], value["artifacts"][1]
    one["nonce"], two["nonce"] = two["nonce"], one["nonce"]


def repeat(value: dict[str, Any]) -> None:
    value["artifacts"].append(dict(value["artifacts"][0]))


def forge(value: dict[str, Any]) -> None:
    value["artifacts"][1]["vector_b64"] = value["artifacts"][2]["vector_b64"]


def move(value: dict[str, Any]) -> None:
    value["round"]["block_hash"] = "0xother"


def garble(value: dict[str, Any]) -> None:
    value["artifacts"][0]["vector_b64"] = "***"


def test_the_examples_of_the_help_work_one_after_the_other(
    ftw: Ftw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTW_MODEL", "tiny")
    examples = [line for options, _ in COMMANDS for line in options["epilog"].splitlines() if "ftw " in line]
    assert len(examples) == 5
    for example in examples:
        ran = ftw(*shlex.split(example)[1:])
        assert ran.code == 0, ran.err
        assert ran.out.strip()
        assert max(map(len, ran.out.splitlines())) <= 80
        assert ftw(*shlex.split(example)[1:], "--json").document


def test_what_was_generated_validates_and_verifies(ftw: Ftw, file: Path, tmp_path: Path) -> None:
    signer = SigningKey.load(tmp_path / "node.pem").public
    ran = ftw("poc", "verify-commitment", str(file), "--signer", signer, "--block-hash", "0xabc", "--json")
    assert ran.document["artifacts_included"] == 8
    assert ran.document["signer_was_expected"] is True
    ran = ftw("poc", "validate", str(file), "--model", "tiny", "--signer", signer, "--json")
    assert ran.code == 0
    found = ran.document
    assert (found["n_total"], found["n_mismatch"], found["fraud_detected"]) == (8, 0, False)
    assert {one["distance_l2"] for one in found["distances_l2"]} == {0.0}
    assert (found["dist_threshold_l2"], found["p_mismatch"], found["fraud_threshold"]) == (0.02, 0.001, 0.01)


def test_json_is_the_file_itself(ftw: Ftw, file: Path, tmp_path: Path) -> None:
    ran = ftw(*MAKE, "--key", str(tmp_path / "node.pem"), "--per-commitment", "3", "--json")
    assert ran.document == json.loads(file.read_text())


def test_a_sample_is_repeatable_and_its_seed_and_validator_count(ftw: Ftw, file: Path) -> None:
    def drawn(*more: str) -> list[int]:
        ran = ftw("poc", "validate", str(file), "-m", "tiny", "--sample", "3", "--json", "--seed", *more)
        assert ran.code == 0, ran.err
        return [one["nonce"] for one in ran.document["distances_l2"]]

    first = drawn("0xf00d")
    assert len(set(first)) == 3
    assert drawn("f00d") == first
    others = [drawn(f"{i:04x}") for i in range(3)] + [drawn("f00d", "--validator", "another")]
    assert any(other != first for other in others)


def test_an_uncommitted_file_is_judged_and_says_so(ftw: Ftw, bare: Path) -> None:
    ran = ftw("poc", "validate", str(bare), "-m", "tiny", "--sample", "2", "--seed", "00")
    assert ran.code == 0
    assert ran.out.startswith("2 of 8 sampled, none differs")
    assert "not committed to" in ran.out


def test_fraud_is_shown_with_its_reasons_and_exits_with_one(ftw: Ftw, bare: Path) -> None:
    def lie(value: dict[str, Any]) -> None:
        forge(value)
        garble(value)
        value["artifacts"].append(dict(value["artifacts"][5]))

    ran = ftw("poc", "validate", str(edit(bare, lie)), "-m", "tiny", "--json")
    assert "fraud: 8 artifacts, 3 of 8 differ" in ran.failed(1)
    found = ran.document
    assert {one["nonce"]: one["reason"] for one in found["mismatches"]} == {
        0: "undecodable", 1: "distance", 5: "duplicate",
    }  # fmt: skip
    assert found["fraud_detected"] is True
    shown = ftw("poc", "validate", str(bare), "-m", "tiny")
    assert shown.code == 1
    assert "undecodable" in shown.out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (swap, "these are not the artifacts of the commitment of sequence 1"),
        (forge, "these are not the artifacts of the commitment of sequence 1"),
        (repeat, "nonce 0 stands twice"),
        (move, "is of another round: its block_hash"),
        (garble, "the vector of nonce 0 is not base64"),
        (lambda value: value.pop("commitments"), "there is no commitment in this file"),
    ],
)
def test_a_file_that_lies_is_refused_without_a_model(ftw: Ftw, file: Path, change: Change, why: str) -> None:
    edit(file, change)
    assert why in ftw("poc", "verify-commitment", str(file)).failed(1)
    signer = "0" * 64 if change.__name__ == "<lambda>" else json.loads(file.read_text())["commitments"][0]["signer"]
    line = ftw("poc", "validate", str(file), "--model", "./no-such-model", "--signer", signer).failed(1)
    assert why in line


def test_another_key_block_or_node_than_expected_is_refused(ftw: Ftw, file: Path) -> None:
    for option, value, why in (
        ("--signer", "ab" * 32, "it is not this node's"),
        ("--block-hash", "0xdef", "its block_hash is '0xabc', expected is '0xdef'"),
        ("--public-key", "other", "its public_key is 'node', expected is 'other'"),
    ):
        assert why in ftw("poc", "verify-commitment", str(file), option, value).failed(1)
        assert why in ftw("poc", "validate", str(file), "-m", "./none", option, value).failed(1)


def test_proofs_commitments_and_lists_verify_alone(ftw: Ftw, file: Path, tmp_path: Path) -> None:
    commitment, leaves = verify_file(read_artifacts(file))[1]
    alone = tmp_path / "alone.json"
    alone.write_text(prove(commitment, leaves, 4).model_dump_json())
    assert "nonce 4 is artifact 2 of 3" in ftw("poc", "verify-commitment", str(alone)).out
    edit(alone, lambda value: value.update(index=2))
    assert "cannot be leaf 2" in ftw("poc", "verify-commitment", str(alone)).failed(1)
    alone.write_text(commitment.model_dump_json())
    assert "none of them here" in ftw("poc", "verify-commitment", str(alone)).out
    edit(alone, lambda value: value.update(count=2))
    assert "does not hold" in ftw("poc", "verify-commitment", str(alone)).failed(1)
    alone.write_text(json.dumps({"commitments": json.loads(file.read_text())["commitments"]}))
    ran = ftw("poc", "verify-commitment", str(alone), "--json")
    assert len(ran.document["commitments"]) == 3


def test_artifacts_of_another_model_are_not_judged(ftw: Ftw, file: Path) -> None:
    ran = ftw("poc", "validate", str(file), "--model", "reference")
    assert "is of the model tiny with fingerprint" in ran.failed(1)


@pytest.mark.parametrize("verb", ["validate", "verify-commitment"])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"format": "ftw.poc.artifacts/9"}', '{"a": 1, "a": 2}'])
def test_a_file_that_is_none_is_a_wrong_request(ftw: Ftw, tmp_path: Path, verb: str, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    assert "x.json" in ftw("poc", verb, str(file)).failed(2)


def test_a_truncated_file_is_a_wrong_request(ftw: Ftw, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    assert "is not JSON, or cut short" in ftw("poc", "verify-commitment", str(file)).failed(2)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--sample", "2"], "--sample and --seed go together"),
        (["--seed", "ab"], "--sample and --seed go together"),
        (["--sample", "0", "--seed", "ab"], "--sample is 0"),
        (["--sample", "9", "--seed", "ab"], "a sample of 9 from 8"),
        (["--sample", "2", "--seed", "xyz"], "--seed is 'xyz'"),
        (["--sample", "2", "--seed", "0x"], "--seed is empty"),
        (["--dist-threshold", "nan"], "dist_threshold is nan"),
        (["--p-mismatch", "0"], "p_mismatch is 0.0"),
        (["--signer", "xyz"], "--signer is 'xyz'"),
    ],
)
def test_options_that_mean_nothing_are_wrong_requests(ftw: Ftw, bare: Path, more: list[str], why: str) -> None:
    assert why in ftw("poc", "validate", str(bare), "-m", "tiny", *more).failed(2)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["-n", "0"], "-n is 0"),
        (["-n", "1000001"], "one file takes 1000000"),
        (["--first", "-1"], "leave the range 0 to 2^53"),
        (["--first", "9007199254740992"], "leave the range"),
        (["--profile", "none"], "no proof profile 'none'"),
        (["--k", "1"], "k_dim is 1"),
        (["--rows", "5000"], "the round: rows"),
        (["--seq-len", "100000"], "seq_len is 100000"),
        (["--node-id", "3"], "--node-id is 3 and --node-count 1: they count from 0"),
        (["--group-id", "2", "--n-groups", "2"], "--group-id is 2 and --n-groups 2"),
        (["--block-height", "-1"], "the round: block_height"),
    ],
)
def test_rounds_that_cannot_be_are_wrong_requests(ftw: Ftw, more: list[str], why: str) -> None:
    assert why in ftw("poc", "generate", "-m", "tiny", "--seq-len", "8", *more).failed(2)


def test_a_key_that_others_read_is_refused_before_any_work(ftw: Ftw, tmp_path: Path) -> None:
    key = tmp_path / "node.pem"
    SigningKey.load_or_create(key)
    key.chmod(0o644)
    assert "chmod 600" in ftw("poc", "generate", "-m", "./none", "--key", str(key)).failed(2)


def test_an_empty_file_of_artifacts_is_a_wrong_request(ftw: Ftw, bare: Path) -> None:
    edit(bare, lambda value: value.update(artifacts=[]))
    assert "holds no artifacts" in ftw("poc", "validate", str(bare), "-m", "tiny").failed(2)


def test_nonces_go_by_steps(ftw: Ftw) -> None:
    ran = ftw(*MAKE, "-n", "3", "--first", "7", "--step", "10", "--json")
    assert [one["nonce"] for one in ran.document["artifacts"]] == [7, 17, 27]

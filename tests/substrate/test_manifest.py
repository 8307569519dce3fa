"""Canonical JSON after RFC 8785, digests, and artefact folders that are whole or not there."""

import errno
import hashlib
import json
import math
import stat
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate import manifest
from ftw.substrate.errors import NumericError, PackError, StorageError
from ftw.substrate.manifest import (
    canonical_json,
    load_artifact,
    read_manifest,
    save_artifact,
    sha256_hex,
    write_atomically,
)

# RFC 8785, appendix B: IEEE 754 bits and their text
NUMBERS = {
    0x0000000000000000: "0",
    0x8000000000000000: "0",
    0x0000000000000001: "5e-324",
    0x8000000000000001: "-5e-324",
    0x7FEFFFFFFFFFFFFF: "1.7976931348623157e+308",
    0x4340000000000000: "9007199254740992",
    0x4430000000000000: "295147905179352830000",
    0x44B52D02C7E14AF5: "9.999999999999997e+22",
    0x44B52D02C7E14AF6: "1e+23",
    0x44B52D02C7E14AF7: "1.0000000000000001e+23",
    0x444B1AE4D6E2EF4E: "999999999999999700000",
    0x444B1AE4D6E2EF4F: "999999999999999900000",
    0x444B1AE4D6E2EF50: "1e+21",
    0x3EB0C6F7A0B5ED8C: "9.999999999999997e-7",
    0x3EB0C6F7A0B5ED8D: "0.000001",
    0x41B3DE4355555553: "333333333.3333332",
    0x41B3DE4355555557: "333333333.33333343",
    0xBECBF647612F3696: "-0.0000033333333333333333",
    0x43143FF3C1CB0959: "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_are_written_as_ecmascript_does(bits: int, text: str) -> None:
    (value,) = struct.unpack(">d", struct.pack(">Q", bits))
    assert canonical_json(value).decode() == text


def test_the_example_of_the_rfc() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    assert canonical_json(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf16() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    assert list(json.loads(canonical_json(dict.fromkeys(keys, 0)))) == [
        "\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33",
    ]  # fmt: skip


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back(value: float) -> None:
    assert float(json.loads(canonical_json(value))) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_reading_and_writing_again_changes_nothing(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_errors_that_say_where(value: float) -> None:
    with pytest.raises(NumericError, match=r"\$\.a\[1\] is .*JSON has no such number"):
        canonical_json({"a": [1, value]})


def test_an_integer_that_json_would_round_is_an_error() -> None:
    with pytest.raises(NumericError, match="integers beyond"):
        canonical_json(2**53)


def test_a_key_that_is_no_string_is_an_error() -> None:
    with pytest.raises(TypeError, match="key 1 is not a string"):
        canonical_json({1: 2})


def test_a_value_that_json_does_not_have_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"\$\.x is a set"):
        canonical_json({"x": {1}})


def test_sha256_of_bytes_and_file_agree(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_hex(b"abc") == sha256_hex(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(StorageError, match="cannot be read"):
        sha256_hex(tmp_path / "g")


TENSORS = {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}


def test_an_artefact_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "art"
    save_artifact(folder, {"name": "x", "n": 3}, TENSORS)
    loaded, tensors = load_artifact(folder)
    assert (loaded["name"], loaded["n"]) == ("x", 3)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [stat.S_IMODE(file.stat().st_mode) for file in sorted(folder.iterdir())] == [0o644, 0o644]
    assert list(folder.parent.iterdir()) == [folder]


def test_an_artefact_is_replaced_whole(tmp_path: Path) -> None:
    save_artifact(tmp_path / "art", {"v": 1}, TENSORS)
    save_artifact(tmp_path / "art", {"v": 2}, {})
    loaded, tensors = load_artifact(tmp_path / "art")
    assert loaded["v"] == 2
    assert tensors == {}
    assert list(tmp_path.iterdir()) == [tmp_path / "art"]


def test_the_old_artefact_survives_a_failed_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_artifact(tmp_path / "art", {"v": 1}, TENSORS)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == tmp_path / "art" and self.name != "was":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        save_artifact(tmp_path / "art", {"v": 2}, TENSORS)
    assert load_artifact(tmp_path / "art")[0]["v"] == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "art"]


def test_a_changed_tensor_file_is_noticed(tmp_path: Path) -> None:
    save_artifact(tmp_path, {}, TENSORS)
    blob = bytearray((tmp_path / manifest.TENSORS).read_bytes())
    blob[-1] ^= 1
    (tmp_path / manifest.TENSORS).write_bytes(blob)
    for read in (load_artifact, read_manifest):
        with pytest.raises(
            PackError, match=r"is not what was saved .*: copy it again from where it came, or make it anew"
        ):
            read(tmp_path)


def test_a_manifest_is_read_without_the_tensors(tmp_path: Path) -> None:
    save_artifact(tmp_path, {"kind": "some"}, TENSORS)
    assert read_manifest(tmp_path) == load_artifact(tmp_path)[0]
    (tmp_path / manifest.TENSORS).unlink()
    with pytest.raises(StorageError, match=r"tensors\.safetensors cannot be read"):
        read_manifest(tmp_path)


def test_tensors_that_are_no_safetensors_are_named(tmp_path: Path) -> None:
    (tmp_path / manifest.TENSORS).write_bytes(b"junk")
    (tmp_path / manifest.MANIFEST).write_bytes(canonical_json({"tensors_sha256": sha256_hex(b"junk")}))
    with pytest.raises(PackError, match=r"is not a safetensors file .*: copy it again"):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"), [("{", r"is not valid JSON .*: copy it again"), ("{}", r"no tensors_sha256\. Give another")]
)
def test_a_bad_manifest_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / manifest.MANIFEST).write_text(text)
    with pytest.raises(PackError, match=reason):
        load_artifact(tmp_path)


def test_a_missing_artefact_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"manifest\.json: No such file"):
        load_artifact(tmp_path)


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="check the path and its permissions"):
        save_artifact(tmp_path / "f" / "art", {}, {})


def test_an_atomic_write_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", b"1")
    write_atomically(tmp_path / "f", b"2")
    assert (tmp_path / "f").read_bytes() == b"2"
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]
    with pytest.raises(StorageError, match="No such file or directory"):
        write_atomically(tmp_path / "none" / "f", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder: Is a directory"):
        write_atomically(tmp_path / "folder", b"")

"""What is read from a file is JSON as every parser reads it. The canonical writing is tested with the manifests."""

import subprocess
import sys

import pytest

from ftw.substrate.canonical import read_json
from ftw.substrate.errors import ConfigError, StorageError


def read(tmp_path, text, most=1 << 20):
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_json(file, most)


def test_a_value_is_read(tmp_path):
    assert read(tmp_path, '{"a": [1, 2.5, null, true, "é"]}') == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ('{"a": [1, 2', "Expecting"),
        (b"\xff\xfe", "decode"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('[{"b": {"a": 1, "a": 1}}]', "the key 'a' stands twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "larger than any number"),
        ('["\\ud800"]', "surrogates not allowed"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "digits"),
    ],
)
def test_what_is_not_strictly_json_is_an_error(tmp_path, text, why):
    with pytest.raises(ConfigError, match=f"is not JSON, or cut short: .*{why}"):
        read(tmp_path, text)


def test_a_file_too_large_is_not_read(tmp_path):
    with pytest.raises(ConfigError, match="is larger than 1 MiB"):
        read(tmp_path, " " * (1 << 20) + "[]")


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_json(tmp_path, 10)


def test_a_medium_that_fails_is_an_error(tmp_path):
    class Bad(type(tmp_path)):
        def is_file(self):
            return True

    with pytest.raises(StorageError, match="cannot be read: No such file"):
        read_json(Bad(tmp_path / "gone"), 10)


def test_evidence_is_checked_without_torch():
    code = "import sys, ftw.ui.verbs.poc_verify_commitment; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

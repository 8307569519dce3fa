"""PassCache: an entry comes back bit for bit, or counts as not there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ftw.substrate.errors import ConfigError, NumericError, StorageError
from ftw.sweep.files.cache import PassCache

SCOPE = {"model": "ab" * 32, "lenses": ["logit"], "k": 5}
ARRAYS = {
    "entropy_bits": np.array([1.5, np.nan, -0.0, np.inf], dtype=np.float32),
    "top_ids": np.arange(6, dtype=np.int32).reshape(2, 3),
    "lens": np.array(["logit", "next"]),
    "is_finite": np.array([True, False]),
}
KINDS = st.sampled_from(["<f4", "<f8", "<i2", "<i4", "<u8", "?", "<U7", "<f2", ">i4"])


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(
        (a[name].dtype, a[name].shape, a[name].tobytes()) == (b[name].dtype, b[name].shape, b[name].tobytes())
        for name in a
    )


@given(
    st.dictionaries(
        st.text(max_size=8), KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, min_side=0)))
    ),
    st.lists(st.integers(0, 2**31)),
)
def test_what_is_put_in_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray], key: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    PassCache(folder, SCOPE).put(key, arrays)
    found = PassCache(folder, SCOPE).get(key)
    assert found is not None
    assert same(found, arrays)


def test_arrays_that_come_back_can_be_written_to(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, SCOPE)
    cache.put(1, ARRAYS)
    found = cache.get(1)
    assert found is not None
    found["entropy_bits"][0] = 2
    again = cache.get(1)
    assert again is not None
    assert same(again, ARRAYS)


def test_other_keys_and_other_scopes_are_other_entries(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, SCOPE)
    cache.put({"ids": [1, 2]}, ARRAYS)
    assert cache.get({"ids": [1, 3]}) is None
    assert PassCache(tmp_path, {**SCOPE, "k": 6}).get({"ids": [1, 2]}) is None
    assert PassCache(tmp_path, dict(reversed(SCOPE.items()))).get({"ids": [1, 2]}) is not None
    assert (cache.hits, cache.misses, cache.notes) == (0, 1, [])


def test_an_entry_can_be_put_again(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, SCOPE)
    cache.put(1, {})
    cache.put(1, ARRAYS)
    found = cache.get(1)
    assert found is not None
    assert same(found, ARRAYS)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [cache.file(1)]


@given(st.data())
def test_no_changed_byte_and_no_cut_passes_for_an_entry(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    cache = PassCache(tmp_path_factory.mktemp("cache"), SCOPE)
    cache.put(1, ARRAYS)
    whole = cache.file(1).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    is_cut = data.draw(st.booleans())
    cache.file(1).write_bytes(whole[:at] if is_cut else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert cache.get(1) is None
    assert len(cache.notes) == cache.misses == 1
    assert "is damaged" in cache.notes[0]
    assert "its pass is computed again" in cache.notes[0]
    assert not cache.file(1).exists()


def test_an_entry_under_another_name_is_not_used(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, SCOPE)
    cache.put(1, ARRAYS)
    cache.file(2).parent.mkdir(exist_ok=True)
    cache.file(1).rename(cache.file(2))
    assert cache.get(2) is None
    assert "its digest is not that of its bytes" in cache.notes[0]


def test_a_full_disk_is_an_error_that_says_so_and_keeps_the_entries_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PassCache(tmp_path, SCOPE)
    cache.put(1, ARRAYS)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        cache.put(2, ARRAYS)
    assert cache.get(1) is not None
    assert cache.get(2) is None
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [cache.file(1)]


def test_the_longest_unused_entries_are_pruned_first(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, SCOPE)
    for key in (1, 2, 3):
        cache.put(key, ARRAYS)
        os.utime(cache.file(key), (key, key))
    size = cache.file(1).stat().st_size
    cache.get(1)  # used now
    assert cache.prune(2 * size) == size
    assert [cache.file(key).exists() for key in (1, 2, 3)] == [True, False, True]
    assert cache.prune(10 * size) == 0
    assert cache.prune(0) == 2 * size
    assert not any(cache.file(key).exists() for key in (1, 2, 3))


def test_half_written_files_are_pruned_once_their_process_must_be_gone(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, SCOPE)
    cache.put(1, ARRAYS)
    half = cache.file(1).parent / f".{cache.file(1).name}-x1y2"
    half.write_bytes(b"123")
    os.utime(half, (1000, 1000))
    assert cache.prune(1 << 20, clock=lambda: 1000 + 3599) == 0
    assert cache.prune(1 << 20, clock=lambda: 1000 + 3601) == 3
    assert cache.get(1) is not None


def test_two_processes_can_put_the_same_entry(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from ftw.sweep.files.cache import PassCache\n"
        "cache = PassCache(Path(sys.argv[1]), {'model': 'm'})\n"
        "for key in range(30):\n"
        "    cache.put(key, {'a': np.full(10000, key)})\n"
        "    assert (cache.get(key)['a'] == key).all() and not cache.notes\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list(tmp_path.glob("*/*"))) == 30


def test_a_scope_must_name_something(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no scope: name at least the model's fingerprint"):
        PassCache(tmp_path, {})


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/cache: .*; give another folder"):
        PassCache(tmp_path / "file" / "cache", SCOPE)
    cache = PassCache(tmp_path / "cache", SCOPE)
    cache.file(1).parent.write_text("")
    with pytest.raises(StorageError, match="give another folder"):
        cache.put(1, ARRAYS)
    with pytest.raises(StorageError, match="cannot be read"):
        cache.get(1)


def test_an_entry_that_cannot_be_deleted_is_named(tmp_path: Path) -> None:
    cache = PassCache(tmp_path, SCOPE)
    cache.file(1).mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be deleted"):
        cache.prune(0)


def test_only_plain_arrays_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"array 'a' is of object: a cache keeps plain numbers"):
        PassCache(tmp_path, SCOPE).put(1, {"a": np.array([None])})
    with pytest.raises(NumericError, match=r"NaN|nan"):
        PassCache(tmp_path, SCOPE).get(float("nan"))


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a cache cannot keep -1 bytes"):
        PassCache(tmp_path, SCOPE).prune(-1)

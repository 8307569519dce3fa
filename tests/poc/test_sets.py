"""Artifact sets: every form that vectors travel in, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ftw.poc.codec import Artifact, encode
from ftw.poc.sets import ArtifactSet, chosen, from_artifacts, read_file, read_sets
from ftw.substrate.errors import ConfigError

DATA = Path(__file__).parents[1] / "data/poc/poc_gpu_artifacts.npz"


def unit(n: int, k: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, k))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def claims(nonces: list[int], vectors: np.ndarray) -> list[dict[str, object]]:
    texts = encode(torch.from_numpy(vectors))
    return [{"nonce": nonce, "vector_b64": text} for nonce, text in zip(nonces, texts, strict=True)]


def written(folder: Path, name: str, value: object) -> Path:
    file = folder / name
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


@pytest.mark.parametrize("k", [2, 5, 12, 64])
def test_a_list_a_callback_and_an_archive_give_the_same_set(tmp_path: Path, k: int) -> None:
    vectors = unit(4, k)
    listed = claims([3, 1, 2, 9], vectors)
    body = {"block_hash": "b", "public_key": "p", "artifacts": listed, "encoding": {"dtype": "f16", "k_dim": k}}
    np.savez(tmp_path / "c.npz", **{"c|nonces": np.array([3, 1, 2, 9]), "c|vectors": vectors})
    files = [written(tmp_path, "a.json", listed), written(tmp_path, "b.json", body), tmp_path / "c.npz"]
    for found in read_sets(files):
        assert found.nonces.tolist() == [1, 2, 3, 9]
        assert np.array_equal(found.vectors, vectors[[1, 2, 0, 3]])
        assert found.k == k
    assert dict(read_sets(files)[1].round) == {"block_hash": "b", "public_key": "p"}


def test_the_file_of_a_prover_is_read_with_its_round(tmp_path: Path) -> None:
    told = {"block_hash": "b", "block_height": 7, "public_key": "p", "node_id": 0, "profile": "artifact-k12/1"}
    told |= {"node_count": 1, "group_id": 0, "n_groups": 1}
    told |= {"model": "m", "fingerprint": "ab" * 32, "seq_len": 8, "k_dim": 12, "stronger_rng": False, "rows": 2}
    value = {"format": "ftw.poc.artifacts/1", "round": told, "artifacts": claims([0, 1], unit(2, 12))}
    value["encoding"] = {"dtype": "f16", "k_dim": 12, "endian": "le"}
    (found,) = read_file(written(tmp_path, "mine.json", value))
    assert found.name == "mine"
    expected = {"block_hash": "b", "block_height": "7", "public_key": "p", "seq_len": "8"}
    assert dict(found.round) == {**expected, "profile": "artifact-k12/1", "stronger_rng": "False"}


def test_the_published_sets_are_read() -> None:
    found = read_file(DATA)
    assert len(found) == 8
    assert all(one.vectors.shape == (1000, 12) for one in found)
    assert [one.name for one in chosen(found, ["QWEN", "awq*2xh100"], "--honest")] == [
        "2026-04__minimax-m27-awq4bit-2xh100__1000",
        "2026-05__qwen235b-fp8-2xb200__1000",
        "2026-05__qwen235b-fp8-4xh100__1000",
    ]


def test_a_pattern_that_matches_nothing_lists_what_is_there() -> None:
    one = ArtifactSet("here", np.array([1]), unit(1, 4))
    with pytest.raises(ConfigError, match="--cheat 'nowhere' matches no set: the files hold here"):
        chosen([one], ["nowhere"], "--cheat")


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [written(tmp_path / part, "a.json", claims([1], unit(1, 4))) for part in ("", "x")]
    with pytest.raises(ConfigError, match="two sets are called 'a'"):
        read_sets(files)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*gone\.npz"):
        read_file(tmp_path / "gone.npz")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"artifacts": [{"nonce": "1", "vector_b64": ""}]}, r"artifacts\.0\.nonce"),
        ({"else": 1}, "artifacts: Field required"),
        ([], "is empty"),
        ([{"nonce": 1, "vector_b64": "%%%%"}], "nonce 1 is undecodable"),
        ([{"nonce": 1, "vector_b64": ""}], "nonce 1 is empty"),
    ],
)
def test_what_is_no_artifact_set_is_refused(tmp_path: Path, value: object, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read_file(written(tmp_path, "a.json", value))


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_file(tmp_path / "a.json")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"no \.npz"):
        read_file(tmp_path / "a.npz")


def test_an_archive_of_other_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(ConfigError, match="holds other where"):
        read_file(tmp_path / "a.npz")


def test_an_archive_without_nonces_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"a|vectors": unit(2, 4)})
    with pytest.raises(ConfigError, match="must be whole numbers"):
        read_file(tmp_path / "a.npz")


def test_a_nonce_that_stands_twice_is_refused() -> None:
    listed = [Artifact(5, text) for text in encode(torch.from_numpy(unit(2, 4)))]
    with pytest.raises(ConfigError, match="nonce 5 more than once"):
        from_artifacts("a", listed)


@pytest.mark.parametrize("bad", [np.nan, 3.0])
def test_a_vector_that_is_no_direction_is_refused(tmp_path: Path, bad: float) -> None:
    vectors = unit(2, 4)
    vectors[1, 0] = bad
    np.savez(tmp_path / "a.npz", **{"a|nonces": np.array([1, 2]), "a|vectors": vectors})
    with pytest.raises(ConfigError, match="nonce 2 has norm"):
        read_file(tmp_path / "a.npz")


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"a|nonces": np.array([1, 2, 3]), "a|vectors": unit(2, 4)})
    with pytest.raises(ConfigError, match=r"give \[n\] and \[n, k\]"):
        read_file(tmp_path / "a.npz")

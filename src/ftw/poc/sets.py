"""Artifact sets: vectors of one round as one machine computed them, read from the files they travel in.

A JSON file is what `ftw poc generate` writes, the body of a `/generated` callback, or the bare list of artifacts; an
.npz file holds many sets as `NAME|nonces` and `NAME|vectors`. The rule of the file: a set that cannot be trusted whole
is refused.
"""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Int64
from pydantic import BaseModel, ConfigDict, ValidationError

from ftw.poc.artifact_file import MOST_BYTES, read_artifacts
from ftw.poc.codec import UNIT_TOLERANCE, Artifact, read
from ftw.substrate.canonical import read_json
from ftw.substrate.errors import ConfigError

Nonces = Int64[np.ndarray, " n"]
Halves = Float16[np.ndarray, "n k"]


@dataclass(frozen=True, slots=True)
class ArtifactSet:
    """Vectors of one round from one machine, sorted by nonce. Every nonce stands once, every vector is of unit norm."""

    name: str
    nonces: Nonces
    vectors: Halves
    round: tuple[tuple[str, str], ...] = ()
    """What the file says of its round (block_hash, public_key, …), where it says anything."""

    @property
    def k(self) -> int:
        """Dimensions of a vector."""
        return int(self.vectors.shape[1])

    def matches(self, patterns: Iterable[str]) -> bool:
        """Whether one of the patterns stands in the name; `*` and `?` as in a shell, case does not count."""
        return any(fnmatchcase(self.name.lower(), f"*{pattern.lower()}*") for pattern in patterns)


class _Claim(BaseModel):
    model_config = ConfigDict(strict=True)
    nonce: int
    vector_b64: str


class _Round(BaseModel):
    """The fields that two sets must agree in before their distances mean anything."""

    model_config = ConfigDict(extra="ignore")
    block_hash: str | None = None
    block_height: int | None = None
    public_key: str | None = None
    seq_len: int | None = None
    profile: str | None = None
    stronger_rng: bool | None = None

    def given(self) -> tuple[tuple[str, str], ...]:
        fields = _Round.model_fields
        return tuple((name, str(value)) for name, value in self if name in fields and value is not None)


class _Body(_Round):
    """The body of a callback: the round's fields beside the artifacts."""

    artifacts: list[_Claim]


def read_sets(files: Sequence[Path]) -> tuple[ArtifactSet, ...]:
    """Every set of these files, in order. Raises ConfigError for a file that is none, or two sets of one name."""
    found = [one for file in files for one in read_file(file)]
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two sets are called {twice[0]!r}: rename one of the files, so that pairs can be told apart")
    return tuple(found)


def read_file(file: Path) -> tuple[ArtifactSet, ...]:
    """The sets of one file: JSON or .npz. Raises ConfigError that names the file and what is wrong in it."""
    if not file.is_file():
        raise ConfigError(f"there is no file {file}: name artifact sets (.json, .npz)")
    if file.suffix.lower() == ".npz":
        return _from_npz(file)
    content = read_json(file, MOST_BYTES)
    if isinstance(content, dict) and "format" in content:
        written = read_artifacts(file)
        claims = [Artifact(one.nonce, one.vector_b64) for one in written.artifacts]
        told = _Round.model_validate(written.round.model_dump())
        return (from_artifacts(file.stem, claims, round=told.given()),)
    try:
        whole = _Body.model_validate({"artifacts": content} if isinstance(content, list) else content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{file} is no artifact set: {where}: {first['msg']}") from None
    artifacts = [Artifact(one.nonce, one.vector_b64) for one in whole.artifacts]
    return (from_artifacts(file.stem, artifacts, round=whole.given()),)


def from_artifacts(name: str, artifacts: Sequence[Artifact], round: tuple[tuple[str, str], ...] = ()) -> ArtifactSet:
    """A set from encoded artifacts; k is that of the first vector. Raises ConfigError that names the faulty nonce."""
    if not artifacts:
        raise ConfigError(f"the set {name!r} is empty: it holds no artifact")
    k = len(artifacts[0].vector_b64.rstrip("=")) * 3 // 4 // 2
    vectors = []
    for one in artifacts:
        vector = read(one.vector_b64, k)
        if isinstance(vector, str):
            raise ConfigError(f"in the set {name!r} the vector of nonce {one.nonce} is {vector} (k is {k})")
        vectors.append(vector)
    return _checked(name, np.array([one.nonce for one in artifacts], dtype=np.int64), np.stack(vectors), round)


def chosen(sets: Sequence[ArtifactSet], patterns: Sequence[str], option: str) -> tuple[ArtifactSet, ...]:
    """The sets whose names match. Raises ConfigError where a pattern matches none."""
    for pattern in patterns:
        if not any(one.matches([pattern]) for one in sets):
            there = ", ".join(one.name for one in sets)
            raise ConfigError(f"{option} {pattern!r} matches no set: the files hold {there}")
    return tuple(one for one in sets if one.matches(patterns))


def _from_npz(file: Path) -> tuple[ArtifactSet, ...]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            content: dict[str, Any] = {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file} is no .npz of arrays: {error}") from None
    names = [key.removesuffix("|vectors") for key in content if key.endswith("|vectors")]
    lone = sorted(set(content) - {f"{name}|{part}" for name in names for part in ("nonces", "vectors")})
    if not names or lone:
        held = ", ".join(lone[:3]) or "nothing"
        raise ConfigError(f"{file} holds {held} where pairs of NAME|nonces and NAME|vectors are expected")
    found = []
    for name in names:
        nonces, vectors = content.get(f"{name}|nonces"), content[f"{name}|vectors"]
        if nonces is None or nonces.dtype.kind not in "iu" or vectors.dtype.kind != "f":
            raise ConfigError(f"{file}: {name}|nonces must be whole numbers and {name}|vectors floats")
        found.append(_checked(name, nonces.astype(np.int64), vectors.astype(np.float16), ()))
    return tuple(found)


def _checked(name: str, nonces: np.ndarray, vectors: np.ndarray, round: tuple[tuple[str, str], ...]) -> ArtifactSet:
    """The set, sorted. Raises ConfigError for shapes that do not fit, a nonce that stands twice, a bad vector."""
    if nonces.ndim != 1 or vectors.ndim != 2 or len(nonces) != len(vectors) or not len(nonces):
        raise ConfigError(
            f"the set {name!r} has nonces {nonces.shape} and vectors {vectors.shape}: give [n] and [n, k]"
        )
    order = np.argsort(nonces, kind="stable")
    nonces, vectors = nonces[order], vectors[order]
    same = np.flatnonzero(nonces[1:] == nonces[:-1])
    if len(same):
        raise ConfigError(f"the set {name!r} holds nonce {nonces[same[0]]} more than once")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= UNIT_TOLERANCE))  # written so that a NaN counts as bad
    if len(bad):
        raise ConfigError(
            f"in the set {name!r} the vector of nonce {nonces[bad[0]]} has norm {norms[bad[0]]:.4g}: a proof's is 1"
        )
    return ArtifactSet(name, nonces, vectors, round)

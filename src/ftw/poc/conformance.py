"""Conformance: recomputes a file of reference vectors, every field and without a model, and names what differs first.

`python -m ftw.poc.conformance FILE [--json]` is for people who port the protocol: write what your code computes in the
format of `tests/data/poc/poc_reference_vectors.json` and see where it first departs. Exit codes: 0 all equal, 1 a value
differs, 2 the file cannot be compared (not JSON, a field unknown, missing or of another type, a size out of bounds).

A file is a list of groups; a group has seven parameters and ten fields that follow from them:

- `block_hash`, `public_key`, `nonces`, `hidden_size`, `seq_len`, `k_dim`, `poc_stronger_rng`
- `input_seeds`: the 32-bit seed per nonce. `input_first8`, `input_last4`, `input_sum`: of its flattened inputs.
- `pick_set`, `pick_order`: the picked dimensions, ascending and as used. `readout_of_last_input_row`: the vector, when
  the last input row stands for the last hidden state. `artifact_b64`: that vector as it travels.
- `layer_vectors_first6`: the first numbers of the reflections after blocks 0, 1, 2. `target64_first8`: of the target.

Integers and artifacts must be equal, floats within 1e-6 (`input_sum` within 1e-4: it adds thousands). The rule of the
file: every field is recomputed, none is skipped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from ftw.poc.codec import encode
from ftw.poc.inputs import input_embeddings
from ftw.poc.profiles import ARTIFACT_K12
from ftw.poc.readout import pick, readout, target
from ftw.poc.reflections import layer_vectors
from ftw.poc.seeds import SeedStrings, seed32
from ftw.substrate.canonical import read_json
from ftw.substrate.config import Strict
from ftw.substrate.errors import ConfigError, FtwError

MOST_BYTES = 64 << 20
MOST_GROUPS = 1000
MOST_NUMBERS = 1 << 25
"""Input numbers of one group, nonces x seq_len x hidden_size, that are computed at most."""
TOLERANCE = 1e-6
SUM_TOLERANCE = 1e-4
FAR = 1e300
"""A whole number beyond this, which JSON may hold, does not fit into a float."""
LAYERS, LAYER_FIRST, TARGET_K, TARGET_FIRST = 3, 6, 64, 8
FIELDS = (
    "input_seeds", "input_first8", "input_last4", "input_sum", "pick_set", "pick_order", "readout_of_last_input_row",
    "artifact_b64", "layer_vectors_first6", "target64_first8",
)  # fmt: skip
"""The fields of a group that are recomputed, in the order in which they depend on each other."""


class Parameters(Strict):
    """What all other fields of a group follow from."""

    model_config = ConfigDict(strict=True)

    block_hash: Annotated[str, Field(max_length=4096)]
    public_key: Annotated[str, Field(max_length=4096)]
    nonces: Annotated[tuple[Annotated[int, Field(ge=-(1 << 62), le=1 << 62)], ...], Field(strict=False, min_length=1)]
    hidden_size: Annotated[int, Field(ge=2, le=1 << 20)]
    seq_len: Annotated[int, Field(ge=1, le=1 << 20)]
    k_dim: Annotated[int, Field(ge=2, le=1 << 12)]
    poc_stronger_rng: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a file first departs."""

    path: str
    """As `[group].field[nonce][number]`, all from 0 on."""
    expected: Any
    """What this implementation computes."""
    got: Any
    """What the file says."""
    tolerance: float
    """How far apart they might have been: 0 for what must be equal."""

    def __str__(self) -> str:
        near = f" (within {self.tolerance:g})" if self.tolerance else ""
        return f"{self.path}: expected {self.expected!r}{near}, got {self.got!r}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a comparison found."""

    groups: int
    values: int
    """Numbers and texts that were compared until the first difference."""
    difference: Difference | None


def compare(content: Any, source: str = "the vectors") -> Report:
    """Recomputes every group and compares every field.

    Raises ConfigError for what cannot be compared, naming the path: a field that is unknown, missing or of another
    type, parameters out of bounds.
    """
    if not isinstance(content, list) or not 1 <= len(content) <= MOST_GROUPS:
        raise ConfigError(f"{source} must be a list of 1 to {MOST_GROUPS} groups")
    values = 0
    for at, group in enumerate(content):
        parameters = _parameters(group, f"{source}: [{at}]")
        expected = recompute(parameters)
        for name in FIELDS:
            tolerance = SUM_TOLERANCE if name == "input_sum" else TOLERANCE
            counted, found = _compare(expected[name], group[name], f"[{at}].{name}", tolerance, source)
            values += counted
            if found is not None:
                return Report(len(content), values, found)
    return Report(len(content), values, None)


def recompute(group: Parameters) -> dict[str, Any]:
    """The fields of a group from its parameters, as plain JSON values. On the CPU, in fp32."""
    strings = SeedStrings(group.block_hash, group.public_key)
    k, nonces = group.k_dim, group.nonces
    x = input_embeddings(strings, nonces, group.seq_len, group.hidden_size, stronger=group.poc_stronger_rng)
    flat = x.flatten(1)
    order = pick(strings, nonces, group.hidden_size, k, ARTIFACT_K12)
    vectors = readout(x[:, -1], strings, nonces, ARTIFACT_K12, k)
    return {
        "input_seeds": [seed32(strings.inputs(nonce)) for nonce in nonces],
        "input_first8": flat[:, :8].tolist(),
        "input_last4": flat[:, -4:].tolist(),
        "input_sum": flat.double().sum(1).tolist(),
        "pick_set": order.sort(dim=-1).values.tolist(),
        "pick_order": order.tolist(),
        "readout_of_last_input_row": vectors.tolist(),
        "artifact_b64": encode(vectors.half()),
        "layer_vectors_first6": layer_vectors(group.block_hash, LAYERS, group.hidden_size)[:, :LAYER_FIRST].tolist(),
        "target64_first8": target(strings, TARGET_K)[:TARGET_FIRST].tolist(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Gives the exit code; the result goes to stdout, what cannot be compared to stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m ftw.poc.conformance",
        description="Recompute a file of proof-of-compute reference vectors and name the first difference.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="vectors as poc_reference_vectors.json has them")
    parser.add_argument("--json", action="store_true", help="answer with one JSON document")
    asked = parser.parse_args(argv)
    try:
        report = compare(read_json(asked.file, MOST_BYTES), str(asked.file))
    except FtwError as error:
        sys.stderr.write(f"conformance: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(_document(report) if asked.json else _sentence(report))
    return 0 if report.difference is None else 1


def _parameters(group: Any, where: str) -> Parameters:
    """The parameters of a group whose fields are all there, and bounded. Raises ConfigError."""
    if not isinstance(group, dict):
        raise ConfigError(f"{where} must be an object")
    names = {*Parameters.model_fields, *FIELDS}
    unknown, missing = sorted(set(group) - names), sorted(names - set(group))
    if unknown:
        raise ConfigError(f"{where}.{unknown[0][:60]} is no known field; known are {', '.join(sorted(names))}")
    if missing:
        raise ConfigError(f"{where}.{missing[0]} is missing: every field is compared, none is optional")
    found = Parameters.read({name: group[name] for name in Parameters.model_fields}, source=where)
    if found.k_dim > found.hidden_size:
        raise ConfigError(f"{where}.k_dim is {found.k_dim}, hidden_size is {found.hidden_size}: k is at most that")
    numbers = len(found.nonces) * found.seq_len * found.hidden_size
    if numbers > MOST_NUMBERS:
        raise ConfigError(
            f"{where} asks for {numbers} input numbers, and at most {MOST_NUMBERS} are computed: split the group"
        )
    return found


def _compare(expected: Any, got: Any, path: str, tolerance: float, source: str) -> tuple[int, Difference | None]:
    """How many values were compared, and the first difference. Raises ConfigError for a value of another type."""
    if isinstance(expected, list):
        if not isinstance(got, list):
            raise ConfigError(f"{source}: {path} is {_kind(got)}, expected is a list of {len(expected)}")
        counted = 0
        for at, (ours, theirs) in enumerate(zip(expected, got, strict=False)):
            inner, found = _compare(ours, theirs, f"{path}[{at}]", tolerance, source)
            counted += inner
            if found is not None:
                return counted, found
        if len(expected) != len(got):
            return counted, Difference(f"{path} (length)", len(expected), len(got), 0.0)
        return counted, None
    wanted = (int, float) if isinstance(expected, float) else type(expected)
    if not isinstance(got, wanted) or isinstance(got, bool):
        raise ConfigError(f"{source}: {path} is {_kind(got)}, expected is {_kind(expected)}")
    allowed = tolerance if isinstance(expected, float) else 0.0
    is_near = isinstance(expected, float) and abs(got) < FAR and abs(expected - got) <= allowed
    same = is_near or (not allowed and expected == got)
    return 1, None if same else Difference(path, expected, got, allowed)


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", str: "a text", bool: "a truth value", int: "a whole number"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _sentence(report: Report) -> str:
    if report.difference is not None:
        return f"differs at {report.difference}\n"
    groups = "1 group" if report.groups == 1 else f"{report.groups} groups"
    return f"{groups}, {report.values} values: all equal\n"


def _document(report: Report) -> str:
    return json.dumps({"conforms": report.difference is None, **asdict(report)}, allow_nan=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())

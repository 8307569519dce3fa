"""The form in which a vector travels: k IEEE binary16 numbers, little-endian, in standard base64.

The rule of the file: decoding trusts nothing. What is not exactly k finite numbers of unit norm has a named fault.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float16
from torch import Tensor

from ftw.substrate.errors import NumericError, ProofError

Fault = Literal["missing", "empty", "undecodable", "short", "long", "non-finite", "non-unit"]
"""Why a text is no vector: no text; an empty one; not strict base64 (foreign characters, wrong padding, spare bits);
too few or too many bytes for k numbers; a NaN or an infinity; a norm that rounding to binary16 does not explain."""

UNIT_TOLERANCE = 2e-3
"""How far from 1 a norm may lie. Rounding to binary16 moves it by less than 5e-4."""

Half = Float16[np.ndarray, " k"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A nonce and the vector that it gave, encoded."""

    nonce: int
    vector_b64: str


def encode(vectors: Float16[Tensor, "row k"]) -> list[str]:
    """The base64 text of each row. Raises NumericError for a row that is not finite."""
    halves = vectors.cpu().numpy().astype("<f2")
    if not np.isfinite(halves).all():
        raise NumericError("a vector holds a NaN or an infinity: it proves nothing and is not encoded")
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in halves]


def read(text: str | None, k: int) -> Half | Fault:
    """The k numbers in `text`, or the name of what is wrong with it. Never raises: a bad text is a finding."""
    if text is None:
        return "missing"
    if not text:
        return "empty"
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return "undecodable"
    if base64.b64encode(data).decode("ascii") != text:  # spare bits set: two texts for one vector
        return "undecodable"
    if len(data) != 2 * k:
        return "short" if len(data) < 2 * k else "long"
    halves = np.frombuffer(data, dtype="<f2").astype(np.float16)
    if not np.isfinite(halves).all():
        return "non-finite"
    if abs(float(np.linalg.norm(halves.astype(np.float64))) - 1.0) > UNIT_TOLERANCE:
        return "non-unit"
    return halves


def decode(text: str, k: int) -> Half:
    """The k numbers in `text`. Raises ProofError that names the fault."""
    found = read(text, k)
    if isinstance(found, str):
        raise ProofError(f"this is no vector of {k} binary16 numbers in base64: it is {found}")
    return found

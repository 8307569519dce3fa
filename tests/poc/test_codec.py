"""A vector survives its text to the last bit; everything else has a named fault."""

import base64

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.poc.codec import decode, encode, read
from ftw.substrate.errors import NumericError, ProofError


def text_of(values, dtype="<f2"):
    return base64.b64encode(np.asarray(values, dtype).tobytes()).decode()


UNIT = [0.6, 0.8, 0.0, 0.0]


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=12, max_size=12).filter(lambda v: np.linalg.norm(v) > 0.1))
def test_decode_of_encode_is_the_identity(values):
    vector = torch.nn.functional.normalize(torch.tensor([values]), dim=-1).half()
    [text] = encode(vector)
    assert len(text) == 32
    assert decode(text, 12).tobytes() == vector.numpy().tobytes()


@settings(deadline=None)
@given(st.text(max_size=40))
def test_reading_never_raises(text):
    assert isinstance(read(text, 4), str | np.ndarray)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_whatever_reads_as_a_vector_is_one(data):
    found = read(base64.b64encode(data).decode(), 4)
    if not isinstance(found, str):
        assert found.shape == (4,)
        assert abs(np.linalg.norm(found.astype(float)) - 1) < 3e-3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "missing"),
        ("", "empty"),
        ("no base64!", "undecodable"),
        ("AAA", "undecodable"),
        ("zwölf", "undecodable"),
        (text_of(UNIT) + "\n", "undecodable"),
        (text_of(UNIT)[:-2] + "B=", "undecodable"),
        (text_of(UNIT[:3]), "short"),
        (base64.b64encode(b"\0" * 7).decode(), "short"),
        (text_of([*UNIT, 0.0]), "long"),
        (text_of([float("nan"), 1, 0, 0]), "non-finite"),
        (text_of([float("inf"), 0, 0, 0]), "non-finite"),
        (text_of([0, 0, 0, 0]), "non-unit"),
        (text_of([0.6, 0.8, 0.2, 0]), "non-unit"),
    ],
)
def test_every_fault_has_its_name(text, fault):
    assert read(text, 4) == fault


def test_spare_bits_make_a_text_undecodable():
    text = base64.b64encode(b"\0" * 8).decode()  # ends in "A="
    assert read(text[:-2] + "B=", 4) == "undecodable"


def test_decode_names_the_fault():
    with pytest.raises(ProofError, match="it is short"):
        decode(text_of(UNIT[:2]), 4)


def test_a_vector_that_is_not_finite_is_not_encoded():
    with pytest.raises(NumericError, match="proves nothing"):
        encode(torch.tensor([[float("nan"), 0.0]]).half())


def test_numbers_travel_little_endian():
    assert encode(torch.tensor([[1.0, 0.0]]).half()) == [base64.b64encode(b"\x00\x3c\x00\x00").decode()]

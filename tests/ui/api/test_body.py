"""Properties of reading bodies: JSON comes through as it is, and no unknown key does."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ftw.ui.api.answers import AT_ONCE, pieces
from ftw.ui.api.body import parse, schema
from ftw.ui.api.wire import GenerateRequest, InitRequest
from tests.ui.api.conftest import body


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**30), 10**30)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_whatever_is_json_is_read_as_it_is(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1), st.sampled_from([InitRequest, GenerateRequest]))
def test_no_unknown_key_passes(key: str, model: type[InitRequest]) -> None:
    sent = body() | ({"nonces": []} if model is GenerateRequest else {})
    if key in model.model_fields:
        return
    with pytest.raises(ValidationError) as refused:
        model.model_validate(sent | {key: 0}, strict=True)
    assert (key,) in [error["loc"] for error in refused.value.errors()]


@given(st.dictionaries(st.text(), st.integers() | st.lists(st.integers(), max_size=3) | st.text(), max_size=3))
def test_an_answer_written_in_pieces_is_the_same_json(answer: dict[str, Any]) -> None:
    long = answer | {"list": list(range(2 * AT_ONCE + 1))}
    assert json.loads(pieces(long)) == long


def test_a_schema_has_no_references_to_elsewhere() -> None:
    assert "$ref" not in json.dumps(schema(GenerateRequest))
    assert schema(GenerateRequest)["properties"]["params"]["properties"]["k_dim"]["default"] == 12

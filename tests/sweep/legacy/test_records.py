"""Records of the legacy files: their keys, their best tokens, and what those leave over."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftw.sweep.legacy.records import NEXT, cells, make_pure_record, make_record, pack_topk, rest_mass

TAGS = {"prompt_id": "pos", "prompt_variant": "orig", "layer": 3, "pos": 7}


def test_a_record_has_its_tags_its_entropy_and_its_best_tokens() -> None:
    record = make_record(**TAGS, token=" the", entropy=1.5, tokens=["a", "b"], probs=[0.5, 0.25], extra={"more": 1})
    assert record == {
        "type": "record",
        **TAGS,
        "token": " the",
        "entropy": 1.5,
        "entropy_bits": 1.5,
        "topk": [["a", 0.5], ["b", 0.25]],
        "more": 1,
    }


def test_a_pure_record_stands_for_the_next_token() -> None:
    record = make_pure_record(**TAGS, entropy=1.5, tokens=["a"], probs=[1.0])
    assert record["type"] == "pure_next_token_record"
    assert record["token"] == NEXT == "⟨NEXT⟩"
    assert "entropy_bits" not in record


@pytest.mark.parametrize("probs", [[0.5, 0.25], torch.tensor([0.5, 0.25]), np.array([0.5, 0.25], dtype=np.float32)])
def test_probabilities_of_any_kind_become_python_numbers(probs: object) -> None:
    packed = pack_topk(["a", "b"], probs)  # type: ignore[arg-type]
    assert packed == [["a", 0.5], ["b", 0.25]]
    assert all(type(prob) is float for _, prob in packed)


def test_the_shorter_of_tokens_and_probabilities_ends_the_list() -> None:
    assert pack_topk(["a", "b"], [0.5]) == [["a", 0.5]]
    assert pack_topk(["a"], [0.5, 0.25]) == [["a", 0.5]]


@given(st.lists(st.floats(0, 1, allow_nan=False), max_size=30))
def test_rest_mass_is_a_probability(probs: list[float]) -> None:
    assert 0 <= rest_mass([["x", prob] for prob in probs]) <= 1


def test_cells_hold_at_most_twenty_tokens_and_the_rest_of_those() -> None:
    record = make_pure_record(**TAGS, entropy=0.0, tokens=["t"] * 30, probs=[1 / 40] * 30)
    row = cells(record)
    assert row["prob20"] == 1 / 40
    assert "top21" not in row
    assert row["rest_mass"] == pytest.approx(0.5)
    assert "topk" not in row


def test_a_row_without_tokens_has_no_rest() -> None:
    assert cells(make_pure_record(**TAGS, entropy=None, tokens=[], probs=[]))["rest_mass"] is None

import numpy as np
import pytest

from tools.reference_model.corpus import Document
from tools.reference_model.packing import hold_out, pack, pack_by_length, plan

PAD = 0


def test_held_out_copies_of_training_documents_are_removed() -> None:
    docs = [Document("a", "copy"), Document("a", "copy"), Document("a", "other"), Document("a", "fresh")]
    train, held, dropped = hold_out(docs, 3)
    assert [d.text for d in train] == ["copy", "other"]
    assert [d.text for d in held] == ["fresh"]
    assert dropped == 1


def test_packing_keeps_every_document_whole() -> None:
    rng = np.random.default_rng(0)
    codes = [[1, *rng.integers(3, 50, rng.integers(1, 12)).tolist(), 2] for _ in range(200)]
    rows = [[t for t in row if t != PAD] for row in pack(codes, 16, PAD).ids.tolist()]
    found = []
    for row in rows:
        for token in row:
            if token == 1:
                found.append([])
            found[-1].append(token)
    assert sorted(found) == sorted(codes)


def test_a_document_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="5 tokens does not fit a window of 4"):
        pack([[1, 2, 3, 4, 5]], 4, PAD)


def test_long_documents_go_to_long_windows() -> None:
    short, long = pack_by_length([[1] * 3, [1] * 9] * 40, 4, 8, PAD, seed=0)
    assert short.ids.shape[1] == 4
    assert long.ids.shape[1] == 8
    assert (long.ids != PAD).sum() >= 40 * 8


def test_long_steps_are_spread_in_proportion() -> None:
    steps = plan(n_short=800, n_long=50, rows_short=16, rows_long=8, steps=900)
    assert sum(steps) == pytest.approx(100, abs=1)
    assert sum(steps[:450]) == pytest.approx(50, abs=1)

"""Rows come from the corpus's windows in full chunks, never from position 0, and are counted."""

import random
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model, load
from ftw.sweep import forward
from ftw.sweep.fitting.corpus import Corpus
from ftw.sweep.fitting.rows import Rows, heldout_rows


@pytest.fixture(scope="module")
def model() -> Model:
    return load("tiny")


def texts(n: int = 60) -> Corpus:
    rng = random.Random(1)
    return Corpus.of(["".join(rng.choice("abcdef ") for _ in range(rng.randint(8, 40))) for _ in range(n)], "made up")


def rows(model: Model, seed: int = 0, **changes: float) -> Rows:
    how = {"rows": 32, "length": 24, "share": 0.5, **changes}
    return Rows(model, texts(), rows=int(how["rows"]), length=int(how["length"]), share=how["share"], seed=seed)


def states_at(model: Model, part: str, pos: slice) -> Tensor:
    """Every state of a part at some positions, [row, d], of the last layer: no two are alike."""
    whole = texts().windows(model, 1 << 40, 24, part=part)  # type: ignore[arg-type]
    windows = [window for window in whole if range(len(window))[pos]]
    where = [list(range(len(window)))[pos] for window in windows]
    return forward.read(model, windows, positions=where).states[-1]  # type: ignore[arg-type]


def among(a: Tensor, b: Tensor) -> Tensor:
    """For each row of a whether it is one of b's, up to the rounding of another batch."""
    return torch.cdist(a.double(), b.double()).amin(1) < 1e-4


def test_chunks_have_exactly_so_many_rows_at_every_layer_and_are_counted(model: Model) -> None:
    stream = rows(model)
    chunks = list(islice(stream, 5))
    assert [tuple(chunk.shape) for chunk in chunks] == [(5, 32, 32)] * 5
    assert stream.n_positions == 160
    assert not chunks[0].is_inference()


def test_all_rows_are_of_the_fit_part_and_none_is_a_windows_first(model: Model) -> None:
    found = torch.cat(list(islice(rows(model), 8)), 1)[-1]
    assert bool(among(found, states_at(model, "fit", slice(1, None))).all())
    assert not bool(among(found, states_at(model, "fit", slice(0, 1))).any())
    assert not bool(among(found, states_at(model, "heldout", slice(9, None))).any())  # nine letters tell texts apart


def test_it_goes_over_the_corpus_again_with_other_positions(model: Model) -> None:
    stream = rows(model)
    first = next(stream)
    while stream.n_passes < 2:
        next(stream)
    digest, windows = stream.digest, stream.n_windows
    again = [next(stream) for _ in range(4)]
    assert not any(torch.equal(first, chunk) for chunk in again)
    assert stream.digest == digest
    assert stream.n_windows > windows


def test_the_same_seed_gives_the_same_rows_and_another_one_others(model: Model) -> None:
    a, b, c = (torch.cat(list(islice(rows(model, seed), 3)), 1) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_held_out_halves_share_no_window_and_nothing_with_the_fit(model: Model) -> None:
    first, second, digest = heldout_rows(model, texts(), 60, length=24, share=1.0, seed=0)
    assert len(digest) == 64
    assert first.shape[1] > 5
    assert second.shape[1] > 5
    own = states_at(model, "heldout", slice(1, None))
    assert bool(among(first[-1], own).all())
    assert bool(among(second[-1], own).all())
    assert not bool(among(first[-1], second[-1]).any())


def test_too_little_held_out_text_is_an_error(model: Model) -> None:
    some = list(texts().documents("fit"))
    one = next(text for text in texts().documents("heldout") if len(text) < 20)
    with pytest.raises(ConfigError, match="holds out 1 windows: too few to judge a lens by"):
        heldout_rows(model, Corpus.of([*some, one], "made up"), 60, length=24, share=1.0, seed=0)


def test_a_state_that_is_not_finite_is_an_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> object:
        for part in batches(*args, **kwargs):  # type: ignore[arg-type]
            states = part.states.clone()
            states[2, 0, 0] = torch.nan
            yield replace(part, states=states)

    batches = forward.batches
    monkeypatch.setattr("ftw.sweep.forward.batches", broken)
    with pytest.raises(NumericError, match=r"tiny has a NaN or infinity in the stream at \d+ of \d+ positions"):
        next(rows(model))

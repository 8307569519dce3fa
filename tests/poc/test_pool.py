"""Pieces are each done once, on any number of threads, and an error of one is the caller's."""

import threading

import pytest
import torch

from ftw.poc.pool import each


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_piece_is_done_once(threads):
    done = []
    each(done.append, list(range(17)), threads=threads)
    assert sorted(done) == list(range(17))


def test_nothing_to_do_is_done():
    each(pytest.fail, [], threads=4)


def test_an_error_in_another_thread_is_raised_here():
    def work(piece):
        if piece == 1:
            raise ValueError("piece 1")

    with pytest.raises(ValueError, match="piece 1"):
        each(work, [0, 1, 2], threads=2)


def test_inference_mode_goes_along_and_no_thread_is_left():
    seen = []
    before = threading.active_count()
    with torch.inference_mode():
        each(lambda _piece: seen.append(torch.is_inference_mode_enabled()), [0, 1, 2, 3], threads=2)
    each(lambda _piece: seen.append(torch.is_inference_mode_enabled()), [0, 1], threads=2)
    assert seen == [True] * 4 + [False] * 2
    assert threading.active_count() == before

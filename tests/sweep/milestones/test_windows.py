"""Depth windows: buffers layer by layer, and the same over a whole table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError
from ftw.sweep.milestones.windows import WindowKey, WindowManager, is_passage
from tests.sweep.milestones.tables import fact, peaked, table_of

HERE = WindowKey("logit", "p", "orig")


def test_a_buffer_keeps_the_newest_and_no_more_than_the_longest_window() -> None:
    windows = WindowManager(1, [3, 2])
    assert windows.window_ks == (1, 2, 3)
    assert [windows.append_and_trim(HERE, token) for token in (7, 8, 9, 4)] == [[7], [7, 8], [7, 8, 9], [8, 9, 4]]
    assert windows.get_window(HERE, 2) == [9, 4]
    assert windows.get_window(HERE, 0) == [4]
    assert windows.get_window(HERE, 9) == [8, 9, 4]


def test_what_is_given_out_is_a_copy() -> None:
    windows = WindowManager(2)
    windows.append_and_trim(HERE, 7).append(99)
    assert windows.get_window(HERE, 2) == [7]


def test_lenses_prompts_and_variants_do_not_share_windows() -> None:
    windows = WindowManager(2)
    others = [WindowKey("raw", "p", "orig"), WindowKey("logit", "q", "orig"), WindowKey("logit", "p", "no_filler")]
    for token, key in enumerate([HERE, *others]):
        windows.append_and_trim(key, token)
    assert [windows.get_window(key, 2) for key in (HERE, *others)] == [[0], [1], [2], [3]]


def test_reset_clears_every_lens_of_one_prompts_variant() -> None:
    windows = WindowManager(1)
    keys = [HERE, WindowKey("raw", "p", "orig"), WindowKey("logit", "p", "no_filler"), WindowKey("logit", "q", "orig")]
    for key in keys:
        windows.append_and_trim(key, 7)
    windows.reset_variant("p", "orig")
    assert [windows.get_window(key, 1) for key in keys] == [[], [], [7], [7]]


def test_a_window_of_no_layer_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"windows \[1, 0\] hold one below 1"):
        WindowManager(1, [0])
    with pytest.raises(ConfigError, match="a window of 0 layers holds nothing"):
        is_passage(table_of({"logit": peaked(8, [1, 2], 0.9)[None]}), 0)


@settings(max_examples=60)
@given(
    ids=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    tops=st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=2, max_size=3),
    special=st.sets(st.integers(0, 4), max_size=2),
    window=st.integers(1, 4),
)
def test_a_whole_table_gives_what_a_window_over_each_lens_gives(
    ids: list[int], tops: list[list[int]], special: set[int], window: int
) -> None:
    lenses = {f"lens{at}": peaked(8, top, 0.9)[None] for at, top in enumerate(tops)}
    table = table_of(lenses, [fact(ids=ids)], special=sorted(special))
    windows, expected = WindowManager(window), []
    for lens, top in zip(lenses, tops, strict=True):
        for token in top:
            windows.append_and_trim(WindowKey(lens, "p", "orig"), token)
            mine = windows.get_window(WindowKey(lens, "p", "orig"), window)
            passages = [ids[at : at + window] for at in range(len(ids) - window + 1)]
            expected.append(len(mine) == window and mine in passages and not special & set(mine))
    assert is_passage(table, window).tolist() == expected


def test_at_a_position_the_prompt_counts_up_to_there() -> None:
    table = table_of({"logit": peaked(8, [3, 2, 1], 0.9)[None]}, [fact(ids=(1, 2, 3))])
    table.columns["pos"][:] = 1
    assert is_passage(table, 1).tolist() == [False, True, True]


def test_an_empty_table_has_no_passages() -> None:
    table = table_of({"logit": peaked(8, [3, 2, 1], 0.9)[None]}).where(layer=7)
    assert is_passage(table, 2).tolist() == []


def test_a_prompt_of_special_tokens_only_has_no_passages() -> None:
    table = table_of({"logit": peaked(8, [1, 1], 0.9)[None]}, [fact(ids=(1, 1))], special=[1])
    assert not is_passage(table, 1).any()
    assert not is_passage(table, 2).any()


def test_long_windows_of_long_prompts_do_not_overflow() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30, 400).tolist()
    table = table_of({"logit": peaked(32, ids[100:140], 0.9)[None]}, [fact(ids=ids)])
    assert is_passage(table, 30).tolist() == [False] * 29 + [True] * 11

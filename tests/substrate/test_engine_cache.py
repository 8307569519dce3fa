"""The slot cache: rows join and leave, and every row finds its own keys, values and mask."""

import random

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from ftw.substrate import engine_cache
from ftw.substrate.engine_cache import SlotCache

HEADS, WIDTH = 2, 3


def prompt(lengths: list[int], value: int) -> tuple[DynamicCache, list[Tensor]]:
    """A prefilled cache of two layers, padded on the left with -1, and each row's keys [head, pos, d]."""
    longest = max(lengths)
    rows = [torch.rand(HEADS, length, WIDTH) + value + i for i, length in enumerate(lengths)]
    keys = torch.full((len(rows), HEADS, longest, WIDTH), -1.0)
    for row, own in enumerate(rows):
        keys[row, :, longest - own.shape[1] :] = own
    cache = DynamicCache()
    cache.update(keys, -keys, 0)
    cache.update(keys * 2, -keys * 2, 1)
    return cache, rows


def step(cache: SlotCache, value: float) -> tuple[Tensor, Tensor]:
    """One single-token pass: what layer 1 sees of keys, and the new column."""
    cache.reserve()
    new = torch.full((cache.rows, HEADS, 1, WIDTH), value) + torch.arange(cache.rows)[:, None, None, None]
    cache.update(new, -new, 0)
    keys, values = cache.update(new * 2, -new * 2, 1)
    assert torch.equal(values, -keys)
    return keys, new


def check(cache: SlotCache, rows: list[Tensor], keys: Tensor, mask: Tensor | None) -> None:
    """Every row sees its own columns and no others."""
    for row, own in enumerate(rows):
        length = own.shape[1]
        assert torch.equal(keys[row, :, keys.shape[2] - length :], own * 2)
        if mask is None:
            assert keys.shape[2] == length
        else:
            visible = mask[row, 0, 0] == 0
            assert visible.tolist() == [False] * (keys.shape[2] - length) + [True] * length
            assert mask[row, 0, 0, ~visible].tolist() == [torch.finfo(mask.dtype).min] * int((~visible).sum())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("hint", [None, (4, 8)])
def test_rows_keep_their_columns_through_any_joining_and_leaving(
    seed: int, hint: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_cache, "_COLUMNS", 4)  # so that growing and moving happen often
    rng = random.Random(seed)
    cache, rows = SlotCache([None, None]), []
    for turn in range(60):
        if hint is not None:
            cache.expect(*hint)
        if not rows or rng.random() < 0.2:
            prefilled, new = prompt([rng.randrange(1, 12) for _ in range(rng.randrange(1, 4))], 10 * turn)
            cache.join(prefilled, [own.shape[1] for own in new])
            rows += new
        elif rng.random() < 0.25:
            row = rng.randrange(len(rows))
            cache.leave(row, wipe=rng.random() < 0.5)
            rows[row] = rows[-1]
            rows.pop()
        else:
            mask = cache.mask()
            assert cache.lengths == [own.shape[1] for own in rows] == cache.positions[:, 0].tolist()
            cache.reserve()
            mask = cache.mask()
            keys, new_column = step(cache, 0.5 * turn)
            cache.tick()
            rows = [torch.cat([own, new_column[row]], 1) for row, own in enumerate(rows)]
            check(cache, rows, keys, mask)
            assert (mask is None) == cache.is_even


def test_a_window_sees_the_last_columns_only_and_masks_them_right() -> None:
    cache = SlotCache([None, 4])
    prefilled, rows = prompt([6, 2], 0)
    cache.join(prefilled, [6, 2])
    assert cache.get_mask_sizes(1, 1) == (4, 3)
    assert cache.get_mask_sizes(1, 0) == (7, 0)
    mask = cache.mask(4)
    keys, new = step(cache, 1.0)
    assert keys.shape[2] == 4
    assert mask is not None
    assert (mask[:, 0, 0] == 0).tolist() == [[True] * 4, [False, True, True, True]]
    assert torch.equal(keys[0], torch.cat([rows[0][:, -3:], new[0]], 1) * 2)
    cache.tick()
    assert cache.mask(4) is None
    assert cache.mask() is not None


def test_a_pass_that_broke_off_is_repeated_without_a_trace() -> None:
    cache = SlotCache([None, None])
    prefilled, rows = prompt([3], 0)
    cache.join(prefilled, [3])
    step(cache, 7.0)  # no tick: the pass was not completed
    keys, new = step(cache, 8.0)
    assert torch.equal(keys[0], torch.cat([rows[0], new[0]], 1) * 2)


def test_a_nan_of_a_row_that_left_is_wiped() -> None:
    cache = SlotCache([None, None])
    prefilled, _ = prompt([5], 0)
    cache.join(prefilled, [5])
    cache.reserve()
    bad = torch.full((1, HEADS, 1, WIDTH), float("nan"))
    for layer in (0, 1):
        cache.update(bad, bad, layer)
    cache.tick()
    cache.leave(0, wipe=True)
    prefilled, _ = prompt([1, 4], 0)
    cache.join(prefilled, [1, 4])
    assert all(layer.keys.isfinite().all() and layer.values.isfinite().all() for layer in cache.slots)


def test_buffers_made_in_inference_mode_can_be_used_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "_COLUMNS", 1)
    cache = SlotCache([None, None])
    with torch.inference_mode():
        prefilled, _ = prompt([2, 3], 0)
    cache.join(prefilled, [2, 3])
    with torch.inference_mode():
        for _ in range(4):
            assert cache.positions.shape == (2, 1)
            step(cache, 1.0)
            cache.tick()
    step(cache, 2.0)
    cache.tick()
    cache.leave(0)
    assert cache.lengths == [8]


def test_much_memory_is_given_back_when_the_last_row_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SlotCache([None, None])
    prefilled, _ = prompt([2], 0)
    cache.join(prefilled, [2])
    kept = cache.slots[0].keys
    cache.leave(0)
    assert cache.slots[0].keys is kept
    cache.join(prefilled, [2])
    monkeypatch.setattr(engine_cache, "_KEEP_BYTES", 0)
    cache.leave(0)
    assert cache.slots[0].keys.numel() == 0
    cache.join(prefilled, [2])
    assert cache.lengths == [2]

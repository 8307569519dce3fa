"""The key-value cache of a running batch: slots that requests join and leave between steps, without copies in between.

All rows share one clock. Each decode step writes its keys and values into the same column `now` of every row, so a
step is one slice copy and attention reads one view, however long each row is. A request that joins is copied in so
that it ends at the clock; what lies left of its first token is masked, like left padding in transformers' `generate`.

    column      first             now
    row 0         │ x x x x x x x x │
    row 1         │ . . . x x x x x │      .  masked: the row's text is shorter
    row 2         │ . . . . . . x x │

The rule of the file: every column a row can see holds finite numbers, and `now` moves only after a whole pass. A pass
that was broken off is simply repeated: it writes the same column again.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_COLUMNS = 128
"""Columns that a new or growing cache has to spare."""
_KEEP_BYTES = 256 * 2**20
"""Buffers up to this size stay when the last row has left: fresh memory costs a page fault each 4 KiB."""


class Clock:
    """Where all layers of one cache stand."""

    def __init__(self) -> None:
        self.rows = 0
        self.first = 0
        """The leftmost column that a row still uses."""
        self.now = 0
        """The column that the next token's keys and values go to."""


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One block's keys and values, [slot, head, column, d]. With a window, a step sees its last columns only."""

    keys: Tensor
    values: Tensor

    def __init__(self, clock: Clock, window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.free()
        self.clock = clock
        self.window = window
        self.is_sliding = window is not None

    def free(self) -> None:
        """Give the memory back."""
        self.keys = self.values = torch.empty(0)
        self.is_initialized = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take these buffers."""
        self.keys, self.values = key_states, value_states
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        clock = self.clock
        rows, now = clock.rows, clock.now
        end = now + key_states.shape[-2]
        self.keys[:rows, :, now:end] = key_states
        self.values[:rows, :, now:end] = value_states
        begin = end - self.get_mask_sizes(end - now)[0]
        return self.keys[:rows, :, begin:end], self.values[:rows, :, begin:end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns a pass over `query_length` tokens sees, and how many of the row's it no longer sees."""
        past = self.clock.now - self.clock.first
        seen = past if self.window is None else min(past, self.window - 1)
        return seen + query_length, past - seen

    def get_seq_length(self) -> int:
        return self.clock.now - self.clock.first

    def get_max_length(self) -> int:
        return -1 if self.window is None else self.window


class SlotCache(Cache):
    """The cache of a batch whose rows come and go. Give it to the model as `past_key_values` for single-token passes.

    `windows` has one entry per block: None sees everything, a number slides. The rows stay packed: they are the first
    `rows` slots, and when one leaves, the last one takes its place.
    """

    def __init__(self, windows: Sequence[int | None]) -> None:
        self.clock = Clock()
        self.slots = [SlotLayer(self.clock, window) for window in windows]
        super().__init__(layers=list(self.slots))
        self._starts: list[int] = []
        self._expected = (0, 0)
        self._mask: Tensor | None = None
        self._positions: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many requests are in the cache."""
        return self.clock.rows

    @property
    def lengths(self) -> list[int]:
        """How many tokens of each row are in the cache."""
        return [self.clock.now - start for start in self._starts]

    @property
    def positions(self) -> Int[Tensor, "row 1"]:
        """The position of each row's next token."""
        if self._positions is None:
            device = self.slots[0].keys.device
            with torch.inference_mode(False):
                self._positions = torch.tensor([[length] for length in self.lengths], device=device)
        return self._positions

    @property
    def is_even(self) -> bool:
        """Whether all rows are equally long: then nothing is masked."""
        return all(start == self.clock.first for start in self._starts)

    def mask(self, window: int | None = None) -> Float[Tensor, "row 1 1 column"] | None:
        """What to add to the attention scores of the next single-token pass: 0, or the lowest number where it pads.

        None when no padding is in sight. A view: building it costs nothing per step.
        """
        clock = self.clock
        begin = clock.first if window is None else max(clock.first, clock.now + 1 - window)
        if self._mask is None or all(start <= begin for start in self._starts):
            return None
        return self._mask[: clock.rows, :, :, begin : clock.now + 1]

    def expect(self, rows: int, columns: int) -> None:
        """A hint: so many rows will soon be in the cache, and they will write so many columns. Saves growing."""
        self._expected = rows, columns

    def reserve(self) -> None:
        """Make room for one more column. Call before a pass; cheap unless the buffers are full."""
        clock = self.clock
        capacity = self.slots[0].keys.shape[2]
        if clock.now == capacity:
            needed = clock.now - clock.first + 1
            self._place(first=0, slots=clock.rows, columns=capacity if 2 * needed <= capacity else 2 * capacity)

    def tick(self) -> None:
        """The pass is complete: its column counts."""
        self.clock.now += 1
        if self._positions is not None:
            self._positions.add_(1)

    def join(self, prompt: Cache, lengths: Sequence[int]) -> None:
        """Take over the rows of a prefilled cache, in order. Row i's last `lengths[i]` columns count.

        `prompt` holds every position of its tokens in every layer (a plain DynamicCache), padded on the left.
        """
        clock = self.clock
        old, new = clock.rows, clock.rows + len(lengths)
        width = _filled(prompt)[0].keys.shape[-2]
        slots = max(new, self._expected[0])
        if not old:
            clock.first = clock.now = width
            if self._mask is None or self._mask.shape[0] < new or self._mask.shape[-1] < width:
                self._allocate(prompt, slots, width + max(_COLUMNS, self._expected[1]))
        ahead = max(0, width - clock.now)  # a prompt longer than all that is here: the others move right
        if ahead or self.slots[0].keys.shape[0] < new:
            self._place(first=clock.first + ahead, slots=slots, columns=clock.now + ahead)
        begin = clock.now - width
        for layer, source in zip(self.slots, _filled(prompt), strict=True):
            layer.keys[old:new, :, begin : clock.now] = source.keys
            layer.values[old:new, :, begin : clock.now] = source.values
        clock.rows = new
        self._starts += [clock.now - length for length in lengths]
        self._changed(range(old, new))

    def leave(self, row: int, *, wipe: bool = False) -> None:
        """Free a row; the last row moves into its place. `wipe` when the row may hold NaN, which no mask can hide."""
        clock = self.clock
        last = clock.rows - 1
        for layer in self.slots:
            for buffer in (layer.keys, layer.values):
                if wipe:
                    buffer[row].zero_()
                if row != last:
                    buffer[row, :, clock.first : clock.now] = buffer[last, :, clock.first : clock.now]
        self._starts[row] = self._starts[last]
        self._starts.pop()
        clock.rows = last
        if self._starts:
            self._changed([row] if row != last else [])
        else:
            self._release()

    def _changed(self, rows: Iterable[int]) -> None:
        """Rows were put in, taken out or moved: the left edge, the mask of `rows` and the positions are new."""
        self.clock.first = min(self._starts)
        self._positions = None
        if self._mask is not None:
            lowest = torch.finfo(self._mask.dtype).min
            for row in rows:
                self._mask[row, ..., : self._starts[row]] = lowest
                self._mask[row, ..., self._starts[row] :] = 0

    @torch.inference_mode(False)  # buffers outlive the pass: later ones may not be in inference mode
    def _allocate(self, like: Cache, slots: int, columns: int) -> None:
        for layer, source in zip(self.slots, _filled(like), strict=True):
            layer.lazy_initialization(_zeros(source.keys, slots, columns), _zeros(source.values, slots, columns))
        keys = self.slots[0].keys
        self._mask = torch.zeros((slots, 1, 1, columns), dtype=keys.dtype, device=keys.device)

    @torch.inference_mode(False)
    def _place(self, *, first: int, slots: int, columns: int) -> None:
        """Move everything in use to start at column `first`, in buffers of at least these sizes."""
        clock = self.clock
        slots_now, columns_now = self.slots[0].keys.shape[0], self.slots[0].keys.shape[2]
        slots = slots_now if slots <= slots_now else max(slots, 2 * slots_now)
        columns = columns_now if columns <= columns_now else max(columns + _COLUMNS, 2 * columns_now)
        grows = (slots, columns) != (slots_now, columns_now)
        by = first - clock.first
        target = slice(first, clock.now + by)
        for layer in self.slots:
            moved = []
            for old in (layer.keys, layer.values):
                content = old[: clock.rows, :, clock.first : clock.now]
                new = _zeros(old, slots, columns) if grows else old
                new[: clock.rows, :, target] = content if grows else content.clone()
                moved.append(new)
            layer.keys, layer.values = moved
        clock.first, clock.now = first, clock.now + by
        self._starts = [start + by for start in self._starts]
        if grows and self._mask is not None:
            self._mask = self._mask.new_zeros((slots, 1, 1, columns))
        self._changed(range(len(self._starts)))

    def _release(self) -> None:
        """The last row is gone: give the memory back if it is much."""
        self.clock.first = self.clock.now = 0
        self._positions = None
        if sum(layer.keys.nbytes + layer.values.nbytes for layer in self.slots) <= _KEEP_BYTES:
            return
        self._mask = None
        for layer in self.slots:
            layer.free()


@runtime_checkable
class _Filled(Protocol):
    """A layer of a cache after a pass: keys and values of every token, [row, head, column, d]."""

    keys: Tensor
    values: Tensor


def _filled(cache: Cache) -> Sequence[_Filled]:
    return cast(Sequence[_Filled], cache.layers)


def _zeros(like: Tensor, slots: int, columns: int) -> Tensor:
    return torch.zeros((slots, like.shape[1], columns, like.shape[3]), dtype=like.dtype, device=like.device)

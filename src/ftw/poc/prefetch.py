"""The inputs of forward passes, in two buffers that take turns: one feeds this pass, the other the next.

The rule of the file: what is made ahead equals what is made on demand, and a buffer is never written while it is read.
On CUDA the next inputs are made on a stream of their own beside the pass. On a CPU the pass has every core already, so
they are made on demand; the buffers still spare the pages that a fresh tensor costs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Make = Callable[[Sequence[int], Tensor], None]
"""Writes the inputs of these nonces into a tensor."""


class Prefetch:
    """Inputs of one round and one shape of pass. For one thread at a time."""

    def __init__(self, make: Make, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self._make = make
        self._shape, self._dtype, self._device = tuple(shape), dtype, device
        self._buffers: list[Tensor] = []
        self._at = 0
        self._ahead: tuple[int, ...] | None = None
        """The nonces whose inputs lie in the other buffer."""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def take(self, nonces: Sequence[int]) -> Tensor:
        """The inputs of these nonces, valid until the next `take`. What was made ahead is not made again."""
        wanted = tuple(nonces)
        if self._ahead == wanted:
            self._at ^= 1
            self._ahead = None
            if self._stream is not None:
                torch.cuda.current_stream(self._device).wait_stream(self._stream)
        else:
            self._make(nonces, self._buffer(self._at))
        return self._buffer(self._at)

    def prepare(self, nonces: Sequence[int]) -> None:
        """Starts on the inputs of the next pass. Does nothing where that would only take cores from this one."""
        if self._stream is None or not nonces:
            return
        self._ahead = None
        other = self._buffer(self._at ^ 1)
        with torch.cuda.stream(self._stream):
            self._make(nonces, other)
        self._ahead = tuple(nonces)

    def _buffer(self, which: int) -> Tensor:
        while len(self._buffers) <= which:
            self._buffers.append(torch.empty(self._shape, dtype=self._dtype, device=self._device))
        return self._buffers[which]

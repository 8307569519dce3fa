"""Many small pieces of tensor work on a CPU, shared among as many threads as torch uses.

The rule of the file: a piece writes to its own place and is the same work whoever does it, so the number of threads
changes no bit. A piece should be too small for torch to split it among threads of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def each(work: Callable[[T], None], pieces: Sequence[T], *, threads: int = 0) -> None:
    """Calls `work` with every piece, on `threads` threads (0: torch's number), this one among them.

    Raises what a piece raised first.
    """
    count = min(threads or torch.get_num_threads(), len(pieces))
    is_inference = torch.is_inference_mode_enabled()

    def run(mine: Iterable[T]) -> None:
        with torch.inference_mode(is_inference):  # the mode belongs to a thread
            for piece in mine:
                work(piece)

    if count < 2:
        run(pieces)
        return
    with ThreadPoolExecutor(count - 1, thread_name_prefix="proof-inputs") as pool:
        others = [pool.submit(run, pieces[at::count]) for at in range(1, count)]
        run(pieces[::count])
        for other in others:
            other.result()

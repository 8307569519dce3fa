"""Rows: states of a corpus's windows at every layer, a fixed number of positions at a time.

Position 0 of a window is never taken. Where a tokenizer begins texts with a mark, the state there is one vector in all
windows; where it does not, models rest their attention on the first token, and its state says little of the text. From
the rest a share is drawn, anew in each pass over the corpus.

The rule of the file: what was given is counted here, and an artefact reports these counts, not what was planned.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.errors import ConfigError, NumericError
from ftw.substrate.model import Model
from ftw.sweep import forward
from ftw.sweep.fitting.corpus import Corpus, Windows

ALL = 1 << 62
"""Tokens to ask a corpus for where it is to be read as far as needed."""


class Rows(Iterator[Tensor]):
    """States [layer, row, d_model] of exactly `rows` positions at a time, layers 0 to n, in the model's dtype.

    Goes over the corpus again and again. The same for the same seed. Raises what `Corpus.windows` raises.
    """

    def __init__(self, model: Model, corpus: Corpus, *, rows: int, length: int, share: float, seed: int) -> None:
        self.n_positions = 0
        """Positions given so far."""
        self.n_windows = 0
        self.n_passes = 1
        """Passes over the corpus begun so far."""
        self.digest = ""
        """Of the documents of the first pass, as far as it came: see `Windows.digest`."""
        self._model, self._corpus = model, corpus
        self._rows, self._length, self._share = rows, length, share
        self._draw = torch.Generator().manual_seed(seed)
        self._given = self._cut()

    def __next__(self) -> Tensor:
        states = next(self._given)
        self.n_positions += states.shape[1]
        return states

    def _cut(self) -> Iterator[Tensor]:
        held: list[Tensor] = []
        n_held = 0
        for states in self._harvest():
            held.append(states)
            n_held += states.shape[1]
            if n_held < self._rows:
                continue
            pool = torch.cat(held, 1)
            pool = pool[:, torch.randperm(n_held, generator=self._draw).to(pool.device)]  # one window's rows lie apart
            while pool.shape[1] >= self._rows:
                yield pool[:, : self._rows]
                pool = pool[:, self._rows :]
            held, n_held = [pool], pool.shape[1]

    def _harvest(self) -> Iterator[Tensor]:
        """The drawn states of a few windows at a time, without end."""
        while True:
            windows = self._corpus.windows(self._model, ALL, self._length, part="fit")
            for group, positions in drawn(windows, self._rows, self._share, self._draw):
                self.n_windows += len(group)
                if self.n_passes == 1:
                    self.digest = windows.digest
                yield _states(self._model, group, positions)
            self.n_passes += 1


def heldout_rows(
    model: Model, corpus: Corpus, n: int, *, length: int, share: float, seed: int
) -> tuple[Float[Tensor, "layer a d_model"], Float[Tensor, "layer b d_model"], str]:
    """States of about `n` held-out positions in two halves that share no window, and the digest of their documents.

    Windows go to either half in turn. In the model's dtype, on the CPU. Raises ConfigError where there is one or none.
    """
    windows = corpus.windows(model, ALL, length, part="heldout")
    group, positions = next(drawn(windows, n, share, torch.Generator().manual_seed(seed)), ([], []))
    if len(group) < 2:
        raise ConfigError(
            f"{corpus.name} holds out {len(group)} windows: too few to judge a lens by. Give more documents"
        )
    first = _states(model, group[::2], positions[::2]).cpu()
    second = _states(model, group[1::2], positions[1::2]).cpu()
    return first, second, windows.digest


def drawn(
    windows: Windows, n: int, share: float, generator: torch.Generator
) -> Iterator[tuple[list[list[int]], list[Sequence[int]]]]:
    """Groups of windows with at least `n` drawn positions (the last may have fewer), and the positions."""
    group: list[list[int]] = []
    positions: list[Sequence[int]] = []
    total = 0
    for window in windows:
        many = max(1, round(share * (len(window) - 1)))
        picks = torch.randperm(len(window) - 1, generator=generator)[:many] + 1
        group.append(window)
        positions.append(sorted(picks.tolist()))
        total += many
        if total >= n:
            yield group, positions
            group, positions, total = [], [], 0
    if group:
        yield group, positions


def _states(model: Model, group: Sequence[list[int]], positions: list[Sequence[int]]) -> Float[Tensor, "layer row d"]:
    """The states, copied out of inference mode so that gradients may be taken. Raises NumericError for a NaN."""
    parts = [part.states.clone() for part in forward.batches(model, group, positions=positions)]
    states = torch.cat(parts, 1)
    bad = ~torch.isfinite(states).all(-1).all(0)
    if bool(bad.any()):
        raise NumericError(
            f"{model.name} has a NaN or infinity in the stream at {int(bad.sum())} of {len(bad)} positions: load it in "
            "float32 or bfloat16"
        )
    return states

"""Who may use the model now: chat and proof take turns, and one of the two goes first.

The rule of the file: a hold is short (one step of chat, one forward pass of a proof), so whoever goes first waits for
at most one hold of the other.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from ftw.substrate.errors import Cancelled, LeaseTimeout

Party = Literal["chat", "proof"]
GLANCE_S = 0.02
"""How often a waiting hold looks at its `stop`."""


class Lease:
    """One model, two parties. Threads of the same party take turns in the order in which they came.

    A hold is not reentrant: a thread that holds must not hold again.
    """

    def __init__(self, first: Party = "chat", *, clock: Callable[[], float] = time.monotonic) -> None:
        self.first: Party = first
        """Who goes first where both want the model."""
        self._clock = clock
        self._changed = threading.Condition()
        self._claims: dict[Party, int] = {"chat": 0, "proof": 0}
        self._waiting: list[tuple[Party, object]] = []
        self._is_held = False

    def claimed(self, who: Party) -> bool:
        """Whether a claim of this party stands."""
        with self._changed:
            return self._claims[who] > 0

    @contextmanager
    def claim(self, who: Party) -> Iterator[None]:
        """Says "I have work": while a claim of the first party stands, no new hold of the other one begins."""
        with self._changed:
            self._claims[who] += 1
        try:
            yield
        finally:
            with self._changed:
                self._claims[who] -= 1
                self._changed.notify_all()

    @contextmanager
    def hold(
        self, who: Party, *, timeout_s: float | None = None, stop: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """The model is mine inside. Waits for its turn; None waits for as long as it takes.

        Raises LeaseTimeout when the turn did not come in time, Cancelled when `stop` became true while waiting.
        """
        self._take(who, timeout_s, stop)
        try:
            yield
        finally:
            with self._changed:
                self._is_held = False
                self._changed.notify_all()

    def _take(self, who: Party, timeout_s: float | None, stop: Callable[[], bool] | None) -> None:
        deadline = None if timeout_s is None else self._clock() + timeout_s
        ticket = (who, object())
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not self._is_turn(ticket):
                    if stop is not None and stop():
                        raise Cancelled(f"{who} was called off while it waited for the model")
                    left = None if deadline is None else deadline - self._clock()
                    if left is not None and left <= 0:
                        raise LeaseTimeout(
                            f"{who} waited {timeout_s:g} s and the model is still in use: try again, or give it longer"
                        )
                    naps = [nap for nap in (left, None if stop is None else GLANCE_S) if nap is not None]
                    self._changed.wait(min(naps, default=None))
                self._is_held = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _is_turn(self, ticket: tuple[Party, object]) -> bool:
        """Whether the model is free and nobody stands before this ticket. A waiting hold counts as a claim."""
        if self._is_held:
            return False
        who = ticket[0]
        if who != self.first and (self._claims[self.first] or any(one == self.first for one, _ in self._waiting)):
            return False
        return next(one for one in self._waiting if one[0] == who) is ticket
